"""``twinloop twin``: the live twin of a station, in a process beside control."""

from __future__ import annotations

import argparse
import fcntl
import getpass
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ...envs.commands.overrides import add_overrides
from ...envs.configuration import validate
from ...envs.errors import ConfigurationError
from ..station.folder import StationFolder, write_whole
from ..station.order import new_id
from ..twin_plan import describe
from ..twin_process import Recheck, TwinProcess, TwinProcessSettings
from ..twin_verdict import TwinFolder, told
from .termination import terminate_as_interrupt

if TYPE_CHECKING:
    from io import TextIOWrapper

DESCRIPTION = """\
Keep a twin at the plant's state. It follows the journal of `twinloop run --station DIR` and writes, each period,
  twin/verdict.json   whether anything may be proposed from it and why not, how far it is behind, its consistency, drift
                      alarm, estimated parameters, and what it expected each signal to read, with 95 % intervals
  twin/state.npz      the twin itself: `twinloop propose` starts from it
  twin/log.jsonl      what happened to it
and simulates approved proposals anew, until they are executed. It never writes anything else, and control does not need
it: should it stop, nothing may be proposed, and that is all.

What is tracked and how well is known comes from the site and from the section live_twin of the plant's file (see
docs/live_twin.md); --settings FILE holds the same keys and stands above both.

It may be started late, stopped and started again; it goes on from its state, or from the journal's last stretch. When
the drift alarm is raised it estimates anew from the journal with a wider prior and keeps what it found only if that is
in band (--recalibrate never leaves that to you: `twinloop twin recalibrate`).
"""
EPILOG = """\
examples:
  twinloop twin --station runs/north --plant configs/wind_farm/plant_ablaincourt.yaml
  twinloop twin --station runs/north --plant farm.yaml --settings tracked.yaml --save-every 10
  twinloop twin recalibrate --station runs/north

exit status: 0 done, 1 a recalibration was not kept, 130 stopped by Ctrl-C, 2 wrong input.
"""
_LOOK_S = 0.1
_NICE = 5
_OUTCOMES = {"recalibrated": 0, "recalibration changed nothing": 1, "refused to recalibrate": 1}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument(
        "what",
        nargs="?",
        metavar="WHAT",
        choices=("follow", "recalibrate"),
        default="follow",
        help="follow the plant until Ctrl-C, or recalibrate: ask the process that does so; default %(default)s",
    )
    parser.add_argument(
        "--station", type=Path, required=True, metavar="DIR", help="the folder of `twinloop run --station`"
    )
    parser.add_argument("--plant", metavar="FILE.yaml", help="the plant's file, the one that the station runs with")
    parser.add_argument(
        "--settings", metavar="FILE.yaml", help="the keys of the section live_twin, above the plant's file"
    )
    add_overrides(parser, "live_twin.members=128")
    parser.add_argument(
        "--recalibrate",
        choices=("auto", "never"),
        default="auto",
        help="what to do when the drift alarm is raised; default %(default)s",
    )
    parser.add_argument(
        "--save-every", type=int, default=1, metavar="N", help="periods between two states on disk; default %(default)s"
    )
    parser.add_argument(
        "--stretch",
        type=int,
        default=240,
        metavar="N",
        help="periods of the journal to begin with and to recalibrate over; default %(default)s",
    )
    parser.add_argument(
        "--until-caught-up", action="store_true", help="end, with the state on disk, once it is where the journal is"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="S",
        help="recalibrate: how long to wait for it; default %(default)g",
    )


def run(arguments: argparse.Namespace) -> int:
    """Follow, or ask for a recalibration; returns the exit status."""
    station = StationFolder(arguments.station)
    station.check()
    folder = TwinFolder(station)
    if arguments.what == "recalibrate":
        return _ask(folder, arguments.wait)
    if arguments.plant is None:
        raise ConfigurationError("--plant: give the plant's file, the one that `twinloop run --station` runs with")
    settings = {
        "save_every": arguments.save_every,
        "stretch": arguments.stretch,
        "recalibrate": arguments.recalibrate == "auto",
    }
    chosen = validate(settings, TwinProcessSettings, "twinloop twin")
    described = describe(arguments.plant, arguments.overrides, arguments.settings)
    if chosen.stretch <= described.settings.window:
        raise ConfigurationError(
            f"--stretch: {chosen.stretch} periods do not fill the gate's window, {described.settings.window}; give more"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: all but one core is control's
    with suppress(OSError):
        os.nice(_NICE)  # control first, where both share a machine
    folder.path.mkdir(mode=0o770, parents=True, exist_ok=True)
    with _alone(folder), terminate_as_interrupt():
        process = TwinProcess(station, described, chosen, recheck=_recheck(), say=_say)
        process.begin()
        try:
            while True:
                if not _look(process):
                    if arguments.until_caught_up:
                        return 0
                    time.sleep(_LOOK_S)
        finally:
            process.close()


def _look(process: TwinProcess) -> bool:
    """One look; a disk that is full now may have room again, and the verdict's age shows that nothing is written."""
    try:
        return process.look()
    except OSError as error:
        _say(f"could not write: {error}")
        time.sleep(1.0)
        return False


def _ask(folder: TwinFolder, wait_s: float) -> int:
    """Leave the request, wait for the process to carry it out, and say what came of it."""
    if not _is_held(folder):
        raise ConfigurationError(
            f"{folder.path}: no live twin is running; start `twinloop twin --station {folder.path.parent} --plant FILE`"
        )
    id = new_id()
    write_whole(folder.request, {"id": id, "by": getpass.getuser(), "utc_s": time.time()})
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        for line in reversed(told(folder)):
            if line.get("id") == id:
                print(f"{line['what']}{': ' + line['why'] if line.get('why') else ''}")
                for name, (mean, std) in line.get("after", {}).items():
                    before = line["before"][name]
                    print(f"  {name}: {before[0]:.4g} ± {before[1]:.2g} before, {mean:.4g} ± {std:.2g} after")
                return _OUTCOMES[line["what"]]
        time.sleep(_LOOK_S)
    raise ConfigurationError(f"{folder.log}: nothing was done about it within {wait_s:g} s; is the process alive?")


def _recheck() -> Recheck | None:
    """What simulates approved proposals anew; None, and said, where what it needs is not installed."""
    try:
        from ..proposals.recheck import recheck
    except ModuleNotFoundError as error:
        _say(f"approved proposals are not simulated anew, so that none can be executed: {error.name} is not installed")
        return None
    return recheck


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


@contextmanager
def _alone(folder: TwinFolder) -> Iterator[None]:
    """Hold the lock; raises :class:`ConfigurationError` where another process does."""
    with folder.lock.open("a+", encoding="utf-8") as file:
        if not _taken(file):
            raise ConfigurationError(
                f"{folder.path}: another `twinloop twin` follows this station already; end that one"
            )
        yield


def _is_held(folder: TwinFolder) -> bool:
    if not folder.lock.exists():
        return False
    with folder.lock.open("a+", encoding="utf-8") as file:
        return not _taken(file)


def _taken(file: TextIOWrapper) -> bool:
    """Whether the lock was free and is now held, until the file is closed; the system frees it when a process dies."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
