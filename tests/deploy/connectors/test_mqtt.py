"""Both ends of MQTT through a real broker: the plant's contract, refusals, the watchdog, who commands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.deploy.connectors.broker import AI, CONTROL, OP, PLANT, Broker, broker_in, needs_mosquitto
from tests.deploy.connectors.rig import EPOCH_S, Rig, rig_nameplate
from tests.linear_site import TankPlant

from twinloop.deploy.connectors import mqtt_command
from twinloop.deploy.connectors import sparkplug_site as names
from twinloop.deploy.connectors.connected_plant import ConnectedPlant
from twinloop.deploy.connectors.contract import Connector, Readings, WriteStatus
from twinloop.deploy.connectors.mqtt_address import NodeAddress, parse, state_topic
from twinloop.deploy.connectors.mqtt_client import MqttConnector
from twinloop.deploy.connectors.mqtt_command import Answer, Ticket
from twinloop.deploy.connectors.mqtt_identity import Identity
from twinloop.deploy.connectors.mqtt_link import Link, Received, Topic
from twinloop.deploy.connectors.mqtt_server import MqttPlantServer
from twinloop.deploy.connectors.sparkplug_edge import Message
from twinloop.deploy.connectors.sparkplug_metric import Metric
from twinloop.deploy.connectors.sparkplug_payload import Payload, decode, encode
from twinloop.deploy.connectors.sparkplug_value import DataType
from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import PlantError
from twinloop.envs.plant import Quality

pytestmark = needs_mosquitto


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker_in(tmp_path_factory.mktemp("broker")) as found:
        yield found


@contextmanager
def served(
    broker: Broker, rig: Rig, speed: float | None = None, who: Identity = CONTROL, **options: Any
) -> Iterator[tuple[MqttPlantServer, MqttConnector]]:
    with MqttPlantServer(rig, broker.endpoint, PLANT, speed=speed, **options) as server:
        connector = MqttConnector(broker.endpoint, identity=who, timeout_s=5.0)
        try:
            yield server, connector
        finally:
            connector.close()


def wait_until(is_done: Callable[[], object], within_s: float = 20.0) -> None:
    give_up_s = time.monotonic() + within_s
    while not is_done():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


def follow(server: MqttPlantServer, plant: ConnectedPlant) -> None:
    """One step of a stepped plant, and until the connector has been told of it."""
    before = plant._connector.heartbeat(send=False).beat
    assert server.step()
    wait_until(lambda: plant._connector.heartbeat(send=False).beat > before)


class Raw:
    """A client that publishes what it likes, and keeps what comes."""

    def __init__(self, broker: Broker, who: Identity, *topics: str, will: Message | None = None) -> None:
        self.where: NodeAddress = parse(broker.endpoint)
        self.heard: list[Received] = []
        topics = (f"{self.where.answers}raw", *topics)
        wanted = [Topic(t, wants_retained=True) for t in topics]
        self.link = Link(self.where, who, f"raw-{time.monotonic_ns()}", wanted, self.heard.append, will=will)
        self.link.open(time.monotonic() + 10.0)

    def sign_on(self, host: str = "twinloop") -> None:
        payload = json.dumps({"online": True, "timestamp": time.time_ns() // 1_000_000}).encode()
        self.link.publish(Message(state_topic(host), payload, 1, True)).wait_for_publish(5.0)

    def command(
        self,
        value: Any,
        ticket: Ticket | None,
        *,
        device: str = "rig.R1",
        kind: DataType = DataType.DOUBLE,
        **changed: Any,
    ) -> Answer:
        """One DCMD of R1's valve, in order but for what is ``changed``; its answer."""
        n = len(self.heard)
        payload = Payload(
            changed.pop("timestamp_ms", time.time_ns() // 1_000_000),
            (Metric(changed.pop("name", "Commanded/valve_pu"), kind, value, says_type=kind is not DataType.DOUBLE),),
        )
        options = {
            "expiry_s": 5,
            "answer_to": f"{self.where.answers}raw",
            "correlation": b"one",
            "user": () if ticket is None else tuple(ticket.properties.items()),
        }
        message = Message(
            self.where.topic("DCMD", device), changed.pop("data", encode(payload)), 0, changed.pop("retain", False)
        )
        self.link.publish(message, **{**options, **changed})
        wait_until(lambda: len(self.heard) > n)
        assert self.heard[-1].envelope.correlation == b"one"
        return Answer.from_json(self.heard[-1].payload)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()


def test_a_plant_behind_a_broker_keeps_the_plant_contract(broker: Broker) -> None:
    with MqttPlantServer(TankPlant(), broker.endpoint, PLANT, speed=50.0):
        check_plant(
            lambda: ConnectedPlant(MqttConnector(broker.endpoint, identity=CONTROL, timeout_s=5.0)), tolerance=0.0
        )


def test_a_plant_behind_the_wire_is_the_plant_in_process(broker: Broker) -> None:
    rig = Rig(rig_nameplate(n_assets=30, n_measured=5))
    rig.bad = {(3, 1): Quality.BAD, (4, 0): Quality.UNCERTAIN}
    with served(broker, rig) as (server, connector):
        plant = ConnectedPlant(connector)
        assert plant.nameplate == rig.nameplate
        assert isinstance(connector, Connector)
        for k in range(3):
            commands = np.tile([[0.35, 0.1], [0.1, 1.0], [0.25, 0.0]], (10, 1)) if k else np.tile([0.1, 0.1], (30, 1))
            np.testing.assert_array_equal(plant.write({"rig": commands})["rig"], commands)
            assert plant.refusals == {}
            follow(server, plant)
            np.testing.assert_array_equal(rig.commands, commands)
            reading = plant.read()
            np.testing.assert_array_equal(reading.values["rig"], rig.expected())
            assert np.argwhere(reading.quality["rig"]).tolist() == [[3, 1], [4, 0]]
            assert (reading.quality["rig"][3, 1], reading.quality["rig"][4, 0]) == (Quality.BAD, Quality.UNCERTAIN)
            assert reading.received_time_s == plant.clock_s == rig.clock_s == EPOCH_S + k + 1
            assert np.all(reading.source_time_s["rig"] == rig.clock_s)
            assert reading.notes is not None
            np.testing.assert_array_equal(reading.notes["obeyed"]["rig"], commands)


def test_each_command_is_judged_for_itself_on_both_sides(broker: Broker) -> None:
    rig = Rig()
    with served(broker, rig) as (server, connector):
        found = connector.write({"rig/R1/valve_pu": 0.3, "rig/R1/mode": 0.5, "rig/R2/valve_pu": float("nan")})
        assert [o.status for o in found.values()] == [WriteStatus.ACCEPTED, WriteStatus.NOT_SENT, WriteStatus.NOT_SENT]
        assert [o.held for o in found.values()] == [0.3, 0.0, 0.25]
        with pytest.raises(PlantError, match="no command 'rig/R9/valve_pu' here"):
            connector.write({"rig/R9/valve_pu": 0.3})
        with pytest.raises(PlantError, match="no signal 'rig/R9/valve_pu' here"):
            connector.read(["rig/R9/valve_pu"])
        # The plant judges too: a client of ours that did not would be refused item by item.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("twinloop.deploy.connectors.mqtt_client.command_fault", lambda signal, value: "")
            found = connector.write({"rig/R1/valve_pu": float("nan"), "rig/R2/valve_pu": 0.36, "rig/R2/mode": 1.0})
        assert [o.status.name for o in found.values()] == ["REFUSED", "REFUSED", "ACCEPTED"]
        assert [o.held for o in found.values()] == [0.3, 0.25, 1.0]
        assert found["rig/R2/valve_pu"].reason == "0.36 pu is outside [0.1, 0.35]"
        assert server.step()
        np.testing.assert_array_equal(rig.commands, [[0.3, 0.0], [0.25, 1.0]])


def test_a_plant_refuses_what_is_not_from_its_host_now_and_once(broker: Broker) -> None:
    rig = Rig()
    with MqttPlantServer(rig, broker.endpoint, PLANT, speed=None) as server, Raw(broker, CONTROL) as raw:
        taken = server._obedience.taken
        ticket = Ticket(taken + 1, 0, "twinloop", 1, 1)
        raw.sign_on()
        now_ms = time.time_ns() // 1_000_000
        wait_until(lambda: server._obedience.host_is_online)
        refused = {
            "retained": raw.command(0.3, ticket, retain=True),
            "a message expiry of 1 to 60 s, this one None": raw.command(0.3, ticket, expiry_s=None),
            "a message expiry of 1 to 60 s, this one 61": raw.command(0.3, ticket, expiry_s=61),
            "the user properties nonce, beat, host and part are wanted": raw.command(0.3, None),
            "are 3600 s apart": raw.command(0.3, ticket, timestamp_ms=now_ms - 3_600_000),
            "are 3601 s apart|are 3600 s apart|are 3599 s apart": raw.command(
                0.3, ticket, timestamp_ms=now_ms + 3_600_000
            ),
            "says when it was sent": raw.command(0.3, ticket, timestamp_ms=None),
            "only the primary host 'twinloop' commands": raw.command(0.3, replace(ticket, host="operator")),
            "is old": raw.command(0.3, replace(ticket, nonce=taken)),
            "whose parts before were lost": raw.command(0.3, replace(ticket, part=2, parts=2)),
            "part 3/2": raw.command(0.3, replace(ticket, part=3, parts=2)),
            "no device 'rig.R9'": raw.command(0.3, ticket, device="rig.R9"),
            "has no command 'Measured/flow0_kgps'": raw.command(0.3, ticket, name="Measured/flow0_kgps"),
            "announced": raw.command(0.3, ticket, data=b"\x12\x05"),
            "its value came as int_value": raw.command(0.3, ticket, data=b"\x08\x01\x12\x04\x10\x0e\x50\x01"),
            "twice": raw.command(
                0.3,
                ticket,
                data=encode(Payload(now_ms, 2 * (Metric("Commanded/valve_pu", DataType.DOUBLE, 0.3),))),
            ),
        }
        import re

        for words, answer in refused.items():
            assert re.search(words, answer.refused), (words, answer)
            assert answer.taken == taken
            assert answer.items == {}
        for value, kind, words in (
            (float("nan"), DataType.DOUBLE, "nan is no number to command"),
            (float("inf"), DataType.DOUBLE, "inf is no number to command"),
            (0.36, DataType.DOUBLE, "0.36 pu is outside [0.1, 0.35]"),
            ("0.3", DataType.STRING, "'0.3' of type STRING is no DOUBLE"),
            (True, DataType.BOOLEAN, "True of type BOOLEAN is no DOUBLE"),
        ):
            outcome = raw.command(value, ticket, kind=kind).items["rig/R1/valve_pu"]
            assert (outcome.status, outcome.held, outcome.reason) == (WriteStatus.REFUSED, 0.25, words)
            ticket = replace(ticket, nonce=ticket.nonce + 1)
        assert server.step()
        np.testing.assert_array_equal(rig.commands[:, 0], 0.25)
        assert raw.command(0.3, ticket).items["rig/R1/valve_pu"].status is WriteStatus.ACCEPTED
        assert "is old" in raw.command(0.2, ticket).refused  # the same once more
        assert server.step()
        assert rig.commands[0, 0] == 0.3
        raw.link.publish(Message(raw.where.topic("DCMD", "rig.R1"), b"", 1, True)).wait_for_publish(5.0)  # forget it


def test_a_command_based_on_an_old_reading_is_refused(broker: Broker) -> None:
    rig = Rig()
    with MqttPlantServer(rig, broker.endpoint, PLANT, speed=20.0) as server, Raw(broker, CONTROL) as raw:
        raw.sign_on()
        wait_until(lambda: server._obedience.host_is_online and rig.step > 10)
        answer = raw.command(0.3, Ticket(server._obedience.taken + 1, 1, "twinloop", 1, 1))
        assert "based on the plant's heartbeat 1, which is at" in answer.refused


def test_parts_of_a_batch_are_taken_together_or_not_at_all(broker: Broker) -> None:
    rig = Rig()
    with MqttPlantServer(rig, broker.endpoint, PLANT, speed=None) as server, Raw(broker, CONTROL) as raw:
        raw.sign_on()
        wait_until(lambda: server._obedience.host_is_online)
        first = Ticket(server._obedience.taken + 1, 0, "twinloop", 1, 2)
        n = len(raw.heard)
        payload = encode(Payload(time.time_ns() // 1_000_000, (Metric("Commanded/valve_pu", DataType.DOUBLE, 0.3),)))
        raw.link.publish(
            Message(raw.where.topic("DCMD", "rig.R1"), payload),
            expiry_s=5,
            answer_to=f"{raw.where.answers}raw",
            correlation=b"one",
            user=tuple(first.properties.items()),
        )
        wait_until(lambda: server._obedience.taken == first.nonce)
        assert server.step()
        assert len(raw.heard) == n  # no answer before the last part
        np.testing.assert_array_equal(rig.commands[:, 0], 0.25)
        answer = raw.command(0.2, replace(first, nonce=first.nonce + 1, part=2), device="rig.R2")
        assert set(answer.items) == {"rig/R1/valve_pu", "rig/R2/valve_pu"}
        assert server.step()
        np.testing.assert_array_equal(rig.commands[:, 0], [0.3, 0.2])


def test_a_plant_answers_nowhere_but_below_its_own_topic(broker: Broker) -> None:
    with MqttPlantServer(Rig(), broker.endpoint, PLANT, speed=None) as server, Raw(broker, CONTROL) as raw:
        answers: list[Message] = []
        link = server._link
        assert link is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(link, "publish", lambda message, **_: answers.append(message))
            for where in ("spBv1.0/test/NCMD/rig", f"{raw.where.answers}#", ""):
                payload = encode(Payload(1, ()))
                raw.link.publish(
                    Message(raw.where.topic("NCMD"), payload), answer_to=where, correlation=b"x", expiry_s=3
                )
            raw.link.publish(
                Message(raw.where.topic("NCMD"), payload),
                answer_to=f"{raw.where.answers}x",
                correlation=b"x",
                expiry_s=3,
            )
            wait_until(lambda: answers)
        assert [m.topic for m in answers] == [f"{raw.where.answers}x"]


def test_without_heartbeats_commands_go_to_neutral_and_with_them_again_they_count(broker: Broker) -> None:
    rig = Rig()
    with served(broker, rig) as (server, connector):
        plant = ConnectedPlant(connector)
        plant.write({"rig": np.array([[0.3, 1.0]] * 2)})
        follow(server, plant)
        assert plant.read().notes["watchdog_tripped"] is False  # type: ignore[index]
        for _ in range(2):
            connector.heartbeat()
            follow(server, plant)
        np.testing.assert_array_equal(rig.commands, [[0.3, 1.0]] * 2)
        for _ in range(3):
            follow(server, plant)
        np.testing.assert_array_equal(rig.commands, [[0.25, 0.0]] * 2)
        assert plant.read().notes["watchdog_tripped"] is True  # type: ignore[index]
        plant.write({"rig": np.array([[0.2, 1.0]] * 2)})
        follow(server, plant)
        np.testing.assert_array_equal(rig.commands, [[0.2, 1.0]] * 2)


def test_who_looked_on_takes_over_at_once_and_who_was_in_control_is_told(broker: Broker) -> None:
    with served(broker, Rig(), speed=2.0) as (server, connector):
        watchdog = MqttConnector(broker.endpoint, identity=CONTROL, timeout_s=5.0)
        try:
            names_ = watchdog.nameplate.signal_names("measured")
            connector.write({"rig/R1/valve_pu": 0.3})
            watchdog.read(names_)
            assert watchdog.write({"rig/R1/valve_pu": 0.2})["rig/R1/valve_pu"].status is WriteStatus.ACCEPTED
            with pytest.raises(PlantError, match="only one client may be in control: stop the other"):
                connector.heartbeat()
            connector.close()  # its farewell says that the host is offline, and the watchdog says that it is not
            wait_until(lambda: watchdog.heartbeat().beat)
            assert server._obedience.host_is_online
        finally:
            watchdog.close()
        wait_until(lambda: not server._obedience.host_is_online)


def test_a_host_that_is_not_the_plants_is_refused_and_told_which_is(broker: Broker) -> None:
    with served(broker, Rig(), who=OP) as (_, connector):
        connector.read(connector.nameplate.signal_names("measured"))
        with pytest.raises(PlantError, match="host 'operator': only the primary host 'twinloop' commands here"):
            connector.write({"rig/R1/valve_pu": 0.3})
    # The broker's list does not let this plant read the operator's STATE, and a host unseen is no host.
    with (
        served(broker, Rig(), who=OP, primary_host="operator") as (_, connector),
        pytest.raises(PlantError, match="it is offline"),
    ):
        connector.write({"rig/R1/valve_pu": 0.3})


def test_rebirth_is_answered_with_all_births_and_the_same_session(broker: Broker) -> None:
    with (
        served(broker, Rig()) as (server, connector),
        Raw(broker, AI, "spBv1.0/test/+/rig", "spBv1.0/test/+/rig/+") as raw,
    ):
        connector.heartbeat(send=False)
        server.step()
        connector._asked_rebirth_s = -1e9
        with connector._turn:
            connector._ask_rebirth()
        wait_until(lambda: sum("/DBIRTH/" in r.topic for r in raw.heard) >= 4)
        kinds = [r.topic.split("/")[2] for r in raw.heard]
        last = len(kinds) - 1 - kinds[::-1].index("NBIRTH")
        assert kinds[last : last + 3] == ["NBIRTH", "DBIRTH", "DBIRTH"]
        births = [decode(r.payload) for r in raw.heard[last : last + 3]]
        assert [p.seq for p in births] == [0, 1, 2]
        told = [r for r in raw.heard if "CMD" not in r.topic]
        assert not any(r.envelope.is_retained for r in told)
        assert next(m.value for m in births[0].metrics if m.name == names.BDSEQ) == 0
        asked = [decode(r.payload) for r in raw.heard if "/NCMD/" in r.topic]
        assert all((m.name, m.value) == (names.REBIRTH, True) for p in asked for m in p.metrics)
        assert asked
        assert all(p.seq is None and p.timestamp_ms for p in asked)


def test_a_host_says_online_before_it_commands_and_offline_when_it_leaves(broker: Broker) -> None:
    with served(broker, Rig()) as (_, connector), Raw(broker, CONTROL, "spBv1.0/#") as raw:
        connector.read(connector.nameplate.signal_names("measured"))
        assert not [r for r in raw.heard if "/STATE/" in r.topic and not r.envelope.is_retained]
        n = len(raw.heard)
        before_ms = time.time_ns() // 1_000_000
        connector.write({"rig/R1/valve_pu": 0.3})
        wait_until(lambda: any("/DCMD/" in r.topic for r in raw.heard))
        sent = [
            r for r in raw.heard[n:] if r.topic.split("/")[1] == "STATE" or r.topic.split("/")[2] in ("NCMD", "DCMD")
        ]
        assert sent[0].topic == "spBv1.0/STATE/twinloop"
        online = json.loads(sent[0].payload)
        assert online["online"] is True
        assert before_ms <= online["timestamp"] <= time.time_ns() // 1_000_000
        command = next(r for r in sent if "/DCMD/" in r.topic)
        assert not command.envelope.is_retained
        assert 1 <= (command.envelope.expiry_s or 0) <= 5
        assert command.envelope.response_topic.startswith("twinloop/test/rig/answer/")
        assert command.envelope.correlation
        payload = decode(command.payload)
        assert payload.seq is None
        assert payload.timestamp_ms
        assert [(m.name, m.says_type) for m in payload.metrics] == [("", False)]
        connector.close()
        wait_until(
            lambda: (
                json.loads(raw.heard[-1].payload if "/STATE/" in raw.heard[-1].topic else b'{"online":true}')["online"]
                is False
            )
        )
        assert raw.heard[-1].envelope.is_retained  # as published


def test_an_identity_that_may_not_command_is_told_after_the_time_out(broker: Broker) -> None:
    with served(broker, Rig()) as (_, connector):
        connector.read(connector.nameplate.signal_names("measured"))
        watcher = MqttConnector(broker.endpoint, identity=AI, timeout_s=1.0)
        try:
            said: list[str] = []
            for _ in range(10):  # on a busy machine a second may pass before it is even connected
                with pytest.raises(PlantError) as caught:
                    watcher.nameplate  # noqa: B018  # it asks
                said.append(str(caught.value))
                if "does the broker's access list let us read it and send it NCMD" in said[-1]:
                    break
            else:
                pytest.fail(f"never told what to look for, but: {said}")
        finally:
            watcher.close()


@pytest.mark.parametrize(
    ("who", "said"),
    [(Identity(), "Not authorized"), (Identity(username="control", password="wrong"), "Not authorized")],
)
def test_a_broker_that_does_not_know_us_is_reported_without_the_password(
    broker: Broker, who: Identity, said: str
) -> None:
    connector = MqttConnector(broker.endpoint, identity=who, timeout_s=5.0)
    with pytest.raises(PlantError, match=said) as caught:
        connector.heartbeat()
    assert "wrong" not in str(caught.value)
    assert "wrong" not in repr(who)
    with pytest.raises(PlantError, match="could not start"):
        MqttPlantServer(Rig(), broker.endpoint, who).start()


def test_another_plant_than_expected_is_refused_before_anything_is_sent(broker: Broker) -> None:
    rig = Rig()
    with MqttPlantServer(rig, broker.endpoint, PLANT, speed=None) as server:
        other = MqttConnector(broker.endpoint, rig_nameplate(n_assets=3), CONTROL, timeout_s=5.0)
        with pytest.raises(PlantError, match=r"another one than expected: rig: assets.*nothing was sent"):
            other.write({"rig/R1/valve_pu": 0.3})
        other.close()
        assert server._obedience.is_tripped


def test_a_failed_plant_is_told_and_found_again(broker: Broker) -> None:
    rig = Rig()
    with served(broker, rig) as (server, connector):
        plant = ConnectedPlant(connector)
        plant.read()
        rig.is_broken = True
        assert not server.step()
        wait_until(lambda: np.all(plant.read().quality["rig"] == Quality.BAD))
        assert plant.read().notes["plant_failed"] is True  # type: ignore[index]
        rig.is_broken = False
        follow(server, plant)
        wait_until(lambda: np.all(plant.read().quality["rig"] == Quality.GOOD))


def test_a_subscription_tells_readings_until_it_is_closed(broker: Broker) -> None:
    with served(broker, Rig()) as (server, connector):
        told: list[Readings | PlantError] = []
        subscription = connector.subscribe(["rig/R1/flow1_kgps"], told.append, 0.02)
        wait_until(lambda: told)
        subscription.close()
        n = len(told)
        server.step()
        assert len(told) == n
        assert isinstance(told[0], Readings)
        assert told[0].values.tolist() == [0.25]


def test_answers_that_cannot_be_read_are_refused() -> None:
    sound = Answer("", 5, 6, False, {}, {"a": 1.0})
    assert Answer.from_json(sound.to_json()) == sound
    for data in (
        b"",
        b"[]",
        b"{}",
        sound.to_json().replace(b"5", b"1.5"),
        sound.to_json().replace(b"1.0", b"NaN"),
        b"[" * 9999,
    ):
        with pytest.raises(PlantError, match="cannot be read"):
            Answer.from_json(data)
    for user in (
        {},
        {"nonce": "1"},
        {"nonce": "-1", "beat": "0", "host": "h"},
        {"nonce": "1", "beat": "٣", "host": "h"},
    ):
        with pytest.raises((KeyError, ValueError)):
            Ticket.of(user)
    assert mqtt_command.MOST_EXPIRY_S == 60
