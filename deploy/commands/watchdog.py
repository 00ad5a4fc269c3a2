"""``twinloop watchdog``: take a plant to its safe state when the control loop's heartbeat stops."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...envs.commands.overrides import add_overrides
from ...envs.errors import ConfigurationError, JournalError
from ..heartbeat import DEFAULT_PERIODS, Silence
from ..held_stop import HeldStop
from ..journal import Journal
from ..own_assets import OwnAssets, named_assets
from ..plants import declared_limits, open_plant
from ..station.folder import StationFolder, write_whole
from ..watchdog import Report, Watchdog

_DISK_S = 2.0

DESCRIPTION = """\
Read heartbeats on the standard input, one line of JSON each period: {"beat": 1, "standby": {"GROUP": [[...]]}}, numbers
growing, and {"bye": true} at an orderly end. When no new number comes for --periods and a half periods, or the input
closes without a good-bye, walk all assets of the plant to their safe states within their rate limits, and end. Then the
equipment's own time-out acts, and it also does where the plant can't be reached.

With --station it also looks at the stop file there. When the beats do not say {"stopped": true} within one and a half
periods of a stop, their sender (--control-pid) is killed, hung or not, and the plant is taken to its safe state.

Safe states and limits are those of the site in --plant; without it those that the plant's nameplate implies: neutral,
ranges and rates. The first answer says which ("limits"), and the hash of them ("declaration"). Commands that must stay
for a while, or may change only so often, are waited for from the first step on. Sums are not looked after.

`twinloop run --endpoint` starts one by itself; this command is for other control programs, and for trying it out. Each
beat is answered on the standard output with {"heard": 1}, so that the sender notices when nobody watches any more.
"""
EPILOG = """\
examples:
  my_controller | twinloop watchdog --endpoint opc.tcp://127.0.0.1:4840/twinloop
  my_controller | twinloop watchdog --endpoint opc.tcp://127.0.0.1:4840/twinloop --plant plant.yaml
  my_controller | twinloop watchdog --endpoint opc.tcp://127.0.0.1:4840/twinloop --periods 3 --journal watchdog.journal

exit status: 0 good-bye, 1 it had to act and the plant is in its safe state, 2 it had to act and the plant could not be
brought there (its own time-out acts), or wrong input.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument(
        "--endpoint", required=True, metavar="URL", help="the plant, such as opc.tcp://127.0.0.1:4840/x"
    )
    parser.add_argument("--security", metavar="DIR", help="a client's folder of certificates, as for twinloop run")
    parser.add_argument("--assets", metavar="GROUP/ASSET[,...]", help="those that it looks after; default: all")
    parser.add_argument("--plant", metavar="FILE.yaml", help="the plant's file, where its site declares limits")
    add_overrides(parser, "site.name=north")
    parser.add_argument(
        "--periods",
        type=int,
        default=DEFAULT_PERIODS,
        metavar="N",
        help="time-out: N and a half periods without a new beat; default %(default)s, below the equipment's own of 3",
    )
    parser.add_argument(
        "--period-s", type=float, metavar="S", help="seconds between beats; default: the plant's period on the wall"
    )
    parser.add_argument(
        "--station",
        type=Path,
        metavar="DIR",
        help="the station whose stop file it heeds, and where it tells what it does",
    )
    parser.add_argument(
        "--control-pid",
        type=int,
        metavar="PID",
        help="with --station: the process that started this one, killed if it does not carry out a stop",
    )
    parser.add_argument("--journal", type=Path, metavar="PATH", help="where it records that it acted")


