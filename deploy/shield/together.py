"""Commands that stand in each other's way: exclusive signals of an asset, and conflicting levels of two commands.

Commands that have been brought into reach one by one come in; of those that can't stand together some are sent back.
What stands already is kept and the newcomer is refused; where both are new, the order of the nameplate decides. Since
the commands applied before stand together, and staying is open to each of them, this ends with all constraints kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ...envs.constraint import ConflictConstraint, Declaration, ExclusiveConstraint
from .compiled import FlatCommands, Floats, Indices
from .discrete import Mask, at_level, same_level

Legal = Callable[[int, float], bool]
"""Whether a command, by index, may take a value this period."""


class Reached(NamedTuple):
    """What is known of the commands ``[n]``: in force, asked, and what each could do alone this period."""

    applied: Floats
    asked: Floats
    legal: Legal
    options: Callable[[int], tuple[float, ...]]
    """Open levels of a discrete command, by index; the ends of its reach for a continuous one."""


class _Exclusive(NamedTuple):
    name: str
    at: Indices
    """``[N, S]``: the signals of each asset."""
    neutral: Floats


class _Conflict(NamedTuple):
    name: str
    at: Indices
    """``[P, 2]``: the two commands of each pair, and their levels."""
    level: Floats


class Together:
    """Exclusive and conflict constraints of a declaration, compiled; calls are pure."""

    def __init__(
        self, declaration: Declaration, flat: FlatCommands, lower: Floats, upper: Floats, stop_within: Floats
    ) -> None:
        self._neutral, self._span = flat.neutral, upper - lower
        self._lower, self._stop_within = lower, stop_within
        self.hard = tuple(r for c in declaration.hard for r in _compiled(declaration, flat, c))
        self.soft = tuple(r for c in declaration.soft for r in _compiled(declaration, flat, c))
        parts = [r.at.reshape(-1) for r in (*self.hard, *self.soft)]
        self.index: Indices = np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.intp)
        """All commands that stand in one of the constraints."""
        self._exclusive = [r for r in self.hard if isinstance(r, _Exclusive)]

    def keep(self, u: Floats, reached: Reached, preferred: Reached | None = None) -> Floats:
        """The commands ``[n]`` with newcomers refused until all can stand together; ``u`` itself if they do.

        ``preferred``: what other soft constraints leave, for the soft ones here; None: hard ones only.
        """
        sent = self._settled(u, reached, self.hard)
        if preferred is None:
            return sent
        rules = self.hard
        for rule in self.soft:
            # A soft rule joins if it and all before it can be kept in what the other soft ones leave.
            tried = self._settled(u, preferred, (*rules, rule))
            if not any(self._broken(tried, reached, r) for r in (*rules, rule)):
                sent, rules = tried, (*rules, rule)
        return sent

    def blockers(self, i: int, u: Floats) -> Iterator[tuple[str, bool, float, float]]:
        """For command ``i`` each constraint that ``u`` breaks with it: name, whether exclusive, limit and margin."""
        for rule in (*self.hard, *self.soft):
            rows = np.flatnonzero((rule.at == i).any(axis=1))
            for k in rows:
                if isinstance(rule, _Exclusive):
                    n_off = int(self._off(rule.at[k], u).sum())
                    if n_off > 1:
                        yield rule.name, True, float(self._neutral[i]), 1.0 - n_off
                elif at_level(u[rule.at[k]], rule.level[k]).all():
                    yield rule.name, False, float(rule.level[k][rule.at[k] == i][0]), -1.0

    def pinned(self, u: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """The reach ``[n]`` in which commands may still be moved without a second signal leaving neutral.

        Of an exclusive set the signals at neutral stay there; where all are at neutral, all stay.
        """
        if not self._exclusive:
            return low, high
        low, high = low.copy(), high.copy()
        for rule in self._exclusive:
            at = rule.at[~self._off(rule.at, u)]
            low[at] = high[at] = u[at]
        return low, high

    def _off(self, index: Indices, u: Floats) -> Mask:
        return ~at_level(u[index], self._neutral[index])

    def _settled(self, u: Floats, reached: Reached, rules: tuple[_Exclusive | _Conflict, ...]) -> Floats:
        """Refuse one newcomer after another, each time from ``u`` on, so that none gives way to one refused later."""
        sent, pins = u, dict[int, float]()
        exclusive = [r for r in rules if isinstance(r, _Exclusive)]
        conflicts = [r for r in rules if isinstance(r, _Conflict)]
        for _ in range(2 * len(self.index) + 2):
            for one in exclusive:
                broken = self._broken(sent, reached, one)
                if broken:
                    sent = sent.copy() if sent is u else sent
                    rows = one.at[broken]
                    numbers = (rows, one.neutral[broken], reached.applied[rows], sent[rows])
                    for row in zip(*(x.tolist() for x in numbers), strict=True):
                        self._one_of(sent, reached, pins, *row)
            clashes = [(r, k) for r in conflicts for k in self._broken(sent, reached, r)]
            refused = [self._refuse(sent, reached, conflicts, r, k, pins) for r, k in clashes]
            if not any(refused):
                return sent
            sent = u.copy()
            sent[list(pins)] = list(pins.values())
        return sent

    def _broken(self, u: Floats, reached: Reached, rule: _Exclusive | _Conflict) -> list[int]:
        """Rows of a rule that do not stand together."""
        if isinstance(rule, _Conflict):
            return list(np.flatnonzero(at_level(u[rule.at], rule.level).all(axis=1)))
        off = self._off(rule.at, u)
        # A signal that moves through its neutral value too fast to stop there is off it in all but name.
        passing = ~off & (np.abs(u - reached.applied) > self._stop_within)[rule.at]
        n_off = off.sum(axis=1) + np.where(off.any(axis=1), passing.sum(axis=1), 0)
        return list(np.flatnonzero(n_off > 1))

    def _one_of(
        self,
        sent: Floats,
        reached: Reached,
        pins: dict[int, float],
        index: list[int],
        neutrals: list[float],
        befores: list[float],
        values: list[float],
    ) -> None:
        """Let one signal of an exclusive set, ``index``, be off neutral."""
        neutral, before = dict(zip(index, neutrals, strict=True)), dict(zip(index, befores, strict=True))
        value = dict(zip(index, values, strict=True))
        rest = {i: self._rest(i, reached, pins, neutral[i], before[i], value[i]) for i in index}
        off = [i for i in index if not same_level(value[i], neutral[i])]
        must = [i for i in index if rest[i] is None]

        def rank(i: int) -> tuple[float, bool, int]:
            """The farthest wins; of equals the one that is off neutral already, then the first."""
            low, span = float(self._lower[i]), float(self._span[i])
            asked = min(max(float(reached.asked[i]), low), low + span)
            return abs(asked - neutral[i]) / (span or 1.0), not same_level(before[i], neutral[i]), -i

        winner = max(must or off, key=rank)
        for i in off:
            if i != winner:
                back = rest[i]
                sent[i] = min(reached.options(i), key=lambda v: abs(v - neutral[i])) if back is None else back

    def _rest(
        self, i: int, reached: Reached, pins: dict[int, float], neutral: float, before: float, value: float
    ) -> float | None:
        """A value at neutral that the command may take now and keep, None where there is none."""
        within = float(self._stop_within[i])
        for rest in (pins[i],) if i in pins else (value, neutral, before):
            if same_level(rest, neutral) and abs(rest - before) <= within and reached.legal(i, rest):
                return rest
        return None

    def _refuse(
        self,
        sent: Floats,
        reached: Reached,
        conflicts: list[_Conflict],
        rule: _Conflict,
        k: int,
        pins: dict[int, float],
    ) -> bool:
        """Send one command of a conflicting pair back; True where that was possible."""
        if not at_level(sent[rule.at[k]], rule.level[k]).all():
            return False  # another pair's newcomer was this one
        pair = [(int(i), float(v)) for i, v in zip(rule.at[k], rule.level[k], strict=True)]
        # First to go: a newcomer before one that stands, then the later one.
        pair.sort(key=lambda p: (not same_level(float(reached.applied[p[0]]), p[1]), p[0]), reverse=True)
        for i, level in pair:
            options = [v for v in reached.options(i) if not same_level(v, level)]
            stay = [v for v in options if same_level(v, float(reached.applied[i]))]
            if i not in pins and stay:
                sent[i] = pins[i] = stay[0]
                return True
            free = [v for v in options if not _clashes(i, v, sent, conflicts)]
            if free:
                sent[i] = pins[i] = min(free, key=lambda v: (abs(v - float(reached.asked[i])), v))
                return True
        return False


def _clashes(i: int, value: float, sent: Floats, conflicts: list[_Conflict]) -> bool:
    """Whether command ``i`` would conflict with another at ``value``."""
    tried = sent.copy()
    tried[i] = value
    return any(((r.at == i).any(axis=1) & at_level(tried[r.at], r.level).all(axis=1)).any() for r in conflicts)


def _compiled(declaration: Declaration, flat: FlatCommands, c: object) -> Iterator[_Exclusive | _Conflict]:
    plate = declaration.nameplate
    match c:
        case ExclusiveConstraint():
            index = np.stack([flat.index(plate, c.group, s) for s in c.signals], axis=1)
            yield _Exclusive(c.name, index, flat.neutral[index])
        case ConflictConstraint():
            assets = plate.group(c.group).assets
            found = [[flat.index(plate, c.group, s)[assets.index(asset)] for asset, s, _ in pair] for pair in c.pairs]
            levels = [[level for _, _, level in pair] for pair in c.pairs]
            yield _Conflict(c.name, np.array(found, dtype=np.intp), np.array(levels, dtype=np.float64))
