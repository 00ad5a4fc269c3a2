"""Why a command was changed: asked one at a time, only of commands that were."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...envs.constraint import (
    AccelerationConstraint,
    Constraint,
    DeadbandConstraint,
    Declaration,
    DwellConstraint,
    RangeConstraint,
    RateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
)
from .command_memory import CommandMemory, MemoryRule
from .compiled import FlatCommands, Floats
from .decision import Code
from .discrete import same_level
from .together import Together

SLACK = 1e-12
"""How far a command may pass a limit and still count as within it, relative to its size: rounding, no more."""

_ORDER = (
    RangeConstraint,
    RateConstraint,
    AccelerationConstraint,
    TransitionConstraint,
    DwellConstraint,
    SwitchesConstraint,
    DeadbandConstraint,
)
_CODES: dict[type, Code] = {
    RangeConstraint: Code.COMMAND_RANGE,
    RateConstraint: Code.COMMAND_RATE,
    AccelerationConstraint: Code.CONSTRAINT_ACCELERATION,
    TransitionConstraint: Code.CONSTRAINT_TRANSITION,
    DwellConstraint: Code.CONSTRAINT_DWELL,
    SwitchesConstraint: Code.CONSTRAINT_SWITCHES,
    DeadbandConstraint: Code.CONSTRAINT_DEADBAND,
}


class Why(NamedTuple):
    """``limit``: the number that decided, in the constraint's unit, None where there is none. ``margin``: how far what
    was asked is inside it, below 0 beyond."""

    code: Code
    constraint: str
    limit: float | None
    margin: float | None


class LocalReasons:
    """Names the first constraint, in the order in which they are kept, that refuses what was asked."""

    def __init__(self, declaration: Declaration, flat: FlatCommands, rule: MemoryRule, together: Together) -> None:
        plate = declaration.nameplate
        self._rule, self._together = rule, together
        self._period_s = plate.period_s
        self._of: dict[int, list[Constraint]] = {}
        self._levels: dict[int, tuple[float, ...]] = {}
        for group in plate.groups:
            for s in group.commanded:
                for i in flat.index(plate, group.name, s.name):
                    self._of[int(i)] = []
                    if s.levels is not None:
                        self._levels[int(i)] = s.levels
        ranked = sorted((c for c in declaration.hard if isinstance(c, _ORDER)), key=lambda c: _ORDER.index(type(c)))
        for c in (*ranked, *(c for c in declaration.soft if isinstance(c, _ORDER))):
            for i in flat.index(plate, c.group, c.signal):
                self._of[int(i)].append(c)
        self._hard: dict[int, list[Constraint]] = {
            i: [c for c in found if c.priority is None] for i, found in self._of.items()
        }
        self._ranges = {i: [c for c in found if isinstance(c, RangeConstraint)] for i, found in self._hard.items()}

    def why(
        self, i: int, asked: Floats, sent: Floats, memory: CommandMemory, applied: Floats, low: Floats, high: Floats
    ) -> Why | None:
        """The constraint that decided for command ``i``; None where none of these refuses it."""
        value, before = asked.item(i), applied.item(i)
        least, most = low.item(i), high.item(i)
        slack = SLACK * (1.0 + abs(value))
        inside = min(value - least, most - value)  # how far within the reach
        reached = inside >= -slack
        levels = self._levels.get(i)
        hard = self._hard[i]
        for r in self._ranges[i]:
            if not r.minimum <= value <= r.maximum:
                end = r.minimum if value < r.minimum else r.maximum
                return Why(Code.COMMAND_RANGE, r.name, end, min(value - r.minimum, r.maximum - value))
        if levels is not None and value not in levels:
            nearest = min(abs(value - v) for v in levels)
            return Why(Code.COMMAND_LEVEL, "", None, -nearest)
        for c in hard:
            found = self._refuses(i, c, value, before, memory, inside, reached, hard)
            if found is not None:
                return found
        for name, exclusive, limit, margin in self._together.blockers(i, asked):
            code = Code.CONSTRAINT_EXCLUSIVE if exclusive else Code.CONSTRAINT_CONFLICT
            return Why(code, name, limit, margin)
        for soft in self._of[i]:
            if soft.priority is not None and (margin := self._margin(i, soft, value, before, memory)) < -slack:
                return Why(_CODES[type(soft)], soft.name, _limit(soft, value), margin)
        return None

    def _refuses(
        self,
        i: int,
        c: Constraint,
        value: float,
        before: float,
        memory: CommandMemory,
        inside: float,
        reached: bool,
        hard: list[Constraint],
    ) -> Why | None:
        if isinstance(c, RangeConstraint) or (reached and not isinstance(c, TransitionConstraint)):
            return None
        margin = self._margin(i, c, value, before, memory)
        if margin >= 0.0 and isinstance(c, AccelerationConstraint | RateConstraint):
            # The reach knows more: less than a period has passed, rates are reduced, or room to brake is kept.
            rest = [d for d in hard if not isinstance(d, RangeConstraint) and d is not c]
            if any(self._margin(i, d, value, before, memory) < 0.0 for d in rest):
                return None
            if isinstance(c, RateConstraint) and any(isinstance(d, AccelerationConstraint) for d in rest):
                return None
            margin = inside
        if margin < 0.0:
            return Why(_CODES[type(c)], c.name, _limit(c, value), margin)
        return None

    def _margin(self, i: int, c: Constraint, value: float, before: float, memory: CommandMemory) -> float:
        """By how much a constraint of one command is kept, in its unit."""
        moved = value != before
        match c:
            case RangeConstraint():
                return min(value - c.minimum, c.maximum - value)
            case RateConstraint():
                return c.per_second * self._period_s - abs(value - self._start(i, before))
            case AccelerationConstraint():
                return c.per_second2 * self._period_s**2 - abs(value - self._start(i, before) - float(memory.change[i]))
            case TransitionConstraint():
                legal = not moved or any(same_level(before, a) and same_level(value, b) for a, b in c.legal)
                return 1.0 if legal else -1.0
            case DwellConstraint():
                bound = moved and (c.level is None or same_level(before, c.level))
                return float(memory.held_s[i]) - c.minimum_s if bound else c.minimum_s
            case SwitchesConstraint():
                row = self._rule.counted.searchsorted([i])
                return float(c.per_hour - int(self._rule.counts(memory, row)[0]) - moved)
            case DeadbandConstraint():
                return abs(value - before) - c.width if moved else c.width
        return math.inf

    def _start(self, i: int, before: float) -> float:
        for c in self._ranges[i]:
            return min(max(before, c.minimum), c.maximum)
        return before


def _limit(c: Constraint, value: float) -> float | None:
    match c:
        case RangeConstraint():
            return c.minimum if value < c.minimum else c.maximum
        case RateConstraint():
            return c.per_second
        case AccelerationConstraint():
            return c.per_second2
        case DwellConstraint():
            return c.minimum_s
        case SwitchesConstraint():
            return float(c.per_hour)
        case DeadbandConstraint():
            return c.width
    return None