def run(arguments: argparse.Namespace) -> int:
    """Watch until a good-bye, or act; returns the exit status."""
    if arguments.periods < 1:
        raise ConfigurationError(f"--periods: {arguments.periods}; give 1 or more")
    if arguments.period_s is not None and not 0.0 < arguments.period_s < float("inf"):
        raise ConfigurationError(f"--period-s: {arguments.period_s}; give a positive number of seconds")
    if arguments.overrides and arguments.plant is None:
        raise ConfigurationError(f"--set {arguments.overrides[0]}: overrides a plant's YAML; give that with --plant")
    if arguments.control_pid is not None and arguments.station is None:
        raise ConfigurationError(f"--control-pid {arguments.control_pid}: for a stop in a station; give --station too")
    if arguments.control_pid is not None and arguments.control_pid != os.getppid():
        raise ConfigurationError(
            f"--control-pid: {arguments.control_pid} did not start this process ({os.getppid()} did), so that number "
            "may become another process'; start the watchdog from the process that it may have to end"
        )
    logging.basicConfig(level=logging.WARNING, format="watchdog: %(message)s")
    # asyncua logs a trace for each connection that is lost; our own messages say it.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    plant = open_plant(endpoint=arguments.endpoint, security=arguments.security)
    if arguments.assets is not None:
        plant = OwnAssets(plant, named_assets(arguments.assets, plant.nameplate))
    status = _Status(None if arguments.station is None else StationFolder(arguments.station))
    try:
        wall_period_s = getattr(plant, "wall_period_s", None) or plant.nameplate.period_s
        silence = Silence(arguments.period_s or wall_period_s, arguments.periods)
        declaration = None
        if arguments.plant is not None:
            declaration = declared_limits(plant.nameplate, arguments.plant, arguments.overrides)
        stop = None
        if arguments.station is not None:
            period_s = arguments.period_s or wall_period_s
            stop = HeldStop(StationFolder(arguments.station).stop, arguments.control_pid, period_s)
        watchdog = Watchdog(plant, silence, sys.stdin.fileno(), status.answer, declaration=declaration, stop=stop)
        report = watchdog.watch()
    finally:
        plant.close()
    if not report.why:
        status.tell("ended")
        return 0
    status.tell("safe" if report.safe else "left", why=report.why, writes=report.steps)
    print(f"watchdog: {describe(report)}", file=sys.stderr, flush=True)
    if arguments.journal is not None:
        _record(arguments.journal, report)
    return 1 if report.safe else 2


def describe(report: Report) -> str:
    """One line on what it did."""
    if not report.safe:
        return f"{report.why}; NOT in its safe state after {report.steps} writes, left to its own time-out"
    return (
        f"{report.why}; in its safe state after {report.steps} writes, the first {report.first_s:.2f} s and the last "
        f"{report.took_s:.2f} s later"
    )


class _Status:
    """Answers the sender, and tells a station what the watchdog does: watching, acting, safe, left, ended.

    A disk that hangs must keep nobody from the plant, so the file is written by threads that are not waited for long.
    """

    def __init__(self, station: StationFolder | None) -> None:
        self._station = station
        self._writer: threading.Thread | None = None

    def answer(self, message: Mapping[str, Any]) -> None:
        # Past the buffer of `print`, which would complain again at exit; whoever died must not take the watchdog along.
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")
        if "ready" in message:
            self.tell("watching")
        elif "acting" in message:
            self.tell("acting", why=message["acting"])

    def tell(self, state: str, **more: Any) -> None:
        if self._station is None:
            return
        row = {"format": 1, "pid": os.getpid(), "state": state, "utc_s": time.time(), **more}
        before, path = self._writer, self._station.watchdog
        self._writer = threading.Thread(target=_write, args=(before, path, row), daemon=True)
        self._writer.start()
        if state in ("safe", "left", "ended"):
            self._writer.join(_DISK_S)


def _write(before: threading.Thread | None, path: Path, row: Mapping[str, Any]) -> None:
    if before is not None:
        before.join()
    try:
        write_whole(path, row, durable=False)
    except OSError as error:
        print(f"watchdog: {path}: {error}", file=sys.stderr, flush=True)


def _record(path: Path, report: Report) -> None:
    """After acting, not before: the way to the safe state waits for no disk."""
    row = {"kind": "watchdog", "utc_s": time.time(), "why": report.why, "safe": report.safe, "writes": report.steps}
    try:
        with Journal(path) as journal:
            journal.append({**row, "first_write_s": report.first_s, "took_s": report.took_s, "detail": report.detail})
    except JournalError as error:
        print(f"watchdog: {error}", file=sys.stderr)
