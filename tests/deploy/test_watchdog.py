"""Real processes against a real server: whoever dies, the equipment ends in its safe state within the time-out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.presses import FULL, PERIOD_S, Presses, served, until

from twinloop.deploy.drivers.opcua_client import OpcUaPlant
from twinloop.deploy.journal import read

PERIODS = 2
TIMEOUT_S = (PERIODS + 0.5) * PERIOD_S
SLACK_S = 0.9
"""What a busy machine may add to every reaction: starting a connection, being scheduled."""

CONTROL = """
import sys, numpy as np
from pathlib import Path
from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.deploy.drivers.opcua_client import OpcUaPlant
from twinloop.deploy.heartbeat import Watched, watchdog_command
from twinloop.deploy.journal import Journal
from twinloop.deploy.runtime import Runtime
from twinloop.deploy.shield import Shield

class Full(NeutralPolicy):
    def act(self, observation, memory):
        return {"press": np.array([[[50.0], [40.0]]])}, memory

endpoint, journal, periods, period_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
plant = OpcUaPlant(endpoint)
policy, shield = Full(plant.nameplate, name="full"), Shield(plant.nameplate)
with Watched(watchdog_command(endpoint, periods, period_s), period_s, periods) as watched:
    print(watched.pid, flush=True)
    Runtime(plant, policy, shield, Journal(Path(journal)), heartbeat=watched).run(None)
