"""A broker or a plant that is stopped, killed or stuck: seen within three periods, and found again when it is back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.deploy.connectors.broker import CONTROL, PLANT, Broker, broker_in, needs_mosquitto
from tests.deploy.connectors.rig import EPOCH_S, Rig

from twinloop.agents.controllers import RandomPolicy
from twinloop.deploy.connectors.connected_plant import ConnectedPlant
from twinloop.deploy.connectors.mqtt_client import MqttConnector
from twinloop.deploy.connectors.mqtt_identity import VARIABLE
from twinloop.deploy.connectors.mqtt_server import MqttPlantServer
from twinloop.deploy.journal import Journal
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield, Source
from twinloop.deploy.summary import Ending
from twinloop.envs.constraint import declare
from twinloop.envs.errors import PlantError
from twinloop.envs.plant import Quality

pytestmark = needs_mosquitto
PERIOD_S = 0.5
"""On the wall: long enough that a busy machine makes no period late."""
ROOT = Path(__file__).parents[3]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with broker_in(tmp_path) as found:
        yield found


@contextmanager
def plant_process(broker: Broker) -> Iterator[subprocess.Popen[str]]:
    """The rig at the broker, in a process of its own that has its password from a file."""
    who = broker.folder / "plant.yaml"
    who.write_text(yaml.safe_dump({"username": PLANT.username, "password": PLANT.password}))
    who.chmod(0o600)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.connectors.broker", broker.endpoint, str(1.0 / PERIOD_S)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, VARIABLE: str(who)},
    )
    assert process.stdout is not None  # a pipe; narrows the type
    try:
        assert process.stdout.readline().strip() == broker.endpoint
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10.0)
        process.stdout.close()


@contextmanager
def connected(broker: Broker, keep_alive_s: int = 2) -> Iterator[ConnectedPlant]:
    plant = ConnectedPlant(MqttConnector(broker.endpoint, identity=CONTROL, keep_alive_s=keep_alive_s))
    try:
        yield plant
    finally:
        plant.close()


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


def wait_until_good(plant: ConnectedPlant) -> None:
    def is_good() -> bool:
        try:
            return bool(np.all(plant.read().quality["rig"] == Quality.GOOD))
        except PlantError:
            return False

    wait_until(is_good)


def wait_until(is_done: Callable[[], object], within_s: float = 30.0) -> None:
    give_up_s = time.monotonic() + within_s
    while not is_done():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


def obeys(plant: ConnectedPlant) -> None:
    """A command goes through, within a few tries of a machine that is busy."""

    def is_obeyed() -> bool:
        try:
            return bool(np.all(plant.write({"rig": np.array([[0.2, 0.1]] * 2)})["rig"] == [0.2, 0.1]))
        except PlantError:
            return False

    wait_until(is_obeyed)


def test_a_stopped_broker_is_seen_within_three_periods_and_found_again(broker: Broker) -> None:
    with MqttPlantServer(Rig(), broker.endpoint, PLANT, speed=1.0 / PERIOD_S), connected(broker) as plant:
        plant.advance()
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)  # its sockets stay open: nothing on the wire says so
        try:
            seen_s = seconds_until_seen(plant)
            start_s = time.monotonic()
            with pytest.raises(PlantError):
                plant.write({"rig": np.array([[0.3, 1.0]] * 2)})
            assert time.monotonic() - start_s < 3.0 * PERIOD_S  # one time-out, which is a period
        finally:
            broker.process.send_signal(signal.SIGCONT)
        print(f"\nbroker SIGSTOP: seen after {seen_s / PERIOD_S:.2f} periods")
        assert seen_s < 3.5 * PERIOD_S
        wait_until_good(plant)
        obeys(plant)


def test_a_command_that_was_given_up_is_not_obeyed_when_the_broker_goes_on(broker: Broker) -> None:
    rig = Rig()
    with MqttPlantServer(rig, broker.endpoint, PLANT, speed=1.0 / PERIOD_S) as server, connected(broker) as plant:
        plant.write({"rig": np.array([[0.2, 0.1]] * 2)})
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        with pytest.raises(PlantError):
            plant.write({"rig": np.array([[0.35, 1.0]] * 2)})
        step = rig.step
        wait_until(lambda: rig.step > step + 5)  # the plant goes on without a broker, and gives up its client
        assert np.all(rig.commands == [0.25, 0.0])
        broker.process.send_signal(signal.SIGCONT)
        taken = server._obedience.taken
        wait_until(
            lambda: "Connection Refused" not in broker.log and server._link is not None and not server._link.fault
        )
        step = rig.step
        wait_until(lambda: rig.step > step + 3)
        assert np.all(rig.commands == [0.25, 0.0])
        assert server._obedience.taken == taken


def test_a_killed_plants_death_is_told_by_the_broker_and_a_new_one_is_found(broker: Broker) -> None:
    with connected(broker) as plant:
        with plant_process(broker) as process:
            plant.advance()
            process.kill()
            seen_s = seconds_until_seen(plant)
            print(f"\nplant SIGKILL: seen after {seen_s / PERIOD_S:.2f} periods")
            assert seen_s < 3.0 * PERIOD_S
            with pytest.raises(PlantError, match="its death certificate came"):
                plant.read()
        with plant_process(broker):
            wait_until_good(plant)
            obeys(plant)


def test_a_stopped_plant_is_seen_within_three_periods_and_found_again(broker: Broker) -> None:
    with plant_process(broker) as process, connected(broker) as plant:
        plant.advance()
        os.kill(process.pid, signal.SIGSTOP)
        seen_s = seconds_until_seen(plant)
        print(f"\nplant SIGSTOP: seen after {seen_s / PERIOD_S:.2f} periods")
        assert seen_s < 3.5 * PERIOD_S
        os.kill(process.pid, signal.SIGCONT)
        wait_until_good(plant)
        obeys(plant)


def test_a_broker_that_was_killed_is_found_again_by_both_sides(broker: Broker) -> None:
    with MqttPlantServer(Rig(), broker.endpoint, PLANT, speed=1.0 / PERIOD_S), connected(broker) as plant:
        obeys(plant)
        broker.stop()
        assert seconds_until_seen(plant) < 3.0 * PERIOD_S
        with pytest.raises(PlantError):
            plant.advance()
        broker.start()
        wait_until_good(plant)
        obeys(plant)


class RealTimeRig(Rig):
    """Its clock goes as fast as the wall's."""

    @property
    def clock_s(self) -> float:
        return EPOCH_S + self.step * PERIOD_S


