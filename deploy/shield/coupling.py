"""What commands keep together: sums and their rates, separation and barriers, moved as little as possible.

    nothing broken: as they came -> one sum in the way: water-filling -> barriers of single assets: enumeration
    -> else a program over the rows that are in the way, and those that its answer breaks, until none is left

Leaving rows out and finding them kept proves the answer for all of them: a program with fewer rows has no worse
optimum. Distances are in half-ranges of the commands, so that unlike units compare. Hard rows are never relaxed; where
this period's reach can't keep them, the answer passes them as little as it must, and says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import BarrierConstraint, Declaration, RowsConstraint, SeparationConstraint
from ...envs.plant import Arrays
from .arrays import some
from .compiled import FlatCommands
from .coupled import Coupled
from .nearest_commands import NearestCommands, Rows
from .program import Status
from .state_rows import StateRows
from .sum_rows import Limits, SumRows

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_NONE: Indices = np.zeros(0, dtype=np.intp)


class Coupling:
    """The rows of one declaration, compiled once; :meth:`keep` is pure."""

    def __init__(self, declaration: Declaration, flat: FlatCommands) -> None:
        half = 0.5 * (flat.upper - flat.lower)
        self.scale = np.where(half > 0, half, 1.0)
        self.sums = SumRows(declaration, flat)
        self._matrix = self.sums.matrix
        self._state = StateRows(declaration, flat)
        self._priority_of = {c.name: c.priority for c in declaration.constraints}
        self.any = bool(len(self._matrix)) or bool(
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
        bounds, allowed = self.sums.bounds(applied, elapsed_s, limits)
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
        rows = Rows(self.sums, bounds, allowed, blocks)
        search = NearestCommands(rows, u, u if wished is None else wished(), low, high, self.scale, self._priority_of)
        return search.run(broken, state)
