"""The digests of rows are over the bytes that they always were over, and short forms tell what long ones would."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.deploy.arbitration.priority_array import RELINQUISHED, Slot
from twinloop.deploy.arbitration.reported import reported_slots
from twinloop.deploy.bumpless import OFF_POLICY, restarted
from twinloop.deploy.record import decision_record, described, state_digest
from twinloop.deploy.shield import Decision, Mode, Shield, ShieldState, Source
from twinloop.deploy.shield.state import as_arrays, from_arrays, named
from twinloop.envs.constraint import AccelerationConstraint, declare
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

SPEED = Signal("speed", "", 0.0, 100.0, neutral=0.0, rate_limit_per_s=0.7)
FLOW = Signal("flow", "", 0.0, 100.0)
PLATE = Nameplate(
    "mill",
    1.0,
    (
        Group("pump", ("P1", "P2", "P3"), measured=(FLOW,), commanded=(SPEED, replace(SPEED, name="lift"))),
        Group("gauge", ("G1", "G2"), measured=(FLOW,), commanded=()),
        Group("fan", ("F1",), measured=(FLOW,), commanded=(SPEED,)),
    ),
)
SHIELD = Shield(declare(PLATE, (AccelerationConstraint("pump", "speed", 0.05, ""),)))


def decided(n_periods: int = 3) -> Decision:
    """The last of some decisions, with a state in which something stands."""
    state = SHIELD.start()
    for period in range(n_periods):
        values = {g.name: np.full((g.n_assets, 1), 7.0 + period) for g in PLATE.groups}
        reading = Telemetry(
            values, {n: np.full(v.shape, float(period)) for n, v in values.items()},
            {n: np.zeros(v.shape, np.int8) for n, v in values.items()}, float(period), period + 1,
        )  # fmt: skip
        asked = {"pump": np.full((3, 2), 50.0), "gauge": np.zeros((2, 0)), "fan": np.full((1, 1), 3.0)}
        decision = SHIELD.filter(reading, asked, float(period), state, clock_s=float(period))
        state = SHIELD.accepted(decision.state, decision.commands)
    return decision


def spelled_out(state: ShieldState) -> str:
    """The digest as journals have had it from the first version."""
    digest = hashlib.sha256()
    for name, array in sorted(as_arrays(state).items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("n_periods", [1, 2, 5])
def test_a_states_digest_is_over_every_named_array_in_order(n_periods: int) -> None:
    state = decided(n_periods).state
    assert state_digest(state) == spelled_out(state) == state_digest(from_arrays(as_arrays(state)))
    assert state_digest(SHIELD.start()) == spelled_out(SHIELD.start())
    names = [name for name, _ in named(state)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    "change",
    [
        {"clock_s": math.nan},
        {"clock_s": -0.0},
        {"confirmed": False},
        {"landing_s": np.zeros(6)[::2]},
        {"landing_s": np.arange(6.0).astype(">f8")},
        {"monitors": ({"mean": np.ones(2), "n": 3}, {"mean": np.zeros((2, 0)), "n": 2**63})},
        {"time_s": np.float64(2.5)},
        {"pending": {"read_back_wrong": np.array([True, False])}},
    ],
)
def test_a_states_digest_takes_odd_numbers_as_it_always_did(change: dict[str, Any]) -> None:
    state = decided().state
    changed = replace(state, **change)
    assert state_digest(changed) == spelled_out(changed)
    assert state_digest(changed) != state_digest(state)


@given(st.sampled_from(sorted(as_arrays(decided().state))), st.integers(0, 10**6))
def test_every_bit_of_a_state_counts(name: str, place: int) -> None:
    state = decided().state
    arrays = as_arrays(state)
    raw = bytearray(arrays[name].tobytes())
    if not raw or name == "monitors":  # nothing in it, or a count that other names must agree with
        return
    raw[place % len(raw)] ^= 1
    arrays[name] = np.frombuffer(bytes(raw), arrays[name].dtype).reshape(arrays[name].shape)
    assert state_digest(from_arrays(arrays)) != state_digest(state)


@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf]), max_size=5),
    st.sampled_from(["f8", "f4", "i1"]),
    st.booleans(),
)
def test_one_number_stands_for_an_array_only_where_all_are_equal(values: list[float], kind: str, fits: bool) -> None:
    with np.errstate(invalid="ignore"):  # a NaN as an integer: any value will do
        array = np.array(values).astype(kind)
    told = described({"a": array}, like={"a": np.zeros(len(values) + (not fits))})["a"]
    if fits and len(values) and bool(np.all(array == array.flat[0])):
        assert np.shape(told) == ()
        assert told == array[0]
    else:
        np.testing.assert_array_equal(told, array)


@pytest.mark.parametrize(
    ("values", "is_told"),
    [
        (np.array([[1.0, math.nan]]), True),
        (np.array([[1, 2]]), True),
        (np.array([[1.0, 2.0]], np.float32), False),
        (np.array([["a", "b"]]), False),
        (np.ma.MaskedArray([[1.0, 2.0]], mask=[[False, True]]), False),
        ([[1.0, 2.0]], False),
        (None, False),
    ],
)
def test_a_reading_that_a_row_cannot_tell_whole_is_told_by_a_digest(values: Any, is_told: bool) -> None:
    tables = {"pump": np.zeros((1, 2))}, {"pump": np.zeros((1, 2), np.int8)}
    readings = [Telemetry({"pump": v}, *tables, 0.0, 1) for v in (values, np.full((1, 2), "other"))]
    rows = [decision_record(1, reading, decided(), {}, {})["telemetry"] for reading in readings]
    assert ("sha256" in rows[0]) is not is_told
    assert rows[0].get("sha256") != rows[1]["sha256"]
    if is_told:
        np.testing.assert_array_equal(rows[0]["values"]["pump"], values)


def test_groups_of_which_nothing_is_sent_are_idle_by_number_and_sources_name_the_rest() -> None:
    decision = replace(
        decided(),
        acts={"pump": np.array([True, False, False]), "gauge": np.array([True, True]), "fan": np.array([False])},
        source=dict(zip(PLATE.agents, (*(Source.POLICY,) * 2, Source.PLAN, *(Source.NOBODY,) * 3), strict=True)),
    )
    row = decision_record(1, None, decision, {}, {})
    assert {name: list(places) for name, places in row["idle"].items()} == {"pump": [1, 2], "fan": [0]}
    assert row["sources"] == {
        "substituted": [], "fallback": [], "plan": ["pump/P3"], "nobody": ["gauge/G1", "gauge/G2", "fan/F1"],
    }  # fmt: skip


_ASSETS = st.lists(st.sampled_from(list(Source)), min_size=6, max_size=6)


@given(
    _ASSETS,
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.none() | st.lists(st.sampled_from([0, 8, 14, 16]), min_size=7, max_size=7),
    st.booleans(),
)
def test_reported_slots_agree_with_a_look_at_each_command(
    sources: list[Source], acts: list[bool], asked: list[int] | None, interlocked: bool
) -> None:
    decision = replace(
        decided(),
        source=dict(zip(PLATE.agents, sources, strict=True)),
        mode=dict.fromkeys(PLATE.agents, Mode.AUTONOMOUS),
        acts={"pump": np.array(acts[:3]), "gauge": np.array(acts[3:5]), "fan": np.array(acts[5:])},
    )
    of_command = [0, 0, 1, 1, 2, 2, 5]  # two of each pump, none of a gauge, one of the fan
    expected = []
    for command, asset in enumerate(of_command):
        ours = acts[asset] and sources[asset] is not Source.NOBODY
        on_policy = sources[asset] in (Source.POLICY, Source.SUBSTITUTED)
        slot = (Slot.AUTONOMOUS if on_policy else Slot.FALLBACK) if ours else RELINQUISHED
        slot = asked[command] if asked is not None and slot == Slot.AUTONOMOUS else slot
        expected.append(int(Slot.INTERLOCK if interlocked else slot))
    found = reported_slots(decision, None if asked is None else np.array(asked), interlocked, SHIELD.flat, PLATE.agents)
    nothing_to_tell = asked is None and not interlocked and set(sources) == {Source.POLICY}
    if nothing_to_tell or set(expected) == {int(Slot.AUTONOMOUS)}:
        assert found is None
    else:
        assert found is not None
        assert [*found["pump"].ravel(), *found["gauge"].ravel(), *found["fan"].ravel()] == expected
        assert {name: array.shape for name, array in found.items()} == {"pump": (3, 2), "gauge": (2, 0), "fan": (1, 1)}


@given(_ASSETS, st.sets(st.sampled_from(PLATE.agents)))
def test_a_memory_is_as_at_the_start_exactly_where_an_asset_is_off_its_policy(
    sources: list[Source], others: set[str]
) -> None:
    memory, start = {"pump/sum": np.arange(3.0)[None] + 1.0}, {"pump/sum": np.zeros((1, 3))}
    source = dict(zip(PLATE.agents, sources, strict=True))
    found = restarted(memory, start, source, PLATE, frozenset(others))
    off = [source[agent] in OFF_POLICY or agent in others for agent in PLATE.agents[:3]]
    np.testing.assert_array_equal(found["pump/sum"], np.where(off, 0.0, memory["pump/sum"]))
