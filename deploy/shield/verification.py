"""The second look: every hard constraint once more, one float at a time, by code that the filter does not use.

Nothing here is shared with the filter but the declaration itself: no array arithmetic, own tables, own clock
arithmetic. What fails at one asset is replaced by the limiter of last resort; what assets fail together is named, and
the ladder goes on. A constraint that no command in reach can keep is met by the nearest command to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...envs.constraint import Declaration, MeasuredConstraint
from .command_table import LEVEL_TOLERANCE, Asset, Command, command_table
from .last_resort import last_resort
from .verify_coupled import CoupledCheck

TOLERANCE = 1e-9
CLOCK_SLACK = 1.002
"""Clocks in UTC seconds resolve no better; a period read 0.2 % long is still one period."""
HOUR_S = 3600.0
TIME_TOLERANCE_PU = 2e-3
"""Share of a period by which sums of elapsed times may be short: the clock's slack, once."""


class Failure(NamedTuple):
    """What one asset breaks: the first command column that fails, and the constraint's name."""

    column: int
    constraint: str


class Verdict(NamedTuple):
    """``local``: by group and asset number; ``coupled``: names of broken constraints that assets keep together."""

    local: dict[tuple[str, int], Failure]
    coupled: tuple[str, ...]

    @property
    def fine(self) -> bool:
        return not self.local and not self.coupled


class PastCommands(NamedTuple):
    """The memory of one command: last change, seconds that its value stands, times of changes; ``sound`` or not."""

    change: float
    held_s: float
    changes_s: Sequence[float]
    clock_s: float
    sound: bool


UNKNOWN = PastCommands(0.0, 0.0, (), 0.0, False)


