"""Which commands have to stay as they are for now: dwell times and counted switches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...envs.constraint import Constraint, Declaration, DwellConstraint, SwitchesConstraint
from .command_memory import CommandMemory, MemoryRule
from .compiled import FlatCommands, Floats, Indices
from .discrete import TOLERANCE, Mask, at_level


@dataclass(frozen=True)
class Staying:
    """One dwell or switches constraint over its commands ``index`` ``[k]``; ``rows``: where the memory counts them."""

    constraint: DwellConstraint | SwitchesConstraint
    index: Indices
    rows: Indices
    rule: MemoryRule

    def bound(self, memory: CommandMemory, applied: Floats) -> Mask:
        """Which of its commands ``[k]`` may not change; ``applied`` is ``[n]``."""
        c = self.constraint
        if isinstance(c, SwitchesConstraint):
            return np.asarray(self.rule.counts(memory, self.rows) >= c.per_hour)
        held = memory.held_s[self.index] < c.minimum_s - TOLERANCE
        return held if c.level is None else held & at_level(applied[self.index], np.asarray(c.level))


def staying(declaration: Declaration, flat: FlatCommands, rule: MemoryRule, c: Constraint) -> Staying | None:
    """The compiled constraint, None for one of another kind."""
    if not isinstance(c, DwellConstraint | SwitchesConstraint):
        return None
    index = flat.index(declaration.nameplate, c.group, c.signal)
    return Staying(c, index, np.searchsorted(rule.counted, index), rule)
