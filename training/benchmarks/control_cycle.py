"""How a whole control process keeps 100 ms: secured OPC UA, a network, the shield, the journal, the station."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...deploy.cycle_clock import steal_s
from ...deploy.journal import read
from ...deploy.station.folder import StationFolder, read_whole
from ...envs.errors import ConfigurationError
from ..report import Cell, Table, print_table, provenance
from .control_site import N_ASSETS, N_SIGNALS, PERIOD_S, control_artifact, control_nameplate

NAME = "control_cycle"
SUMMARY = "misses, cycle times and jitter of `twinloop run` at 100 ms over secured OPC UA, real-time and plain"

MISS_BAR_PU = 0.001
DESCRIPTION = """\
Serve 100 measured and 20 commanded signals over OPC UA (SignAndEncrypt, user and password) from a process of their
own, and run `twinloop run --station` against it at 100 ms: a 256 x 256 network in its own process, the shield, a
journal with synchronous=FULL, read-back, state.json, a watchdog. Figures are the run's own; the server's own lateness
stands beside them, since it sets the pace. A miss is a period of the wall without a cycle, or with one that ended too
late.

--ways realtime,plain: with real-time scheduling, which is judged (below 0.1 % misses), and without. The server stands
in for equipment with a processor of its own, so in the realtime way it has real-time scheduling too.
"""
_START_S = 120.0


@dataclass
class Load:
    """What else the machine did: the mean load of a minute, and the share of all cores that the hypervisor took."""

    loads: list[float] = field(default_factory=list)
    begun: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), steal_s() or 0.0))

    def look(self) -> None:
        self.loads.append(os.getloadavg()[0])

    def words(self) -> str:
        took_s = time.monotonic() - self.begun[0]
        stolen = ((steal_s() or 0.0) - self.begun[1]) / took_s / (os.cpu_count() or 1)
        mean = sum(self.loads) / len(self.loads) if self.loads else float("nan")
        return f"{mean:.1f}, {100.0 * stolen:.1f} %"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench control_cycle --seconds 60 --ways plain"
    parser.add_argument("--seconds", type=float, default=300.0, metavar="S", help="length of each way (300)")
    parser.add_argument("--ways", default="realtime,plain", metavar="LIST", help="realtime, plain; default both")
    parser.add_argument("--realtime", type=int, default=2, metavar="PRIORITY", help="of the realtime way (2)")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that keep the machine busy (0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when the realtime way misses less than the bar."""
    ways = arguments.ways.split(",")
    wrong = [way for way in ways if way not in ("realtime", "plain")]
    if wrong:
        raise ConfigurationError(f"--ways: {wrong[0]!r}; give realtime, plain or both with a comma")
    rows: list[tuple[Cell, ...]] = []
    is_met, data = True, dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder, busy(arguments.busy):
        make_certificates(Path(folder) / "security")
        for way in ways:
            priority = arguments.realtime if way == "realtime" else None
            found, server, load = _measured(Path(folder), way, arguments.seconds, priority)
            data[way] = {"control": found, "server": server}
            misses_pu = found["misses"] / max(found["periods"], 1)
            met = "-"
            if priority is not None:
                is_met &= misses_pu < MISS_BAR_PU
                met = "yes" if misses_pu < MISS_BAR_PU else "no"
            rows.append((_words(way, priority), *cells(found), _server_words(server), load.words(), met))
    signals = f"{N_ASSETS * N_SIGNALS} reads and {N_ASSETS} writes each {1e3 * PERIOD_S:g} ms"
    notes = (
        f"{signals}, secured; bar: misses below {100 * MISS_BAR_PU:g} % with real-time scheduling.",
        "Cycle: all the work of a period, from the question for its reading to state.json. Jitter: by how much the "
        "time between two starts differs from the period; the loop follows the server's periods.",
        "Late decisions: not made and on disk within half a period, so that the standby of the one before was sent.",
        "Steal: CPU time that the hypervisor took of all cores during cycles over half a period.",
    )
    table = Table("How a control process keeps 100 ms", COLUMNS, tuple(rows), notes, data)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if is_met else 1


