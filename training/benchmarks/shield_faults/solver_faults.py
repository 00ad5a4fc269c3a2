"""Rows that a solver chokes on: infeasible, barely so, doubled, empty, contradictory, not finite, or raised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Code, Mode, Source
from ....deploy.shield.orders import Orders
from ....envs.constraint import (
    BarrierConstraint,
    BarrierTerms,
    Constraint,
    Declaration,
    SumConstraint,
    SumRateConstraint,
    declare,
)
from ....envs.wind_farm.nameplate import GROUP
from .plants import policy_of
from .scene import ONSET, Case, Expect, Played, Turn, agent_of, make_shield, mode, not_told, site_of, source

Floats = NDArray[np.float64]
AGENT = agent_of
PU, DEG = "power_limit_pu", "yaw_offset_deg"


class _Trouble(RuntimeError):
    """What a site's barrier raises in the suite."""


def cases() -> Iterable[Case]:
    """All of them, at the farm."""
    for name, rows, expect in _declared():
        yield _case(name, rows, expect)
    for name, barrier, expect in _barriers():
        yield _case(f"barrier {name}", (BarrierConstraint("wall", GROUP, barrier, 0.1),), expect)
    for hair in (1e-6, 1e-7, 1e-9, -1e-9, -1e-7):
        yield _corner(hair)


def _case(name: str, rows: tuple[Constraint, ...], expect: tuple[Expect, ...]) -> Case:
    def declaration() -> Declaration:
        return declare(site_of("farm").nameplate, rows)

    def greedy(declared: Declaration, period: int) -> dict[str, Floats]:
        return {GROUP: np.tile([30.0 if period < 12 else -30.0, 1.0], (3, 1))}

    return Case("solver", f"farm: {name}", "farm", expect=expect, periods=20, policy=greedy, shield=make_shield,
                declaration=declaration)  # fmt: skip


def _sum(name: str, most: float | None = None, least: float | None = None, weights: tuple[float, ...] | None = None,
         signal: str = DEG) -> SumConstraint:  # fmt: skip
    return SumConstraint(name, GROUP, signal, "deg" if signal == DEG else "pu", most, least, weights)


def _declared() -> Iterable[tuple[str, tuple[Constraint, ...], tuple[Expect, ...]]]:
    works = (not_told(Code.SHIELD_FAILED, Code.VERIFICATION_FAILED), source(8, AGENT("farm"), Source.POLICY))
    one = _sum("one", 20.0)
    yield "a row twice", (one, _sum("other", 20.0)), works
    yield "a row and its double", (one, _sum("other", 40.0, weights=(2.0, 2.0, 2.0))), works
    yield "nearly the same row", (one, _sum("other", 20.0, weights=(1.0, 1.0, 1.0 + 1e-12))), works
    yield "an equality", (_sum("one", 0.0, 0.0),), works
    yield "two rows that cross", (one, _sum("other", 5.0, weights=(1.0, -1.0, 0.0))), works
    yield "rows that leave one point", (_sum("one", 0.0, 0.0), _sum("two", 0.0, 0.0, (1.0, -1.0, 0.0)),
                                        _sum("three", 0.0, 0.0, (0.0, 1.0, -1.0))), works  # fmt: skip
    yield "weights far apart", (_sum("one", 1e6, weights=(1e6, 1.0, 1e-6)),), works
    yield "tiny weights", (_sum("one", 1e-8, weights=(1e-9, 1e-9, 1e-9)),), works
    yield "weights of nought", (_sum("one", 10.0, weights=(1.0, 0.0, 0.0)),), works
    yield (
        "fifty rows",
        tuple(_sum(f"r{k}", 30.0 + k, weights=(1.0, k / 50.0, 1.0 - k / 50.0)) for k in range(50)),
        works,
    )
    yield "a ramp of nearly nought", (SumRateConstraint("ramp", GROUP, DEG, "deg", 1e-9, 1e-9),), works


@dataclass(frozen=True)
class _Wall:
    """A barrier with the same terms everywhere."""

    h: float
    drift: float
    control: tuple[float, float]

    def __call__(self, measured: Floats, /) -> BarrierTerms:
        n = len(measured)
        return BarrierTerms(np.full(n, self.h), np.full(n, self.drift), np.tile(self.control, (n, 1)))


def _raises(measured: Floats) -> BarrierTerms:
    raise _Trouble("no measurement")


def _nonsense(measured: Floats) -> BarrierTerms:
    return None  # type: ignore[return-value]  # the fault


def _misshapen(measured: Floats) -> BarrierTerms:
    return BarrierTerms(np.zeros(1), np.zeros(7), np.zeros((2, 5)))


def _barriers() -> Iterable[tuple[str, Callable[[Floats], BarrierTerms], tuple[Expect, ...]]]:
    agent = agent_of("farm")
    kept = (not_told(Code.SHIELD_FAILED), source(8, agent, Source.POLICY))
    # what can't be kept or is not known takes the policy's authority away in the next period at the latest
    down = (not_told(Code.SHIELD_FAILED), mode(3, agent, Mode.BACKUP, Mode.TRIPPED))
    yield "kept without effort", _Wall(10.0, 0.0, (0.0, 0.0)), kept
    yield "that no command moves", _Wall(-1.0, 0.0, (0.0, 0.0)), down
    yield "at its edge that no command moves", _Wall(0.0, 0.0, (0.0, 0.0)), kept
    yield "that pulls beyond reach", _Wall(-10.0, -5.0, (0.001, 0.0)), down
    yield "of NaN", _Wall(math.nan, 0.0, (1.0, 0.0)), down
    yield "with a slope of NaN", _Wall(1.0, 0.0, (math.nan, 0.0)), down
    yield "of infinite depth", _Wall(-math.inf, 0.0, (1.0, 0.0)), down
    yield "of infinite height", _Wall(math.inf, 0.0, (1.0, 0.0)), kept
    yield "with an infinite slope", _Wall(1.0, 0.0, (math.inf, 0.0)), down
    yield "that raises", _raises, down
    yield "that returns None", _nonsense, down
    yield "of another shape", _misshapen, down


def _corner(hair: float) -> Case:
    """Two orders that meet at one point, or miss each other by a hair: the sum of powers and its lower end."""

    def hook(period: int, turn: Turn) -> None:
        if period >= ONSET:
            turn.orders = Orders(limits={"power": (None, 2.4)})

    def declaration() -> Declaration:
        rows = (
            _sum("power", 3.0, signal=PU),
            _sum("floor", None, 2.4 + hair, signal=PU),
        )
        return declare(site_of("farm").nameplate, rows)

    def expect(played: Played) -> Iterable[str]:
        totals = [float(r.decision.commands[GROUP][:, 1].sum()) for r in played.records[ONSET + 3 :]]
        if not all(2.4 - 1e-5 <= t <= 3.0 + 1e-9 for t in totals):
            yield f"totals {totals}"

    def sound(declared: Declaration, period: int) -> dict[str, Floats]:
        return {GROUP: policy_of(declared, period)[GROUP] * [1.0, 0.0] + [0.0, 1.0]}

    return Case("solver", f"farm: limits {hair:g} apart", "farm", hook, (expect, not_told(Code.SHIELD_FAILED)),
                shield=make_shield, declaration=declaration, policy=sound, safe=False)  # fmt: skip
