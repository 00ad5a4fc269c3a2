"""The plant and our client as the broker's own tools, an implementation in C, see and command them."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tests.deploy.connectors.broker import AI, CONTROL, OP, PLANT, Broker, broker_in, mosquitto, needs_mosquitto
from tests.deploy.connectors.rig import Rig

from twinloop.deploy.connectors import sparkplug_site as names
from twinloop.deploy.connectors.mqtt_address import Kind
from twinloop.deploy.connectors.mqtt_client import MqttConnector
from twinloop.deploy.connectors.mqtt_command import Answer
from twinloop.deploy.connectors.mqtt_identity import Identity
from twinloop.deploy.connectors.mqtt_server import MqttPlantServer
from twinloop.deploy.connectors.sparkplug_metric import Metric
from twinloop.deploy.connectors.sparkplug_payload import Payload, decode, encode
from twinloop.deploy.connectors.sparkplug_value import DataType

pytestmark = needs_mosquitto
VALVE = "spBv1.0/test/DCMD/rig/rig.R1"
ANSWERS = "twinloop/test/rig/answer/tool"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker_in(tmp_path_factory.mktemp("broker")) as found:
        yield found


@dataclass(frozen=True)
class Line:
    """One message as mosquitto_sub prints it."""

    topic: str
    qos: int
    is_retained: bool
    correlation: str
    payload: bytes

    @property
    def kind(self) -> str:
        return self.topic.split("/")[2]


class Subscriber:
    """``mosquitto_sub`` in the background."""

    def __init__(self, broker: Broker, who: Identity, *topics: str) -> None:
        words = [word for topic in topics for word in ("-t", topic)]
        command = [
            "mosquitto_sub",
            "-V",
            "5",
            "-h",
            "127.0.0.1",
            "-p",
            str(broker.port),
            "-q",
            "1",
            "--retain-as-published",
        ]
        command += ["-u", str(who.username), "-P", str(who.password), *words, "-F", "%t %q %r [%D] %x"]
        n_before = broker.log.count("Sending SUBACK")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        wait_until(lambda: broker.log.count("Sending SUBACK") > n_before)

    def lines(self, n: int) -> list[Line]:
        """What came, once there are ``n`` messages."""
        wait_until(lambda: len(self._said) >= n)
        found: list[Line] = []
        for row in list(self._said):
            topic, qos, retained, correlation, payload = row.split(" ")
            found.append(Line(topic, int(qos), retained == "1", correlation.strip("[]"), bytes.fromhex(payload)))
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20.0)

    def _listen(self) -> None:
        assert self.process.stdout is not None  # a pipe; narrows the type
        with self.process.stdout as stream:
            for row in stream:
                self._said.append(row.strip())


def wait_until(is_done: Callable[[], object], within_s: float = 20.0) -> None:
    give_up_s = time.monotonic() + within_s
    while not is_done():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


@contextmanager
def subscribed(broker: Broker, who: Identity, *topics: str) -> Iterator[Subscriber]:
    found = Subscriber(broker, who, *topics)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def commanded(broker: Broker, rig: Rig) -> Iterator[tuple[MqttPlantServer, MqttConnector]]:
    """A plant whose primary host is online, so that a tool may speak in its name."""
    with MqttPlantServer(rig, broker.endpoint, PLANT, speed=None) as server:
        connector = MqttConnector(broker.endpoint, identity=CONTROL, timeout_s=10.0)
        try:
            connector.heartbeat()
            yield server, connector
        finally:
            connector.close()


def valve(value: float) -> bytes:
    """The payload as any Sparkplug host would write it: by name, with its type."""
    metric = Metric("Commanded/valve_pu", DataType.DOUBLE, value, time.time_ns() // 1_000_000)
    return encode(Payload(time.time_ns() // 1_000_000, (metric,)))


def ticket(nonce: int, expiry_s: int | None = 30) -> list[str]:
    words = ["-D", "publish", "response-topic", ANSWERS, "-D", "publish", "correlation-data", str(nonce)]
    words += [] if expiry_s is None else ["-D", "publish", "message-expiry-interval", str(expiry_s)]
    for name, value in (("nonce", nonce), ("beat", 0), ("host", "twinloop"), ("part", "1/1")):
        words += ["-D", "publish", "user-property", name, str(value)]
    return words


def test_mosquitto_sub_sees_births_data_and_death_as_sparkplug_has_them(broker: Broker) -> None:
    rig = Rig()
    with subscribed(broker, AI, "spBv1.0/test/#") as subscriber:
        with MqttPlantServer(rig, broker.endpoint, PLANT, speed=None) as server:
            assert server.step()
        lines = subscriber.lines(8)
    kinds = [line.kind for line in lines]
    # Death is told on leaving, and once more by the broker: DISCONNECT asked it to publish the will (reason 4).
    assert kinds[:6] == ["NBIRTH", "DBIRTH", "DBIRTH", "DDATA", "DDATA", "NDATA"]
    assert kinds[6:] == ["NDEATH", "NDEATH"]
    assert not any(line.is_retained for line in lines)
    assert [line.qos for line in lines[:6]] == [0] * 6
    told = [decode(line.payload, server.site.types) for line in lines]
    assert [p.seq for p in told[:6]] == list(range(6))
    birth = {m.name: m.value for m in told[0].metrics}
    assert all(
        [(m.name, m.value) for m in p.metrics] == [("bdSeq", birth["bdSeq"])] and p.seq is None for p in told[6:]
    )
    assert birth[names.NAMEPLATE_HASH] == rig.nameplate.hash
    flows = [m.value for m in told[4].metrics][:3]
    assert flows == rig.expected()[1].tolist()


def test_mosquitto_pub_commands_once_and_sees_the_answer(broker: Broker) -> None:
    rig = Rig()
    with commanded(broker, rig) as (server, _), subscribed(broker, OP, ANSWERS) as subscriber:
        nonce = server._obedience.taken + 1
        for value, number in ((0.3, nonce), (0.2, nonce), (float("nan"), nonce + 1), (0.36, nonce + 2)):
            done = mosquitto("mosquitto_pub", broker, CONTROL, "-t", VALVE, *ticket(number), data=valve(value))
            assert done.returncode == 0, done.stderr
        wait_until(lambda: server._obedience.taken == nonce + 2)
        assert server.step()
        assert rig.commands[0].tolist() == [0.3, 0.0]
        lines = subscriber.lines(4)
    assert [line.correlation for line in lines] == [str(n) for n in (nonce, nonce, nonce + 1, nonce + 2)]
    answers = [Answer.from_json(line.payload) for line in lines]
    statuses = [[o.status.name for o in a.items.values()] for a in answers]
    assert statuses == [["ACCEPTED"], [], ["REFUSED"], ["REFUSED"]]
    assert f"nonce {nonce} is old" in answers[1].refused
    assert [a.held["rig/R1/valve_pu"] for a in answers] == [0.3] * 4
    assert answers[2].items["rig/R1/valve_pu"].reason == "nan is no number to command"
    assert answers[3].items["rig/R1/valve_pu"].reason == "0.36 pu is outside [0.1, 0.35]"


def test_a_retained_command_is_refused_now_and_is_not_even_heard_after_a_restart(broker: Broker) -> None:
    rig = Rig()
    try:
        with commanded(broker, rig) as (server, _), subscribed(broker, OP, ANSWERS) as subscriber:
            nonce = server._obedience.taken + 1
            words = ["-t", VALVE, "-r", *ticket(nonce)]
            assert mosquitto("mosquitto_pub", broker, CONTROL, *words, data=valve(0.3)).returncode == 0
            (line,) = subscriber.lines(1)
            assert "retained" in Answer.from_json(line.payload).refused
            assert server._obedience.taken == nonce - 1
        rig = Rig()
        with commanded(broker, rig) as (server, connector):
            heard: list[str] = []
            original = server._obedience.hear

            def hear(kind: Kind, *rest: Any) -> Answer | None:
                heard.append(kind)
                return original(kind, *rest)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(server._obedience, "hear", hear)
                link = server._link
                assert link is not None
                cable = link._client.socket()
                assert isinstance(cable, socket.socket)
                cable.shutdown(socket.SHUT_RDWR)  # as a cut one: it connects and subscribes again
                wait_until(lambda: server._link not in (None, link) and not server._link.fault)
                wait_until(lambda: server._obedience.host_is_online)
                connector.heartbeat()
            assert "NCMD" in heard
            assert "DCMD" not in heard
            assert server.step()
            np.testing.assert_array_equal(rig.commands[:, 0], 0.25)
    finally:
        mosquitto("mosquitto_pub", broker, CONTROL, "-t", VALVE, "-r", "-q", "1", "-n")


def test_an_expired_command_is_dropped_by_the_broker(broker: Broker) -> None:
    """For a subscriber that keeps its session, as the plant does not: what waits for it is dropped when it expires."""
    session = ["-c", "-i", "sleeper", "-x", "60", "-q", "1", "-t", VALVE]
    assert mosquitto("mosquitto_sub", broker, OP, *session, "-E").returncode == 0
    for expiry_s, value in ((1, 0.3), (60, 0.2)):
        words = ["-t", VALVE, "-q", "1", *ticket(1, expiry_s)]
        assert mosquitto("mosquitto_pub", broker, CONTROL, *words, data=valve(value)).returncode == 0
    time.sleep(2.1)  # MQTT counts expiry in whole seconds
    done = mosquitto("mosquitto_sub", broker, OP, *session, "-C", "1", "-W", "10", "-F", "%x")
    assert done.returncode == 0, done.stderr
    (metric,) = decode(bytes.fromhex(done.stdout.decode().strip())).metrics
    assert metric.value == 0.2


def test_the_brokers_list_refuses_strangers_and_lets_the_ai_propose_and_not_command(broker: Broker) -> None:
    with MqttPlantServer(Rig(), broker.endpoint, PLANT, speed=None) as server:
        taken = server._obedience.taken
        stranger = mosquitto("mosquitto_pub", broker, None, "-t", VALVE, data=valve(0.3))
        assert stranger.returncode == 135
        assert b"Not authorized" in stranger.stderr
        ai = mosquitto("mosquitto_pub", broker, AI, "-t", VALVE, "-q", "1", "-d", *ticket(taken + 1), data=valve(0.3))
        assert b"RC:135" in ai.stdout  # 0x87, not authorized
        assert b"Not authorized" in ai.stderr
        proposal = mosquitto(
            "mosquitto_pub", broker, AI, "-t", "twinloop/test/rig/proposal/1", "-q", "1", "-d", data=b"{}"
        )
        assert b"Not authorized" not in proposal.stdout + proposal.stderr
        assert server._obedience.taken == taken
        assert "Denied PUBLISH from" in broker.log
