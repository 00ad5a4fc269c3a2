"""Which levels a discrete command may take, for all discrete commands of a site at once.

A table has one row a discrete command and one column a level, ascending, padded with levels that never count. A mask
``[m, L]`` says which are still open. Constraints come in order; each leaves, of what the earlier ones left, the levels
that break it least, so that a row never comes out empty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Declaration, TransitionConstraint
from .compiled import FlatCommands, Floats, Indices

Mask = NDArray[np.bool_]

TOLERANCE = 1e-9
"""Levels that break a constraint by no more than this, relative to their size, keep it."""
SAME_LEVEL = 1e-6
"""Values this close, relative to their size, are one level; as in the margins."""


def at_level(value: Floats, level: Floats) -> Mask:
    """Whether values stand at a level."""
    return np.asarray(np.abs(value - level) <= SAME_LEVEL * (1.0 + np.abs(level)))


def same_level(value: float, level: float) -> bool:
    """The same of two plain numbers, which is much faster one at a time."""
    return abs(value - level) <= SAME_LEVEL * (1.0 + abs(level))


def least(mask: Mask, violation: Floats) -> Mask:
    """Of the open levels those that break a constraint least; ``violation`` ``[m, L]``, 0 where it is kept."""
    open_ones = np.where(mask, violation, np.inf)
    return np.asarray(mask & (violation <= open_ones.min(axis=1, keepdims=True, initial=np.inf)))


class LevelTable:
    """The levels of the discrete commands, ``index`` ``[m]`` into the flat vector, ``values`` ``[m, L]``."""

    def __init__(
        self, declaration: Declaration, flat: FlatCommands, lower: Floats, upper: Floats, step: Floats, brake: Floats
    ) -> None:
        plate = declaration.nameplate
        rows: dict[int, tuple[float, ...]] = {}
        for group in plate.groups:
            for s in group.commanded:
                if s.levels is not None:
                    rows.update({int(i): s.levels for i in flat.index(plate, group.name, s.name)})
        self.index: Indices = np.array(sorted(rows), dtype=np.intp)
        self.row = np.full(flat.n, -1, dtype=np.intp)
        """Row in the table of each command, -1 where it is continuous."""
        self.row[self.index] = np.arange(len(rows))
        width = max((len(v) for v in rows.values()), default=0)
        self.values = np.zeros((len(rows), width))
        self._real = np.zeros((len(rows), width), dtype=bool)
        for k, i in enumerate(self.index):
            levels = sorted(set(rows[int(i)]))
            self.values[k, : len(levels)] = levels
            self._real[k, : len(levels)] = True
        out = np.maximum(lower[self.index, None] - self.values, self.values - upper[self.index, None])
        self._open = least(self._real, beyond(out, self.values)) if rows else self._real
        self._lowest = np.where(self._open, self.values, np.inf).min(axis=1, initial=np.inf)
        self._highest = np.where(self._open, self.values, -np.inf).max(axis=1, initial=-np.inf)
        self._rated = bool(np.isfinite(np.minimum(step, brake)[self.index]).any())
        self._braked = bool(np.isfinite(brake[self.index]).any())
        self._transitions = [
            (self.row[flat.index(plate, c.group, c.signal)], self.legal(c.legal, flat.index(plate, c.group, c.signal)))
            for c in declaration.hard
            if isinstance(c, TransitionConstraint)
        ]

    def reachable(self, start: Floats, applied: Floats, step: Floats, change: Floats, brake: Floats) -> Mask:
        """Levels ``[m, L]`` legal under hard range, rate, acceleration and transition; arguments are ``[n]``."""
        at, mask = self.index, self._open
        if self._rated:
            moved = self.values - start[at, None]
            mask = least(mask, beyond(np.abs(moved) - step[at, None], self.values))
        if self._braked:
            moved = self.values - start[at, None]
            mask = least(mask, beyond(np.abs(moved - change[at, None]) - brake[at, None], self.values))
        return self._along(mask, applied)

    def within(self, low: Floats, high: Floats, applied: Floats) -> Mask:
        """The same levels ``[m, L]``, from the ends ``[n]`` of what is reachable."""
        at = self.index
        out = np.maximum(low[at, None] - self.values, self.values - high[at, None])
        return self._along(least(self._open, np.maximum(out, 0.0)), applied)

    def staying(self, mask: Mask, bound: Mask, applied: Floats) -> Mask:
        """Where ``bound`` ``[m]``, only the level that ``applied`` ``[n]`` stands at, if it is open."""
        stay = mask & at_level(applied[self.index, None], self.values)
        return np.where((bound & stay.any(axis=1))[:, None], stay, mask)

    def ends(self, mask: Mask) -> tuple[Floats, Floats]:
        """Lowest and highest open level ``[m]``."""
        if mask is self._open:
            return self._lowest, self._highest
        low = np.where(mask, self.values, np.inf).min(axis=1)
        high = np.where(mask, self.values, -np.inf).max(axis=1)
        return low, high

    def nearest(self, mask: Mask, asked: Floats, relief: Floats | None = None) -> Floats:
        """The open level ``[m]`` nearest to ``asked`` ``[m]``, of two the lower one.

        ``relief`` ``[m]``: -1 takes levels above what was asked only where there are no others, +1 those below.
        """
        away = self.values - asked[:, None]
        if relief is not None:
            wrong = beyond(-relief[:, None] * away, self.values) > 0.0
            mask = least(mask, wrong.astype(np.float64))
        best = np.where(mask, np.abs(away), np.inf).argmin(axis=1)
        return np.asarray(self.values[np.arange(len(best)), best])

    def _along(self, mask: Mask, applied: Floats) -> Mask:
        """Only levels that hard transitions allow."""
        for rows, legal in self._transitions:
            mask = mask.copy()
            mask[rows] = least(mask[rows], self.illegal(rows, legal, applied))
        return mask

    def illegal(self, rows: Indices, legal: NDArray[np.bool_], applied: Floats) -> Floats:
        """1 ``[k, L]`` where a transition from ``applied`` ``[n]`` is not among ``legal`` ``[k, L, L]``, else 0."""
        stands = at_level(applied[self.index[rows], None], self.values[rows]) & self._real[rows]
        allowed = (legal & stands[:, :, None]).any(axis=1)
        return np.where(allowed, 0.0, 1.0)

    def legal(self, pairs: tuple[tuple[float, float], ...], index: Indices) -> NDArray[np.bool_]:
        """``[k, from, to]`` of the commands ``index`` ``[k]``: listed pairs, and staying."""
        values = self.values[self.row[index]]
        legal = np.broadcast_to(np.eye(values.shape[1], dtype=bool), (*values.shape, values.shape[1])).copy()
        for a, b in pairs:
            one, other = at_level(values, np.asarray(a)), at_level(values, np.asarray(b))
            legal |= one[:, :, None] & other[:, None, :]
        return legal


def beyond(excess: Floats, size: Floats) -> Floats:
    """How far something is broken: 0 up to rounding, relative to the size of the numbers."""
    return np.where(excess <= TOLERANCE * (1.0 + np.abs(size)), 0.0, excess)
