"""A machine's view of its line: itself, and its neighbours up and down the line.

Features do not depend on how long the line is, so that one policy serves any. Runs on numpy and on torch alike
(:mod:`twinloop.envs.encoder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat

from ..configuration import Strict
from ..errors import ConfigurationError
from ..nameplate import Nameplate
from .features import bounded, module_of, moved, share
from .nameplate import MACHINE, MEASURED, STATICS, UPKEEP_STATICS
from .remaining_life import WEAR_KIND, chance_within, needs_scipy

Array = Any

_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}
_N_STATES = 8
_OWN, _EACH = _N_STATES + 15, 6


class NeighbourSettings(Strict):
    """Settings of the encoder ``neighbours``."""

    n_upstream: NonNegativeInt = Field(2, description="machines before it that it sees")
    n_downstream: NonNegativeInt = Field(2, description="machines behind it that it sees")
    usual_parts: PositiveFloat = Field(5.0, description="parts in a buffer that count as middling")
    usual_price: PositiveFloat = Field(1.0, description="of a kWh")
    usual_age_slots: PositiveFloat = Field(1000.0, description="of work between two renewals")
    failure_horizon_slots: PositiveFloat | None = Field(
        None, description="of work; adds the chance that the machine fails within it, where machines wear; needs scipy"
    )


class NeighbourEncoder:
    """Own state (one-hot of eight), buffers as shares and as counts, shares of time, readiness, wear and price; then
    for each neighbour: whether it is there, is up, its efficiency, its buffers, whether it is warm. Where it is asked
    for, the chance to fail comes last. Raises :class:`ConfigurationError` where that is asked for and nothing wears."""

    name = "neighbours"
    group = MACHINE

    def __init__(self, nameplate: Nameplate, settings: NeighbourSettings) -> None:
        statics = [s.name for s in nameplate.group(MACHINE).statics]
        self._settings = settings
        self._wear = slice(0, 0)
        if settings.failure_horizon_slots is not None:
            needs_scipy()
            if WEAR_KIND not in statics:
                raise ConfigurationError(
                    f"encoder neighbours: failure_horizon_slots {settings.failure_horizon_slots:g}, and no machine of "
                    "this line wears; leave it out, or give an upkeep"
                )
            begin = statics.index(WEAR_KIND)
            self._wear = slice(begin, begin + len(UPKEEP_STATICS))

    @property
    def n_features(self) -> int:
        foreseen = self._settings.failure_horizon_slots is not None
        return foreseen + _OWN + _EACH * (self._settings.n_upstream + self._settings.n_downstream)

    def settings(self) -> dict[str, Any]:
        return self._settings.model_dump()

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Nothing is remembered."""
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        """Features ``[B, N, F]``; zero where ``present`` ``[B, N]`` is False."""
        xp, s = module_of(measured), self._settings
        here = present[..., None]
        measured = xp.where(here, measured, xp.zeros_like(measured))

        def told(name: str) -> Array:
            return measured[..., _MEASURED[name]]

        def fixed(name: str) -> Array:
            return statics[..., _STATIC[name]]

        state = told("state")
        one = xp.ones_like(state)
        columns = [xp.where(xp.abs(state - k) < 0.5, one, 0 * one) for k in range(_N_STATES)]
        before, behind = bounded(told("parts_before"), s.usual_parts), bounded(told("room_behind"), s.usual_parts)
        columns += [before, behind]
        columns += [share(xp, told("parts_before"), fixed("capacity_before"))]
        columns += [share(xp, told("room_behind"), fixed("capacity_behind"))]
        columns += [told("blocked_pu"), told("starved_pu"), told("down_pu")]
        columns += [bounded(told("ready_in_slots"), 1.0), bounded(told("age_slots"), s.usual_age_slots)]
        columns += [xp.clip(told("seen_wear_pu"), 0.0, 1.0), bounded(told("seen_ago_slots"), s.usual_age_slots)]
        columns += [told("waits_for_crew"), bounded(told("price_per_kwh"), s.usual_price)]
        columns += [fixed("efficiency_pu"), fixed("place_pu")]
        is_up = xp.where((state < 2.5), one, 0 * one)
        warm = xp.where((state < 3.5), one, 0 * one)
        seen = [one, is_up, fixed("efficiency_pu") * one, before, behind, warm]
        seen = [xp.where(present, column, xp.zeros_like(column)) for column in seen]
        for away in [-k for k in range(1, s.n_upstream + 1)] + list(range(1, s.n_downstream + 1)):
            columns += [moved(xp, column, away) for column in seen]
        if s.failure_horizon_slots is not None:
            columns += [chance_within(measured, statics[..., self._wear], s.failure_horizon_slots)]
        features = xp.stack([column + 0 * one for column in columns], -1)
        return xp.where(here, features, xp.zeros_like(features)), memory
