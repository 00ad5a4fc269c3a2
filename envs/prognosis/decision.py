"""When to replace a machine: rules replayed on lives that were seen to their end, and what they would have cost.

Decisions are taken after every ``every`` cycles. A machine that is replaced costs 1, one that fails ``cf``; what counts
is cost over cycles of use. Nothing replaces a machine in its very last cycle: then it has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Replay:
    """``cycles`` of use of each machine, whether it ``failed``, and its ``lives`` had it run on, ``[n]``."""

    cycles: Ints
    failed: NDArray[np.bool_]
    lives: Ints

    def cost(self, cf: float) -> float:
        """Per cycle, with a replacement at 1 and a failure at ``cf``."""
        return float((len(self.cycles) + (cf - 1.0) * self.failed.sum()) / self.cycles.sum())

    @property
    def wasted(self) -> float:
        """Mean cycles that machines still had when they were replaced."""
        return float((self.lives - self.cycles).mean())


def by_threshold(remaining: Sequence[Floats], threshold: float, every: int, first: int | None = None) -> Replay:
    """Replace when the predicted remaining life, ``remaining[machine]`` ``[T]``, is ``threshold`` or less."""
    return _replayed(
        [len(r) for r in remaining], lambda k, at: remaining[k][at - 1] <= threshold, every, first or every
    )


def by_age(lives: Sequence[int], age: int) -> Replay:
    """Replace at an age, which need not be one of the decisions'."""
    n = np.asarray(lives, dtype=np.int64)
    return Replay(np.minimum(n, age), n <= age, n)


def to_failure(lives: Sequence[int]) -> Replay:
    """Never replace before it fails."""
    n = np.asarray(lives, dtype=np.int64)
    return Replay(n, np.ones(len(n), dtype=np.bool_), n)


def at_the_last_chance(lives: Sequence[int], every: int) -> Replay:
    """As somebody would who knew the lives."""
    n = np.asarray(lives, dtype=np.int64)
    last = (n - 1) // every * every
    return Replay(np.where(last > 0, last, n), last == 0, n)


def best_age(lives: Sequence[int], cf: float) -> int:
    """The age that would have cost least on those lives."""
    ages = range(1, max(lives) + 1)
    return min(ages, key=lambda age: by_age(lives, age).cost(cf))


def choose_threshold(remaining: Sequence[Floats], cf: float, every: int, candidates: Sequence[float]) -> float:
    """The threshold that costs least on those machines; of several, the highest.

    Decisions could have begun in any of the first ``every`` cycles; all are replayed, so that a rule that was merely
    lucky with the days on which it looked is not taken for a good one.
    """

    def cost(threshold: float) -> float:
        runs = [by_threshold(remaining, threshold, every, first) for first in range(1, every + 1)]
        fails = sum(int(r.failed.sum()) for r in runs)
        return (len(remaining) * every + (cf - 1.0) * fails) / sum(int(r.cycles.sum()) for r in runs)

    costs = [cost(t) for t in candidates]
    return max(t for t, c in zip(candidates, costs, strict=True) if c <= min(costs) * (1 + 1e-12))


def _replayed(
    lives: Sequence[int], replaces: Callable[[int, Ints], NDArray[np.bool_]], every: int, first: int
) -> Replay:
    n = np.asarray(lives, dtype=np.int64)
    cycles, failed = n.copy(), np.ones(len(n), dtype=np.bool_)
    for k, life in enumerate(lives):
        at = np.arange(first, life, every)
        hits = np.flatnonzero(replaces(k, at))
        if len(hits):
            cycles[k], failed[k] = at[hits[0]], False
    return Replay(cycles, failed, n)
