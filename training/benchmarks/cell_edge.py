"""Two arms as a user runs them, each decided for by a process of its own, and what becomes of cut connections."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.drivers.local_server import LocalPlantServer
from ...deploy.drivers.local_wire import SCHEME
from ...deploy.journal import read
from ...deploy.scheduling import use_realtime
from ...deploy.station.hearing import told as told_words
from ...envs.errors import ConfigurationError
from ...envs.plant_file import load_plant_file
from ...envs.robot_cell.config import RobotCellConfig
from ...envs.robot_cell.plant import MuJoCoCell
from ...envs.robot_cell.plant_config import RobotCellPlantConfig
from ..report import Cell, Table, print_table, provenance, say
from . import cell_beside
from .cell_scene import YIELDS, reaching_artifact

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
_GOES_ON = ("none", "station", "twin", "link")  # cases in which nothing is lost that an arm's work needs for long
_CUT_S = 1.0
_AWAY_S = 2.0  # of the station's folder, beside the twin and the pages
_CODE = 2  # of a reason, in a row
_START_S = 120.0
_STAMP = re.compile(r"^(?:\[[^]]*\])?\s*")
_SOURCE = re.compile(r"\s+\w+\.py:\d+\s*$")


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


@dataclass
class Arm:
    """A running process, and where it writes."""

    process: subprocess.Popen[bytes]
    journal: Path
    printed: Path
    station: Path


@dataclass
class Scene:
    """One case while it runs."""

    plant: MuJoCoCell
    server: LocalPlantServer
    arms: list[Arm]
    road: Road


class Road:
    """Bytes between the clients of one socket and the server at another; ``cut`` breaks all connections for a while."""

    def __init__(self, server: Path, here: Path) -> None:
        self._server = server
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_cut = False
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(here))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float) -> None:
        self._is_cut = True
        for pair in self._pairs:
            _shut(pair)
        self._pairs.clear()
        time.sleep(seconds)
        self._is_cut = False

    def close(self) -> None:
        self._listening.close()
        for pair in self._pairs:
            _shut(pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(str(self._server))
            self._pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_carry, args=(source, sink), daemon=True).start()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    _shut((source, sink))


def _shut(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with suppress(OSError):  # the other side may have left
            end.shutdown(socket.SHUT_RDWR)


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
        bad = sum(n for kind, n in found["contacts"].items() if kind != "person_at_standstill")
        is_met &= bad == 0
        rows += [(case, *row) for row in _told(found)]
        rows.append((case, "contacts", _counts(found["contacts"]), "0", _yes(bad == 0)))
        rows.append(
            (
                case,
                "libraries of torch in the arms' processes",
                _each(found["torch"]),
                "0",
                _yes(not any(found["torch"])),
            )
        )
        is_met &= not any(found["torch"])
        if case in _GOES_ON:
            after = found["touches"][1]
            rows.append((case, "touches of each arm after half time", _each(after), "> 0", _yes(min(after) > 0)))
            is_met &= min(after) > 0
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
        _scene(Path(name), arguments, overrides, is_endless=case == "twin") as scene,
    ):
        give_up_s = time.monotonic() + _START_S + 4.0 * arguments.seconds / arguments.speed
        begun_s = _when_all_work(scene, give_up_s)
        first, beside = scene.arms[0], None
        if case == "twin":
            beside = cell_beside.start(
                stack, first.station, arguments.plant, 1, Path(name) / "beside.txt", lambda so: _until(so, give_up_s)
            )
            begun_s = scene.plant.clock_s
        before = scene.plant.touches.copy()
        half_s = begun_s + 0.5 * arguments.seconds
        _until(lambda: scene.plant.clock_s >= half_s, give_up_s)
        torch = [cell_beside.libraries_of_torch(arm.process.pid) for arm in scene.arms]
        at_cut = scene.plant.touches.copy()
        told: dict[str, Any] = {}
        if beside is None:
            _cut(case, scene, arguments.speed)
        else:
            told["before"] = beside.told()
            told |= _cut_off(beside, first.station, arguments.speed)
            _until(lambda: scene.plant.clock_s >= begun_s + arguments.seconds, give_up_s)
            told["overview"] = cell_beside.overview(first.station)
            for arm in scene.arms:
                arm.process.send_signal(signal.SIGINT)
        _until(lambda: all(a.process.poll() is not None for a in scene.arms), give_up_s)
        return {
            "contacts": dict(scene.plant.contacts),
            "touches": [(at_cut - before).tolist(), (scene.plant.touches - at_cut).tolist()],
            "late_periods": scene.server.late_periods,
            "torch": torch,
            "beside": told,
            "arms": [_journalled(arm, half_s) for arm in scene.arms],
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


@contextmanager
def _scene(folder: Path, arguments: argparse.Namespace, overrides: list[str], *, is_endless: bool) -> Iterator[Scene]:
    _, config, plant_config = load_plant_file(arguments.plant, overrides)
    if not (isinstance(config, RobotCellConfig) and isinstance(plant_config, RobotCellPlantConfig)):
        raise ConfigurationError(f"--plant {arguments.plant}: is no robot cell")
    plant = MuJoCoCell(config, plant_config)
    periods = round(arguments.seconds / config.control_period_s)
    with ExitStack() as stack:
        server = stack.enter_context(LocalPlantServer(plant, f"{SCHEME}{folder}/cell.sock", speed=arguments.speed))
        road = Road(folder / "cell.sock", folder / "road.sock")
        stack.callback(road.close)
        arms = list[Arm]()
        for k in range(2):
            artifact = reaching_artifact(
                folder / f"policy_{k + 1}", plant.nameplate, YIELDS[k], tool_m=config.tool_length_m
            )
            journal, printed = folder / f"arm_{k + 1}.sqlite", folder / f"arm_{k + 1}.txt"
            station = folder / f"station_{k + 1}"
            words = [
                "run", str(artifact), "--endpoint", f"{SCHEME}{folder}/{'road' if k == 0 else 'cell'}.sock",
                "--plant", arguments.plant, "--set", f"site.seat={k + 1}", "--assets", f"arm/arm_{k + 1}",
                "--journal", str(journal), "--station", str(station),
                "--no-policy-process",
            ]  # fmt: skip
            words += [word for override in overrides for word in ("--set", override)]
            words += [] if is_endless else ["--periods", str(periods)]
            words += [] if arguments.realtime is None else ["--realtime", str(arguments.realtime)]
            out = stack.enter_context(printed.open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "twinloop", *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=cell_beside.WIDE,
            )  # fmt: skip
            stack.callback(_end, process)
            arms.append(Arm(process, journal, printed, station))
        yield Scene(plant, server, arms, road)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20.0)
    process.kill()
    process.wait()


def _when_all_work(scene: Scene, give_up_s: float) -> float:
    """The plant's time when every arm has begun to move."""
    moved = np.zeros(len(scene.arms), dtype=bool)

    def is_so() -> bool:
        for arm in scene.arms:
            if arm.process.poll() is not None:
                raise RuntimeError(f"an arm's process ended at once:\n{arm.printed.read_text(errors='replace')}")
        moved[np.abs(scene.plant.speeds_radps).max(1) > 0.05] = True
        return bool(moved.all())

    _until(is_so, give_up_s)
    return scene.plant.clock_s


