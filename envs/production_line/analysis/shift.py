"""When did a machine change? A generalised likelihood ratio over all moments at which it might have.

Each machine has three chances: of a cycle to make a part, of a slot of work to end in a stop, of a slot down to end in
a repair. For each, trials and successes are kept since its last change. Every few trials, for each moment in between,
the likelihood of two chances, one before and one after, is held against that of one; where two are better by
``alarm_nats``, it has changed, and what was before the best moment is forgotten (Siegmund & Venkatraman 1995, Annals of
Statistics 23(1); the CUSUM whose new level is not known). So the window on each slides by itself: long while nothing
changes, short right after a change.

Where trials vary more than independent ones do, the ratio is divided by how much more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .record import LineRecord

Floats = NDArray[np.float64]
LEAST_TRIALS = 15.0
"""On both sides of a moment: fewer tell nothing."""
_BLOCK_TRIALS = 5.0
_MOST_BLOCKS = 512
_LEAST_BLOCKS_TO_SPREAD = 30


@dataclass(frozen=True)
class Shift:
    """A ``machine``'s chance changed after ``period``; seen at ``seen``, in periods from the beginning."""

    machine: int
    what: Literal["efficiency", "failures", "repairs"]
    period: int
    seen: int
    before: float
    after: float


class _Chance:
    """Cumulative counts of one chance since its last change, in blocks of periods."""

    def __init__(self, start: int) -> None:
        self.ends, self.trials, self.made = [start], [0.0], [0.0]
        self._open_trials = self._open_made = 0.0

    def add(self, period: int, trials: float, made: float) -> bool:
        """Count a period; returns whether it ended a block."""
        self._open_trials += trials
        self._open_made += made
        if self._open_trials < _BLOCK_TRIALS:
            return False
        self.ends.append(period)
        self.trials.append(self.trials[-1] + self._open_trials)
        self.made.append(self.made[-1] + self._open_made)
        self._open_trials = self._open_made = 0.0
        if len(self.ends) > _MOST_BLOCKS:  # coarser where it is long ago; the latest half as it came
            half = _MOST_BLOCKS // 2
            self.ends[:half] = self.ends[:half:2]
            self.trials[:half] = self.trials[:half:2]
            self.made[:half] = self.made[:half:2]
        return True

    def split(self, alarm_nats: float) -> tuple[int, float, float] | None:
        """Index of the block after which it changed, efficiency before and after; None where it did not."""
        if not self.made[-1]:
            return None
        n, k = np.array(self.trials), np.array(self.made)
        rest_n, rest_k = n[-1] - n, k[-1] - k
        fair = (n >= LEAST_TRIALS) & (rest_n >= LEAST_TRIALS)
        if not fair.any():
            return None
        gain = _best(n, k) + _best(rest_n, rest_k) - _best(n[-1:], k[-1:])
        gain = np.where(fair, gain, -np.inf)
        at = int(gain.argmax())
        if gain[at] <= alarm_nats or gain[at] / self._spread(at) <= alarm_nats:
            return None
        return at, min(1.0, float(k[at] / n[at])), min(1.0, float(rest_k[at] / rest_n[at]))

    def _spread(self, at: int) -> float:
        """Variance of blocks over that of independent cycles, at least one; of both sides of ``at`` apart."""
        n, k = np.diff(self.trials), np.diff(self.made)
        worth = n > 0
        if worth.sum() < _LEAST_BLOCKS_TO_SPREAD:
            return 1.0
        side = np.arange(len(n)) >= at
        total, expected = 0.0, 0.0
        for mine in (worth & side, worth & ~side):
            if mine.any():
                p = np.clip(k[mine].sum() / n[mine].sum(), 1e-3, 1 - 1e-3)
                total += float((((k[mine] - n[mine] * p) ** 2) / n[mine]).sum())
                expected += float(mine.sum() * p * (1 - p))
        return max(1.0, total / expected)


