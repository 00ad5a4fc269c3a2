"""Rows on the commands that come from what is measured: barriers and pairwise separation, worked out every period."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import BarrierConstraint, Declaration, RowsConstraint, RowTerms, SeparationConstraint
from ...envs.plant import Arrays
from .arrays import every
from .barriers import barrier_rows, separation_rows
from .compiled import FlatCommands
from .decision import Code

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

_NONE: Indices = np.zeros(0, dtype=np.intp)
_KEPT = 1e-11  # how far a row may be passed and count as kept, relative to the sizes that it sums


class Block:
    """Rows of one constraint: ``matrix`` ``[M, k]``, ``<= bounds`` ``[M]``, on the commands at ``index``.

    ``index``: ``[M, k]``, or ``[k]`` where all rows are on the same ones.

    ``size``: ``[n]``, the largest that each command can be, by which rounding is measured.
    """

    def __init__(self, name: str, code: Code, matrix: Floats, index: Indices, bounds: Floats, size: Floats) -> None:
        self.name, self.code, self.matrix, self.index, self.bounds = name, code, matrix, index, bounds
        self._size = size
        self._room: Floats | None = None
        self._sums = "mk,k->m" if index.ndim == 1 else "mk,mk->m"

    @property
    def room(self) -> Floats:
        """What rounding may take of each row, ``[M]``; worked out only where a row is passed at all."""
        if self._room is None:
            room: Floats = np.einsum(self._sums, np.abs(self.matrix), self._size[self.index])
            room += np.abs(self.bounds)
            room *= _KEPT
            self._room = room if math.isfinite(room.dot(room)) else np.where(np.isfinite(room), room, 0.0)
        return self._room

    @property
    def finite(self) -> bool:
        """Whether the rows are numbers; a bound of minus infinity asks for what nothing is near to."""
        # a sum of squares is finite only where all its terms are
        numbers = math.isfinite(np.vdot(self.matrix, self.matrix)) or bool(np.isfinite(self.matrix).all())
        return numbers and every(self.bounds > -np.inf)

    def of(self, which: Indices) -> Indices:
        """The commands ``[len(which), k]`` of some of the rows."""
        return self.index[None].repeat(len(which), axis=0) if self.index.ndim == 1 else self.index[which]

    def excess(self, u: Floats) -> Floats:
        """How far commands ``[n]`` pass each row, ``[M]``."""
        found: Floats = np.einsum(self._sums, self.matrix, u[self.index])
        found -= self.bounds
        return found

    def passed(self, u: Floats) -> Indices:
        """Which rows commands ``[n]`` break, in order; a row that is no number is broken."""
        excess: Floats = np.einsum(self._sums, self.matrix, u[self.index])
        excess -= self.bounds
        inside = excess <= 0.0
        if every(inside):
            return _NONE
        inside |= excess <= self.room
        return (~inside).nonzero()[0]

    def dense(self, which: Indices, n: int) -> Floats:
        """Some of the rows over all commands, ``[len(which), n]``."""
        rows = np.zeros((len(which), n))
        if self.index.ndim == 1:
            rows[:, self.index] = self.matrix[which]
        else:
            rows[np.arange(len(which))[:, None], self.index[which]] = self.matrix[which]
        return rows


class StateRows:
    """Barriers and separations of one declaration."""

    def __init__(self, declaration: Declaration, flat: FlatCommands) -> None:
        plate = declaration.nameplate
        self._period_s = plate.period_s
        self._size = np.maximum(np.abs(flat.lower), np.abs(flat.upper))
        self._barriers: list[tuple[BarrierConstraint, Indices]] = []
        self._own_rows: list[tuple[RowsConstraint, Indices]] = []
        self._separations: list[tuple[SeparationConstraint, list[int], Indices, Floats]] = []
        for c in (*declaration.hard, *declaration.soft):
            if isinstance(c, BarrierConstraint):
                names = [s.name for s in plate.group(c.group).commanded]
                index = np.stack([flat.index(plate, c.group, name) for name in names], axis=1)
                self._barriers.append((c, index))
            elif isinstance(c, RowsConstraint):
                names = [s.name for s in plate.group(c.group).commanded]
                index = np.stack([flat.index(plate, c.group, name) for name in names], axis=1)
                self._own_rows.append((c, index))
            elif isinstance(c, SeparationConstraint):
                index = np.stack([flat.index(plate, c.group, name) for name in c.velocities], axis=1)
                columns = [plate.group(c.group).index("measured", name) for name in c.positions]
                fastest = np.sqrt((self._size[index] ** 2).sum(axis=1))
                self._separations.append((c, columns, index, fastest))
        self.any = bool(self._barriers or self._own_rows or self._separations)

    def rows(self, measured: Arrays, seen: Arrays, applied: Floats) -> tuple[Block, ...]:
        """The rows at ``measured`` ``[N, O]`` a group, under ``applied`` ``[n]``; a site's own ones at ``seen``, NaN
        where nothing is known. Raises whatever a site's barrier raises."""
        found: list[Block] = []
        for c, index in self._barriers:
            terms = c.barrier(measured[c.group])
            rows = barrier_rows(terms, c.gain_per_s, c.gain2_per_s, c.margin)
            found.append(self._block(c.name, Code.CONSTRAINT_BARRIER, rows.rows, index, rows.bounds))
        for r, index in self._own_rows:
            own = r.rows(seen, applied[index])
            found.append(self._block(r.name, Code.CONSTRAINT_BARRIER, *_own(own, index)))
        for s, columns, index, fastest in self._separations:
            rows = separation_rows(
                measured[s.group][:, columns], s.distance, s.gain_per_s, self._period_s,
                braking=s.braking, fastest=fastest,
            )  # fmt: skip
            matrix, pairs = _pairs(rows.rows, index)
            found.append(self._block(s.name, Code.CONSTRAINT_SEPARATION, matrix, pairs, rows.bounds))
        return tuple(found)

    def _block(self, name: str, code: Code, matrix: Floats, index: Indices, bounds: Floats) -> Block:
        return Block(name, code, matrix, index, bounds, self._size)


