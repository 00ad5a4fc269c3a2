"""A peer that is stuck, stopped or killed: seen within three periods, and found again when it is back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.connectors.rig import Rig

from twinloop.deploy.connectors.connected_plant import ConnectedPlant
from twinloop.deploy.connectors.modbus_client import ModbusConnector
from twinloop.deploy.connectors.modbus_server import ModbusPlantServer
from twinloop.envs.errors import PlantError
from twinloop.envs.plant import Quality

PERIOD_S = 0.4
"""On the wall: long enough that a busy machine makes no period late."""
SPEED = str(1.0 / PERIOD_S)
ROOT = Path(__file__).parents[3]


@contextmanager
def server_process(endpoint: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The rig's server in a process of its own, and where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.connectors.rig", endpoint, SPEED],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None  # a pipe; narrows the type
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10.0)
        process.stdout.close()


@contextmanager
def connected(endpoint: str) -> Iterator[ConnectedPlant]:
    plant = ConnectedPlant(ModbusConnector(endpoint))
    try:
        yield plant
    finally:
        plant.close()


def advance_often(plant: ConnectedPlant) -> None:
    for _ in range(5):
        plant.advance()


def seconds_until_seen(plant: ConnectedPlant) -> float:
    """How long the runtime's calls go on without a complaint: an error, or a reading that is all bad."""
    start_s = time.monotonic()
    while time.monotonic() - start_s < 20.0:
        try:
            if np.all(plant.read().quality["rig"] == Quality.BAD):
                break
            time.sleep(0.02)
        except PlantError:
            break
    return time.monotonic() - start_s


def seconds_until_good(plant: ConnectedPlant) -> float:
    """How long until a reading is good again; a call is made each quarter of a period, as often as any runtime's."""
    start_s = time.monotonic()
    while time.monotonic() - start_s < 20.0:
        try:
            if np.all(plant.read().quality["rig"] == Quality.GOOD):
                break
        except PlantError:
            pass
        time.sleep(PERIOD_S / 4.0)
    return time.monotonic() - start_s


def test_a_stopped_server_is_seen_within_three_periods_and_found_again_when_it_goes_on() -> None:
    with server_process("modbus://127.0.0.1:0") as (process, endpoint), connected(endpoint) as plant:
        for _ in range(3):
            plant.advance()
            plant.write({"rig": np.array([[0.3, 1.0], [0.3, 1.0]])})
        os.kill(process.pid, signal.SIGSTOP)  # its socket stays open: nothing on the wire says so
        seen_s = seconds_until_seen(plant)
        assert seen_s < 3.0 * PERIOD_S
        time.sleep(2.0 * PERIOD_S)
        os.kill(process.pid, signal.SIGCONT)
        back_s = seconds_until_good(plant)
        print(f"\nSIGSTOP: seen after {seen_s / PERIOD_S:.2f} periods, good {back_s / PERIOD_S:.2f} after SIGCONT")
        assert back_s < 6.0 * PERIOD_S
        plant.advance()
        np.testing.assert_allclose(plant.write({"rig": np.array([[0.2, 0.1]] * 2)})["rig"], [[0.2, 0.1]] * 2, atol=1e-7)


def test_a_killed_server_is_seen_within_three_periods_and_found_again_when_it_is_back() -> None:
    with server_process("modbus://127.0.0.1:0") as (process, endpoint), connected(endpoint) as plant:
        plant.advance()
        process.kill()
        seen_s = seconds_until_seen(plant)
        assert seen_s < 3.0 * PERIOD_S
        with server_process(endpoint) as (_, again):
            assert again == endpoint
            back_s = seconds_until_good(plant)
            print(
                f"\nSIGKILL: seen after {seen_s / PERIOD_S:.2f} periods, good {back_s / PERIOD_S:.2f} after the restart"
            )
            assert back_s < 6.0 * PERIOD_S
            plant.advance()
            plant.write({"rig": np.array([[0.2, 0.1]] * 2)})  # heartbeats are counted from the new server's echo


def test_a_server_that_answers_while_its_plant_stands_still_is_seen_within_three_periods() -> None:
    rig = Rig()
    with (
        ModbusPlantServer(rig, "modbus://127.0.0.1:0", speed=1.0 / PERIOD_S) as server,
        connected(server.endpoint) as plant,
    ):
        plant.advance()
        plant.advance()
        rig.go_on.clear()
        time.sleep(PERIOD_S)  # the period that has begun
        start_s = time.monotonic()
        with pytest.raises(PlantError, match="the server answers, but its heartbeat has stood"):
            advance_often(plant)
        assert time.monotonic() - start_s < 3.2 * PERIOD_S
        reading = plant.read()
        assert np.all(reading.quality["rig"] == Quality.BAD)
        assert np.all(np.isfinite(reading.values["rig"]))  # the values are there, and old
        rig.go_on.set()
        plant.advance()
        assert np.all(plant.read().quality["rig"] == Quality.GOOD)


def test_a_reading_gets_uncertain_before_it_gets_bad() -> None:
    rig = Rig()
    with (
        ModbusPlantServer(rig, "modbus://127.0.0.1:0", speed=1.0 / PERIOD_S) as server,
        connected(server.endpoint) as plant,
    ):
        plant.advance()
        rig.go_on.clear()
        seen: list[int] = []
        wait_until(lambda: seen.append(int(plant.read().quality["rig"].max())) or seen[-1] == Quality.BAD)  # type: ignore[func-returns-value]
        rig.go_on.set()
        assert seen == sorted(seen)
        assert set(seen) == {Quality.GOOD, Quality.UNCERTAIN, Quality.BAD}


def test_a_socket_that_never_answers_is_reported_within_the_time_out_and_asked_again_later() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        connected(f"modbus://127.0.0.1:{deaf.getsockname()[1]}") as plant,
    ):
        plant._connector._timeout_s = 0.3  # type: ignore[attr-defined]
        for expected in ("no answer within 0.3 s", "no answer within 0.3 s", "trying again in"):
            start_s = time.monotonic()
            with pytest.raises(PlantError, match=expected):
                plant.read()
            assert time.monotonic() - start_s < 0.8


def test_a_name_that_no_machine_has_is_reported() -> None:
    with connected("modbus://nobody.invalid:502") as plant, pytest.raises(PlantError, match="no answer within 4 s"):
        plant.read()


def wait_until(is_done: Callable[[], bool], within_s: float = 10.0) -> None:
    give_up_s = time.monotonic() + within_s
    while not is_done():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
