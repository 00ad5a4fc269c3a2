"""One word in any terminal stops a station, whoever of its processes lives: real processes, a real server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.presses import FULL, Presses, served, until

from twinloop.__main__ import main
from twinloop.deploy.commands import stop as command
from twinloop.deploy.held_stop import BLIND_S, HeldStop
from twinloop.deploy.journal import read, verify
from twinloop.deploy.station.folder import StationFolder, read_whole, write_whole

WATCH_S = 0.4
"""What the watchdog takes for a period: a busy machine must not look like a control process that does not obey."""

CONTROL = """
import os, sys, time, numpy as np
from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.deploy.drivers.opcua_client import OpcUaPlant
from twinloop.deploy.emergency_stop import stop_on_signal
from twinloop.deploy.heartbeat import Watched, watchdog_command
from twinloop.deploy.journal import Journal
from twinloop.deploy.order_desk import OrderDesk
from twinloop.deploy.runtime import Runtime
from twinloop.deploy.shield import Shield
from twinloop.deploy.station.folder import StationFolder, write_whole

class Full(NeutralPolicy):
    def act(self, observation, memory):
        return {"press": np.array([[[50.0], [40.0]]])}, memory

endpoint, folder, way, watch_s = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
station, desk = StationFolder(folder), OrderDesk()
plant = OpcUaPlant(endpoint)
policy, shield = Full(plant.nameplate, name="full"), Shield(plant.nameplate)

def orders():
    if station.stop.exists() and way != "deaf":
        desk.stop(station.stop.read_text())
    return desk()

def show(period):
    stop = all(mode.value == "tripped" for mode in period.decision.mode.values())
    if way == "mute":
        return
    row = {"format": 1, "utc_s": time.time(), "number": period.number, "stop": stop, "ended": None}
    write_whole(station.state, row, durable=False)

watching = [] if way == "alone" else [Watched(
    watchdog_command(endpoint, 1000, watch_s, station=folder), watch_s, 1000
)]
with stop_on_signal(str if way == "deaf" else desk.stop):
    watched = watching[0].__enter__() if watching else None
    pids = {"pid": os.getpid(), "watchdog_pid": watched and watched.pid}
    write_whole(station.control, {**pids, "period_s": plant.nameplate.period_s, "started_utc_s": time.time()})
    print("ready", flush=True)
    Runtime(plant, policy, shield, Journal(station.journal), orders=orders, heartbeat=watched).run(None, show)
