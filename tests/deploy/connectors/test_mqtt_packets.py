"""What goes over the wire when either side connects, as Sparkplug has it: CONNECT by the byte, and the broker's log."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.deploy.connectors.broker import CONTROL, PLANT, Broker, broker_in, needs_mosquitto
from tests.deploy.connectors.rig import Rig

from twinloop.deploy.connectors.mqtt_address import parse, state_topic
from twinloop.deploy.connectors.mqtt_client import MqttConnector
from twinloop.deploy.connectors.mqtt_link import Link, Received, Topic
from twinloop.deploy.connectors.mqtt_server import MqttPlantServer
from twinloop.deploy.connectors.sparkplug_edge import Message
from twinloop.deploy.connectors.sparkplug_payload import decode
from twinloop.deploy.connectors.sparkplug_value import DataType
from twinloop.envs.errors import PlantError


@dataclass(frozen=True)
class Connect:
    """A CONNECT packet (MQTT 5, 3.1)."""

    version: int
    is_clean_start: bool
    session_expiry_s: int
    will_topic: str
    will_payload: bytes
    will_qos: int
    will_is_retained: bool
    has_will: bool
    client_id: str


def read_connect(packet: bytes) -> Connect:
    at = 1
    while packet[at] & 0x80:
        at += 1
    at += 1

    def field() -> bytes:
        nonlocal at
        (n,) = struct.unpack_from(">H", packet, at)
        at += 2 + n
        return packet[at - n : at]

    assert field() == b"MQTT"
    version, flags = packet[at], packet[at + 1]
    at += 4  # and the keep-alive
    n_properties = packet[at]
    properties = packet[at + 1 : at + 1 + n_properties]
    at += 1 + n_properties
    # MQTT 5, 3.1.2.11.2: an expiry that is absent is 0.
    expiry_s = struct.unpack(">I", properties[1:5])[0] if properties[:1] == b"\x11" else 0
    client_id = field().decode()
    topic, payload = "", b""
    if flags & 4:
        at += 1 + packet[at]  # the will's properties
        topic, payload = field().decode(), field()
    has = bool(flags & 4)
    return Connect(version, bool(flags & 2), expiry_s, topic, payload, flags >> 3 & 3, bool(flags & 32), has, client_id)


class Ear:
    """A socket that hears the first packet of each connection, and never answers."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.heard: list[Connect] = []
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"mqtt://127.0.0.1:{self.socket.getsockname()[1]}/test/rig"

    def _listen(self) -> None:
        try:
            while True:
                connection, _ = self.socket.accept()
                with connection:
                    self.heard.append(read_connect(connection.recv(4096)))
        except OSError:
            return  # closed

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(10.0)


def test_a_plants_connect_carries_its_death_and_begins_a_session_that_ends_with_it() -> None:
    with Ear() as ear:
        server = MqttPlantServer(Rig(), ear.endpoint, PLANT)
        for session in range(3):
            with pytest.raises(PlantError, match="could not start"):
                server.start()
            packet = ear.heard[session]
            assert packet.version == 5
            assert packet.is_clean_start
            assert packet.session_expiry_s == 0
            assert (packet.will_topic, packet.will_qos, packet.will_is_retained) == (
                "spBv1.0/test/NDEATH/rig",
                1,
                False,
            )
            payload = decode(packet.will_payload)
            assert payload.seq is None
            (bdseq,) = payload.metrics
            assert (bdseq.name, bdseq.datatype, bdseq.value) == ("bdSeq", DataType.INT64, session)  # of this CONNECT


def test_a_hosts_connect_carries_its_state_and_an_observers_none() -> None:
    with Ear() as ear:
        connector = MqttConnector(ear.endpoint, identity=CONTROL, timeout_s=5.0)
        for send in (False, True):
            before_ms = time.time_ns() // 1_000_000
            with pytest.raises(PlantError):
                connector.heartbeat(send=send)
            packet = ear.heard[-1]
            assert packet.is_clean_start
            assert packet.session_expiry_s == 0
            assert packet.has_will is send
        assert (packet.will_topic, packet.will_qos, packet.will_is_retained) == ("spBv1.0/STATE/twinloop", 1, True)
        state = json.loads(packet.will_payload)
        assert set(state) == {"online", "timestamp"}
        assert state["online"] is False
        assert before_ms <= state["timestamp"] <= time.time_ns() // 1_000_000
        assert len({p.client_id for p in ear.heard}) == len(ear.heard)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker_in(tmp_path_factory.mktemp("broker")) as found:
        yield found