def _own(terms: RowTerms, index: Indices) -> tuple[Floats, Indices, Floats]:
    """A site's own rows as ``matrix``, ``index`` and ``bounds`` of a block; ``index``: the commands of each asset."""
    control, least = terms.control, terms.least
    if least.shape != control.shape[:2] or len(least) != len(index):
        n = len(index)
        raise ValueError(f"rows {control.shape} with ends {least.shape}; expected [{n}, R, A] and [{n}, R]")
    asked = least != -np.inf  # minus infinity asks for nothing, a NaN for too much
    marks, n_rows = asked.tobytes(), least.shape[1]
    starts = range(0, len(marks), n_rows or 1)
    who = [k for k, start in enumerate(starts) if marks.find(b"\1", start, start + n_rows) >= 0]
    if len(who) == 1:
        k = who[0]
        if marks.count(b"\1") == n_rows:
            return -control[k], index[k], -least[k]
        return -control[k, asked[k]], index[k], -least[k, asked[k]]
    asset, row = asked.nonzero()
    return -control[asset, row], index[asset], -least[asset, row]


def _pairs(rows: Floats, index: Indices) -> tuple[Floats, Indices]:
    """Rows over all velocities ``[P, N * D]`` as rows over two assets', ``[P, 2 D]``, and where these stand."""
    n, d = index.shape
    per_asset = rows.reshape(len(rows), n, d)
    both = np.argsort(~(per_asset != 0).any(axis=2), axis=1, kind="stable")[:, :2]
    both = np.sort(both, axis=1)
    at = np.arange(len(rows))[:, None]
    return per_asset[at, both].reshape(len(rows), 2 * d), index[both].reshape(len(rows), 2 * d)