"""
"""Ways: "follows"; "deaf" neither looks at the file nor hears the signal; "alone" has no watchdog; "mute" tells no
state. Its watchdog's time-out for silence is far away, so that it can't be mistaken for the stop."""


@dataclass
class Site:
    plant: Presses
    station: StationFolder
    process: subprocess.Popen[str]

    def stop(self, *words: str) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, "-m", "twinloop", "stop", "--station", str(self.station.path), *words]
        return subprocess.run(start, capture_output=True, text=True, check=False, timeout=60.0)

    def is_safe(self) -> bool:
        return not self.plant.commands.any()

    @property
    def watchdog_pid(self) -> int:
        return int((read_whole(self.station.control) or {}).get("watchdog_pid") or 0)


@contextlib.contextmanager
def running(tmp_path: Path, way: str) -> Iterator[Site]:
    """A station whose presses are at full force."""
    station = StationFolder(tmp_path / "north")
    station.make()
    with served() as (plant, endpoint):
        words = [sys.executable, "-c", CONTROL, endpoint, str(station.path), way, str(WATCH_S)]
        site = Site(plant, station, subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        try:
            assert until(lambda: bool(np.array_equal(plant.commands, FULL)), 60.0)
            yield site
        finally:
            for pid in filter(None, (site.process.pid, site.watchdog_pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
            site.process.communicate()


def test_a_stop_is_seen_and_no_policy_commands_anything_from_then_on(tmp_path: Path) -> None:
    with running(tmp_path, "follows") as site:
        done = site.stop("--by", "ann")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "written, by ann" in done.stdout
        assert f"control, process {site.process.pid}, signalled" in done.stdout
        assert "seen after" in done.stdout
        assert until(site.is_safe)
        assert site.station.stop.read_text().startswith("ann, 20")
        time.sleep(4 * WATCH_S)
        assert site.process.poll() is None  # it follows, so nobody ends it
        assert site.is_safe()
        assert (read_whole(site.station.watchdog) or {})["state"] == "watching"


def test_the_file_alone_stops_a_station(tmp_path: Path) -> None:
    with running(tmp_path, "follows") as site:
        at_s = time.monotonic()
        site.station.stop.write_text("a hand")
        assert until(site.is_safe)
        assert site.plant.largest_step(at_s) <= 10.0 + 1e-6
        assert site.process.poll() is None


def test_a_control_process_that_ignores_the_stop_is_ended_and_the_plant_made_safe(tmp_path: Path) -> None:
    with running(tmp_path, "deaf") as site:
        at_s = time.monotonic()
        done = site.stop()
        assert until(site.is_safe)
        assert done.returncode == 0 or "is taking the plant" in done.stdout or "not taken over" in done.stdout
        assert site.process.wait(10.0) == -signal.SIGKILL
        assert site.plant.excess(at_s) <= 1e-6  # a busy machine's walk makes up for the time that it stood
        assert until(lambda: (read_whole(site.station.watchdog) or {})["state"] == "safe")
        told = read_whole(site.station.watchdog) or {}
        assert told["why"] == f"a stop was not carried out for over 0.6 s; process {site.process.pid} killed"
        again = site.stop()
        assert again.returncode == 0
        assert "is dead" in again.stdout
        assert "the watchdog has taken the plant to its safe state" in again.stdout


def test_a_control_process_that_stands_still_is_ended_before_it_can_wake_up_and_command(tmp_path: Path) -> None:
    with running(tmp_path, "follows") as site:
        site.process.send_signal(signal.SIGSTOP)
        assert until(lambda: command._is_still(site.process.pid))
        at_s = time.monotonic()
        done = site.stop()
        assert "(it stands still)" in done.stdout
        assert until(site.is_safe)
        assert site.process.wait(10.0) == -signal.SIGKILL
        assert site.plant.largest_step(at_s) <= 10.0 + 1e-6
        assert verify(site.station.journal).is_sound


def test_without_a_watchdog_a_deaf_or_dead_control_is_told_of_and_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, "alone") as site:
        site.process.send_signal(signal.SIGSTOP)
        assert until(lambda: command._is_still(site.process.pid))
        done = site.stop()
        assert done.returncode == 1
        assert "NOT SEEN" in done.stdout
        assert "stands still; no watchdog was started for it" in done.stdout
        assert "equipment's own emergency stop" in done.stdout
        site.process.kill()
        site.process.wait(10.0)
        done = site.stop()
        assert done.returncode == 1
        assert f"control, process {site.process.pid}, is dead" in done.stdout


def test_the_pages_and_the_state_file_are_not_needed(tmp_path: Path) -> None:
    with running(tmp_path, "mute") as site:
        done = site.stop()
        assert done.returncode == 1  # nobody told it, so it does not claim that the stop was seen
        assert "lives but does not show it" in done.stdout
        assert until(site.is_safe)
        assert any(row.get("modes") == "tripped" for row in read(site.station.journal))


def test_a_number_that_became_another_process_is_not_signalled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = StationFolder(tmp_path / "north")
    station.make()
    other = subprocess.Popen(["sleep", "60"])
    try:
        write_whole(station.control, {"pid": other.pid, "period_s": 0.1, "started_utc_s": time.time()})
        assert main(["stop", "--station", str(station.path)]) == 1
        assert "takes no stop signals" in capsys.readouterr().out
        assert other.poll() is None
        assert station.stop.exists()
    finally:
        other.kill()
        other.wait()


def test_an_old_state_that_shows_a_stop_is_not_taken_for_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = StationFolder(tmp_path / "north")
    station.make()
    write_whole(station.control, {"pid": os.getppid(), "period_s": 0.1, "started_utc_s": time.time()})
    write_whole(station.state, {"utc_s": time.time() - 0.5, "stop": True, "ended": None, "number": 7})
    assert main(["stop", "--station", str(station.path)]) == 1
    assert "NOT SEEN" in capsys.readouterr().out


def test_what_an_earlier_run_s_watchdog_did_is_not_taken_for_this_stop_though_the_clock_was_set_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = StationFolder(tmp_path / "north")
    station.make()
    told = {"pid": os.getppid(), "watchdog_pid": None, "period_s": 0.1, "started_utc_s": time.time()}
    write_whole(station.control, told)
    write_whole(station.watchdog, {"pid": 4711, "state": "safe", "utc_s": time.time() + 3600.0, "why": "no heartbeat"})
    assert main(["stop", "--station", str(station.path)]) == 1
    assert "NOT SEEN" in capsys.readouterr().out


def test_a_station_that_never_ran_starts_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station = StationFolder(tmp_path / "north")
    station.make()
    assert main(["stop", "--station", str(station.path), "--by", "bo\nb"]) == 1
    assert "starts stopped" in capsys.readouterr().out
    assert station.stop.read_text().startswith("bo b, ")


def test_a_folder_that_is_no_station_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--station", str(tmp_path / "nrth")]) == 2
    assert "no station, so nothing was stopped" in capsys.readouterr().err


def test_the_command_needs_neither_numpy_nor_pydantic() -> None:
    told = "import sys, twinloop.deploy.commands.stop; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert not {"numpy", "pydantic", "yaml", "sqlite3"} & set(found.stdout.split())


def test_a_stop_counts_as_ignored_a_period_and_a_half_after_it_was_seen(tmp_path: Path) -> None:
    file = tmp_path / "STOP"
    held = HeldStop(file, None, 1.0)
    file.touch()
    assert not held.is_ignored(0.0)  # nothing was commanded before the first beat
    held.told(False)
    assert not held.is_ignored(10.0)
    assert not held.is_ignored(11.4)
    assert held.is_ignored(11.6)
    held.told(True)
    assert not held.is_ignored(20.0)
    held.told(None)  # a sender that knows nothing of stops does not carry one out
    assert not held.is_ignored(21.0)
    file.unlink()
    assert not held.is_ignored(30.0)
    file.touch()
    assert not held.is_ignored(31.0)
    assert held.is_ignored(33.0)
    assert not held.end_control()


class Hanging(type(Path())):  # type: ignore[misc]  # Path's own class depends on the system
    """A path in a folder that hangs while ``goes_on`` is clear."""

    goes_on = threading.Event()

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        self.goes_on.wait(60.0)
        return os.stat(self, follow_symlinks=follow_symlinks)


def test_a_folder_that_hangs_does_not_take_the_watchdog_along() -> None:
    held = HeldStop(Hanging("/nowhere/STOP"), None, 1.0)
    held.told(False)
    begun_s = time.monotonic()
    assert not held.is_ignored(0.0)
    assert not held.is_ignored(0.9 * BLIND_S)  # what was last seen stands
    assert not held.is_ignored(1.1 * BLIND_S)  # from here on it is a stop, which control does not carry out
    assert held.is_ignored(1.1 * BLIND_S + 1.6)
    assert time.monotonic() - begun_s < 30.0
    Hanging.goes_on.set()
    assert until(lambda: not held.is_ignored(1.1 * BLIND_S + 2.0), 10.0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--control-pid", "1"], "give --station too"),
        (["--control-pid", "1", "--station", "somewhere"], "did not start this process"),
    ],
)
def test_a_watchdog_ends_nobody_but_who_started_it(words: list[str], told: str) -> None:
    start = [sys.executable, "-m", "twinloop", "watchdog", "--endpoint", "opc.tcp://127.0.0.1:1/none", *words]
    done = subprocess.run(start, input="", capture_output=True, text=True, check=False, timeout=60.0)
    assert done.returncode == 2
    assert told in done.stderr


def test_the_loop_says_in_its_beats_when_a_stop_is_carried_out(tmp_path: Path) -> None:
    """The very period of the stop has a second beat, so that the watchdog need not wait for the next."""
    from tests.deploy.audit.pumps import PUMPS, Pumps

    from twinloop.agents.controllers.reference import RandomPolicy
    from twinloop.deploy.journal import Journal
    from twinloop.deploy.runtime import Runtime, RuntimeSettings
    from twinloop.deploy.shield import Shield
    from twinloop.deploy.shield.orders import Orders
    from twinloop.envs.constraint import declare

    beats: list[tuple[int, bool]] = []

    class Beats:
        period = 0
        lost = ""

        def beat(self, standby: object, stopped: bool = False) -> None:
            beats.append((self.period, stopped))

    heart = Beats()

    def orders() -> Orders:
        heart.period += 1
        return Orders(stop=heart.period >= 3)

    settings = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)
    with Journal(tmp_path / "j") as journal:
        shield = Shield(declare(PUMPS))
        plant, policy = Pumps(steady=True), RandomPolicy(PUMPS)
        Runtime(plant, policy, shield, journal, settings, orders=orders, heartbeat=heart).run(4)
    assert beats == [(0, False), (1, False), (2, False), (3, True), (3, True)]
