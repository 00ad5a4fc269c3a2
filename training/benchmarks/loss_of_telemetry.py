"""How many periods pass from a loss to the fallback, and from a stop to the last command of a policy."""

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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from rich.progress import track

from ...agents.controllers.reference import RandomPolicy
from ...deploy.arbitration.priority_array import Slot
from ...deploy.emergency_stop import stop_on_signal
from ...deploy.journal import Journal
from ...deploy.plants import open_plant
from ...deploy.runtime import Period, Runtime, RuntimeSettings
from ...deploy.shield import Code, Mode, Shield, Source
from ...deploy.station.desk import StationDesk
from ...deploy.station.folder import StationFolder
from ...deploy.station.order import Order, new_id, place
from ...envs.plant import Plant
from ..report import Cell, Table, print_table, provenance
from .control_site import GROUP

NAME = "loss_of_telemetry"
SUMMARY = "periods from a dead, silent or cut-off server to the fallback, and from a stop to the last policy write"

TELEMETRY_BAR, STOP_BAR = 3.0, 1.0
DESCRIPTION = """\
A control loop over OPC UA and over Modbus, its server in a process of its own. At a random moment the server is killed
(SIGKILL), stopped (SIGSTOP), or the network between them is closed or swallows everything. Counted are the wall's
periods until the first decision in which every asset is on its fallback: at most 3.

Then, on a running loop, without any page process: the stop file, an order to stop, the signal, and an order that puts
all assets on manual values. Counted are the periods from that moment to the end of the last write that carries a
command of the policy: at most 1.
"""
Trial = Callable[[], None]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench loss_of_telemetry --trials 3"
    parser.add_argument("--trials", type=int, default=10, metavar="N", help="of each case (10)")
    parser.add_argument("--period-s", type=float, default=0.5, metavar="S", help="period of the site (0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when every case is within its bar."""
    rng, period_s = np.random.default_rng(arguments.seed), float(arguments.period_s)
    cases: list[tuple[str, str, Callable[[Path, float], float], float]] = [
        (protocol, words, partial(_loss, protocol, fault, period_s), TELEMETRY_BAR)
        for protocol in ("opcua", "modbus")
        for fault, words in (
            ("kill", "server killed"),
            ("still", "server stands still"),
            ("closed", "network closes the connection"),
            ("swallows", "network swallows everything"),
        )
    ]
    cases += [
        ("opcua", words, partial(_stop, way, period_s), STOP_BAR)
        for way, words in (
            ("file", "stop file, to the last policy write"),
            ("order", "order to stop, to the last policy write"),
            ("signal", "SIGUSR1, to the last policy write"),
            ("manual", "manual values, to the last policy write"),
        )
    ]
    rows: list[tuple[Cell, ...]] = []
    data: dict[str, list[float]] = {}
    for protocol, words, measured, bar in track(cases, description=NAME):
        found = []
        for _ in range(arguments.trials):
            with tempfile.TemporaryDirectory() as folder:
                found.append(measured(Path(folder), float(rng.uniform())) / period_s)
        data[f"{protocol}: {words}"] = found
        met = "yes" if max(found) <= bar else "no"
        rows.append((protocol, words, f"{np.median(found):.2f}", f"{max(found):.2f}", f"{bar:g}", met))
    load = os.getloadavg()[0]
    notes = (
        f"Periods of {period_s:g} s on the wall, {arguments.trials} trials at random moments; load {load:.1f} on "
        f"{os.cpu_count()} cores, ordinary scheduling.",
        "No page process runs: nothing of it is needed.",
    )
    columns = ("protocol", "case", "median periods", "most periods", "bar", "met")
    table = Table(
        "From a loss to the fallback, and from a stop to the last policy write", columns, tuple(rows), notes, data
    )
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance([arguments.seed]))
    return 0 if all(row[-1] == "yes" for row in rows) else 1


def _loss(protocol: str, fault: str, period_s: float, folder: Path, phase: float) -> float:
    """Seconds from the fault to the decision that has all assets on their fallback."""
    with _served(protocol, period_s) as (endpoint, server), _Road(endpoint) as road:
        acts: dict[str, Trial] = {
            "kill": server.kill,
            "still": lambda: server.send_signal(signal.SIGSTOP),
            "closed": road.close,
            "swallows": road.swallow,
        }
        plant = open_plant(endpoint=road.endpoint)
        moment, decided = _Moment(acts[fault], phase, period_s), [float("nan")]

        def show(period: Period) -> None:
            if period.number == 6:
                moment.start()
            if moment.at_s is not None and _on_fallback(period):
                decided[0] = time.monotonic() - moment.at_s
                raise KeyboardInterrupt  # seen: the run may end

        _run(plant, folder, show)
        server.send_signal(signal.SIGCONT)
        return decided[0]


