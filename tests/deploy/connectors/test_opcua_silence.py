"""An OPC UA peer that is stopped, stuck or killed: seen within three periods, and found again when it is back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.connectors.rig import Rig
from tests.deploy.connectors.secured_site import make_site

from twinloop.deploy.connectors.contract import Outcome, Peer, Readings
from twinloop.deploy.connectors.opcua_connector import OpcUaConnector
from twinloop.deploy.drivers.opcua_client import OpcUaPlant
from twinloop.deploy.drivers.opcua_server import OpcUaPlantServer
from twinloop.envs.errors import PlantError
from twinloop.envs.plant import Quality

PERIOD_S = 0.6
"""On the wall: long enough that a busy machine makes no period late."""
SPEED = str(1.0 / PERIOD_S)
ROOT = Path(__file__).parents[3]
COMMANDS = {"rig": np.array([[0.3, 1.0], [0.3, 1.0]])}


@contextmanager
def server_process(endpoint: str, security: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The rig's server in a process of its own, and where it listens."""
    more = [] if security is None else [str(security)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.connectors.rig", endpoint, SPEED, *more],
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


def is_of(plant: OpcUaPlant, quality: Quality) -> bool:
    """Whether a reading has come and is all of a quality; an error counts as bad."""
    try:
        return bool(np.all(plant.read().quality["rig"] == quality))
    except PlantError:
        return quality is Quality.BAD


def seconds_until(plant: OpcUaPlant, quality: Quality, between_s: float) -> float:
    """How long the runtime's calls take to show it; they go on, as those of any runtime do."""
    start_s = time.monotonic()
    while time.monotonic() - start_s < 120.0 and not is_of(plant, quality):
        time.sleep(between_s)
    return time.monotonic() - start_s


def advance_often(plant: OpcUaPlant) -> None:
    for _ in range(5):
        plant.advance()


@pytest.mark.parametrize("is_secured", [False, True], ids=["open", "secured"])
def test_a_stopped_server_is_seen_within_three_periods_and_found_again_when_it_goes_on(
    tmp_path: Path, is_secured: bool
) -> None:
    site = make_site(tmp_path) if is_secured else None
    server, client = (None, None) if site is None else (site.server, site.client)
    with server_process("opc.tcp://127.0.0.1:0/rig", server) as (process, endpoint):
        plant = OpcUaPlant(endpoint, security=client)
        try:
            assert seconds_until(plant, Quality.GOOD, 0.1) < 120.0  # a busy machine takes its time to start a server
            plant.write(COMMANDS)
            plant.advance()
            os.kill(process.pid, signal.SIGSTOP)  # its socket stays open: nothing on the wire says so
            seen_s = seconds_until(plant, Quality.BAD, 0.02)
            assert seen_s < 3.0 * PERIOD_S  # asyncua's own time-out is 4 s, and then it stays disconnected
            time.sleep(2.0 * PERIOD_S)
            os.kill(process.pid, signal.SIGCONT)
            back_s = seconds_until(plant, Quality.GOOD, PERIOD_S / 4.0)
            print(f"\nSIGSTOP: seen after {seen_s / PERIOD_S:.2f} periods, good {back_s / PERIOD_S:.2f} after SIGCONT")
            assert back_s < 10.0 * PERIOD_S
            np.testing.assert_array_equal(plant.write(COMMANDS)["rig"], COMMANDS["rig"])
        finally:
            plant.close()


def test_a_killed_server_is_seen_within_three_periods_and_found_again_when_it_is_back() -> None:
    with server_process("opc.tcp://127.0.0.1:0/rig") as (process, endpoint):
        plant = OpcUaPlant(endpoint)
        try:
            assert seconds_until(plant, Quality.GOOD, 0.1) < 120.0  # a busy machine takes its time to start a server
            process.kill()
            assert seconds_until(plant, Quality.BAD, 0.02) < 3.0 * PERIOD_S
            with server_process(endpoint) as (_, again):
                assert again == endpoint
                assert seconds_until(plant, Quality.GOOD, PERIOD_S / 4.0) < 10.0 * PERIOD_S
                plant.write(COMMANDS)
        finally:
            plant.close()


def test_a_server_that_answers_while_its_plant_stands_still_gets_uncertain_then_bad() -> None:
    rig = Rig()
    with OpcUaPlantServer(rig, "opc.tcp://127.0.0.1:0/rig", speed=1.0 / PERIOD_S) as server:
        plant = OpcUaPlant(server.endpoint)
        try:
            plant.advance()
            plant.advance()
            rig.go_on.clear()
            with pytest.raises(PlantError, match="the server answers, but its heartbeat has stood"):
                advance_often(plant)
            assert is_of(plant, Quality.BAD)
            assert np.all(np.isfinite(plant.read().values["rig"]))  # the values are there, and old
            rig.go_on.set()
            plant.advance()
            assert is_of(plant, Quality.GOOD)
            rig.go_on.clear()
            seen: list[int] = []
            give_up_s = time.monotonic() + 20.0
            while Quality.BAD not in seen and time.monotonic() < give_up_s:
                seen.append(int(plant.read().quality["rig"].max()))
                time.sleep(0.02)
            rig.go_on.set()
            assert seen == sorted(seen)
            assert set(seen) == {Quality.GOOD, Quality.UNCERTAIN, Quality.BAD}
        finally:
            rig.go_on.set()
            plant.close()


def test_a_wait_for_the_next_period_asks_when_it_is_due_and_not_all_the_time() -> None:
    rig = Rig()
    with OpcUaPlantServer(rig, "opc.tcp://127.0.0.1:0/rig", speed=1.0 / PERIOD_S) as server:
        connector = CountingConnector(server.endpoint)
        plant = OpcUaPlant(server.endpoint)
        plant._connector = connector
        try:
            for _ in range(3):  # finds the phase
                plant.read()
                plant.write(COMMANDS)
                plant.advance()
            connector.asked.clear()
            steps = []
            for _ in range(8):
                steps.append((plant.read().notes or {})["heartbeat"])
                plant.clock_s  # noqa: B018  # as the loop asks for it in each period
                plant.write(COMMANDS)
                plant.advance()
            assert steps == sorted(set(steps))
            assert connector.asked.count("read") == connector.asked.count("write") == 8
            assert "beat" not in connector.asked  # the write carries it
            assert connector.asked.count("look") <= 80  # 160 before the phase was followed; some 10 on an idle machine
        finally:
            plant.close()


class CountingConnector(OpcUaConnector):
    """Remembers what was asked for."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.asked: list[str] = []

    def read(self, names: Sequence[str]) -> Readings:
        self.asked.append("read")
        return super().read(names)

    def write(self, commands: Mapping[str, float]) -> dict[str, Outcome]:
        self.asked.append("write")
        return super().write(commands)

    def heartbeat(self, *, send: bool = True) -> Peer:
        self.asked.append("beat" if send else "look")
        return super().heartbeat(send=send)


def test_a_subscription_hears_values_and_silence_and_goes_on_by_itself() -> None:
    rig = Rig()
    server = OpcUaPlantServer(rig, "opc.tcp://127.0.0.1:0/rig", speed=1.0 / PERIOD_S)
    server.start()
    connector = OpcUaConnector(server.endpoint)
    heard: list[Readings | PlantError] = []

    def has_heard(kind: type, within_s: float = 120.0) -> bool:
        heard.clear()
        give_up_s = time.monotonic() + within_s
        while not any(isinstance(told, kind) for told in heard) and time.monotonic() < give_up_s:
            time.sleep(0.02)
        return any(isinstance(told, kind) for told in heard)

    names = connector.nameplate.signal_names("measured")
    subscription = connector.subscribe(names, heard.append, 0.1)
    try:
        assert has_heard(Readings)
        server.stop()
        assert has_heard(PlantError)
        server.start()
        assert has_heard(Readings)
    finally:
        subscription.close()
        connector.close()
        server.stop()