def _until(is_so: Callable[[], bool], give_up_s: float) -> None:
    while not is_so():
        if time.monotonic() > give_up_s:
            raise RuntimeError("the cell took too long; give a lower --speed or fewer --seconds")
        time.sleep(0.05)


def _cut(case: str, scene: Scene, speed: float) -> None:
    first = scene.arms[0]
    if case == "peer":
        scene.arms[1].process.kill()
    elif case == "link":
        scene.road.cut(_CUT_S / speed)
    elif case == "station":
        first.station.rename(first.station.with_name("gone"))


def _journalled(arm: Arm, half_s: float) -> dict[str, Any]:
    """What an arm's journal and screen tell."""
    rows = read(arm.journal)
    decided = [row for row in rows if row["kind"] == "decision"]
    took = [row["decided_in_ms"] for row in decided]
    later = Counter(r[_CODE] for row in decided if row["plant_time_s"] > half_s for r in row["reasons"])
    end = rows[-1] if rows[-1]["kind"] == "end" else {"ending": "killed", "detail": ""}
    words = arm.printed.read_text(errors="replace").replace(f"{arm.printed.parent}/", "").splitlines()
    return {
        "decisions": len(decided),
        "missed": sum(row["kind"] == "missed" for row in rows),
        "decided_ms": np.percentile(took, (50, 99, 100)).tolist() if took else [],
        "reasons_after": dict(later.most_common(6)),
        "ending": f"{end['ending']} {end['detail']}".strip(),
        "histogram": next((w.split(None, 1)[1].strip() for w in words if w.startswith("decisions")), ""),
        "said": [_line(w) for kind in ("ERROR", "WARNING") for w in words if kind in w][:6],
        "missed_of_beside": [told_words(row) for row in rows if row["kind"] == "beside"],
    }


def _told(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    before, after = found["touches"]
    yield "touches before and after half time", f"{before} {after}", "", ""
    for k, arm in enumerate(found["arms"]):
        times = " / ".join(f"{ms:.1f}" for ms in arm["decided_ms"])
        yield f"arm_{k + 1}: decided in, ms, p50 / p99 / max", f"{times} ({arm['decisions']})", "", ""
        yield f"arm_{k + 1}: latency with the write", arm["histogram"] or "none", "", ""
        yield f"arm_{k + 1}: missed; ended", f"{arm['missed']}; {arm['ending']}", "", ""
        yield f"arm_{k + 1}: reasons in the journal after half time", _counts(arm["reasons_after"]), "", ""
        if arm["said"]:
            yield f"arm_{k + 1}: said first", arm["said"][0].split(";")[0], "", ""
        if arm["missed_of_beside"]:
            yield f"arm_{k + 1}: on its terminal and in its journal", ", then ".join(arm["missed_of_beside"]), "", ""
    beside = found["beside"]
    if beside:
        was = beside["before"]
        gate = f"open, NIS {was['nis']:.2f}" if was["open"] else was["why"]
        yield "before: live twin; pages", f"{was['lag']} rows behind, {gate}; {_answer(was['pages'])}", "", ""
        yield "after: pages", _answer(beside["pages_after"]), "", ""
        yield "twinloop overview while the folder is away", "; ".join(beside["away"]), "", ""
        yield "twinloop overview at the end", "; ".join(beside["overview"]), "", ""
        yield "libraries of torch in the twin's process", str(was["torch"]), "", ""


def _line(printed: str) -> str:
    """A log line without its time and source."""
    return " ".join(_SOURCE.sub("", _STAMP.sub("", printed)).split())


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _each(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _answer(is_there: bool) -> str:
    return "pages answer" if is_there else "pages do not answer"


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counted.items() if n) or "none"
