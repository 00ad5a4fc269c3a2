"""Two arms as a user runs them, each decided for by a process of its own, and what becomes of cut connections."""

from __future__ import annotations

import argparse
import os
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
from ...envs.errors import ConfigurationError
from ...envs.plant_file import load_plant_file
from ...envs.robot_cell.config import RobotCellConfig
from ...envs.robot_cell.plant import MuJoCoCell
from ...envs.robot_cell.plant_config import RobotCellPlantConfig
from ..report import Cell, Table, print_table, provenance, say
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
  link     one arm's link to its plant breaks for a second

Bar: no contact in any case but by a person who walks into an arm that stands. On a busy machine 50 Hz are too fast for
Python: --speed slows the cell and all that is in it, --realtime has the processes go before others.
"""
CASES = ("none", "peer", "loss", "frozen", "station", "link")
_BURSTS = {"peer_loss_s": 1.0, "peer_losses_per_min": 20.0}
_PLANT_OF = {"loss": _BURSTS, "frozen": {**_BURSTS, "peer_frozen": True}}
_CUT_S = 1.0
_CODE = 2  # of a reason, in a row
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
    """Measure and print; 0 without contacts."""
    cases = arguments.cases.split(",")
    for case in cases:
        if case not in CASES:
            raise ConfigurationError(f"--cases: {case!r}; there are {', '.join(CASES)}")
    if arguments.realtime is not None:
        use_realtime(arguments.realtime)
    rows, data, is_met = list[tuple[Cell, ...]](), dict[str, Any](), True
    for case in cases:
        say(f"{case}: {arguments.seconds:g} s of the cell")
        found = measured(case, arguments)
        data[case] = found
        bad = sum(n for kind, n in found["contacts"].items() if kind != "person_at_standstill")
        is_met &= bad == 0
        rows += [(case, *row) for row in _told(found)]
        rows.append((case, "contacts", _counts(found["contacts"]), "0", "yes" if bad == 0 else "no"))
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
    with tempfile.TemporaryDirectory() as name, _scene(Path(name), arguments, overrides) as scene:
        give_up_s = time.monotonic() + _START_S + 4.0 * arguments.seconds / arguments.speed
        begun_s = _when_all_work(scene, give_up_s)
        before = scene.plant.touches.copy()
        half_s = begun_s + 0.5 * arguments.seconds
        _until(lambda: scene.plant.clock_s >= half_s, give_up_s)
        at_cut = scene.plant.touches.copy()
        _cut(case, scene, arguments.speed)
        _until(lambda: all(a.process.poll() is not None for a in scene.arms), give_up_s)
        return {
            "contacts": dict(scene.plant.contacts),
            "touches": [(at_cut - before).tolist(), (scene.plant.touches - at_cut).tolist()],
            "late_periods": scene.server.late_periods,
            "arms": [_journalled(arm, half_s) for arm in scene.arms],
        }


@contextmanager
def _scene(folder: Path, arguments: argparse.Namespace, overrides: list[str]) -> Iterator[Scene]:
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
                "--periods", str(periods), "--journal", str(journal), "--station", str(station),
                "--no-policy-process",
            ]  # fmt: skip
            words += [word for override in overrides for word in ("--set", override)]
            words += [] if arguments.realtime is None else ["--realtime", str(arguments.realtime)]
            out = stack.enter_context(printed.open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "twinloop", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
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
        "histogram": next((w.split(None, 1)[1] for w in words if w.startswith("decisions")), ""),
        "said": [w.strip() for kind in ("ERROR", "WARNING") for w in words if kind in w][:6],
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
            yield f"arm_{k + 1}: said first", arm["said"][0][:120], "", ""


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counted.items() if n) or "none"