plant.close()
"""


@contextlib.contextmanager
def controlled(endpoint: str, journal: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A control process with its watchdog; gives the process and the watchdog's process id."""
    words = [sys.executable, "-c", CONTROL, endpoint, str(journal), str(PERIODS), str(PERIOD_S)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    watchdog = 0
    try:
        assert process.stdout is not None
        watchdog = int(process.stdout.readline())
        yield process, watchdog
    finally:
        for pid in filter(None, (process.pid, watchdog)):  # never 0, which means this whole group of processes
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def is_full(plant: Presses) -> Callable[[], bool]:
    return lambda: np.array_equal(plant.commands, FULL)


def is_safe(plant: Presses) -> Callable[[], bool]:
    return lambda: not plant.commands.any()


def reaction(plant: Presses, at_s: float) -> tuple[float, float]:
    """Seconds from ``at_s`` to the first command of the way down, and to the safe state."""
    down_s = plant.first(lambda c: bool((c < FULL).any()), at_s) - at_s
    return down_s, plant.first(lambda c: not c.any(), at_s) - at_s


WALK_S = 5 * PERIOD_S  # from 50 by 10 a period


def test_a_control_process_that_is_killed_ends_in_the_safe_state(tmp_path: Path) -> None:
    with served() as (plant, endpoint), controlled(endpoint, tmp_path / "j") as (process, _):
        assert until(is_full(plant))
        at_s = time.monotonic()
        process.kill()
        assert until(is_safe(plant), 20.0)
        down_s, safe_s = reaction(plant, at_s)
        print(f"\nkill -9: first command {down_s:.2f} s, safe state {safe_s:.2f} s, time-out {TIMEOUT_S:.2f} s")
        assert down_s <= TIMEOUT_S + PERIOD_S
        assert safe_s <= TIMEOUT_S + WALK_S + PERIOD_S + SLACK_S
        assert plant.largest_step(at_s) <= 10.0 + 1e-6


def test_a_control_process_that_stands_still_is_taken_over_and_trips_when_it_wakes(tmp_path: Path) -> None:
    with served() as (plant, endpoint), controlled(endpoint, tmp_path / "j") as (process, _):
        assert until(is_full(plant))
        at_s = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        assert until(is_safe(plant), 20.0)
        down_s, safe_s = reaction(plant, at_s)
        print(f"\nSIGSTOP: first command {down_s:.2f} s, safe state {safe_s:.2f} s, time-out {TIMEOUT_S:.2f} s")
        assert TIMEOUT_S - PERIOD_S - SLACK_S <= down_s <= TIMEOUT_S + 2 * PERIOD_S + SLACK_S
        assert safe_s <= TIMEOUT_S + WALK_S + 2 * PERIOD_S + SLACK_S
        process.send_signal(signal.SIGCONT)
        time.sleep(8 * PERIOD_S)
        assert is_safe(plant)()
        assert plant.largest_step(at_s) <= 10.0 + 1e-6
        assert until(lambda: any("watchdog_lost" in json.dumps(row) for row in read(tmp_path / "j")))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watchdog_that_dies_or_hangs_trips_the_control_process(tmp_path: Path, number: signal.Signals) -> None:
    with served() as (plant, endpoint), controlled(endpoint, tmp_path / "j") as (process, watchdog):
        assert until(is_full(plant))
        at_s = time.monotonic()
        os.kill(watchdog, number)
        assert until(is_safe(plant), 20.0)
        down_s, safe_s = reaction(plant, at_s)
        print(f"\nwatchdog {number.name}: first command {down_s:.2f} s, safe state {safe_s:.2f} s")
        assert down_s <= TIMEOUT_S + 2 * PERIOD_S + SLACK_S
        assert process.poll() is None  # the loop goes on, in its safe state
        assert plant.excess(at_s) <= 1e-6
        rows = [r for r in read(tmp_path / "j") if r["kind"] == "decision"]
        assert rows[-1]["causes"] == ["watchdog_lost"]


def test_a_good_bye_leaves_the_plant_alone() -> None:
    with served() as (plant, endpoint):
        told = command(endpoint, [{"beat": 1, "standby": {"press": [[5.0], [5.0]]}}, {"bye": True}])
        assert told.returncode == 0
        assert [json.loads(line) for line in told.stdout.splitlines()][1:] == [{"heard": 1}]
        assert not plant.history or is_safe(plant)()


def command(endpoint: str, messages: list[dict[str, Any]], *words: str) -> subprocess.CompletedProcess[str]:
    """`twinloop watchdog` alone, told ``messages``; the pipe then closes."""
    text = "".join(json.dumps(m) + "\n" for m in messages)
    start = [sys.executable, "-m", "twinloop", "watchdog", "--endpoint", endpoint, *words]
    return subprocess.run(start, input=text, capture_output=True, text=True, check=False, timeout=60.0)


def test_a_pipe_that_closes_without_a_good_bye_is_a_death_and_is_recorded(tmp_path: Path) -> None:
    with served() as (plant, endpoint):
        client = OpcUaPlant(endpoint)
        for force in (10.0, 20.0, 30.0):
            client.write({"press": np.full((2, 1), force)})
            client.advance()
        at_s = time.monotonic()
        beat = {"beat": 1, "standby": {"press": [[30.0], [25.0]]}}
        told = command(endpoint, [beat], "--journal", str(tmp_path / "j"))
        client.close()
        assert told.returncode == 1, told.stderr
        assert "in its safe state after" in told.stderr
        seen = [c.ravel().tolist() for at, c in plant.history if at > at_s]
        assert [30.0, 25.0] in seen  # the loop's own standby came first, where it was in reach
        assert until(is_safe(plant), 2 * PERIOD_S + SLACK_S)  # the server hands a write on with its next period
        assert plant.largest_step(at_s) <= 10.0 + 1e-6
        (row,) = read(tmp_path / "j")
        assert (row["kind"], row["safe"], row["why"]) == (
            "watchdog",
            True,
            "the control process ended without a good-bye",
        )


@pytest.mark.parametrize("standby", [{"press": [[0.0], [0.0]]}, {"press": [["x"]]}])
def test_a_standby_out_of_reach_or_unusable_is_not_sent(standby: Any) -> None:
    with served() as (plant, endpoint):
        client = OpcUaPlant(endpoint)
        for force in (10.0, 20.0):
            client.write({"press": np.full((2, 1), force)})
            client.advance()
        client.close()
        at_s = time.monotonic()
        assert command(endpoint, [{"beat": 1, "standby": standby}]).returncode == 1
        assert until(is_safe(plant), 2 * PERIOD_S + SLACK_S)  # the server hands a write on with its next period
        assert plant.largest_step(at_s) <= 10.0 + 1e-6


def test_a_plant_that_is_gone_too_is_left_to_its_own_time_out() -> None:
    with served() as (_, endpoint):
        start = [sys.executable, "-m", "twinloop", "watchdog", "--endpoint", endpoint]
        process = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
    process.communicate('{"beat": 1}\n', timeout=60.0)
    assert process.returncode == 2


def test_when_the_watchdog_has_done_its_part_the_equipments_own_time_out_acts() -> None:
    with served(watchdog_periods=3) as (plant, endpoint):
        client = OpcUaPlant(endpoint)
        client.write({"press": np.full((2, 1), 10.0)})
        client.advance()
        told = command(endpoint, [{"beat": 1, "standby": None}])
        assert told.returncode == 1
        assert "in its safe state after" in told.stderr
        assert until(is_safe(plant), 2 * PERIOD_S + SLACK_S)  # the server hands a write on with its next period
        assert until(lambda: bool((client.read().notes or {})["watchdog_tripped"]), 10.0)
        client.close()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--periods", "0"], "--periods: 0; give 1 or more"),
        (["--period-s", "-1"], "--period-s: -1.0"),
        ([], "127.0.0.1:1"),
    ],
)
def test_wrong_input_is_one_clear_line(words: list[str], told: str) -> None:
    done = command("opc.tcp://127.0.0.1:1/none", [], *words)
    assert done.returncode == 2
    assert told in done.stderr
