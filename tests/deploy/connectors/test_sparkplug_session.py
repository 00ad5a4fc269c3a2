"""Births, data and deaths without a network: what an edge node says, and what a host makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deploy.connectors.rig import rig_nameplate

from twinloop.deploy.connectors import sparkplug_site as names
from twinloop.deploy.connectors.mqtt_address import Kind, parse
from twinloop.deploy.connectors.sparkplug_edge import EdgeNode, Message, Snapshot
from twinloop.deploy.connectors.sparkplug_host import SparkplugView
from twinloop.deploy.connectors.sparkplug_payload import Payload, decode, encode
from twinloop.deploy.connectors.sparkplug_site import SparkplugSite
from twinloop.deploy.connectors.sparkplug_value import DataType, Value
from twinloop.envs.errors import NameplateError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Quality

WHERE = parse("mqtt://broker/G/N")
PLATE = rig_nameplate()
SITE = SparkplugSite(PLATE)
N = len(SITE.points)
CLOCK_S = 1.8e9
NOW_MS = 1_900_000_000_000


def snapshot(beat: int = 0, *, is_alive: bool = True, **changed: Any) -> Snapshot:
    """A reading whose point ``k`` is ``k`` and one second old."""
    clock_s = CLOCK_S + beat
    node: dict[str, Value] = {
        names.BEAT: 0,
        names.NAMEPLATE: json.dumps(PLATE.to_dict()),
        names.NAMEPLATE_HASH: PLATE.hash,
        names.PRIMARY_HOST: "twinloop",
        names.HEARTBEAT: beat,
        names.CLOCK: round(clock_s * 1e3),
        names.WALL_PERIOD: 1.0,
        names.TRIPPED: True,
        names.FAILED: not is_alive,
        names.TAKEN: 5,
    }
    arrays = {
        "values": np.arange(N, dtype=float),
        "quality": np.zeros(N, dtype=np.int8),
        "time_s": np.full(N, clock_s - 1.0),
    }
    return Snapshot(node=node, clock_s=clock_s, is_alive=is_alive, **{**arrays, **changed})


def read(message: Message) -> Payload:
    return decode(message.payload, SITE.types)


def kind_of(message: Message) -> tuple[Kind, str]:
    parts = message.topic.split("/")
    assert parts[0] == "spBv1.0"
    assert (parts[1], parts[3]) == ("G", "N")
    return next(k for k in get_args(Kind) if k == parts[2]), "/".join(parts[4:])


def take(view: SparkplugView, *messages: Message) -> list[bool]:
    return [view.take(*kind_of(m), m.payload, is_retained=m.is_retained) for m in messages]


def born() -> tuple[EdgeNode, SparkplugView]:
    edge, view = EdgeNode(SITE, WHERE), SparkplugView()
    edge.new_session(NOW_MS)
    take(view, *edge.births(snapshot(), NOW_MS))
    return edge, view


def test_the_will_has_the_number_of_the_births_that_follow_and_the_next_session_the_next_one() -> None:
    edge = EdgeNode(SITE, WHERE)
    for session in range(300):
        will = edge.new_session(NOW_MS)
        assert (will.topic, will.qos, will.is_retained) == ("spBv1.0/G/NDEATH/N", 1, False)
        (bdseq,) = read(will).metrics
        assert (bdseq.name, bdseq.datatype, bdseq.value) == ("bdSeq", DataType.INT64, session % 256)
        assert read(will).seq is None
        for _ in range(2):  # a rebirth keeps the number
            birth = read(edge.births(snapshot(), NOW_MS)[0])
            assert next(m for m in birth.metrics if m.name == "bdSeq") == replace(
                bdseq, timestamp_ms=round(CLOCK_S * 1e3)
            )
        assert read(edge.death(NOW_MS)) == read(will)


def test_births_tell_every_metric_with_name_alias_type_time_and_value() -> None:
    edge = EdgeNode(SITE, WHERE)
    edge.new_session(NOW_MS)
    node, *devices = edge.births(snapshot(values=np.r_[np.nan, np.arange(1.0, N)]), NOW_MS)
    assert node.topic == "spBv1.0/G/NBIRTH/N"
    assert [m.topic for m in devices] == ["spBv1.0/G/DBIRTH/N/rig.R1", "spBv1.0/G/DBIRTH/N/rig.R2"]
    assert all(m.qos == 0 and not m.is_retained for m in (node, *devices))
    told = [read(m) for m in (node, *devices)]
    assert [p.seq for p in told] == [0, 1, 2]
    assert all(p.timestamp_ms == NOW_MS for p in told)
    rebirth = next(m for m in told[0].metrics if m.name == "Node Control/Rebirth")
    assert (rebirth.datatype, rebirth.value, rebirth.alias) == (DataType.BOOLEAN, False, None)
    metrics = [m for p in told for m in p.metrics]
    assert all(m.name and m.says_type and m.timestamp_ms is not None for m in metrics)
    aliases = [m.alias for m in metrics if m.alias is not None]
    assert len(aliases) == len(set(aliases)) == len(metrics) - 2  # all but bdSeq and Rebirth
    assert {m.name for m in told[1].metrics} == {f"Measured/flow{k}_kgps" for k in range(3)} | {
        "Commanded/valve_pu",
        "Commanded/mode",
    }
    assert told[1].metrics[0].value is None  # NaN: null, without a value
    valve = next(m for m in told[1].metrics if m.name == "Commanded/valve_pu")
    assert valve.properties["engLow"].value == 0.1
    assert valve.properties["engHigh"].value == 0.35
    assert valve.properties["engUnit"].value == "pu"


def test_data_are_by_alias_without_name_and_type_numbered_on_and_only_what_changed() -> None:
    edge, view = born()
    seq = 2
    for beat in range(1, 300):
        values = np.arange(N, dtype=float)
        values[:3] = beat + 0.5  # of the first device
        messages = edge.data(snapshot(beat, values=values), NOW_MS + beat)
        assert [kind_of(m) for m in messages] == [("DDATA", "rig.R1"), ("NDATA", "")]
        assert all(m.qos == 0 and not m.is_retained for m in messages)
        for message in messages:
            seq = (seq + 1) % 256
            payload = decode(message.payload)
            assert payload.seq == seq
            assert payload.timestamp_ms == NOW_MS + beat
            assert all(not m.name and not m.says_type and m.alias and m.timestamp_ms for m in payload.metrics)
        assert len(read(messages[0]).metrics) == 3
        assert take(view, *messages) == [False, True]
        assert view.reading is not None
        np.testing.assert_array_equal(view.reading.values, values)
        # What was not told again is as old as it was: one second.
        np.testing.assert_allclose(view.reading.time_s, CLOCK_S + beat - 1.0, atol=1e-3)


def test_a_sensor_that_stands_still_is_told_to_get_older() -> None:
    edge, view = born()
    time_s = np.full(N, CLOCK_S)
    time_s[1:] += 1.0
    for beat in (2, 3):
        take(view, *edge.data(snapshot(beat, time_s=time_s + np.r_[0.0, np.full(N - 1, beat - 2.0)]), NOW_MS))
        assert view.reading is not None
        assert view.reading.time_s[0] == CLOCK_S
        np.testing.assert_allclose(view.reading.time_s[1:], CLOCK_S + beat - 1.0, atol=1e-3)


@pytest.mark.parametrize(("quality", "code"), [(Quality.GOOD, 192), (Quality.UNCERTAIN, 500), (Quality.BAD, 0)])
def test_quality_goes_there_and_back(quality: Quality, code: int) -> None:
    edge, view = born()
    for beat, told in enumerate((quality, Quality.GOOD), 1):
        messages = edge.data(snapshot(beat, quality=np.full(N, told, dtype=np.int8)), NOW_MS)
        metric = read(messages[0]).metrics[0].properties if len(messages) > 1 else {}
        if told is quality is not Quality.GOOD:
            assert (metric["Quality"].datatype, metric["Quality"].value) == (DataType.INT32, code)
        take(view, *messages)
        assert view.reading is not None
        assert set(view.reading.quality.tolist()) == {told}


def test_a_reading_is_whole_only_with_the_nodes_own_message() -> None:
    edge, view = born()
    *devices, node = edge.data(snapshot(1, values=np.full(N, 7.0)), NOW_MS)
    assert take(view, *devices) == [False, False]
    assert view.reading is not None
    assert view.reading.values[0] == 0.0
    assert take(view, node) == [True]
    assert set(view.reading.values.tolist()) == {7.0}


@settings(max_examples=60, deadline=None)
@given(lost=st.integers(0, 2), beats=st.integers(1, 3))
def test_a_lost_message_stops_belief_until_the_births_have_come_again(lost: int, beats: int) -> None:
    edge, view = born()
    messages = edge.data(snapshot(1, values=np.full(N, 1.0)), NOW_MS)
    following = [m for k in range(beats) for m in edge.data(snapshot(2 + k, values=np.full(N, 2.0 + k)), NOW_MS)]
    del messages[lost]
    told = take(view, *messages, *following)
    assert not any(told)
    assert view.wants_rebirth
    assert view.reading is not None
    assert view.reading.heartbeat == 0
    assert take(view, *edge.births(snapshot(9, values=np.full(N, 9.0)), NOW_MS)) == [False, False, True]
    assert not view.wants_rebirth
    assert set(view.reading.values.tolist()) == {9.0}


def test_a_death_makes_all_stale_and_one_of_another_session_nothing() -> None:
    edge, view = born()
    old = edge.death(NOW_MS)
    edge.new_session(NOW_MS)
    take(view, *edge.births(snapshot(1), NOW_MS))
    take(view, old)
    assert not view.is_dead
    take(view, edge.death(NOW_MS))
    assert view.is_dead
    assert view.reading is not None
    assert set(view.reading.quality.tolist()) == {Quality.BAD}
    assert take(view, *edge.data(snapshot(2), NOW_MS)) == [False]  # nothing is believed of a dead node
    take(view, *edge.births(snapshot(3), NOW_MS))
    assert not view.is_dead


def test_a_failed_plants_devices_die_and_are_born_again() -> None:
    edge, view = born()
    messages = edge.data(snapshot(1, is_alive=False), NOW_MS)
    assert [kind_of(m) for m in messages] == [("DDEATH", "rig.R1"), ("DDEATH", "rig.R2"), ("NDATA", "")]
    assert [read(m).seq for m in messages] == [3, 4, 5]
    assert all(read(m).timestamp_ms == NOW_MS for m in messages)
    assert all(m.qos == 0 and not m.is_retained for m in messages)
    take(view, *messages)
    assert view.reading is not None
    assert set(view.reading.quality.tolist()) == {Quality.BAD}
    assert view.reading.node[names.FAILED] is True
    again = edge.births(snapshot(1, is_alive=False), NOW_MS)
    assert [kind_of(m)[0] for m in again] == ["NBIRTH"]  # lost devices are not born
    assert take(view, *again) == [True]
    assert set(view.reading.quality.tolist()) == {Quality.BAD}
    back = edge.data(snapshot(2), NOW_MS)
    assert [kind_of(m)[0] for m in back] == ["DBIRTH", "DBIRTH", "NDATA"]
    take(view, *back)
    assert set(view.reading.quality.tolist()) == {Quality.GOOD}


def test_a_retained_birth_is_of_another_time() -> None:
    edge, view = EdgeNode(SITE, WHERE), SparkplugView()
    edge.new_session(NOW_MS)
    take(view, *(replace(m, is_retained=True) for m in edge.births(snapshot(), NOW_MS)))
    assert view.reading is None


def test_a_plant_with_another_nameplate_is_a_fault() -> None:
    edge, view = EdgeNode(SITE, WHERE), SparkplugView(rig_nameplate(n_assets=3))
    edge.new_session(NOW_MS)
    take(view, *edge.births(snapshot(), NOW_MS))
    assert "rig: assets" in view.fault
    assert view.reading is None


def test_a_birth_without_a_plant_and_a_damaged_message_are_told() -> None:
    view = SparkplugView()
    view.take("NBIRTH", "", encode(Payload(NOW_MS, (), 0)))
    assert "no twinloop plant" in view.fault
    _, view = born()
    view.take("NDATA", "", b"\x12\x05")
    assert view.wants_rebirth
    assert "announced" in view.lost


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(get_args(Kind)), st.sampled_from(["", "rig.R1", "x"]), st.binary(max_size=40)))
)
def test_whatever_is_published_on_the_plants_topics_a_view_goes_on(said: list[tuple[Kind, str, bytes]]) -> None:
    edge, view = born()
    for kind, device, data in said:
        view.take(kind, device, data)
    take(view, *edge.births(snapshot(4), NOW_MS))
    assert view.reading is not None
    assert view.reading.heartbeat == 4


def test_names_that_no_topic_can_carry_are_refused() -> None:
    valve = Signal("v", "pu", 0.0, 1.0)
    for asset, other in (("A+", "B"), ("A#", "B"), ("a", "A")):
        group = Group("g", (asset, other), (valve,), (valve,))
        with pytest.raises(NameplateError, match="Sparkplug"):
            _ = SparkplugSite(Nameplate("s", 1.0, (group,))).points
    group = Group("g", ("A",), (valve, Signal("V", "pu", 0.0, 1.0)), (valve,))
    with pytest.raises(NameplateError, match="would be one"):
        _ = SparkplugSite(Nameplate("s", 1.0, (group,))).points