class ShiftWatch:
    """Watches ``n`` chances; give it every period's counts by :meth:`take`."""

    def __init__(self, n: int, alarm_nats: float) -> None:
        self._alarm_nats = alarm_nats
        self._chances = [_Chance(0) for _ in range(n)]
        self._period = 0

    @property
    def since(self) -> tuple[int, ...]:
        """Of each chance, the period from which on it has been as it is."""
        return tuple(c.ends[0] for c in self._chances)

    def counts(self) -> tuple[Floats, Floats]:
        """Trials and successes, ``[n]``, since each chance's last change."""
        return np.array([c.trials[-1] for c in self._chances]), np.array([c.made[-1] for c in self._chances])

    def take(self, trials: Floats, made: Floats) -> list[tuple[int, int, float, float]]:
        """One period's counts ``[n]``; returns what has changed: which, after which period, from and to what."""
        self._period += 1
        found = []
        for i, chance in enumerate(self._chances):
            ends = chance.add(self._period, float(trials[i]), float(made[i]))
            split = chance.split(self._alarm_nats) if ends else None
            if split is not None:
                at, before, after = split
                found.append((i, chance.ends[at], before, after))
                self._chances[i] = _rest(chance, at)
        return found

    def memory(self) -> Floats:
        """All of it, ``[R, 4]``: the period; then of each chance its blocks and, with an end of -1, its open counts."""
        found = [(-1.0, float(self._period), 0.0, 0.0)]
        for i, chance in enumerate(self._chances):
            found += [
                (float(i), float(e), n, k) for e, n, k in zip(chance.ends, chance.trials, chance.made, strict=True)
            ]
            found.append((float(i), -1.0, chance._open_trials, chance._open_made))
        return np.array(found, dtype=np.float64)

    def recall(self, memory: Floats) -> None:
        """The inverse of :meth:`memory`."""
        self._period = int(memory[0, 1])
        self._chances = [_Chance(0) for _ in self._chances]
        for i, chance in enumerate(self._chances):
            mine = memory[memory[:, 0] == i]
            blocks, rest = mine[mine[:, 1] >= 0], mine[mine[:, 1] < 0][0]
            chance.ends = [int(e) for e in blocks[:, 1]]
            chance.trials, chance.made = blocks[:, 2].tolist(), blocks[:, 3].tolist()
            chance._open_trials, chance._open_made = float(rest[2]), float(rest[3])


def shifts_of(record: LineRecord, alarm_nats: float) -> tuple[list[Shift], NDArray[np.int64]]:
    """All changes in a record, and the period ``[3, M]`` from which on each machine's efficiency, failures and repairs
    have been as they are."""
    n = len(record.names)
    what: tuple[Literal["efficiency", "failures", "repairs"], ...] = ("efficiency", "failures", "repairs")
    trials = np.hstack((record.trials, record.trials, record.down))
    made = np.hstack((record.made, record.stopped, record.repaired))
    watch, found = ShiftWatch(3 * n, alarm_nats), []
    for seen, (all_of, some) in enumerate(zip(trials, made, strict=True), 1):
        for i, period, before, after in watch.take(all_of, some):
            found.append(Shift(i % n, what[i // n], period, seen, before, after))
    return found, np.array(watch.since, dtype=np.int64).reshape(3, n)


def _rest(chance: _Chance, at: int) -> _Chance:
    rest = _Chance(chance.ends[at])
    rest.ends = chance.ends[at:]
    rest.trials = [n - chance.trials[at] for n in chance.trials[at:]]
    rest.made = [k - chance.made[at] for k in chance.made[at:]]
    return rest


def _best(n: Floats, k: Floats) -> Floats:
    """Log-likelihood of ``k`` out of ``n`` at its own best efficiency; a part may be booked after its cycle, so that
    ``k`` may exceed ``n`` by one."""
    k = np.clip(k, 0.0, n)
    p = np.clip(k / np.maximum(n, 1e-9), 1e-12, 1 - 1e-12)
    return np.asarray(k * np.log(p) + (n - k) * np.log1p(-p), dtype=np.float64)
