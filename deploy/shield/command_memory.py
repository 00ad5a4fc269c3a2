"""What earlier periods leave behind for the commands of the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import AccelerationConstraint, Declaration, DwellConstraint, SwitchesConstraint
from .compiled import FlatCommands, Floats, Indices

HOUR_S = 3600.0
HOUR_SLACK = 1e-3
"""Share of a period by which an hour may be short: whole periods that add up to an hour count as one."""


@dataclass(frozen=True)
class CommandMemory:
    """Of ``n`` commands in the flat order, as they stand when the next decision is made.

    ``change`` ``[n]``: what the last decision changed, counted from the range where it started outside. ``held_s``
    ``[n]``: seconds that the value has stood, infinite before the first change. ``changes_s`` ``[n_counted, K]``: own
    times of the last ``K`` changes of the commands whose switches are counted, the newest last, ``-inf`` where there
    was none. ``clock_s``: that own time, the sum of all seconds that passed. Only what the declaration looks back to
    is kept up to date.
    """

    change: Floats
    held_s: Floats
    changes_s: Floats
    clock_s: float = 0.0


class MemoryRule:
    """Which part of the memory a declaration needs, and how it goes on. Compiled once; calls are pure."""

    def __init__(self, declaration: Declaration, flat: FlatCommands, lower: Floats, upper: Floats) -> None:
        self._n, self._lower, self._upper = flat.n, lower, upper
        constraints = declaration.constraints
        self._changes = any(isinstance(c, AccelerationConstraint) for c in constraints)
        self._holds = any(isinstance(c, DwellConstraint) for c in constraints)
        counted = [c for c in constraints if isinstance(c, SwitchesConstraint)]
        found = [flat.index(declaration.nameplate, c.group, c.signal) for c in counted]
        self.counted: Indices = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.intp)
        """Commands whose changes are counted, in the order of ``changes_s``."""
        self.depth = max((c.per_hour for c in counted), default=0)
        self.hour_s = HOUR_S - HOUR_SLACK * declaration.nameplate.period_s
        self.needed = self._changes or self._holds or bool(counted)

    def start(self) -> CommandMemory:
        """Nothing has changed for ever."""
        n_counted = len(self.counted)
        return CommandMemory(
            np.zeros(self._n), np.full(self._n, np.inf), np.full((n_counted, self.depth), -np.inf), 0.0
        )

    def after(self, memory: CommandMemory, before: Floats, applied: Floats, elapsed_s: float) -> CommandMemory:
        """The memory once ``applied`` ``[n]``, which followed on ``before``, has stood for ``elapsed_s``.

        Time that is negative or no number counts as none, so that a clock can't shorten a dwell.
        """
        if not self.needed:
            return memory
        passed_s = elapsed_s if elapsed_s > 0.0 else 0.0
        change, held_s, changes_s = memory.change, memory.held_s, memory.changes_s
        if self._changes:
            change = applied - np.minimum(np.maximum(before, self._lower), self._upper)
        moved = applied != before
        if self._holds:
            held_s = np.where(moved, passed_s, held_s + passed_s)
        if len(self.counted):
            rows = np.flatnonzero(moved[self.counted])
            if len(rows):
                changes_s = changes_s.copy()
                changes_s[rows, :-1] = memory.changes_s[rows, 1:]
                changes_s[rows, -1] = memory.clock_s
        return CommandMemory(change, held_s, changes_s, memory.clock_s + passed_s)

    def counts(self, memory: CommandMemory, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Changes within the hour that the next decision ends, for these rows of ``changes_s``."""
        recent = memory.changes_s[rows] > memory.clock_s - self.hour_s
        return np.asarray(recent.sum(axis=1), dtype=np.int64)
