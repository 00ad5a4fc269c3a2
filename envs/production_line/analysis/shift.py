"""When did a machine change? A generalised likelihood ratio over all moments at which it might have.

For each machine, each period's cycles that had the chance to make a part and those that did are kept since its last
change. At every period, for each moment in between, the likelihood of two efficiencies, one before and one after, is
held against that of one; where two are better by ``alarm_nats``, the machine has changed, and what was before the best
moment is forgotten (Siegmund & Venkatraman 1995, Annals of Statistics 23(1); the CUSUM whose new level is not known).
So the window on each machine slides by itself: long while nothing changes, short right after a change.

Failures come in clusters; where cycles vary more than independent ones do, the ratio is divided by how much more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST_TRIALS = 15.0
"""On both sides of a moment: fewer tell nothing."""
_BLOCK_TRIALS = 5.0
_MOST_BLOCKS = 512
_LEAST_BLOCKS_TO_SPREAD = 30


@dataclass(frozen=True)
class Shift:
    """``machine`` changed its efficiency after ``period``; seen at ``seen``, in periods from the beginning."""

    machine: int
    period: int
    seen: int
    before: float
    after: float


class _Machine:
    """Cumulative counts of one machine since its last change, in blocks of periods."""

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
    """Watches ``n_machines``; give it every period's counts by :meth:`take`."""

    def __init__(self, n_machines: int, alarm_nats: float) -> None:
        self._alarm_nats = alarm_nats
        self._machines = [_Machine(0) for _ in range(n_machines)]
        self._period = 0

    @property
    def since(self) -> tuple[int, ...]:
        """Of each machine, the period from which on it has been as it is."""
        return tuple(m.ends[0] for m in self._machines)

    def counts(self) -> tuple[Floats, Floats]:
        """Cycles ``[M]`` that had the chance, and those that made a part, since each machine's last change."""
        return np.array([m.trials[-1] for m in self._machines]), np.array([m.made[-1] for m in self._machines])

    def take(self, trials: Floats, made: Floats) -> list[Shift]:
        """One period's counts ``[M]``; returns what has changed."""
        self._period += 1
        found = []
        for i, machine in enumerate(self._machines):
            ends = machine.add(self._period, float(trials[i]), float(made[i]))
            split = machine.split(self._alarm_nats) if ends else None
            if split is not None:
                at, before, after = split
                found.append(Shift(i, machine.ends[at], self._period, before, after))
                self._machines[i] = _rest(machine, at)
        return found


def shifts_of(trials: Floats, made: Floats, alarm_nats: float) -> tuple[list[Shift], tuple[int, ...]]:
    """All changes in a record ``[T, M]``, and the period from which on each machine has been as it is."""
    watch = ShiftWatch(trials.shape[1], alarm_nats)
    found = [s for n, k in zip(trials, made, strict=True) for s in watch.take(n, k)]
    return found, watch.since


def _rest(machine: _Machine, at: int) -> _Machine:
    rest = _Machine(machine.ends[at])
    rest.ends = machine.ends[at:]
    rest.trials = [n - machine.trials[at] for n in machine.trials[at:]]
    rest.made = [k - machine.made[at] for k in machine.made[at:]]
    return rest


def _best(n: Floats, k: Floats) -> Floats:
    """Log-likelihood of ``k`` out of ``n`` at its own best efficiency; a part may be booked after its cycle, so that
    ``k`` may exceed ``n`` by one."""
    k = np.clip(k, 0.0, n)
    p = np.clip(k / np.maximum(n, 1e-9), 1e-12, 1 - 1e-12)
    return np.asarray(k * np.log(p) + (n - k) * np.log1p(-p), dtype=np.float64)
