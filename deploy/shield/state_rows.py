"""Rows on the commands that come from what is measured: barriers and pairwise separation, worked out every period."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import BarrierConstraint, Declaration, RowsConstraint, SeparationConstraint
from ...envs.plant import Arrays
from .barriers import barrier_rows, separation_rows
from .compiled import FlatCommands
from .decision import Code

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

_KEPT = 1e-11  # how far a row may be passed and count as kept, relative to the sizes that it sums


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one constraint: ``matrix`` ``[M, k]`` on the commands at ``index`` ``[M, k]``, ``<= bounds`` ``[M]``.

    ``room``: ``[M]``, what rounding may take of each.
    """

    name: str
    code: Code
    matrix: Floats
    index: Indices
    bounds: Floats
    room: Floats

    @property
    def finite(self) -> bool:
        """Whether the rows are numbers; a bound of minus infinity asks for what nothing is near to."""
        return bool(np.isfinite(self.matrix).all()) and bool((self.bounds > -np.inf).all())

    def excess(self, u: Floats) -> Floats:
        """How far commands ``[n]`` pass each row, ``[M]``."""
        return np.asarray(np.einsum("mk,mk->m", self.matrix, u[self.index]) - self.bounds)

    def passed(self, u: Floats) -> Bools:
        """Which rows commands ``[n]`` break, ``[M]``; a row that is no number is broken."""
        return np.asarray(~(self.excess(u) <= self.room))

    def dense(self, which: Indices, n: int) -> Floats:
        """Some of the rows over all commands, ``[len(which), n]``."""
        rows = np.zeros((len(which), n))
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

    def rows(self, measured: Arrays, applied: Floats) -> tuple[Block, ...]:
        """The rows at ``measured`` ``[N, O]`` a group, under ``applied`` ``[n]``. Raises whatever a site's
        barrier raises."""
        found: list[Block] = []
        for c, index in self._barriers:
            terms = c.barrier(measured[c.group])
            rows = barrier_rows(terms, c.gain_per_s, c.gain2_per_s, c.margin)
            found.append(self._block(c.name, Code.CONSTRAINT_BARRIER, rows.rows, index, rows.bounds))
        for r, index in self._own_rows:
            own = r.rows(measured, applied[index])
            asked = np.isfinite(own.least) | ~(own.least < 0.0)  # minus infinity asks for nothing, a NaN for too much
            which = np.broadcast_to(np.arange(len(index))[:, None], asked.shape)[asked]
            matrix, bounds = -own.control[asked], -own.least[asked]
            found.append(self._block(r.name, Code.CONSTRAINT_BARRIER, matrix, index[which], bounds))
        for s, columns, index, fastest in self._separations:
            rows = separation_rows(
                measured[s.group][:, columns], s.distance, s.gain_per_s, self._period_s,
                braking=s.braking, fastest=fastest,
            )  # fmt: skip
            matrix, pairs = _pairs(rows.rows, index)
            found.append(self._block(s.name, Code.CONSTRAINT_SEPARATION, matrix, pairs, rows.bounds))
        return tuple(found)

    def _block(self, name: str, code: Code, matrix: Floats, index: Indices, bounds: Floats) -> Block:
        with np.errstate(all="ignore"):
            room = _KEPT * (np.einsum("mk,mk->m", np.abs(matrix), self._size[index]) + np.abs(bounds))
        return Block(name, code, matrix, index, bounds, np.where(np.isfinite(room), room, 0.0))


def _pairs(rows: Floats, index: Indices) -> tuple[Floats, Indices]:
    """Rows over all velocities ``[P, N * D]`` as rows over two assets', ``[P, 2 D]``, and where these stand."""
    n, d = index.shape
    per_asset = rows.reshape(len(rows), n, d)
    both = np.argsort(~(per_asset != 0).any(axis=2), axis=1, kind="stable")[:, :2]
    both = np.sort(both, axis=1)
    at = np.arange(len(rows))[:, None]
    return per_asset[at, both].reshape(len(rows), 2 * d), index[both].reshape(len(rows), 2 * d)
