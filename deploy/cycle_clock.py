"""How a loop keeps its time: cycles, jitter and misses, in a fixed amount of memory however long it runs.

A cycle is all the work of one period: read, decide, journal, write, read back, tell; not the wait for the next one. A
miss is a period of the wall that had no cycle, or one that was over too late.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SLOW_PU = 0.5
"""Share of a period from which a cycle counts as slow, so that what the hypervisor took of it is looked up."""

_SHORTEST_S = 1e-6
_BINS_PER_OCTAVE = 16
_N_BINS = 30 * _BINS_PER_OCTAVE  # up to 18 minutes


@dataclass(frozen=True)
class CycleFigures:
    """Percentiles are at most 4.4 % above the true ones; NaN before there are any, and jitter where no period is told.

    ``jitter``: by how much the time between two starts differs from the period, as an amount. ``steal_s``: CPU time of
    all cores that the hypervisor gave to others during the ``slow`` cycles; 0 where the kernel does not tell.
    """

    periods: int
    misses: int
    slow: int
    steal_s: float
    last_ms: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    jitter_p50_ms: float
    jitter_p99_ms: float
    jitter_p999_ms: float
    jitter_max_ms: float


class Histogram:
    """Counts of durations in bins that grow by 1/16 of an octave each."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_N_BINS, dtype=np.int64)
        self.longest_s = math.nan

    def add(self, duration_s: float) -> None:
        octaves = math.log2(max(duration_s, _SHORTEST_S) / _SHORTEST_S)
        self._counts[min(int(octaves * _BINS_PER_OCTAVE), _N_BINS - 1)] += 1
        if not self.longest_s >= duration_s:
            self.longest_s = duration_s

    def quantiles_s(self, quantiles: tuple[float, ...]) -> list[float]:
        """The upper ends of the bins that hold them, never above the longest; NaN while empty."""
        upto = np.cumsum(self._counts)
        if not upto[-1]:
            return [math.nan] * len(quantiles)
        places = np.searchsorted(upto, np.ceil(np.array(quantiles) * upto[-1]))
        edges = _SHORTEST_S * 2.0 ** ((places + 1) / _BINS_PER_OCTAVE)
        return [min(float(edge), self.longest_s) for edge in edges]


class CycleClock:
    """Told of the begin and the end of each cycle by the loop; asked for figures from any thread.

    ``period_s``: on the wall; None for a plant that is stepped as fast as it goes, which has neither jitter nor misses.
    A call costs microseconds and raises nothing.
    """

    def __init__(self, period_s: float | None = None) -> None:
        self._period_s = period_s
        self._cycles, self._jitters = Histogram(), Histogram()
        self._periods = self._misses = self._slow = 0
        self._is_open = False
        self._begun_s = self._last_s = math.nan
        self._steal_s = self._steal_before_s = 0.0

    def begin(self, now_s: float | None = None) -> None:
        """A period begins. ``now_s``: by :func:`time.perf_counter`."""
        begun_s = time.perf_counter() if now_s is None else now_s
        if self._is_open:
            self.end(begun_s)  # something was raised in it
        if self._period_s is not None and self._periods:
            between_s = begun_s - self._begun_s
            self._jitters.add(abs(between_s - self._period_s))
            # Whichever tells of more: periods that passed between two starts, or that the work took.
            skipped = math.floor(between_s / self._period_s + 0.5) - 1
            self._misses += max(skipped - self._overrun(), 0)
        self._steal_before_s = steal_s() or 0.0
        self._begun_s, self._is_open = begun_s, True

    def end(self, now_s: float | None = None) -> None:
        """Its work is done; what follows is waiting."""
        self._last_s = (time.perf_counter() if now_s is None else now_s) - self._begun_s
        self._is_open = False
        self._cycles.add(self._last_s)
        self._periods += 1
        self._misses += self._overrun()
        if self._period_s is not None and self._last_s > SLOW_PU * self._period_s:
            self._slow += 1
            self._steal_s += max((steal_s() or 0.0) - self._steal_before_s, 0.0)

    def figures(self) -> CycleFigures:
        """All cycles so far; one that has not ended is left out."""
        p50, p99, p999 = (1e3 * s for s in self._cycles.quantiles_s((0.5, 0.99, 0.999)))
        jitter_p50, jitter_p99, jitter_p999 = (1e3 * s for s in self._jitters.quantiles_s((0.5, 0.99, 0.999)))
        return CycleFigures(
            periods=self._periods,
            misses=self._misses,
            slow=self._slow,
            steal_s=self._steal_s,
            last_ms=1e3 * self._last_s,
            p50_ms=p50,
            p99_ms=p99,
            p999_ms=p999,
            max_ms=1e3 * self._cycles.longest_s,
            jitter_p50_ms=jitter_p50,
            jitter_p99_ms=jitter_p99,
            jitter_p999_ms=jitter_p999,
            jitter_max_ms=1e3 * self._jitters.longest_s,
        )

    def _overrun(self) -> int:
        """Whole periods that the last cycle took."""
        return 0 if self._period_s is None else int(self._last_s / self._period_s)


def steal_s() -> float | None:
    """CPU seconds of all cores that the hypervisor gave to others since boot, from Linux's ``/proc/stat``."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        return float(words[8]) / float(os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError, ValueError):
        return None