def _stop(way: str, period_s: float, folder: Path, phase: float) -> float:
    """Seconds from the order to the end of the last write with a command of the policy; 0 where none followed."""
    station = StationFolder(folder / "station")
    station.make()
    with _served("opcua", period_s) as (endpoint, _):
        plant = open_plant(endpoint=endpoint)
        moment = _Moment(partial(_order, way, station, plant), phase, period_s)
        last, since = [0.0], [0]

        def show(period: Period) -> None:
            if period.number == 6:
                moment.start()
            if moment.at_s is None:
                return
            since[0] += 1
            if _has_policy(period):
                last[0] = time.monotonic() - moment.at_s
            if since[0] == 6:
                raise KeyboardInterrupt  # seen for long enough: the run may end

        _run(plant, folder, show, station)
        return last[0]


def _order(way: str, station: StationFolder, plant: Plant) -> None:
    now_s = time.time()
    told: dict[str, Any] = {"id": new_id(), "by": "bench", "utc_s": now_s, "expires_utc_s": now_s + 10.0}
    if way == "file":
        station.stop.write_text("bench")
    elif way == "order":
        place(station, Order(kind="stop", **told))
    elif way == "signal":
        os.kill(os.getpid(), signal.SIGUSR1)
    else:
        values = dict.fromkeys(plant.nameplate.signal_names("commanded"), 0.25)
        place(station, Order(kind="manual", values=values, **told))


class _Moment:
    """Does ``act`` once, at a share ``phase`` of a period after it was started, from a thread of its own."""

    def __init__(self, act: Trial, phase: float, period_s: float) -> None:
        self.at_s: float | None = None
        self._act, self._wait_s = act, phase * period_s

    def start(self) -> None:
        threading.Thread(target=self._do, daemon=True).start()

    def _do(self) -> None:
        time.sleep(self._wait_s)
        self._act()
        self.at_s = time.monotonic()


def _run(plant: Plant, folder: Path, show: Callable[[Period], None], station: StationFolder | None = None) -> None:
    """A loop with everything that control has, until ``show`` has seen enough."""
    plate = plant.nameplate
    period_s = getattr(plant, "wall_period_s", None) or plate.period_s
    desk = None if station is None else StationDesk(station, plate, Mode.AUTONOMOUS, period_s)
    settings = RuntimeSettings(hand_back_periods=0)
    try:
        with Journal(folder / "journal.sqlite") as journal, stop_on_signal(_nobody if desk is None else desk.stop):
            Runtime(
                plant,
                RandomPolicy(plate),
                Shield(plate),
                journal,
                settings,
                desk=desk,
                requesters={} if desk is None else {Slot.OPERATOR: desk},
                wall_period_s=period_s,
                clock_s=time.monotonic,
            ).run(60, show)
    finally:
        plant.close()


def _nobody(by: str) -> None:
    """Hear no stop."""


def _on_fallback(period: Period) -> bool:
    return not set(period.decision.source.values()) & {Source.POLICY, Source.SUBSTITUTED}


def _has_policy(period: Period) -> bool:
    """Whether a command of the policy was sent in it; what stands in for a late decision is none."""
    if not any(acts.any() for acts in period.decision.acts.values()):
        return False
    if any(reason.code is Code.DEADLINE_MISSED for reason in period.decision.reasons):
        return False
    return period.slots is None or bool((np.asarray(period.slots[GROUP]) == Slot.AUTONOMOUS).any())


@contextmanager
def _served(protocol: str, period_s: float) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    words = ["--protocol", protocol, "--period-s", str(period_s)]
    server = subprocess.Popen(
        [sys.executable, "-m", "twinloop.training.benchmarks.control_site", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None  # a pipe; narrows the type
    try:
        yield server.stdout.readline().strip(), server
    finally:
        server.kill()
        server.communicate()


class _Road:
    """A network between client and server that can be closed, or swallow everything."""

    def __init__(self, endpoint: str) -> None:
        parts = urlparse(endpoint)
        self._to = (str(parts.hostname), int(parts.port or 0))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = parts._replace(netloc=f"127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        self._ends: list[socket.socket] = []
        self._swallows = threading.Event()

    def __enter__(self) -> _Road:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def swallow(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self._swallows.set()

    def close(self) -> None:
        """All connections break, and new ones are refused."""
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), closing(one), closing(other):
            while data := one.recv(65536):
                if not self._swallows.is_set():
                    other.sendall(data)
