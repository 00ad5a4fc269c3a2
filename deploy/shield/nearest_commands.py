"""The nearest commands that keep every row, where some row is in the way: one call's search for them.

    one sum -> water-filling; barriers of single assets -> enumeration; else a program over the rows that are in the way
    and those that its answer breaks, until none is left

Where hard rows can't all be kept, a last program passes them as little as it must.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import every, some
from .coupled import Active, Coupled
from .decision import Code
from .program import Status, solve_quietly
from .small_programs import MAX_COMMANDS, MAX_ROWS, solve_small
from .state_rows import Block
from .sum_rows import KEPT, SumRows
from .sums import SumStatus, fill, fill_row

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

_MAX_ROUNDS = 30
_NONE: Indices = np.zeros(0, dtype=np.intp)
_NOWHERE: Bools = np.zeros(0, dtype=np.bool_)
_FEW = 100  # commands up to which plain floats beat arrays

_UNREACHABLE = {
    Code.CONSTRAINT_SEPARATION: 0, Code.CONSTRAINT_BARRIER: 0, Code.CONSTRAINT_SUM_RATE: 1, Code.CONSTRAINT_SUM: 2
}  # fmt: skip
"""Where hard rows can't all be kept: distances first, then ramps, so that a sum goes to its limit as fast as its ramp
lets."""


class Rows(NamedTuple):
    """The rows of this period. ``bounds``: of sums, and ``allowed`` the same with their room."""

    sums: SumRows
    bounds: Floats
    allowed: Floats
    blocks: tuple[Block, ...]


class NearestCommands:
    """One call of :meth:`~.coupling.Coupling.keep` in which something is in the way.

    ``u``, ``wished``, ``low``, ``high``: ``[n]``, as there; ``scale``: half-ranges ``[n]``; ``priority_of``: by name of
    a constraint, None for hard ones.
    """

    def __init__(
        self, rows: Rows, u: Floats, wished: Floats, low: Floats, high: Floats, scale: Floats,
        priority_of: Mapping[str, int | None],
    ) -> None:  # fmt: skip
        self._rows, self._u, self._wished, self._low, self._high, self._scale = rows, u, wished, low, high, scale
        self._priority_of = priority_of

    def run(self, broken: Indices, state: list[Indices]) -> Coupled:
        """Search. ``broken``: sums that are passed by what came; ``state``: rows of each block that are."""
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
