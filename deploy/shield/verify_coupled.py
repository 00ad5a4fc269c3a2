"""The second look at what assets keep together: sums, their ramps, conflicts, separation and barriers.

Plain floats and own formulas; a site's own rows are first gone through all at once, and those left in doubt one by one.
A row that no command in reach can keep counts as kept by commands that go back towards it: after a cap has been
tightened there is nothing better to send.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import mul
from typing import Any, NamedTuple

import numpy as np

from ...envs.constraint import (
    BarrierConstraint,
    ConflictConstraint,
    Declaration,
    RowsConstraint,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
)
from .command_table import LEVEL_TOLERANCE, Asset, Command

TOLERANCE = 1e-9
_LARGEST_PRODUCT = 1e6  # of sums whose order makes less than a tenth of the slack of a row
Reach = Callable[[int], Sequence[float]]
"""What a command can be this period: its two ends, or all its legal levels."""
Limits = Mapping[str, tuple[float | None, float | None]]


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


class Pairs(NamedTuple):
    """Levels of two commands that never stand together."""

    name: str
    pairs: tuple[tuple[int, float, int, float], ...]


class Apart(NamedTuple):
    """Pairs of one group: measured columns of the position, and by asset the commands that move it."""

    name: str
    group: str
    positions: tuple[int, ...]
    velocities: tuple[tuple[int, ...], ...]
    distance: float
    closing_per_s: float
    braking: float
    pairs: tuple[tuple[int, int], ...]
    carefree: float
    """Beyond this distance squared no command in range can come too near."""


class Wall(NamedTuple):
    """A barrier, and by asset the place of its first command."""

    constraint: BarrierConstraint
    first: tuple[int, ...]


class OwnRows(NamedTuple):
    """Rows on each asset's own ``width`` commands, and by asset the place of its first; one asset's stand behind the
    other's, in ``span``."""

    constraint: RowsConstraint
    first: tuple[int, ...]
    width: int
    span: slice

    def table(self, values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Their commands ``[N, A]`` of all commands of the site."""
        return np.array(values[self.span], dtype=np.float64).reshape(len(self.first), self.width)


class CoupledCheck:
    """Compiled once from a declaration; a call is pure and does not raise."""

    def __init__(
        self, declaration: Declaration, commands: Sequence[Command], place: Mapping[tuple[str, int], Asset]
    ) -> None:
        self._period_s = declaration.nameplate.period_s
        self._totals = tuple(_totals(declaration, commands, place))
        self._ramped = tuple(t for t in self._totals if t.ramps)
        steady = [t for t in self._totals if not t.ramps]
        self._spans = tuple(
            (t.span, tuple((u.minimum, u.maximum, u.weights, u.rounding) for u in steady if u.at == t.at))
            for t in {t.at: t for t in steady}.values()
        )
        self._pairs = tuple(_pairs(declaration, place))
        self._apart = tuple(_apart(declaration, commands, place))
        self._walls = tuple(
            Wall(c, tuple(place[c.group, i].first for i in range(declaration.nameplate.group(c.group).n_assets)))
            for c in declaration.hard
            if isinstance(c, BarrierConstraint)
        )
        self._own_rows = tuple(
            _own_rows(declaration, c, place) for c in declaration.hard if isinstance(c, RowsConstraint)
        )

    def broken(
        self, values: Sequence[float], before: Sequence[float], reach: Reach, elapsed_s: float,
        measured: Mapping[str, Any] | None, seen: Mapping[str, Any] | None, limits: Limits | None,
    ) -> tuple[str, ...]:  # fmt: skip
        """Names of the constraints that ``values`` (all commands of the site) break, in the order of declaration; a
        site's own rows are judged at ``seen``, which is NaN where nothing is known."""
        found: list[str] = []
        short = not limits and self._all_inside(values)
        for t in self._ramped if short else self._totals:
            if not self._total_kept(t, values, before, reach, elapsed_s, limits):
                found.append(t.name)
        for p in self._pairs:
            if not all(_apart_levels(pair, values, before, reach) for pair in p.pairs):
                found.append(p.name)
        for a in self._apart:
            if not _guarded(partial(self._separated, a, values, before, reach, measured)):
                found.append(a.name)
        for w in self._walls:
            if not _guarded(partial(_behind, w, values, before, reach, measured)):
                found.append(w.constraint.name)
        for r in self._own_rows:
            if not _guarded(partial(_over, r, values, before, reach, seen)):
                found.append(r.constraint.name)
        return tuple(found)

    def _all_inside(self, values: Sequence[float]) -> bool:
        """Whether all totals without a ramp are within their declared ends: the short way, since most are. A NaN is
        not, and goes the long way."""
        for span, totals in self._spans:
            x = values[span]
            for minimum, maximum, weights, rounding in totals:
                now = sum(map(mul, weights, x))
                if not minimum <= now <= maximum:
                    slack = TOLERANCE * (1.0 + abs(now)) + rounding
                    if not minimum - slack <= now <= maximum + slack:
                        return False
        return True

    def _total_kept(
        self, t: Total, values: Sequence[float], before: Sequence[float], reach: Reach, elapsed_s: float,
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
            return _nearest(t.weights, t.at, values, before, reach, high, bottom, slack)
        return _nearest([-w for w in t.weights], t.at, values, before, reach, -low, -top, slack)

    def _separated(
        self, a: Apart, values: Sequence[float], before: Sequence[float], reach: Reach,
        measured: Mapping[str, Any] | None,
    ) -> bool:  # fmt: skip
        rows = _rows(measured, a.group)
        if len(rows) != len(a.velocities):
            return False
        squares = [0.0] * len(a.pairs)
        for k in a.positions:
            x = [row[k] for row in rows]
            squares = [square + (x[i] - x[j]) * (x[i] - x[j]) for square, (i, j) in zip(squares, a.pairs, strict=True)]
        near = [(pair, s) for pair, s in zip(a.pairs, squares, strict=True) if not s >= a.carefree]  # NaN is near
        for (i, j), square in near:
            p, q = ([float(rows[m][k]) for k in a.positions] for m in (i, j))
            if not self._pair_kept(a, i, j, p, q, square, values, before, reach):
                return False
        return True

    def _pair_kept(
        self, a: Apart, i: int, j: int, p: Sequence[float], q: Sequence[float], square: float,
        values: Sequence[float], before: Sequence[float], reach: Reach,
    ) -> bool:  # fmt: skip
        """Whether two assets close no faster than the distance left allows."""
        far = math.sqrt(square)
        if not math.isfinite(far):
            return False
        if far <= 1e-9 * a.distance:  # at one place: they part along the first axis, the earlier one downwards
            toward = [1.0] + [0.0] * (len(p) - 1)
        else:
            toward = [(y - x) / far for x, y in zip(p, q, strict=True)]
        left = far - a.distance
        most: float = a.closing_per_s * left
        if left > 0.0 and a.braking < math.inf:
            # closing at c for a period and then braking, by one of them if need be: c T + c^2 / (2 b) = left
            b = a.braking
            most = min(most, math.sqrt((b * self._period_s) ** 2 + 2.0 * b * left) - b * self._period_s)
        at = (*a.velocities[i], *a.velocities[j])
        weights = (*toward, *(-x for x in toward))
        closing: float = sum(map(mul, weights, [values[k] for k in at]))
        slack = 1e-8 * (1.0 + abs(most) + abs(closing))
        if closing <= most + slack:
            return True
        return _nearest(weights, at, values, before, reach, most, -math.inf, slack)


def _nearest(
    weights: Sequence[float], at: Sequence[int], values: Sequence[float], before: Sequence[float], reach: Reach,
    limit: float, bottom: float, slack: float,
) -> bool:  # fmt: skip
    """Whether a weighted sum above ``limit`` can't be kept, and goes at least half the way that reach allows.

    Half, because the filter also keeps room to brake for commands with an acceleration limit, which reach here leaves
    out. ``bottom``: the sum may not fall below this, whatever its commands can do.
    """
    now: float = sum(map(mul, weights, [values[k] for k in at]))
    then: float = sum(map(mul, weights, [before[k] for k in at]))
    best = 0.0
    for w, k in zip(weights, at, strict=True):
        best += min(w * v for v in reach(k))
    best = max(best, bottom)
    if not best > limit + slack:
        return False  # it could have been kept
    return now <= best + slack or now <= then - 0.5 * (then - best) + slack


def _apart_levels(
    pair: tuple[int, float, int, float], values: Sequence[float], before: Sequence[float], reach: Reach
) -> bool:
    """Whether two levels do not stand together, or stood together already and neither command may leave its own."""
    i, first, j, second = pair
    if not (_at(values[i], first) and _at(values[j], second)):
        return True
    stood = _at(before[i], first) and _at(before[j], second)
    return stood and all(_at(v, first) for v in reach(i)) and all(_at(v, second) for v in reach(j))


def _behind(
    w: Wall, values: Sequence[float], before: Sequence[float], reach: Reach, measured: Mapping[str, Any] | None
) -> bool:
    """Whether every asset keeps its barrier's row at the measured state."""
    c = w.constraint
    if measured is None:
        return False
    terms = c.barrier(measured[c.group])
    h, drift, control = terms.h.tolist(), terms.drift.tolist(), terms.control.tolist()
    drift2 = None if c.gain2_per_s is None or terms.drift2 is None else terms.drift2.tolist()
    if c.gain2_per_s is not None and drift2 is None:
        return False
    for i, first in enumerate(w.first):
        if c.gain2_per_s is None or drift2 is None:
            need = c.margin - drift[i] - c.gain_per_s * h[i]
        else:
            g1, g2 = c.gain_per_s, c.gain2_per_s
            need = c.margin - drift2[i] - (g1 + g2) * drift[i] - g1 * g2 * h[i]
        weights = [-x for x in control[i]]
        at = range(first, first + len(weights))
        got = -sum(map(mul, weights, values[first : first + len(weights)]))
        slack = 1e-8 * (1.0 + abs(need) + abs(got))
        if not math.isfinite(sum(weights)):  # an infinite slope is none
            return False
        if got >= need - slack:
            continue
        if not math.isfinite(need):
            return False
        if not _nearest(weights, at, values, before, reach, -need, -math.inf, slack):
            return False
    return True


def _own_rows(declaration: Declaration, c: RowsConstraint, place: Mapping[tuple[str, int], Asset]) -> OwnRows:
    group = declaration.nameplate.group(c.group)
    width, first = len(group.commanded), tuple(place[c.group, i].first for i in range(group.n_assets))
    return OwnRows(c, first, width, slice(first[0], first[0] + width * len(first)))


def _over(
    r: OwnRows, values: Sequence[float], before: Sequence[float], reach: Reach, seen: Mapping[str, Any] | None
) -> bool:
    """Whether every asset keeps its rows at the state that is seen."""
    if seen is None:
        return False
    terms = r.constraint.rows(seen, r.table(before))
    doubtful = _doubtful(r, terms.control, terms.least, values)
    if doubtful is not None:
        return all(
            _row_kept(terms.control[i, k].tolist(), float(terms.least[i, k]), r.first[i], values, before, reach)
            for i, k in doubtful
        )
    return all(
        _row_kept(slopes, need, first, values, before, reach)
        for first, control, least in zip(r.first, terms.control.tolist(), terms.least.tolist(), strict=True)
        for slopes, need in zip(control, least, strict=True)
    )


def _doubtful(r: OwnRows, control: Any, least: Any, values: Sequence[float]) -> list[tuple[int, int]] | None:
    """Asset and place of each row that is not kept beyond doubt, in order; None where this can't be told at once.

    One product for all rows, since a robot's arm has many. What it passes has half of its slack to spare, more than the
    order of a sum can make, so that :func:`_row_kept` would pass it too; all else is left to that.
    """
    n = len(r.first)
    if type(control) is not np.ndarray or type(least) is not np.ndarray:
        return None
    if control.dtype.char != "d" or least.dtype.char != "d" or control.ndim != 3:
        return None
    if control.shape != (n, control.shape[1], r.width) or least.shape != control.shape[:2]:
        return None
    sent = r.table(values)
    # by Cauchy and Schwarz no sum of products has larger ones; so asked, NaN and infinity are no yes
    if not float(np.vdot(control, control)) * float(np.vdot(sent, sent)) <= _LARGEST_PRODUCT**2:
        return None
    got = np.matmul(control, sent[:, :, None])[:, :, 0]
    slack = np.abs(got)
    slack += 1.0
    slack *= 0.5e-8
    slack += got
    kept = slack >= least  # so asked, a need that is no number or infinite is not kept
    if b"\0" not in kept.tobytes():
        return []
    return [(i, k) for i, k in zip(*(at.tolist() for at in (~kept).nonzero()), strict=True)]


def _row_kept(
    slopes: Sequence[float], need: float, first: int, values: Sequence[float], before: Sequence[float], reach: Reach
) -> bool:
    """Whether one row on the commands from place ``first`` on is kept, or as nearly as they can."""
    if need == -math.inf:
        return True
    got = sum(map(mul, slopes, values[first : first + len(slopes)]))
    slack = 1e-8 * (1.0 + abs(need) + abs(got))
    if not math.isfinite(sum(slopes)):  # an infinite slope is none
        return False
    if got >= need - slack:
        return True
    if not math.isfinite(need):
        return False
    at = range(first, first + len(slopes))
    return _nearest([-x for x in slopes], at, values, before, reach, -need, -math.inf, slack)


def _tightened(low: float, high: float, given: tuple[float | None, float | None]) -> tuple[float, float]:
    """The limits of run time where they are tighter; what is no number compares False and changes nothing."""
    least, most = given
    return (
        least if least is not None and least > low else low,
        most if most is not None and most < high else high,
    )


def _rows(measured: Mapping[str, Any] | None, group: str) -> list[list[float]]:
    if measured is None:
        return []
    table = measured[group]
    return list(table.tolist() if hasattr(table, "tolist") else table)


def _guarded(check: Callable[[], bool]) -> bool:
    """A check that fails in itself (a barrier that raises, a reading that is none) is not passed."""
    try:
        return check()
    except Exception:  # noqa: BLE001 - a site's barrier is foreign code
        return False


def _at(value: float, level: float) -> bool:
    return abs(value - level) <= LEVEL_TOLERANCE * (1.0 + abs(level))


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


def _pairs(declaration: Declaration, place: Mapping[tuple[str, int], Asset]) -> list[Pairs]:
    found: list[Pairs] = []
    for c in declaration.hard:
        if isinstance(c, ConflictConstraint):
            group = declaration.nameplate.group(c.group)
            where = {
                (asset, s.name): place[c.group, i].first + k
                for i, asset in enumerate(group.assets)
                for k, s in enumerate(group.commanded)
            }
            found.append(Pairs(c.name, tuple((where[a[:2]], a[2], where[b[:2]], b[2]) for a, b in c.pairs)))
    return found


def _apart(
    declaration: Declaration, commands: Sequence[Command], place: Mapping[tuple[str, int], Asset]
) -> list[Apart]:
    found: list[Apart] = []
    period_s = declaration.nameplate.period_s
    for c in declaration.hard:
        if not isinstance(c, SeparationConstraint):
            continue
        group = declaration.nameplate.group(c.group)
        columns = [group.index("commanded", name) for name in c.velocities]
        velocities = tuple(tuple(place[c.group, i].first + k for k in columns) for i in range(group.n_assets))
        positions = tuple(group.index("measured", name) for name in c.positions)
        fastest = max(
            math.sqrt(sum(max(abs(commands[k].minimum), abs(commands[k].maximum)) ** 2 for k in at))
            for at in velocities
        )
        gain = min(c.gain_per_s, 1.0 / period_s)
        braking = math.inf if c.braking is None else c.braking
        stop = 0.0 if c.braking is None else 2.0 * fastest * period_s + (2.0 * fastest) ** 2 / (2.0 * c.braking)
        far = c.distance + max(2.0 * fastest / gain, stop)
        pairs = tuple(itertools.combinations(range(group.n_assets), 2))
        found.append(Apart(c.name, c.group, positions, velocities, c.distance, gain, braking, pairs, far * far))
    return found
