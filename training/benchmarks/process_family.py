"""What a benchmark's process and all its offspring cost: those that Ray starts are not children of ours for long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

MARK = "TWINLOOP_BENCH_ID"
"""Every process that inherited this variable, with this process's value, counts."""


@dataclass(frozen=True)
class Cost:
    """Seconds since the meter started; ``uss_mib``: memory that is nobody else's, at the end, over ``n_processes``."""

    wall_s: float
    cpu_s: float
    uss_mib: float
    n_processes: int


class FamilyMeter:
    """Starts when made."""

    def __init__(self) -> None:
        self._cpu_s, _, _ = _family()
        self._wall = time.perf_counter()

    def read(self) -> Cost:
        wall_s = time.perf_counter() - self._wall
        cpu_s, uss_mib, n = _family()
        return Cost(wall_s, cpu_s - self._cpu_s, uss_mib, n)


def _family() -> tuple[float, float, int]:
    """CPU seconds, MiB, processes."""
    cpu_s, uss, n = 0.0, 0, 0
    for process in _members():
        try:
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_full_info()
        except psutil.Error:
            continue  # it ended while we looked
        cpu_s += float(times.user + times.system)
        uss += int(memory.uss)
        n += 1
    return cpu_s, uss / 2**20, n


def _members() -> Iterator[Any]:
    mark = os.environ.get(MARK)
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or (mark is not None and process.environ().get(MARK) == mark):
                yield process
        except (psutil.Error, OSError):
            continue  # somebody else's
