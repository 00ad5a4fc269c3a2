"""What the operating system and the garbage collector may do to a loop's timing."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..envs.errors import ConfigurationError

_LOG = logging.getLogger(__name__)


def use_realtime(priority: int) -> None:
    """Put all threads of this process, and those that it will start, into the class SCHED_RR.

    They then go before everything of the ordinary class, however busy the machine is. Processes started later inherit
    it. Raises :class:`ConfigurationError` for a priority that there is not, and where it is not permitted.
    """
    if not hasattr(os, "sched_setscheduler"):
        raise ConfigurationError(
            f"--realtime {priority}: this system has no real-time classes for Python; leave it out"
        )
    lowest, highest = os.sched_get_priority_min(os.SCHED_RR), os.sched_get_priority_max(os.SCHED_RR)
    if not lowest <= priority <= highest:
        raise ConfigurationError(f"--realtime: {priority}; give a priority from {lowest} to {highest}, 2 is enough")
    try:
        for thread in _threads():
            os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(priority))
    except PermissionError as error:
        raise ConfigurationError(
            f"--realtime {priority}: this user may not use real-time scheduling; allow it with `ulimit -r {highest}` "
            "(a line `USER - rtprio 99` in /etc/security/limits.d), LimitRTPRIO=99 in a systemd unit, `--cap-add "
            "SYS_NICE` for a container, or leave the option out: the loop then keeps its time only on a quiet machine"
        ) from error


def lower_priority(pid: int) -> None:
    """Put a process that has inherited a real-time priority one below this one's, or at the lowest; else do nothing.

    So a policy that spins is never the reason that the loop waits.
    """
    with suppress(OSError, AttributeError):  # it may be gone already, and other systems have no classes
        if os.sched_getscheduler(0) == os.SCHED_RR:
            own = os.sched_getparam(0).sched_priority
            priority = max(own - 1, os.sched_get_priority_min(os.SCHED_RR))
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(priority))


def use_cpus(cpus: tuple[int, ...]) -> None:
    """Keep all threads of this process, and what it starts later, on these cores; raises ConfigurationError."""
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigurationError("--cpu: this system can't tie a process to a core; leave it out")
    allowed = os.sched_getaffinity(0)
    missing = sorted(set(cpus) - allowed)
    if missing or not cpus:
        raise ConfigurationError(f"--cpu: {missing or cpus}; this process may use the cores {sorted(allowed)}")
    for thread in _threads():
        os.sched_setaffinity(thread, cpus)


@contextmanager
def garbage_frozen() -> Iterator[None]:
    """Inside, collections leave out all that existed before: they look at what is new alone, in microseconds."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _threads() -> list[int]:
    """Of this process; the calling one alone where the kernel does not list them."""
    try:
        return [int(path.name) for path in Path("/proc/self/task").iterdir()]
    except OSError:
        return [0]
