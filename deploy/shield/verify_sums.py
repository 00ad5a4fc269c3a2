"""The second look at sums and their ramps, in plain floats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import mul
from typing import NamedTuple

from ...envs.constraint import Declaration, SumConstraint, SumRateConstraint
from .command_table import Asset, Command
from .verify_reach import Reach, nearest

TOLERANCE = 1e-9
Limits = Mapping[str, tuple[float | None, float | None]]
Spans = tuple[tuple[slice, tuple[tuple[float, float, tuple[float, ...], float], ...]], ...]
"""By the commands that they sum: minimum, maximum, weights and rounding of each total without a ramp."""


class Total(NamedTuple):
    """``minimum <= sum of weights * commands <= maximum``; ``fall`` and ``rise`` per second, where it has a ramp."""

    name: str
    at: range
    span: slice
    weights: tuple[float, ...]
    minimum: float
    maximum: float
    fall: float
    rise: float
    ramps: bool
    ramp_only: bool
    rounding: float


class SumCheck:
    """The sums of one declaration; a call is pure."""

    def __init__(
        self, declaration: Declaration, commands: Sequence[Command], place: Mapping[tuple[str, int], Asset]
    ) -> None:
        self._totals = tuple(_totals(declaration, commands, place))
        self._ramped = tuple(t for t in self._totals if t.ramps)
        steady = [t for t in self._totals if not t.ramps]
        self._spans: Spans = tuple(
            (t.span, tuple((u.minimum, u.maximum, u.weights, u.rounding) for u in steady if u.at == t.at))
            for t in {t.at: t for t in steady}.values()
        )

    def broken(
        self, values: Sequence[float], before: Sequence[float], reach: Reach, elapsed_s: float, limits: Limits | None
    ) -> list[str]:
        """Names of the sums and ramps that ``values`` (all commands of the site) break, in the order of declaration."""
        short = not limits and _all_inside(self._spans, values)
        found: list[str] = []
        for t in self._ramped if short else self._totals:
            if not _total_kept(t, values, before, reach, elapsed_s, limits):
                found.append(t.name)
        return found


def _totals(
    declaration: Declaration, commands: Sequence[Command], place: Mapping[tuple[str, int], Asset]
) -> list[Total]:
    found: list[Total] = []
    sum_rates = [c for c in declaration.hard if isinstance(c, SumRateConstraint)]
    for c in declaration.hard:
        if not isinstance(c, SumConstraint | SumRateConstraint):
            continue
        group = declaration.nameplate.group(c.group)
        column = group.index("commanded", c.signal)
        first, n_signals = place[c.group, 0].first + column, len(group.commanded)
        at = range(first, first + n_signals * group.n_assets, n_signals)
        weights = tuple(float(w) for w in c.weights or (1.0,) * group.n_assets)  # numpy's own floats are slow here
        own = [r for r in sum_rates if (r.group, r.signal, r.weights or weights) == (c.group, c.signal, weights)]
        if isinstance(c, SumRateConstraint):
            own = [c]
        fall = min((math.inf if r.down_per_second is None else r.down_per_second for r in own), default=math.inf)
        rise = min((math.inf if r.up_per_second is None else r.up_per_second for r in own), default=math.inf)
        low, high = -math.inf, math.inf
        if isinstance(c, SumConstraint):
            low = low if c.minimum is None else c.minimum
            high = high if c.maximum is None else c.maximum
        rounding = 1e-12 * sum(
            abs(w) * max(abs(commands[k].minimum), abs(commands[k].maximum)) for w, k in zip(weights, at, strict=True)
        )
        ramps, span = min(fall, rise) < math.inf, slice(at.start, at.stop, at.step)
        only = isinstance(c, SumRateConstraint)
        found.append(Total(c.name, at, span, weights, low, high, fall, rise, ramps, only, rounding))
    return found


def _all_inside(spans: Spans, values: Sequence[float]) -> bool:
    """Whether all totals without a ramp are within their declared ends: the short way, since most are. A NaN is not,
    and goes the long way."""
    for span, totals in spans:
        x = values[span]
        for minimum, maximum, weights, rounding in totals:
            now = sum(map(mul, weights, x))
            if not minimum <= now <= maximum:
                slack = TOLERANCE * (1.0 + abs(now)) + rounding
                if not minimum - slack <= now <= maximum + slack:
                    return False
    return True


def _total_kept(
    t: Total, values: Sequence[float], before: Sequence[float], reach: Reach, elapsed_s: float,
    limits: Limits | None,
) -> bool:  # fmt: skip
    now = sum(map(mul, t.weights, values[t.span]))
    low, high, bottom, top = t.minimum, t.maximum, -math.inf, math.inf
    if t.ramps:
        then = sum(map(mul, t.weights, before[t.span]))
        bottom = then - t.fall * elapsed_s if t.fall < math.inf else -math.inf  # no time passed: 0 times infinity
        top = then + t.rise * elapsed_s if t.rise < math.inf else math.inf
    if t.ramp_only:
        low, high, bottom, top = bottom, top, -math.inf, math.inf
    elif limits is not None and t.name in limits:
        low, high = _tightened(low, high, limits[t.name])
    slack = TOLERANCE * (1.0 + abs(now)) + t.rounding
    if low - slack <= now <= high + slack:
        return True
    if not math.isfinite(now):
        return False
    if now > high:
        return nearest(t.weights, t.at, values, before, reach, high, bottom, slack)
    return nearest([-w for w in t.weights], t.at, values, before, reach, -low, -top, slack)


def _tightened(low: float, high: float, given: tuple[float | None, float | None]) -> tuple[float, float]:
    """The limits of run time where they are tighter; what is no number compares False and changes nothing."""
    least, most = given
    return (
        least if least is not None and least > low else low,
        most if most is not None and most < high else high,
    )