COLUMNS = (
    "scheduling",
    "periods",
    "cycle p50 / p99 / p99.9 / max ms",
    "jitter p99 / max ms",
    "misses",
    "late decisions",
    "slow cycles, steal in them s",
    "server: late periods, jitter p99 ms",
    "load, steal",
    "met",
)


def cells(cycle: dict[str, Any]) -> tuple[Cell, ...]:
    """Periods, cycle times, jitter, misses and slow cycles of a ``state.json``'s cycle figures."""
    times = " / ".join(f"{cycle[name]:.1f}" for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms"))
    jitter = " / ".join(f"{cycle[name]:.1f}" for name in ("jitter_p99_ms", "jitter_max_ms"))
    misses = f"{cycle['misses']} ({100.0 * cycle['misses'] / max(cycle['periods'], 1):.3f} %)"
    slow = f"{cycle['slow']:.0f}, {cycle['steal_s']:.2f}"
    return f"{cycle['periods']:,}", times, jitter, misses, str(cycle["late_decisions"]), slow


def make_certificates(folder: Path) -> None:
    """A server's and a client's folder, by the command that users have."""
    words = ["certificates", "make", str(folder), "--site", "drives", "--host", "127.0.0.1"]
    subprocess.run([sys.executable, "-m", "twinloop", *words], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def busy(n_processes: int) -> Iterator[None]:
    """Inside, so many processes of the ordinary class compute without end."""
    with ExitStack() as stack:
        for _ in range(n_processes):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def _measured(
    folder: Path, way: str, seconds: float, priority: int | None
) -> tuple[dict[str, Any], dict[str, Any], Load]:
    """The control process' cycle figures at its end, the server's, and the load."""
    station = StationFolder(folder / way)
    artifact = control_artifact(folder / f"artifact_{way}", control_nameplate())
    scheduled = [] if priority is None else ["--realtime", str(priority)]
    serve = [sys.executable, "-m", "twinloop.training.benchmarks.control_site", *scheduled]
    server = subprocess.Popen(
        [*serve, "--security", str(folder / "security" / "server")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None  # both are pipes; narrows the types
    assert server.stdout is not None
    try:
        endpoint = server.stdout.readline().strip()
        words = ["run", str(artifact), "--endpoint", endpoint, "--security", str(folder / "security" / "client")]
        words += ["--station", str(station.path), "--periods", str(round(seconds / PERIOD_S)), *scheduled]
        load = control(words, seconds)
        server.stdin.write("how was it\n")
        server.stdin.flush()
        told = json.loads(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()
    return cycle_of(station), told, load


def control(words: list[str], seconds: float) -> Load:
    """Run ``twinloop`` with these words until it ends, and look at the machine meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", "twinloop", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    load, give_up_s = Load(), time.monotonic() + 3.0 * seconds + _START_S
    try:
        while time.monotonic() < give_up_s:
            try:
                printed, _ = process.communicate(timeout=5.0)
            except subprocess.TimeoutExpired:
                load.look()
                continue
            if process.returncode:
                raise RuntimeError(f"twinloop {words[0]} ended with status {process.returncode}:\n{printed}")
            return load
        raise RuntimeError(f"twinloop {words[0]} did not end within {3.0 * seconds + _START_S:g} s")
    finally:
        process.kill()
        process.communicate()


def cycle_of(station: StationFolder) -> dict[str, Any]:
    """The cycle figures of the last period, and of the whole journal the decisions that were late."""
    state = read_whole(station.state)
    if state is None:
        raise RuntimeError(f"{station.state}: not there; the run told nothing")
    late = sum(row["kind"] == "missed" for row in read(station.journal))
    return {**state["cycle"], "late_decisions": late}


def _words(way: str, priority: int | None) -> str:
    return way if priority is None else f"SCHED_RR {priority}"


def _server_words(server: dict[str, Any]) -> str:
    return f"{server['late']} of {server['periods']:,}, {server['jitter_p99_ms']:.1f}"
