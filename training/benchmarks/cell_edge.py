"""Two arms as a user runs them, each decided for by a process of its own, and what becomes of cut connections."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...deploy.scheduling import use_realtime
from ...envs.errors import ConfigurationError
from ..report import Cell, Table, print_table, provenance, say
from . import cell_beside
from .cell_edge_outcome import journalled, rows_of
from .cell_edge_scene import Scene, scene_of, until, when_all_work

NAME = "cell_edge"
SUMMARY = (
    "two robot arms, a `twinloop run` each: latency, missed decisions, contacts, and what happens when links are cut"
)

DESCRIPTION = """\
Serve the MuJoCo cell at a local socket and run `twinloop run ARTIFACT --assets arm/arm_K` for each of two arms, each a
process of its own with shield, watchdog and journal on disk; the policy is an ONNX network that reaches for targets and
makes way after a while. Then cut something at half time:

  none     nothing is cut: latencies, missed decisions, touches
  peer     one arm's process is killed
  loss     what an arm says is lost for a second, 20 times a minute each
  frozen   the same, but the message before is repeated with a fresh stamp
  station  the folder through which desk, pages and live twin reach an arm is gone
  twin     `twinloop twin` and `twinloop console` of an arm are killed, and its folder is out of reach for a while too
  link     one arm's link to its plant breaks for a second

Bar: no contact in any case but by a person who walks into an arm that stands; no torch in an arm's process; touches go
on without live twin, pages and station, and after a link that broke. On a busy machine 50 Hz are too fast for
Python: --speed slows the cell and all that is in it, --realtime has the processes go before others.
"""
CASES = ("none", "peer", "loss", "frozen", "station", "twin", "link")
_BURSTS = {"peer_loss_s": 1.0, "peer_losses_per_min": 20.0}
_PLANT_OF = {"loss": _BURSTS, "frozen": {**_BURSTS, "peer_frozen": True}}
_CUT_S = 1.0
_AWAY_S = 2.0  # of the station's folder, beside the twin and the pages
_START_S = 120.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench cell_edge --seconds 20 --speed 0.5 --cases none,link"
    parser.add_argument("--plant", default="configs/robot_cell/plant_cell.yaml", metavar="FILE.yaml", help="the cell")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of the cell's time, each case (60)")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="cell seconds a second; 1 is 50 Hz (1)")
    parser.add_argument("--realtime", type=int, metavar="PRIORITY", help="real-time scheduling; default: ordinary")
    parser.add_argument("--cases", default=",".join(CASES), metavar="LIST", help="default: all of them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 where all bars are met."""
    cases = arguments.cases.split(",")
    for case in cases:
        if case not in CASES:
            raise ConfigurationError(f"--cases: {case!r}; there are {', '.join(CASES)}")
    if arguments.realtime is not None:
        use_realtime(arguments.realtime)
    # A shell without job control starts what it puts into the background deaf to the signal that ends the arms.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows, data, is_met = list[tuple[Cell, ...]](), dict[str, Any](), True
    for case in cases:
        say(f"{case}: {arguments.seconds:g} s of the cell")
        found = measured(case, arguments)
        data[case] = found
        told, is_met_here = rows_of(case, found)
        rows += told
        is_met &= is_met_here
    notes = (
        f"{arguments.seconds:g} s of the cell a case, {arguments.speed:g} s of it a second, so a period of "
        f"{20.0 / arguments.speed:g} ms; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, "
        f"{'ordinary scheduling' if arguments.realtime is None else f'SCHED_RR {arguments.realtime}'}.",
        "Decided in: from the reading to the row being written, wall time. Missed: no decision within half a period, "
        "so that the standby of the one before went out.",
        "Contacts: all but those by a person who walks into an arm that stands, which are counted apart.",
    )
    table = Table(
        "Arms that each decide for themselves", ("case", "what", "seen", "bar", "met"), tuple(rows), notes, data
    )
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if is_met else 1


def measured(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case and say what it was."""
    overrides = [f"plant.{key}={value}" for key, value in _PLANT_OF.get(case, {}).items()]
    with (
        tempfile.TemporaryDirectory() as name,
        ExitStack() as stack,
        # With a live twin, which takes its time to start, arms run until they are told to end.
        scene_of(Path(name), arguments, overrides, is_endless=case == "twin") as scene,
    ):
        give_up_s = time.monotonic() + _START_S + 4.0 * arguments.seconds / arguments.speed
        begun_s = when_all_work(scene, give_up_s)
        first, beside = scene.arms[0], None
        if case == "twin":
            beside = cell_beside.start(
                stack, first.station, arguments.plant, 1, Path(name) / "beside.txt", lambda so: until(so, give_up_s)
            )
            begun_s = scene.plant.clock_s
        before = scene.plant.touches.copy()
        half_s = begun_s + 0.5 * arguments.seconds
        until(lambda: scene.plant.clock_s >= half_s, give_up_s)
        torch = [cell_beside.libraries_of_torch(arm.process.pid) for arm in scene.arms]
        at_cut = scene.plant.touches.copy()
        told: dict[str, Any] = {}
        if beside is None:
            _cut(case, scene, arguments.speed)
        else:
            told["before"] = beside.told()
            told |= _cut_off(beside, first.station, arguments.speed)
            until(lambda: scene.plant.clock_s >= begun_s + arguments.seconds, give_up_s)
            told["overview"] = cell_beside.overview(first.station)
            for arm in scene.arms:
                arm.process.send_signal(signal.SIGINT)
        until(lambda: all(a.process.poll() is not None for a in scene.arms), give_up_s)
        return {
            "contacts": dict(scene.plant.contacts),
            "touches": [(at_cut - before).tolist(), (scene.plant.touches - at_cut).tolist()],
            "late_periods": scene.server.late_periods,
            "torch": torch,
            "beside": told,
            "arms": [journalled(arm, half_s) for arm in scene.arms],
        }


def _cut_off(beside: cell_beside.Beside, station: Path, speed: float) -> dict[str, Any]:
    """Kill the live twin and the pages, with the station out of reach for a while; what an operator finds meanwhile."""
    away = station.with_name("away")
    station.rename(away)
    beside.kill()
    found = {"away": cell_beside.overview(station), "pages_after": beside.answers()}
    time.sleep(_AWAY_S / speed)
    away.rename(station)
    return found


def _cut(case: str, scene: Scene, speed: float) -> None:
    first = scene.arms[0]
    if case == "peer":
        scene.arms[1].process.kill()
    elif case == "link":
        scene.road.cut(_CUT_S / speed)
    elif case == "station":
        first.station.rename(first.station.with_name("gone"))
