"""Soft constraints on single commands: kept in their declared order, as far as the hard ones leave room.

Each takes, of what the earlier ones left, what breaks it least: the nearest end where it can't be kept, so that a
command outside a soft range walks back into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...envs.constraint import (
    AccelerationConstraint,
    DeadbandConstraint,
    Declaration,
    RangeConstraint,
    RateConstraint,
    TransitionConstraint,
)
from .command_memory import CommandMemory, MemoryRule
from .compiled import FlatCommands, Floats, Indices
from .discrete import LevelTable, Mask, beyond, least
from .staying import Staying, staying

Kind = RangeConstraint | RateConstraint | AccelerationConstraint | DeadbandConstraint | TransitionConstraint


@dataclass(frozen=True)
class Before:
    """What a period starts from: ``applied`` ``[n]``, ``start`` the same within the hard range, and the memory."""

    applied: Floats
    start: Floats
    memory: CommandMemory
    elapsed_s: float
    period_s: float


@dataclass(frozen=True)
class Preference:
    """One soft constraint over its commands ``index`` ``[k]``; ``rows``: theirs in the table of levels."""

    constraint: Kind | None
    index: Indices
    rows: Indices
    stays: Staying | None
    illegal: Callable[[Floats], Floats] | None

    def ends(self, before: Before) -> tuple[Floats, Floats]:
        """What it allows a continuous command, ``[k]`` each; deadbands have no ends."""
        c, start = self.constraint, before.start[self.index]
        match c:
            case RangeConstraint():
                return np.full(len(start), c.minimum), np.full(len(start), c.maximum)
            case RateConstraint():
                step = c.per_second * before.elapsed_s
                return start - step, start + step
            case AccelerationConstraint():
                middle, step = start + before.memory.change[self.index], c.per_second2 * before.period_s**2
                return middle - step, middle + step
        return np.full(len(start), -np.inf), np.full(len(start), np.inf)

    def violation(self, values: Floats, before: Before) -> Floats:
        """How far each level ``[k, L]`` of a discrete command breaks it."""
        c, applied = self.constraint, before.applied[self.index, None]
        if isinstance(c, DeadbandConstraint):
            short = c.width - np.abs(values - applied)
            return np.where(values == applied, 0.0, beyond(np.maximum(short, 0.0), values))
        if self.illegal is not None:
            return self.illegal(before.applied)
        low, high = self.ends(before)
        return beyond(np.maximum(low[:, None] - values, values - high[:, None]), values)


class Preferences:
    """All soft constraints on single commands of a declaration, in their order. Compiled once; calls are pure."""

    def __init__(self, declaration: Declaration, flat: FlatCommands, table: LevelTable, rule: MemoryRule) -> None:
        found: list[Preference] = []
        for c in declaration.soft:
            stays = staying(declaration, flat, rule, c)
            if stays is not None:
                found.append(Preference(None, stays.index, table.row[stays.index], stays, None))
            elif isinstance(c, Kind):
                index = flat.index(declaration.nameplate, c.group, c.signal)
                rows = table.row[index]
                illegal = _transition(c, table, index, rows) if isinstance(c, TransitionConstraint) else None
                found.append(Preference(c, index, rows, None, illegal))
        self._continuous = tuple(p for p in found if p.rows[0] < 0)
        self._discrete = tuple(p for p in found if p.rows[0] >= 0)

    def continuous(
        self, asked: Floats, low: Floats, high: Floats, before: Before, resting: Mask | None = None
    ) -> tuple[Floats, Floats, Floats]:
        """The nearest commands ``[n]`` to ``asked`` that keep what can be kept, and the ends that are left.

        ``resting`` ``[n]``: to which commands deadbands apply, None for all.
        """
        if not self._continuous:
            return np.minimum(np.maximum(asked, low), high), low, high
        return self._within(self._continuous, asked, low, high, before, resting)

    def _within(
        self, preferences: tuple[Preference, ...], asked: Floats, low: Floats, high: Floats, before: Before,
        resting: Mask | None = None,
    ) -> tuple[Floats, Floats, Floats]:  # fmt: skip
        low, high = low.copy(), high.copy()
        deadbands: list[tuple[Indices, float, Mask]] = []
        for p in preferences:
            at = p.index
            old, near, far = before.applied[at], low[at], high[at]
            stay_open = (near <= old) & (old <= far)
            if p.stays is not None:
                stay = p.stays.bound(before.memory, before.applied) & stay_open
                low[at], high[at] = np.where(stay, old, near), np.where(stay, old, far)
            elif isinstance(p.constraint, DeadbandConstraint):
                if resting is not None:
                    stay_open &= resting[at]
                deadbands.append((at, p.constraint.width, stay_open))
            else:
                least_, most = p.ends(before)
                low[at] = np.minimum(np.maximum(least_, near), far)
                high[at] = np.minimum(np.maximum(most, near), far)
        sent = np.minimum(np.maximum(asked, low), high)
        for at, width, stay_open in deadbands:
            small = np.abs(sent[at] - before.applied[at]) < width
            sent[at] = np.where(small & stay_open, before.applied[at], sent[at])
        return sent, low, high

    def narrowed(self, low: Floats, high: Floats, before: Before) -> tuple[tuple[Floats, Floats], ...]:
        """The reach ``[n]`` left by all soft limits on continuous commands, by all but the least important, and so on.

        Deadbands leave no range, and are not among them.
        """
        found: list[tuple[Floats, Floats]] = []
        for k in range(1, len(self._continuous) + 1):
            if isinstance(self._continuous[k - 1].constraint, DeadbandConstraint):
                continue
            _, least_, most = self._within(self._continuous[:k], before.applied, low, high, before)
            found.append((least_, most))
        return tuple(reversed(found))

    def restless(self, u: Floats, low: Floats, high: Floats, before: Before) -> Indices:
        """Commands of ``u`` ``[n]`` with a change inside a deadband that could as well stay where they are, by all soft
        limits that are kept longer than the deadband."""
        found = np.zeros(len(u), dtype=bool)
        for k, p in enumerate(self._continuous):
            if isinstance(p.constraint, DeadbandConstraint):
                _, least_, most = self._within(self._continuous[:k], u, low, high, before)
                at, old = p.index, before.applied[p.index]
                change = np.abs(u[at] - old)
                small = (change > 0.0) & (change < p.constraint.width)
                found[at] |= small & (least_[at] <= old) & (old <= most[at])
        return np.flatnonzero(found)

    def discrete(self, mask: Mask, table: LevelTable, before: Before) -> Mask:
        """Of the open levels ``[m, L]`` those that keep what can be kept."""
        for p in self._discrete:
            if p.stays is not None:
                bound = np.zeros(len(mask), dtype=bool)
                bound[p.rows] = p.stays.bound(before.memory, before.applied)
                mask = table.staying(mask, bound, before.applied)
            else:
                mask = mask.copy()
                mask[p.rows] = least(mask[p.rows], p.violation(table.values[p.rows], before))
        return mask

    def __len__(self) -> int:
        return len(self._continuous) + len(self._discrete)


def _transition(
    c: TransitionConstraint, table: LevelTable, index: Indices, rows: Indices
) -> Callable[[Floats], Floats]:
    legal = table.legal(c.legal, index)
    return lambda applied: table.illegal(rows, legal, applied)
