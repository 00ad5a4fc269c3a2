"""What a machine needs to know to decide whether to run, and how fast: levels and readiness of itself and its
neighbours, as they are now.

Nothing of how the last slot went: a policy's choice is a function of the state of :mod:`.exact_control`, which can then
judge it exactly. Features do not depend on how long the line is. Runs on numpy and on torch alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat

from ..configuration import Strict
from ..nameplate import Nameplate
from .features import bounded, module_of, moved, share
from .nameplate import MACHINE, MEASURED, STATICS

Array = Any

_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}
_OWN, _EACH, _RATE = 4, 8, 3


class LevelSettings(Strict):
    """Settings of the encoder ``levels``."""

    n_upstream: NonNegativeInt = Field(2, description="machines before it that it sees")
    n_downstream: NonNegativeInt = Field(2, description="machines behind it that it sees")
    usual_parts: PositiveFloat = Field(5.0, description="parts in a buffer that count as middling")
    usual_slots: PositiveFloat = Field(2.0, description="of a warm-up that count as middling")
    usual_price: PositiveFloat = Field(1.0, description="of a kWh")
    compares: bool = Field(
        False, description="also see by how much it is faster than the slowest machine before it, and behind it"
    )


class LevelEncoder:
    """Place, price, warm-up and what off saves; then of itself and of each neighbour: whether it is there, is on, and
    how soon it could run; its efficiency; its buffers as counts and as shares."""

    name = "levels"
    group = MACHINE

    def __init__(self, nameplate: Nameplate, settings: LevelSettings) -> None:
        nameplate.group(MACHINE)
        self._settings = settings

    @property
    def n_features(self) -> int:
        s = self._settings
        return _OWN + 2 * s.compares + _EACH * (1 + s.n_upstream + s.n_downstream)

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
        rests = xp.where((state > 4.5) & (state < 6.5), one, 0 * one)  # stand-by, off
        warm_up = fixed("warm_up_slots") * one
        soon = xp.where(rests > 0.5, warm_up, told("ready_in_slots"))
        parts, room = told("parts_before"), told("room_behind")
        seen = [one, 1.0 - rests, bounded(soon, s.usual_slots), fixed("efficiency_pu") * one]
        for count, capacity in ((parts, fixed("capacity_before")), (room, fixed("capacity_behind"))):
            seen += [bounded(count, s.usual_parts), share(xp, count, capacity * one)]
        idle, off = fixed("idle_kw") * one, fixed("off_kw") * one
        saves = (idle - off) / (idle + off + 1e-6)
        seen = [xp.where(present, column, xp.zeros_like(column)) for column in seen]
        columns = [fixed("place_pu"), bounded(told("price_per_kwh"), s.usual_price)]
        columns += [bounded(warm_up, s.usual_slots), saves, *seen]
        up, down = [-k for k in range(1, s.n_upstream + 1)], list(range(1, s.n_downstream + 1))
        for away in up + down:
            columns += [moved(xp, column, away) for column in seen]
        if s.compares:
            columns += [seen[_RATE] - _slowest(xp, seen[0], seen[_RATE], side) for side in (up, down)]
        features = xp.stack([column + 0 * one for column in columns], -1)
        return xp.where(here, features, xp.zeros_like(features)), memory


def _slowest(xp: Any, there: Array, rate: Array, side: list[int]) -> Array:
    """The least rate of the machines on one side, 1 where there is none."""
    least = xp.ones_like(rate)
    for away in side:
        seen = xp.where(moved(xp, there, away) > 0.5, moved(xp, rate, away), xp.ones_like(rate))
        least = xp.minimum(least, seen)
    return least