class Verifier:
    """Checks that commands are finite, of the right shape, and within every hard constraint of a declaration.

    Look-ahead conditions are not checked again: they are a simulation, and a second one would share its faults.
    """

    def __init__(self, declaration: Declaration) -> None:
        self._commands, self._assets = command_table(declaration)
        self._every = range(len(self._commands))
        self._low = tuple(c.minimum for c in self._commands)
        self._high = tuple(c.maximum for c in self._commands)
        self._curved = tuple((k, c.per_second2) for k, c in enumerate(self._commands) if c.curved)
        self._special = tuple(k for k, c in enumerate(self._commands) if not c.plain and not c.curved)
        self._exclusive = tuple(a for a in self._assets if a.exclusive)
        self._rivals: dict[int, tuple[int, ...]] = {}
        for together in (t for a in self._exclusive for t in a.exclusive):
            for k in together.columns:
                others = tuple(j for j in together.columns if j != k)
                self._rivals[k] = self._rivals.get(k, ()) + others
        self._owner = tuple(i for i, a in enumerate(self._assets) for _ in range(a.n))
        self._place = {(a.group, a.number): a for a in self._assets}
        groups = [g for g in declaration.nameplate.groups if g.commanded]
        self._shapes = tuple((g.name, g.n_assets, len(g.commanded)) for g in groups)
        self._period_s = declaration.nameplate.period_s
        self._slack_s = TIME_TOLERANCE_PU * self._period_s
        self._steps = self._step_table(self._period_s)
        self._coupled = CoupledCheck(declaration, self._commands, self._place)
        self._backward = tuple(k for k, c in enumerate(self._commands) if c.looks_back)
        self.unverified = tuple(c.name for c in declaration.hard if isinstance(c, MeasuredConstraint))

    def elapsed_s(self, before_s: float | None, now_s: float, confirmed: bool) -> float:
        """Seconds of change that are allowed: none after an unconfirmed write, at most one period."""
        if not confirmed:
            return 0.0
        if before_s is None:
            return self._period_s
        passed = now_s - before_s
        if not passed > 0.0:  # backwards, standing still or NaN
            return 0.0
        return self._period_s if passed * CLOCK_SLACK >= self._period_s else passed

    def failures(
        self,
        commands: Mapping[str, Any],
        applied: Mapping[str, Any],
        elapsed_s: float,
        memory: Any = None,
        measured: Mapping[str, Any] | None = None,
        limits: Mapping[str, tuple[float | None, float | None]] | None = None,
        seen: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """Judge ``commands`` ``[N, A]`` a group after ``applied`` ``[N, A]`` a group.

        ``memory``: ``change`` and ``held_s`` ``[n]``, ``changes_s`` ``[n_counted, K]`` and ``clock_s``, over all
        commands in the nameplate's order; without it, a command that must look back may only stand still.
        ``measured``: ``[N, O]`` a group, as guarded; ``seen``: for a site's own rows, ``measured`` without it.
        ``limits``: minimum and maximum of sums by name, taken where they tighten. Never raises.
        """
        values, before = self._read(commands), self._read(applied)
        past = self._past(memory)
        local: dict[tuple[str, int], Failure] = {}
        steps = self._steps if elapsed_s == self._period_s else self._step_table(elapsed_s)
        suspects = [
            k
            for k, v, b, low, high, step in zip(self._every, values, before, self._low, self._high, steps, strict=True)
            if not (low <= v <= high and -step <= v - b <= step)
        ]
        for k in suspects:
            self._judge(k, values[k], before[k], elapsed_s, past, local)
        for k, per_second2 in self._curved:
            q = per_second2 * elapsed_s * elapsed_s
            if not (past[k].sound and -q <= values[k] - before[k] - past[k].change <= q):
                self._judge(k, values[k], before[k], elapsed_s, past, local)
        for k in self._special:
            self._judge(k, values[k], before[k], elapsed_s, past, local)
        for asset in self._exclusive:
            self._judge_exclusive(asset, values, before, elapsed_s, past, local)

        def reach(k: int) -> tuple[float, ...]:
            rivals = self._rivals.get(k, ())
            rests = [_at(values[j], self._commands[j].neutral) for j in rivals]
            if not all(rests) and _at(values[k], self._commands[k].neutral):
                return (values[k],)  # a rival has the right to be off neutral, so that this one has none
            return self._reach(k, before[k], elapsed_s, past)

        seen = measured if seen is None else seen
        return Verdict(local, self._coupled.broken(values, before, reach, elapsed_s, measured, seen, limits))

    def last_resort(
        self, applied: Mapping[str, Any], group: str, asset: int, elapsed_s: float, memory: Any = None
    ) -> list[float]:
        """A safe command for one asset ``[A]``: from the last applied one towards its safe state. Never raises."""
        return self.last_resorts(applied, [(group, asset)], elapsed_s, memory)[0]

    def last_resorts(
        self, applied: Mapping[str, Any], places: Iterable[tuple[str, int]], elapsed_s: float, memory: Any = None
    ) -> list[list[float]]:
        """The same for several assets, by group and number; what is applied is read once for all. Never raises."""
        before, past = self._read(applied), self._past(memory)
        change = [p.change for p in past]
        locked = [self._locked(c, b, p) != "" for c, b, p in zip(self._commands, before, past, strict=True)]
        assets = [self._place[place] for place in places]
        return [last_resort(asset, self._commands, before, change, locked, elapsed_s) for asset in assets]

    def _read(self, arrays: Any) -> list[float]:
        """All numbers in the nameplate's order; NaN for what is missing, misshapen or no number."""
        found: list[float] = []
        for name, n_assets, n_signals in self._shapes:
            try:
                array = arrays[name]
                if array.shape == (n_assets, n_signals) and array.dtype.kind == "f":
                    found += array.ravel().tolist()
                    continue
            except Exception:  # noqa: BLE001 - no array: read number by number below
                array = arrays.get(name) if hasattr(arrays, "get") else None
            for i in range(n_assets):
                for a in range(n_signals):
                    found.append(_number(array, i, a))
        return found

    def _step_table(self, elapsed_s: float) -> tuple[float, ...]:
        return tuple(_step(c, elapsed_s) for c in self._commands)

    def _past(self, memory: Any) -> Sequence[PastCommands]:
        if not self._backward or memory is None:
            return (UNKNOWN,) * len(self._commands)
        try:
            change, held_s = _plain(memory.change), _plain(memory.held_s)
            changes_s, clock_s = _plain(memory.changes_s), float(memory.clock_s)
            found = [UNKNOWN] * len(self._commands)
            if len(change) != len(found) or len(held_s) != len(found):
                return found
            for k in self._backward:
                counted = self._commands[k].counted
                found[k] = _of_one(change[k], held_s[k], changes_s[counted] if counted >= 0 else (), clock_s)
            return found
        except Exception:  # noqa: BLE001 - no memory that can be read is no memory
            return (UNKNOWN,) * len(self._commands)

    def _judge(
        self, k: int, value: float, before: float, elapsed_s: float, past: Sequence[PastCommands],
        found: dict[tuple[str, int], Failure],
    ) -> None:  # fmt: skip
        asset = self._assets[self._owner[k]]
        if (asset.group, asset.number) not in found:
            name = self._fault(self._commands[k], value, before, elapsed_s, past[k])
            if name is not None:
                found[asset.group, asset.number] = Failure(k - asset.first, name)

    def _fault(self, c: Command, value: float, before: float, elapsed_s: float, past: PastCommands) -> str | None:
        """The first constraint of one command that ``value`` breaks, or None."""
        if not math.isfinite(value) or not c.minimum <= value <= c.maximum:
            return c.names["range"]
        if c.levels is not None:
            return self._level_fault(c, value, before, elapsed_s, past)
        if not math.isfinite(before):
            return None
        low, high = self._interval(c, before, elapsed_s, past)
        slack = TOLERANCE * (1.0 + abs(value) + abs(before))
        if low - slack <= value <= high + slack:
            return None
        start = min(max(before, c.minimum), c.maximum)
        if abs(value - start) > _step(c, elapsed_s) + slack:
            return c.names["rate"]
        return self._locked(c, before, past) or c.names.get("acceleration", c.names["rate"])

    def _level_fault(self, c: Command, value: float, before: float, elapsed_s: float, past: PastCommands) -> str | None:
        if value not in (c.levels or ()):
            return c.names["range"]
        here = c.level(before)
        if value == here or not math.isfinite(before):
            return None
        start = min(max(before, c.minimum), c.maximum)
        near = abs(value - start) <= _step(c, elapsed_s) + TOLERANCE * (1.0 + abs(value) + abs(start))
        if here is None:  # between levels or out of range: any level in reach, else the nearest
            closest = min(abs(v - before) for v in c.levels or ())
            return None if near or abs(value - before) <= closest else c.names["rate"]
        if not near:
            return c.names["rate"]
        if c.legal is not None and (here, value) not in c.legal:
            return c.names["transition"]
        return self._locked(c, before, past) or None

    def _locked(self, c: Command, before: float, past: PastCommands) -> str:
        """The constraint that forbids any change now, empty where none does."""
        if not c.looks_back or not c.minimum <= before <= c.maximum:
            return ""  # the way back into the range is free
        for dwell in c.dwells:
            bound = dwell.level is None or abs(before - dwell.level) <= LEVEL_TOLERANCE * (1.0 + abs(dwell.level))
            if bound and not (past.sound and past.held_s >= dwell.minimum_s - self._slack_s):
                return dwell.name
        for per_hour, name in c.switches:
            recent = sum(past.clock_s - t < HOUR_S - self._slack_s for t in past.changes_s)
            if not past.sound or recent >= per_hour:
                return name
        return c.names["acceleration"] if c.per_second2 < math.inf and not past.sound else ""

    def _interval(self, c: Command, before: float, elapsed_s: float, past: PastCommands) -> tuple[float, float]:
        """What range, rate, acceleration and memory leave of a continuous command; each wins over those after it."""
        start = min(max(before, c.minimum), c.maximum)
        step = _step(c, elapsed_s)
        low, high = max(c.minimum, start - step), min(c.maximum, start + step)
        if c.per_second2 < math.inf and start == before and past.sound:
            # a part of a period lets a change grow by that part, and brake as in a whole one
            q = c.per_second2 * self._period_s * self._period_s
            grow, change = q * min(elapsed_s / self._period_s, 1.0), past.change
            least, most = min(change - grow, max(change - q, 0.0)), max(change + grow, min(change + q, 0.0))
            low, high = min(max(before + least, low), high), max(min(before + most, high), low)
        if self._locked(c, before, past):
            low = high = min(max(start, low), high)
        return low, high

    def _reach(self, k: int, before: float, elapsed_s: float, past: Sequence[PastCommands]) -> tuple[float, ...]:
        """What one command can be this period: its two ends, or all its legal levels."""
        c = self._commands[k]
        if c.levels is not None:
            return tuple(v for v in c.levels if self._fault(c, v, before, elapsed_s, past[k]) is None) or (before,)
        if not math.isfinite(before):
            return c.minimum, c.maximum
        return self._interval(c, before, elapsed_s, past[k])

    def _judge_exclusive(
        self, asset: Asset, values: Sequence[float], before: Sequence[float], elapsed_s: float,
        past: Sequence[PastCommands], found: dict[tuple[str, int], Failure],
    ) -> None:  # fmt: skip
        for together in asset.exclusive:
            off = [k for k in together.columns if not _at(values[k], self._commands[k].neutral)]
            if len(off) <= 1 or (asset.group, asset.number) in found:
                continue
            # More than one off neutral is right only where no other command keeps it, and all but one come nearer.
            reaches = [self._reach(k, before[k], elapsed_s, past) for k in off]
            back = [_contains(self._commands[k], r) for k, r in zip(off, reaches, strict=True)]
            lazy = [
                not abs(values[k] - n) <= min(abs(v - n) for v in reach) + TOLERANCE * (1.0 + abs(n))
                for k, reach in zip(off, reaches, strict=True)
                for n in [self._commands[k].neutral]
            ]
            if any(back) or sum(lazy) > 1:
                k = off[back.index(True) if any(back) else lazy.index(True)]
                found[asset.group, asset.number] = Failure(k - asset.first, together.name)


def _contains(c: Command, reach: Sequence[float]) -> bool:
    """Whether neutral is in reach."""
    return c.neutral in reach if c.levels is not None else min(reach) <= c.neutral <= max(reach)


def _step(c: Command, elapsed_s: float) -> float:
    return math.inf if c.per_second == math.inf else c.per_second * elapsed_s


def _at(value: float, level: float) -> bool:
    return abs(value - level) <= LEVEL_TOLERANCE * (1.0 + abs(level))


def _number(array: Any, i: int, a: int) -> float:
    try:
        if len(array) <= i or len(array[i]) <= a:
            return math.nan
        value = array[i][a]
        if isinstance(value, bool | str | bytes | complex):
            return math.nan
        return float(value)
    except Exception:  # noqa: BLE001 - whatever it is, it is no number
        return math.nan


def _plain(array: Any) -> Any:
    return array.tolist() if hasattr(array, "tolist") else array


def _of_one(change: float, held_s: float, changes_s: Sequence[float], clock_s: float) -> PastCommands:
    """A memory is sound if its numbers can have come about: no negative times, none from the future."""
    sound = math.isfinite(change) and held_s >= 0.0 and math.isfinite(clock_s) and all(t <= clock_s for t in changes_s)
    return PastCommands(change, held_s, changes_s, clock_s, sound)
