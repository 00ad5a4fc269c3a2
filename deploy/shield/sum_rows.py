"""The rows of sums and of their ramps: compiled once, with the ends that they have this period.

A sum has an upper and a lower row, so that a limit at run time may give an end to either; a ramp's ends move along with
what is applied.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Declaration, SumConstraint, SumRateConstraint
from .compiled import FlatCommands
from .decision import Code

Floats = NDArray[np.float64]
Limits = Mapping[str, tuple[float | None, float | None]]
"""Minimum and maximum of sums by name, at run time; None: as declared."""

KEPT = 1e-11
"""How far a row may be passed and still count as kept, relative to the sizes that it sums: rounding, no more."""


class SumRows:
    """One-sided rows ``matrix @ u <= bounds`` of one declaration, as far as they are the same every period.

    ``at``, ``weights``: the commands that a row has and their weights. ``full``: whether these are all of the site's.
    ``room``: what rounding may take of each. ``signs``: -1 for a lower end. ``declared``: names of the sums, which may
    be given limits at run time.
    """

    def __init__(self, declaration: Declaration, flat: FlatCommands) -> None:
        plate = declaration.nameplate
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
        self.matrix = matrix = np.array(rows, dtype=np.float64).reshape(len(rows), flat.n)
        self.full = (matrix != 0.0).all(axis=1)
        self.at = tuple(np.flatnonzero(row) for row in matrix)
        self.weights = tuple(row[i] for row, i in zip(matrix, self.at, strict=True))
        self.room = KEPT * (np.abs(matrix) @ size)
        self.names, self.codes, self.signs, self.priorities = (
            tuple(names),
            tuple(codes),
            tuple(signs),
            tuple(priorities),
        )
        self._rates, self._bounds = np.array(rates), np.array(bounds)
        self._allowed = self._bounds + self.room
        self._on_rate = np.flatnonzero([code is Code.CONSTRAINT_SUM_RATE for code in codes])
        self._rate_matrix = matrix[self._on_rate]
        self._ends_of = {
            c.name: (-np.inf if c.minimum is None else c.minimum, np.inf if c.maximum is None else c.maximum)
            for c in declaration.constraints
            if isinstance(c, SumConstraint)
        }
        self.declared = frozenset(self._ends_of)

    def within(self, limits: Limits) -> tuple[Limits, list[str]]:
        """Limits of run time, brought inside the declared ends of their sums, and the names of those that were not.

        A declared end is never given up for one that somebody asks for while the plant runs.
        """
        if not limits:
            return limits, []
        found: dict[str, tuple[float | None, float | None]] = {}
        outside: list[str] = []
        for name, (minimum, maximum) in limits.items():
            least, most = self._ends_of[name]
            low = None if minimum is None else min(minimum, most)
            high = None if maximum is None else max(maximum, least)
            found[name] = (low, high)
            if (low, high) != (minimum, maximum):
                outside.append(name)
        return found, outside

    def bounds(self, applied: Floats, elapsed_s: float, limits: Limits | None) -> tuple[Floats, Floats]:
        """This period's bounds ``[rows]``, and the same with their room. ``applied``: ``[n]``, what ramps start from;
        ``limits``: taken where they tighten."""
        if not len(self._on_rate) and not limits:
            return self._bounds, self._allowed
        bounds = self._bounds.copy()
        if len(self._on_rate):
            bounds[self._on_rate] = self._rate_matrix @ applied + self._rates[self._on_rate] * elapsed_s
        for k, name in enumerate(self.names) if limits else ():
            if limits and name in limits and self.codes[k] is Code.CONSTRAINT_SUM:
                minimum, maximum = limits[name]
                end = maximum if self.signs[k] > 0 else None if minimum is None else -minimum
                if end is not None and end < bounds[k]:  # so asked, a NaN never wins
                    bounds[k] = end
        return bounds, bounds + self.room