def test_the_whole_runtime_controls_a_plant_at_a_broker_and_falls_back_when_it_falls_silent(
    broker: Broker, tmp_path: Path
) -> None:
    rig = RealTimeRig()
    object.__setattr__(rig.nameplate, "period_s", PERIOD_S)
    server = MqttPlantServer(rig, broker.endpoint, PLANT, speed=1.0)
    sources: dict[int, set[Source]] = {}
    accepted: list[int] = []
    silent_at = 6

    def watch(period: Period) -> None:
        if period.handing_back:
            return
        sources[period.number] = set(period.decision.source.values())
        if period.accepted is not None:
            accepted.append(period.number)
        if period.number == silent_at:
            rig.go_on.clear()  # the equipment stands still: its edge node is there, and tells nothing new

    with server, connected(broker, keep_alive_s=5) as plant:
        plate = plant.nameplate
        journal = Journal(tmp_path / "journal")
        settings = RuntimeSettings(retry_wait_s=PERIOD_S, max_plant_failures=6, hand_back_periods=0)
        summary = Runtime(plant, RandomPolicy(plate), Shield(declare(plate)), journal, settings).run(14, watch)
        rig.go_on.set()
    print(f"\n{summary.ending}: {sources}")
    assert summary.periods >= silent_at + 3
    assert accepted[:3] == [1, 2, 3] or accepted[:3] == [2, 3, 4]
    assert Source.POLICY in sources[silent_at - 1]
    assert all(Source.POLICY not in of for number, of in sources.items() if number > silent_at + 3)
    assert summary.fallback_periods > 0
    assert summary.ending in (Ending.COMPLETED, Ending.PLANT_LOST)
