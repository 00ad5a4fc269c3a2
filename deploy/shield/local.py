"""Limits that each asset keeps for itself, in closed form, on the flat vector of all commands.

Hard constraints that can't all be kept at once are given up from the end of this order:

    finite > range (and levels) > rate > acceleration > transition > dwell > switches

Each takes, of what the earlier ones left, what breaks it least, so that something is always left: a command that is
outside its range comes back at once, even if it should have stayed for another minute. From a state that was reached
under these rules nothing has to be given up. Exclusive signals and conflicting levels come after all of them, soft
constraints after the hard ones in their declared order, soft exclusive and conflict ones last.
"""

from __future__ import annotations

import numpy as np

from ...envs.constraint import Declaration, DwellConstraint, SwitchesConstraint, effective_limits
from .braking import changes_within_reach
from .command_memory import CommandMemory, MemoryRule
from .compiled import FlatCommands, Floats, Indices
from .discrete import TOLERANCE, LevelTable, Mask
from .local_reasons import LocalReasons, Why
from .preferences import Before, Preferences
from .staying import Staying, staying
from .together import Reached, Together

_NONE: Indices = np.zeros(0, dtype=np.intp)
_ROUNDS = 4
"""What soft exclusive and conflict constraints refuse can make room for others; so often they are asked again."""


