"""A component's view of its system: its own belief, what it means to the system, and how it stands among the others.

Runs on numpy and on torch alike (:mod:`twinloop.envs.encoder`). No feature says which component it is, save a rank that
sets equals apart, so that one network serves all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pydantic import Field, PositiveFloat

from ..configuration import Strict
from ..nameplate import Nameplate
from .nameplate import COMPONENT, CRACK, NO_CRACK, PLAIN
from .reliability import importance, system_failure

Array = Any

_AT = {signal.name: k for k, signal in enumerate(PLAIN)}
_DECADES = 7.0
_LEVELS_PU = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
_OWN, _SYSTEM, _OTHERS = 10, 7, 4


class IntegritySettings(Strict):
    """Settings of the encoder ``integrity``."""

    horizon_years: PositiveFloat = Field(30.0, description="after which nothing counts")
    sees_others: bool = Field(True, description="false: a component sees itself and the year alone")


class IntegrityEncoder:
    """Own: time left, age, finding, chances of having failed on a logarithmic scale, the belief's bins. System: its
    chance of failing, what the component adds to it. Others: rank, worst and mean of them, how many exceed each of
    six chances."""

    name = "integrity"
    group = COMPONENT

    def __init__(self, nameplate: Nameplate, settings: IntegritySettings) -> None:
        group = nameplate.group(COMPONENT)
        self._settings = settings
        self._needed = int(group.static_values[0][0])
        self._n_bins = len(group.measured) - len(PLAIN)

    @property
    def n_features(self) -> int:
        more = _SYSTEM + _OTHERS + len(_LEVELS_PU) if self._settings.sees_others else 0
        return _OWN + self._n_bins + more

    def settings(self) -> dict[str, Any]:
        return self._settings.model_dump()

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Nothing is remembered."""
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        """Features ``[B, N, F]``; zero where ``present`` ``[B, N]`` is False."""
        xp = _module(measured)
        here = present[..., None]
        measured = xp.where(here, measured, xp.zeros_like(measured))
        columns = self._own(xp, measured)
        if self._settings.sees_others:
            columns += self._among(xp, measured, present)
        features = xp.concatenate([xp.stack(columns, -1), xp.sqrt(xp.clip(measured[..., len(PLAIN) :], 0.0, 1.0))], -1)
        return xp.where(here, features, xp.zeros_like(features)), memory

    def _own(self, xp: Any, measured: Array) -> list[Array]:
        horizon = self._settings.horizon_years
        year, age = measured[..., _AT["year"]], measured[..., _AT["age_years"]]
        finding = measured[..., _AT["finding"]]
        left = xp.clip(horizon - year, 0.0, horizon)
        now, later = measured[..., _AT["failure_pu"]], measured[..., _AT["failure_next_pu"]]
        one = xp.ones_like(year)
        return [
            left / horizon, xp.exp(-left / 2.0), xp.exp(-left / 6.0), xp.clip(age / horizon, 0.0, 1.0),
            xp.where(abs(finding - NO_CRACK) < 0.5, one, 0 * one), xp.where(abs(finding - CRACK) < 0.5, one, 0 * one),
            _decades(xp, now), _decades(xp, later), xp.sqrt(xp.clip(now, 0.0, 1.0)), xp.sqrt(xp.clip(later, 0.0, 1.0)),
        ]  # fmt: skip

    def _among(self, xp: Any, measured: Array, present: Array) -> list[Array]:
        one = xp.ones_like(measured[..., 0])
        now, later = (xp.where(present, measured[..., _AT[k]], one) for k in ("failure_pu", "failure_next_pu"))
        n = later.shape[-1]
        vital = importance(later, self._needed)
        system_now, system_later = system_failure(now, self._needed)[..., None], system_failure(later, self._needed)
        risk = vital * later
        columns = [
            _decades(xp, vital), _decades(xp, risk), xp.sqrt(xp.clip(vital, 0.0, 1.0)),
            _decades(xp, system_now * one), _decades(xp, system_later[..., None] * one),
            _decades(xp, system_later[..., None] - system_now * one),
            _decades(xp, xp.clip(risk - vital * now, 0.0, 1.0)),
        ]  # fmt: skip
        mine, theirs = later[..., :, None], later[..., None, :]
        place = xp.arange(n)
        first = xp.where(place[None, :] < place[:, None], xp.ones((n, n)), xp.zeros((n, n)))
        ahead = (theirs > mine) * 1.0 + (theirs == mine) * first
        others = xp.where(abs(place[None, :] - place[:, None]) < 0.5, 0 * mine * theirs, theirs + 0 * mine)
        worst = others.max(-1) if xp.__name__ == "numpy" else others.amax(-1)
        mean = others.sum(-1) / max(1, n - 1)
        columns += [ahead.sum(-1) / max(1, n - 1) * one, 1.0 / (1.0 + ahead.sum(-1)) * one]
        columns += [_decades(xp, worst), _decades(xp, mean)]
        columns += [(others > level).sum(-1) / max(1, n - 1) * one for level in _LEVELS_PU]
        return columns


def _decades(xp: Any, chance: Array) -> Array:
    """0 for a chance of 1e-7 and less, 1 for 1."""
    return 1.0 + xp.log10(xp.clip(chance, 10.0**-_DECADES, 1.0)) / _DECADES


def _module(array: Array) -> Any:
    return sys.modules[type(array).__module__.split(".")[0]]
