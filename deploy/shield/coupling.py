"""What commands keep together: sums and their rates, separation and barriers, moved as little as possible.

    nothing broken: as they came -> one sum in the way: water-filling -> barriers of single assets: enumeration
    -> else a program over the rows that are in the way, and those that its answer breaks, until none is left

Leaving rows out and finding them kept proves the answer for all of them: a program with fewer rows has no worse
optimum. Distances are in half-ranges of the commands, so that unlike units compare. Hard rows are never relaxed; where
this period's reach can't keep them, the answer passes them as little as it must, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import (
    BarrierConstraint,
    Declaration,
    RowsConstraint,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
)
from ...envs.plant import Arrays
from .arrays import every, some
from .compiled import FlatCommands
from .decision import Code
from .program import Status, solve_quietly
from .small_programs import MAX_COMMANDS, MAX_ROWS, solve_small
from .state_rows import Block, StateRows
from .sums import SumStatus, fill, fill_row

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]
Limits = Mapping[str, tuple[float | None, float | None]]

KEPT = 1e-11
"""How far a row may be passed and still count as kept, relative to the sizes that it sums: rounding, no more."""

_MAX_ROUNDS = 30
_NONE: Indices = np.zeros(0, dtype=np.intp)
_NOWHERE: Bools = np.zeros(0, dtype=np.bool_)
_FEW = 100  # commands up to which plain floats beat arrays

_UNREACHABLE = {
    Code.CONSTRAINT_SEPARATION: 0, Code.CONSTRAINT_BARRIER: 0, Code.CONSTRAINT_SUM_RATE: 1, Code.CONSTRAINT_SUM: 2
}  # fmt: skip
"""Where hard rows can't all be kept: distances first, then ramps, so that a sum goes to its limit as fast as its ramp
lets."""


class Active(NamedTuple):
    """A row that moved commands: ``weights`` of the commands ``at`` these places, ``<= limit``.

    ``price``: its multiplier, for distances in half-ranges; ``margin``: how far what was asked is inside it, below 0
    beyond; ``left``: how far what is sent is beyond it, 0 but where it could not be kept. ``sign``: -1 for a lower end.
    """

    name: str
    code: Code
    at: Indices
    weights: Floats
    limit: float
    price: float
    margin: float
    left: float
    sign: float
    hard: bool


class Coupled(NamedTuple):
    """``u``: ``[n]``, inside the reach. ``status``: ``UNCHANGED``, ``OPTIMAL`` or ``RELAXED`` where every hard row is
    kept; ``INFEASIBLE`` where this period's reach can't keep them, with the least violation; ``UNSOLVED`` where nothing
    is known and ``u`` is as it came."""

    u: Floats
    status: Status
    active: tuple[Active, ...] = ()

    def relief(self) -> Floats:
        """The direction in which each command relieves the active rows, ``[n]`` of -1, 0 and 1."""
        found = np.zeros(len(self.u))
        for row in self.active:
            # where nothing has a price, as in least violation, the passed rows themselves say which way relieves
            found[row.at] -= row.weights * (row.price or (1.0 if row.left > 0 else 0.0))
        return np.sign(found)


class _Sums(NamedTuple):
    """One-sided rows of sums and their ramps, ``matrix @ u <= bounds``, as far as they are the same every period.

    ``at``, ``weights``: the commands that a row has and their weights. ``full``: whether these are all of the site's.
    ``room``: what rounding may take of each.
    """

    matrix: Floats
    full: Bools
    at: tuple[Indices, ...]
    weights: tuple[Floats, ...]
    room: Floats
    names: tuple[str, ...]
    codes: tuple[Code, ...]
    signs: tuple[float, ...]
    priorities: tuple[int | None, ...]


class _Rows(NamedTuple):
    """The rows of this period. ``allowed``: the bounds of sums with their room."""

    sums: _Sums
    bounds: Floats
    allowed: Floats
    blocks: tuple[Block, ...]


class Coupling:
    """The rows of one declaration, compiled once; :meth:`keep` is pure."""

    def __init__(self, declaration: Declaration, flat: FlatCommands) -> None:
        plate = declaration.nameplate
        half = 0.5 * (flat.upper - flat.lower)
        self.scale = np.where(half > 0, half, 1.0)
        self._n = flat.n
        size = np.maximum(np.abs(flat.lower), np.abs(flat.upper))
        rows: list[Floats] = []
        names: list[str] = []
        codes: list[Code] = []
        signs: list[float] = []
        bounds: list[float] = []
        rates: list[float] = []
        priorities: list[int | None] = []
        for c in (*declaration.hard, *declaration.soft):
            if not isinstance(c, SumConstraint | SumRateConstraint):
                continue
            index = flat.index(plate, c.group, c.signal)
            row = np.zeros(flat.n)
            row[index] = 1.0 if c.weights is None else np.array(c.weights, dtype=np.float64)
            is_sum = isinstance(c, SumConstraint)
            ends = (c.maximum, c.minimum) if isinstance(c, SumConstraint) else (c.up_per_second, c.down_per_second)
            for sign, end in zip((1.0, -1.0), ends, strict=True):
                # a sum without an end still has a row, which a limit at run time may give one
                if end is None and not is_sum:
                    continue
                rows.append(sign * row)
                names.append(c.name)
                codes.append(Code.CONSTRAINT_SUM if is_sum else Code.CONSTRAINT_SUM_RATE)
                signs.append(sign)
                bounds.append(np.inf if end is None else sign * end if is_sum else 0.0)
                rates.append(0.0 if is_sum or end is None else end)
                priorities.append(c.priority)
        matrix = np.array(rows, dtype=np.float64).reshape(len(rows), flat.n)
        at = tuple(np.flatnonzero(row) for row in matrix)
        self._sums = _Sums(
            matrix, (matrix != 0.0).all(axis=1), at,
            tuple(row[i] for row, i in zip(matrix, at, strict=True)), KEPT * (np.abs(matrix) @ size),
            tuple(names), tuple(codes), tuple(signs), tuple(priorities),
        )  # fmt: skip
        self._matrix, self._room = matrix, self._sums.room
        self._rates, self._bounds = np.array(rates), np.array(bounds)
        self._allowed = self._bounds + self._room
        self._on_rate = np.flatnonzero([code is Code.CONSTRAINT_SUM_RATE for code in codes])
        self._rate_matrix = matrix[self._on_rate]
        self._state = StateRows(declaration, flat)
        self._priority_of = {c.name: c.priority for c in declaration.constraints}
        self._declared = {
            c.name: (-np.inf if c.minimum is None else c.minimum, np.inf if c.maximum is None else c.maximum)
            for c in declaration.constraints
            if isinstance(c, SumConstraint)
        }
        self.sums = frozenset(self._declared)
        self.any = bool(rows) or bool(
            [
                c
                for c in declaration.constraints
                if isinstance(c, BarrierConstraint | RowsConstraint | SeparationConstraint)
            ]
        )

    def keep(
        self,
        u: Floats,
        low: Floats,
        high: Floats,
        applied: Floats,
        elapsed_s: float,
        measured: Arrays,
        seen: Arrays,
        limits: Limits | None = None,
        wished: Callable[[], Floats] | None = None,
    ) -> Coupled:
        """The nearest commands to ``wished`` ``[n]`` inside ``low`` to ``high`` ``[n]`` that keep every row.

        ``u``: ``[n]``, what the commands' own limits made of ``wished``, inside ``low`` to ``high``: it is the answer
        where it keeps every row. ``wished`` is asked for only where it does not; without it distances are from ``u``.
        ``applied``: ``[n]``, what sums may change from in ``elapsed_s``. ``measured`` and ``seen``: ``[N, O]`` a
        group, of :class:`~.inputs.Guarded`. ``limits``: minimum and maximum of sums by name, taken where they tighten.
        Raises whatever a site's barrier raises.
        """
        if not self.any:
            return Coupled(u, Status.UNCHANGED)
        bounds, allowed = self._ends(applied, elapsed_s, limits)
        blocks = self._state.rows(measured, seen, applied) if self._state.any else ()
        broken = _NONE
        if len(allowed) and some(over := self._matrix.dot(u) > allowed):
            broken = over.nonzero()[0]
        state = [b.passed(u) for b in blocks]
        if not len(broken) and not any(map(len, state)):
            return Coupled(u, Status.UNCHANGED)
        for b in blocks:
            if not b.finite:
                return Coupled(u, Status.UNSOLVED)
        rows = _Rows(self._sums, bounds, allowed, blocks)
        keeping = _Keeping(rows, u, u if wished is None else wished(), low, high, self.scale, self._priority_of)
        return keeping.run(broken, state)

    def within(self, limits: Limits) -> tuple[Limits, list[str]]:
        """Limits of run time, brought inside the declared ends of their sums, and the names of those that were not.

        A declared end is never given up for one that somebody asks for while the plant runs.
        """
        if not limits:
            return limits, []
        found: dict[str, tuple[float | None, float | None]] = {}
        outside: list[str] = []
        for name, (minimum, maximum) in limits.items():
            least, most = self._declared[name]
            low = None if minimum is None else min(minimum, most)
            high = None if maximum is None else max(maximum, least)
            found[name] = (low, high)
            if (low, high) != (minimum, maximum):
                outside.append(name)
        return found, outside

    def _ends(self, applied: Floats, elapsed_s: float, limits: Limits | None) -> tuple[Floats, Floats]:
        if not len(self._on_rate) and not limits:
            return self._bounds, self._allowed
        bounds = self._bounds.copy()
        if len(self._on_rate):
            bounds[self._on_rate] = self._rate_matrix @ applied + self._rates[self._on_rate] * elapsed_s
        for k, name in enumerate(self._sums.names) if limits else ():
            if limits and name in limits and self._sums.codes[k] is Code.CONSTRAINT_SUM:
                minimum, maximum = limits[name]
                end = maximum if self._sums.signs[k] > 0 else None if minimum is None else -minimum
                if end is not None and end < bounds[k]:  # so asked, a NaN never wins
                    bounds[k] = end
        return bounds, bounds + self._room


def _filled_row(
    asked: Floats, low: Floats, high: Floats, weights: Floats, maximum: float
) -> tuple[Floats | list[float], float, SumStatus]:
    """One sum with a maximum, by whichever of two ways is faster for so many commands."""
    if len(asked) <= _FEW:
        return fill_row(asked.tolist(), low.tolist(), high.tolist(), weights.tolist(), maximum)
    done = fill(asked, low, high, weights, maximum=maximum)
    return done.u[0], float(done.multiplier[0]), SumStatus(done.status[0])


def _beside(passed: Indices, known: Indices, n_rows: int) -> Indices:
    """Rows that are passed and not yet known, in order."""
    if not len(passed):
        return passed
    left = np.zeros(n_rows, dtype=np.bool_)
    left[passed] = True
    left[known] = False
    return left.nonzero()[0]


class _Keeping:
    """One call of :meth:`Coupling.keep` in which something is in the way."""

    def __init__(
        self, rows: _Rows, u: Floats, wished: Floats, low: Floats, high: Floats, scale: Floats,
        priority_of: Mapping[str, int | None],
    ) -> None:  # fmt: skip
        self._rows, self._u, self._wished, self._low, self._high, self._scale = rows, u, wished, low, high, scale
        self._priority_of = priority_of

    def run(self, broken: Indices, state: list[Indices]) -> Coupled:
        """``broken``: sums that are passed by what came; ``state``: rows of each block that are."""
        in_state = sum(len(s) for s in state)
        if len(broken) and not in_state:
            found = self._filled(broken)
            if found is not None:
                return found
        if in_state and not len(broken):
            found = self._enumerated(state)
            if found is not None:
                return found
        return self._programmed(broken, state, hard=True) or self._programmed(broken, state, hard=False) or Coupled(
            self._u, Status.UNSOLVED
        )  # fmt: skip

    def _filled(self, broken: Indices) -> Coupled | None:
        """Each broken sum by itself, where no two share a command; None where that does not keep all rows."""
        sums, bounds = self._rows.sums, self._rows.bounds
        if len(broken) > 1 and (
            np.count_nonzero(sums.full[broken]) > 1 or (np.count_nonzero(sums.matrix[broken], axis=0) > 1).any()
        ):
            return None
        u, prices, unreachable = self._u.copy(), np.zeros(len(broken)), False
        for k, row in enumerate(broken.tolist()):
            at = sums.at[row]
            sent, price, status = _filled_row(
                self._wished[at], self._low[at], self._high[at], sums.weights[row], float(bounds[row])
            )
            if status == SumStatus.INVALID or (status == SumStatus.UNREACHABLE and sums.priorities[row] is not None):
                return None
            unreachable |= status == SumStatus.UNREACHABLE
            u[at] = sent
            prices[k] = price / self._scale[at[0]] ** 2
        passed = sums.matrix.dot(u) > self._rows.allowed
        passed[broken] = False
        if some(passed) or any(len(b.passed(u)) for b in self._rows.blocks):
            return None
        status_ = Status.INFEASIBLE if unreachable else Status.OPTIMAL
        return self._coupled(u, status_, broken, prices, [])

    def _enumerated(self, state: list[Indices]) -> Coupled | None:
        """Barriers of single assets with few commands, one broken row each; None where that is not all."""
        working = [(b, s) for b, s in zip(self._rows.blocks, state, strict=True) if len(s)]
        if len(working) != 1 or working[0][0].code is not Code.CONSTRAINT_BARRIER:
            return None
        block, which = working[0]
        if block.index.shape[-1] > MAX_COMMANDS or MAX_ROWS < 1 or self._priority_of[block.name] is not None:
            return None
        index, matrix = block.of(which), block.matrix[which]
        if len(np.unique(index[:, 0])) < len(index):
            return None  # several rows of one asset are no problems of their own
        s = self._scale[index]
        done = solve_small(
            self._wished[index] / s, self._low[index] / s, self._high[index] / s, (matrix * s)[:, None, :],
            block.bounds[which][:, None],
        )  # fmt: skip
        if not done.solved.all():
            return None
        u = self._u.copy()
        u[index] = np.minimum(np.maximum(done.u * s, self._low[index]), self._high[index])
        if (self._rows.sums.matrix @ u > self._rows.allowed).any():
            return None
        for b in self._rows.blocks:
            passed = b.passed(u)
            if b is block:
                near = block.excess(u)[which] <= 100.0 * block.room[which]
                passed = _beside(passed, which[near], len(block.bounds))
            if len(passed):
                return None
        parts = [(b, which if b is block else which[:0]) for b in self._rows.blocks]
        return self._coupled(u, Status.OPTIMAL, np.zeros(0, dtype=np.intp), done.multipliers[:, 0], parts)

    def _programmed(self, broken: Indices, state: list[Indices], *, hard: bool) -> Coupled | None:
        """Programs over the rows in the way; ``hard`` False gives the least violation of hard rows. None: no answer."""
        rows = self._rows
        sums, parts = broken, [(b, s) for b, s in zip(rows.blocks, state, strict=True)]
        for _ in range(_MAX_ROUNDS):
            a, bounds, priorities, at = self._assembled(sums, parts, hard)
            wished, low, high, scale = self._wished, self._low, self._high, self._scale
            if at is not None:
                low, high = low[at], high[at]
            left = bounds
            movable = low < high
            if len(sums) and every(movable) and some(rows.sums.full[sums]):
                u, free, fixed = self._u, None, _NONE
            else:
                touched = np.logical_or.reduce(a, axis=0)  # a NaN is no zero
                free, fixed = (touched & movable).nonzero()[0], _NONE
                if np.count_nonzero(touched) > len(free):
                    fixed = (touched > movable).nonzero()[0]
                u = self._u.copy()
            if len(fixed):
                u[fixed if at is None else at[fixed]] = low[fixed]
                left = bounds - a[:, fixed] @ low[fixed]
            if free is None or len(free):
                if free is not None and len(free) < len(self._u):
                    a = a[:, free]
                    if len(free) < len(low):
                        low, high = low[free], high[free]
                    free = free if at is None else at[free]
                    wished, scale = wished[free], scale[free]
                solution = solve_quietly(wished, low, high, a, left, priorities, scale)
                if solution.u is None:
                    return None
                solution_status, prices = solution.status, solution.multipliers
                if free is None:
                    u = solution.u
                else:
                    u[free] = solution.u
            elif hard and bool((left < -KEPT * (1.0 + np.abs(bounds))).any()):
                return None
            else:
                solution_status, prices = Status.OPTIMAL, np.zeros(len(bounds))
            # what the program was told of is as good as it gets; what it was not told of must be kept
            passed = _NOWHERE
            if len(rows.allowed):
                passed = rows.sums.matrix.dot(u) > rows.allowed
                passed[sums] = False
            more = [_beside(b.passed(u), s, len(b.bounds)) for b, s in parts]
            if not some(passed) and not any(map(len, more)):
                if not hard:
                    solution_status = Status.INFEASIBLE
                elif solution_status is Status.UNCHANGED:
                    solution_status = Status.OPTIMAL
                return self._coupled(u, solution_status, sums, prices, parts)
            if len(rows.allowed):
                passed[sums] = True
                sums = passed.nonzero()[0]
            parts = [(b, np.sort(np.concatenate((s, m)))) for (b, s), m in zip(parts, more, strict=True)]
        return None

    def _assembled(
        self, sums: Indices, parts: list[tuple[Block, Indices]], hard: bool
    ) -> tuple[Floats, Floats, list[int | None], Indices | None]:
        """Rows, their bounds and priorities, and the commands that the rows are on, None for all of them."""
        rows = self._rows
        if hard and not parts:
            return rows.sums.matrix[sums], rows.bounds[sums], [rows.sums.priorities[k] for k in sums.tolist()], None
        if hard and not len(sums) and len(parts) == 1 and parts[0][0].index.ndim == 1:
            block, which = parts[0]
            priorities = [self._priority_of[block.name]] * len(which)
            return block.matrix[which], block.bounds[which], priorities, block.index
        n = len(self._u)
        a, bounds = [rows.sums.matrix[sums]], [rows.bounds[sums]]
        ranks = [rows.sums.priorities[k] for k in sums]
        codes = [rows.sums.codes[k] for k in sums]
        for block, which in parts:
            a.append(block.dense(which, n))
            bounds.append(block.bounds[which])
            ranks += [self._priority_of[block.name]] * len(which)
            codes += [block.code] * len(which)
        if not hard:  # hard rows before every soft one
            soft = sorted({r for r in ranks if r is not None})
            hardest = [_UNREACHABLE[code] for code in codes]
            ranks = [h if r is None else len(_UNREACHABLE) + soft.index(r) for h, r in zip(hardest, ranks, strict=True)]
        return np.concatenate(a), np.concatenate(bounds), ranks, None

    def _coupled(
        self, u: Floats, status: Status, of_sums: Indices, prices: Floats, parts: list[tuple[Block, Indices]]
    ) -> Coupled:
        rows, sums = self._rows, self._rows.sums
        found: list[Active] = []
        k, price = len(of_sums), prices.tolist()
        if k:
            matrix, bounds = sums.matrix[of_sums], rows.bounds[of_sums]
            margins = (bounds - matrix.dot(self._wished)).tolist()
            lefts = np.maximum(matrix.dot(u) - bounds - 100.0 * sums.room[of_sums], 0.0).tolist()
            found = [
                Active(
                    sums.names[row], sums.codes[row], sums.at[row], sums.weights[row], bound, its_price, margin, left,
                    sums.signs[row], sums.priorities[row] is None,
                )
                for row, bound, its_price, margin, left in zip(
                    of_sums.tolist(), bounds.tolist(), price, margins, lefts, strict=False
                )
            ]  # fmt: skip
        for block, which in parts:
            if not len(which):
                continue
            hard, shared = self._priority_of[block.name] is None, block.index.ndim == 1
            at = block.index if shared else block.index[0]
            of_wished, of_u = self._wished[at], u[at]
            for row, bound in zip(which.tolist(), block.bounds[which].tolist(), strict=True):
                weights = block.matrix[row]
                if not shared:
                    at = block.index[row]
                    of_wished, of_u = self._wished[at], u[at]
                margin = bound - float(weights.dot(of_wished))
                left = float(weights.dot(of_u)) - bound
                left = 0.0 if left <= 0.0 else max(left - 100.0 * float(block.room[row]), 0.0)
                found.append(Active(block.name, block.code, at, weights, bound, price[k], margin, left, 1.0, hard))
                k += 1
        return Coupled(u, status, tuple(found))