class LocalLimits:
    """The limits of one site, compiled; calls are pure. Commands applied before must be finite, in the flat order."""

    def __init__(self, declaration: Declaration, flat: FlatCommands) -> None:
        plate = declaration.nameplate
        self._period_s = plate.period_s
        self.lower, self.upper = np.empty(flat.n), np.empty(flat.n)
        """The hard range of each command, ``[n]``."""
        self._step, self._brake = np.empty(flat.n), np.empty(flat.n)  # what a whole period allows
        for (group, signal), limit in effective_limits(plate, declaration.constraints).items():
            at = flat.index(plate, group, signal)
            self.lower[at], self.upper[at] = limit.minimum, limit.maximum
            self._step[at] = limit.per_second * self._period_s
            self._brake[at] = limit.per_second2 * self._period_s**2
        self._rule = MemoryRule(declaration, flat, self.lower, self.upper)
        self.remembers = self._rule.needed
        """Whether :meth:`after` has anything to keep up to date."""
        self._table = LevelTable(declaration, flat, self.lower, self.upper, self._step, self._brake)
        self.discrete: Mask = self._table.row >= 0
        """Which commands have levels, ``[n]``."""
        # What has levels, or has to stay once it has changed, may not get faster than it can stop in one period.
        at_once = self.discrete.copy()
        for c in declaration.hard:
            if isinstance(c, DwellConstraint | SwitchesConstraint):
                at_once[flat.index(plate, c.group, c.signal)] = True
        self._step[at_once] = np.minimum(self._step, self._brake)[at_once]
        self._no_step = np.where(np.isinf(self._step), np.inf, 0.0)
        self._braked: Indices = np.flatnonzero(np.isfinite(self._brake) & ~self.discrete)
        self._braked_lower, self._braked_upper = self.lower[self._braked], self.upper[self._braked]
        self._braked_step, self._braked_brake = self._step[self._braked], self._brake[self._braked]
        found = [staying(declaration, flat, self._rule, c) for c in declaration.hard]
        # Dwell before switches makes no difference: both leave the same single value.
        self._staying: tuple[Staying, ...] = tuple(s for s in found if s is not None)
        self._preferences = Preferences(declaration, flat, self._table, self._rule)
        self._together = Together(declaration, flat, self.lower, self.upper, self._brake)
        self._reasons = LocalReasons(declaration, flat, self._rule, self._together)
        self._memoryless = not (len(self._braked) or self._staying or len(self._table.index))
        self._paired: Mask = np.zeros(flat.n, dtype=bool)
        self._paired[self._together.index] = True
        self._plain = not (len(self._table.index) or len(self._preferences) or len(self._together.index))

    def start(self) -> CommandMemory:
        """The memory before the first period."""
        return self._rule.start()

    def after(self, memory: CommandMemory, before: Floats, applied: Floats, elapsed_s: float) -> CommandMemory:
        """The memory once ``applied`` ``[n]``, accepted by the plant after ``before``, has stood for ``elapsed_s``."""
        return self._rule.after(memory, before, applied, elapsed_s)

    def reach(
        self, memory: CommandMemory, applied: Floats, elapsed_s: float, rate_share: float | Floats = 1.0
    ) -> tuple[Floats, Floats]:
        """Lowest and highest command ``[n]`` that hard constraints leave this period; never empty.

        ``elapsed_s``: since the last decision, at most a period. ``rate_share``: part of the rates that may be used,
        above 0 up to 1, for all or ``[n]``. Between the ends of a discrete command not every level need be legal.
        """
        share = min(max(elapsed_s / self._period_s, 0.0), 1.0)
        full = self._step if share == 1.0 else self._step * share if share > 0.0 else self._no_step
        step = full if isinstance(rate_share, float) and rate_share == 1.0 else full * rate_share
        # from outside, the way back to the nearest end of the range is free, and no more than that
        low = np.maximum(self.lower, np.minimum(applied - step, self.upper))
        high = np.minimum(self.upper, np.maximum(applied + step, self.lower))
        if self._memoryless:
            return low, high
        start = np.minimum(np.maximum(applied, self.lower), self.upper)
        if len(self._braked):
            at, lower, upper = self._braked, self._braked_lower, self._braked_upper
            here = start[at]
            slowed = None if step is self._step else (step[at], full[at], share)
            least, most = changes_within_reach(
                here, memory.change[at], lower, upper, self._braked_step, self._braked_brake, slowed
            )
            low[at] = np.minimum(np.maximum(here + least, lower), upper)
            high[at] = np.minimum(np.maximum(here + most, lower), upper)
        bound = self._bound(memory, applied)
        if bound is not None:
            slack = TOLERANCE * (1.0 + np.abs(applied))  # of the brake, never of the range
            stay = bound & (applied == start) & (low - slack <= applied) & (applied <= high + slack)
            low, high = np.where(stay, applied, low), np.where(stay, applied, high)
        if len(self._table.index):
            mask = self._table.reachable(start, applied, step, memory.change, self._brake)
            if bound is not None:
                mask = self._table.staying(mask, bound[self._table.index], applied)
            low[self._table.index], high[self._table.index] = self._table.ends(mask)
        return low, high

    def keep(
        self,
        asked: Floats,
        memory: CommandMemory,
        applied: Floats,
        low: Floats,
        high: Floats,
        elapsed_s: float | None = None,
        *,
        resting: bool = True,
    ) -> Floats:
        """The legal commands ``[n]`` nearest to ``asked`` ``[n]``, which is finite; legal ones come back unchanged.

        ``low``, ``high``: from :meth:`reach`. ``elapsed_s``: for soft rates, a whole period where it is left out.
        ``resting`` False leaves deadbands to :meth:`restless`, but for exclusive and conflicting commands.
        """
        if self._plain:
            return np.minimum(np.maximum(asked, low), high)
        before = self._before(memory, applied, elapsed_s)
        sent = self._kept(asked, before, low, high, resting)
        for _ in range(_ROUNDS if self._together.soft else 0):
            again = self._kept(sent, before, low, high, resting)
            if np.array_equal(again, sent):
                break
            sent = again
        return sent

    def preferred(
        self, memory: CommandMemory, applied: Floats, low: Floats, high: Floats, elapsed_s: float
    ) -> tuple[tuple[Floats, Floats], ...]:
        """The reach ``[n]`` inside ``low`` to ``high`` that soft limits on continuous commands leave, tightest first,
        each next one without the least important of those before; empty where there are none."""
        if self._plain:
            return ()
        return self._preferences.narrowed(low, high, self._before(memory, applied, elapsed_s))

    def restless(
        self, u: Floats, memory: CommandMemory, applied: Floats, low: Floats, high: Floats, elapsed_s: float
    ) -> Indices:
        """Commands of ``u`` ``[n]`` whose change is inside a deadband, and which nothing of their own moves.

        A coupled stage takes these changes back where what is shared is still kept; see ``resting`` of :meth:`keep`.
        """
        if self._plain:
            return _NONE
        found = self._preferences.restless(u, low, high, self._before(memory, applied, elapsed_s))
        return found[~self._paired[found]] if len(found) else found

    def _before(self, memory: CommandMemory, applied: Floats, elapsed_s: float | None) -> Before:
        start = np.minimum(np.maximum(applied, self.lower), self.upper)
        passed_s = self._period_s if elapsed_s is None else min(max(elapsed_s, 0.0), self._period_s)
        return Before(applied, start, memory, passed_s, self._period_s)

    def _kept(self, asked: Floats, before: Before, low: Floats, high: Floats, resting: bool) -> Floats:
        applied = before.applied
        sent, least, most = self._preferences.continuous(asked, low, high, before, None if resting else self._paired)
        at = self._table.index
        mask = wished = self._table.within(low, high, applied)
        if len(at):
            wished = self._preferences.discrete(mask, self._table, before)
            sent[at] = self._table.nearest(wished, np.minimum(np.maximum(asked[at], low[at]), high[at]))
        if not len(self._together.index):
            return sent
        reached = self._reached(asked, mask, applied, low, high)
        return self._together.keep(sent, reached, self._reached(asked, wished, applied, least, most))

    def settle(
        self, u: Floats, memory: CommandMemory, applied: Floats, low: Floats, high: Floats, relief: Floats
    ) -> Floats:
        """Commands ``[n]`` that a coupled stage moved, with discrete ones back at legal levels.

        ``relief`` ``[n]``: which way a command relieves what it shares with others, -1, 0 or 1; a level on that side
        is taken where there is one. Continuous commands stay as they are, save a second exclusive signal off neutral.
        """
        at = self._table.index
        if not len(at) and not len(self._together.index):
            return u
        mask = self._table.within(low, high, applied)
        sent = u.copy()
        if len(at):
            sent[at] = self._table.nearest(mask, u[at], relief[at])
        return self._together.keep(sent, self._reached(u, mask, applied, low, high))

    def pinned(self, u: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """The reach ``[n]`` in which a coupled stage may move commands ``u`` that :meth:`keep` gave.

        Exclusive signals at neutral stay there, so that :meth:`settle` has none to bring back.
        """
        return self._together.pinned(u, low, high)

    def why(
        self, i: int, asked: Floats, sent: Floats, memory: CommandMemory, applied: Floats, low: Floats, high: Floats
    ) -> Why | None:
        """Which constraint changed command ``i``; None where no local one refuses ``asked`` ``[n]``."""
        return self._reasons.why(i, asked, sent, memory, applied, low, high)

    def _bound(self, memory: CommandMemory, applied: Floats) -> Mask | None:
        """Commands ``[n]`` that hard dwell times and switches keep where they are; None where there are no such."""
        if not self._staying:
            return None
        bound = np.zeros(len(applied), dtype=bool)
        for s in self._staying:
            bound[s.index] |= s.bound(memory, applied)
        return bound

    def _reached(self, asked: Floats, mask: Mask, applied: Floats, low: Floats, high: Floats) -> Reached:
        row, values = self._table.row, self._table.values

        def options(i: int) -> tuple[float, ...]:
            k = row[i]
            return (float(low[i]), float(high[i])) if k < 0 else tuple(values[k][mask[k]].tolist())

        def legal(i: int, value: float) -> bool:
            return value in options(i) if row[i] >= 0 else bool(low[i] <= value <= high[i])

        return Reached(applied, asked, legal, options)