@needs_mosquitto
def test_both_sides_subscribe_before_they_publish_and_first_say_that_they_are_there(broker: Broker) -> None:
    with MqttPlantServer(Rig(), broker.endpoint, PLANT, speed=None):
        connector = MqttConnector(broker.endpoint, identity=CONTROL, timeout_s=10.0)
        connector.heartbeat()
        connector.write({"rig/R1/valve_pu": 0.3})
        connector.close()
    log = broker.log
    where = parse(broker.endpoint)
    plant = next(m[1] for m in re.finditer(r"New client connected from \S+ as (\S+) \(p\d, c1, k\d+, u'plant'\)", log))
    host = next(m[1] for m in re.finditer(r"New client connected from \S+ as (\S+) \(p\d, c1, k\d+, u'control'\)", log))
    for client, topics, first in (
        (plant, (where.topic("NCMD"), where.topic("DCMD", "+"), "spBv1.0/STATE/twinloop"), where.topic("NBIRTH")),
        (
            host,
            (where.topic("NBIRTH"), where.topic("NDEATH"), where.topic("DDATA", "+"), "spBv1.0/STATE/twinloop"),
            "spBv1.0/STATE/twinloop",
        ),
    ):
        published = re.findall(rf"Received PUBLISH from {client} \(d\d, q(\d), r(\d), m\d+, '([^']+)'", log)
        assert published[0][2] == first
        began = log.index(f"Received PUBLISH from {client}")
        for topic in topics:
            assert log.index(f"{client} 1 {topic}") < began  # QoS 1
    state = re.findall(rf"Received PUBLISH from {host} \(d\d, q(\d), r(\d), m\d+, 'spBv1.0/STATE/twinloop'", log)
    assert state == [("1", "1"), ("1", "1")]  # online, and offline on leaving
    for topic in (where.topic("NCMD"), where.topic("DCMD", "rig.R1")):
        commands = re.findall(rf"Received PUBLISH from {host} \(d\d, q(\d), r(\d), m\d+, '{topic}'", log)
        assert set(commands) == {("0", "0")}
    farewell = re.findall(rf"Received PUBLISH from {plant} \(d\d, q(\d), r(\d), m\d+, '{where.topic('NDEATH')}'", log)
    assert farewell == [("1", "0")]


@needs_mosquitto
def test_a_link_that_is_given_up_leaves_the_will_that_says_offline(broker: Broker) -> None:
    with MqttPlantServer(Rig(), broker.endpoint, PLANT, speed=None) as server:
        connector = MqttConnector(broker.endpoint, identity=CONTROL, timeout_s=10.0)
        connector.heartbeat()
        state = server._obedience._state
        assert state is not None
        assert state[1]
        connector._drop()
        give_up_s = time.monotonic() + 20.0
        while server._obedience.host_is_online:
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
        assert server._obedience._state == (state[0], False)  # the will has the time of the birth
        connector.heartbeat()  # and comes back with a newer time
        again = server._obedience._state
        assert again is not None
        assert again[0] > state[0]
        assert again[1]
        connector.close()


@needs_mosquitto
def test_a_host_that_is_told_to_be_offline_says_at_once_that_it_is_not(broker: Broker) -> None:
    topic, heard = state_topic("twinloop"), list[Received]()
    with MqttPlantServer(Rig(), broker.endpoint, PLANT, speed=None) as server:
        connector = MqttConnector(broker.endpoint, identity=CONTROL, timeout_s=10.0)
        connector.heartbeat()
        other = Link(parse(broker.endpoint), CONTROL, "other", [Topic(topic, wants_retained=True)], heard.append)
        other.open(time.monotonic() + 10.0)
        other.publish(Message(topic, b'{"online": false, "timestamp": 1}', 1, True))
        give_up_s = time.monotonic() + 20.0
        while len(heard) < 3:
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
        other.close()
        first, offline, again = (json.loads(r.payload) for r in heard)
        assert offline == {"online": False, "timestamp": 1}
        assert again == first  # with the time of its CONNECT
        assert first["online"] is True
        assert server._obedience.host_is_online  # a time before the last one's is of an older connection
        connector.close()
