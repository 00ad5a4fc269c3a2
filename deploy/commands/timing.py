"""Options of a command that runs a loop: real-time scheduling, and the cores that it may use."""

from __future__ import annotations

import argparse

from ...envs.errors import ConfigurationError
from ..scheduling import use_cpus, use_realtime


def add_timing(parser: argparse.ArgumentParser) -> None:
    """Add ``--realtime`` and ``--cpu``."""
    parser.add_argument(
        "--realtime",
        type=int,
        metavar="PRIORITY",
        help="real-time scheduling (SCHED_RR, 1 to 99) for this process and its watchdog, one less for the policy's; 2 "
        "is enough. Without it the loop keeps its time only on a machine that is not overloaded",
    )
    parser.add_argument(
        "--cpu", metavar="N[,N]", help="cores that this process and those that it starts may use, such as 1"
    )


def keep_time(arguments: argparse.Namespace) -> None:
    """Follow them, for all threads; before anything is opened. Raises :class:`ConfigurationError`."""
    if arguments.cpu is not None:
        try:
            cpus = tuple(int(word) for word in arguments.cpu.split(","))
        except ValueError:
            raise ConfigurationError(f"--cpu: {arguments.cpu!r}; give numbers of cores such as 1 or 2,3") from None
        use_cpus(cpus)
    if arguments.realtime is not None:
        use_realtime(arguments.realtime)
