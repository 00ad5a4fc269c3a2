"""What a run has cost: wall seconds, and CPU seconds of this process and all that it started.

CPU seconds are what a comparison on a shared machine can rest on; wall seconds there are mostly other people's work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import psutil

_LOOK_EVERY_S = 5.0
"""Finding the family means reading every process of the machine; it changes rarely."""


class RunClock:
    """Seconds since it was made, plus what earlier sittings of the same run had used.

    The family is this process and its descendants on this machine: rollout workers and Ray's own processes count,
    machines of a cluster do not. A worker that died and was not waited for takes its seconds along, so the sum is kept
    from falling.
    """

    def __init__(self, wall_s: float = 0.0, cpu_s: float = 0.0) -> None:
        self._me = psutil.Process()
        self._family: list[psutil.Process] = []
        self._looked_s = float("-inf")
        self._wall_before_s, self._cpu_before_s = wall_s, cpu_s
        self._wall_start_s = time.perf_counter()
        self._cpu_start_s = self._family_cpu_s()
        self._cpu_s = 0.0

    @staticmethod
    def after(row: Mapping[str, float | None] | None) -> RunClock:
        """A clock that goes on from a row of metrics.jsonl, or from zero."""
        told = row or {}
        return RunClock(float(told.get("wall_s") or 0.0), float(told.get("cpu_s") or 0.0))

    @property
    def sitting_s(self) -> float:
        """Wall seconds of this sitting alone."""
        return time.perf_counter() - self._wall_start_s

    def figures(self) -> dict[str, float]:
        """``wall_s`` and ``cpu_s`` of the run so far."""
        self._cpu_s = max(self._cpu_s, self._family_cpu_s() - self._cpu_start_s)
        return {"wall_s": self._wall_before_s + self.sitting_s, "cpu_s": self._cpu_before_s + self._cpu_s}

    def _family_cpu_s(self) -> float:
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            self._family = self._me.children(recursive=True)
        return sum(_cpu_s(process) for process in (self._me, *self._family))


def _cpu_s(process: psutil.Process) -> float:
    """User and system seconds of a process and of its children that have ended; 0 once it has ended itself."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(sum(getattr(times, name, 0.0) for name in ("user", "system", "children_user", "children_system")))
