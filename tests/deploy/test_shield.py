"""The shield answers safely whatever comes in: fault table, properties, and the independent second look."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield import Code, Decision, Shield, ShieldSettings, ShieldState, Source
from twinloop.deploy.shield.verification import Verifier
from twinloop.envs.constraint import Constraint, RangeConstraint, RateConstraint, declare
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Quality, Telemetry
from twinloop.envs.wind_farm.nameplate import GROUP, make_nameplate

Floats = NDArray[np.float64]

N = 3
PERIOD_S = 10.0
NOW_S = 1_735_689_600.0
YAW_STEP_DEG = 3.0  # 0.3 deg/s over 10 s
FARM = make_nameplate("farm", PERIOD_S, N, tuple((630.0 * i, 0.0, 126.0, 90.0, 5000.0) for i in range(N)))
GOOD_ROW = [8.0, 270.0, 270.0, 1700.0, 0.06, 0.1, 0.0, 1.0]
POWER, YAW = FARM.group(GROUP).index("measured", "power_kw"), 0


def reading(number: int = 1, now_s: float = NOW_S, **fields: Any) -> Telemetry:
    """A good reading of all turbines, taken at ``now_s``."""
    values = np.tile(GOOD_ROW, (N, 1))
    complete: dict[str, Any] = {
        "values": {GROUP: values},
        "source_time_s": {GROUP: np.full(values.shape, now_s)},
        "quality": {GROUP: np.zeros(values.shape, dtype=np.int8)},
        "received_time_s": now_s,
        "sequence": number,
    }
    return Telemetry(**{**complete, **fields})


def with_value(field: str, value: float, asset: int = 1, signal: int = POWER) -> Telemetry:
    """A good reading but for one number."""
    good = reading()
    table = np.array(getattr(good, field)[GROUP], dtype=np.float64)
    table[asset, signal] = value
    changed: dict[str, Any] = {field: {GROUP: table}}
    return dataclasses.replace(good, **changed)


def commands(yaw_deg: Any = 0.0, limit_pu: Any = 1.0) -> dict[str, Floats]:
    return {GROUP: np.column_stack([np.broadcast_to(yaw_deg, N), np.broadcast_to(limit_pu, N)]).astype(np.float64)}


def assert_safe(decision: Decision, applied: Floats, plate: Nameplate = FARM, dt_s: float = PERIOD_S) -> None:
    """Finite, in range, in rate; written without any code of the shield."""
    for group in plate.groups:
        sent = decision.commands[group.name]
        assert sent.shape == (group.n_assets, len(group.commanded))
        for i in range(group.n_assets):
            for a, signal in enumerate(group.commanded):
                value, before = float(sent[i, a]), float(applied[i, a])
                assert math.isfinite(value)
                assert signal.minimum <= value <= signal.maximum
                if signal.rate_limit_per_s is not None and math.isfinite(before):
                    start = min(max(before, signal.minimum), signal.maximum)
                    assert abs(value - start) <= signal.rate_limit_per_s * dt_s + 1e-9 * (1 + abs(value))
    assert set(decision.source) == set(plate.agents)


def warm(shield: Shield, yaw_deg: float = 10.0) -> ShieldState:
    """A state one period old: one good reading seen, ``yaw_deg`` applied everywhere."""
    state = shield.start(commands(yaw_deg))
    decision = shield.filter(reading(0, NOW_S - PERIOD_S), commands(yaw_deg), NOW_S - PERIOD_S, state)
    return decision.state


def codes(decision: Decision) -> set[Code]:
    return {r.code for r in decision.reasons}


# The nine inputs on which published shields pass the raw command, raise or return NaN (docking task, here on yaw).
NINE_INPUTS = [
    pytest.param(reading(), commands(math.nan), 10.0, Code.COMMAND_NOT_FINITE, id="NaN action"),
    pytest.param(reading(), commands(math.inf), 10.0, Code.COMMAND_NOT_FINITE, id="infinite action"),
    pytest.param(reading(), commands(1e30), 10.0, Code.COMMAND_RANGE, id="1e30 action"),
    pytest.param(with_value("values", math.nan), commands(40.0), 10.0, Code.INPUT_NOT_FINITE, id="NaN state"),
    pytest.param(with_value("values", math.inf), commands(40.0), 10.0, Code.INPUT_NOT_FINITE, id="infinite state"),
    pytest.param(reading(), commands(0.0), 90.0, Code.COMMAND_RATE, id="far-unsafe state"),
    pytest.param(reading(), commands(120.0), 90.0, Code.COMMAND_RANGE, id="unsafe and worsening"),
    pytest.param(reading(), {GROUP: np.zeros((N, 5))}, 10.0, Code.COMMAND_SHAPE, id="action of wrong shape"),
    pytest.param(
        reading(values={GROUP: np.zeros((N, 2))}), commands(40.0), 10.0, Code.INPUT_SHAPE, id="state of wrong shape"
    ),
]


@pytest.mark.parametrize(("telemetry", "proposed", "applied_deg", "code"), NINE_INPUTS)
def test_nine_published_failures_get_a_safe_command_and_its_reason(
    telemetry: Telemetry, proposed: Any, applied_deg: float, code: Code
) -> None:
    shield = Shield(FARM)
    state = dataclasses.replace(warm(shield), applied=commands(applied_deg))
    decision = shield.filter(telemetry, proposed, NOW_S, state)
    assert_safe(decision, state.applied[GROUP])
    assert code in codes(decision)
    assert np.max(np.abs(decision.commands[GROUP][:, YAW])) <= 40.0


def _proposals() -> list[tuple[str, Any, Code]]:
    inside = commands(10.0)[GROUP]
    return [
        ("none", None, Code.COMMAND_MISSING),
        ("no mapping", 3.0, Code.COMMAND_MISSING),
        ("text", "abort", Code.COMMAND_MISSING),
        ("empty mapping", {}, Code.COMMAND_MISSING),
        ("another group", {"pump": inside}, Code.COMMAND_MISSING),
        ("group of None", {GROUP: None}, Code.COMMAND_MISSING),
        ("batch axis left on", {GROUP: inside[None]}, Code.COMMAND_SHAPE),
        ("one asset short", {GROUP: inside[:2]}, Code.COMMAND_SHAPE),
        ("transposed", {GROUP: inside.T}, Code.COMMAND_SHAPE),
        ("scalar", {GROUP: 1.0}, Code.COMMAND_SHAPE),
        ("no rows", {GROUP: np.zeros((0, 2))}, Code.COMMAND_SHAPE),
        ("strings of numbers", {GROUP: inside.astype(str)}, Code.COMMAND_TYPE),
        ("objects", {GROUP: inside.astype(object)}, Code.COMMAND_TYPE),
        ("complex", {GROUP: inside.astype(complex)}, Code.COMMAND_TYPE),
        ("booleans", {GROUP: inside > 0}, Code.COMMAND_TYPE),
        ("masked", {GROUP: np.ma.masked_greater(inside, 5.0)}, Code.COMMAND_TYPE),
        ("ragged", {GROUP: [[1.0], [1.0, 2.0], []]}, Code.COMMAND_TYPE),
        ("NaN everywhere", commands(math.nan, math.nan), Code.COMMAND_NOT_FINITE),
        ("minus infinity", commands(-math.inf), Code.COMMAND_NOT_FINITE),
        ("largest float", commands(1.7e308), Code.COMMAND_RANGE),
        ("below the range", commands(-41.0), Code.COMMAND_RANGE),
        ("above the range", commands(41.0), Code.COMMAND_RANGE),
        ("power limit of zero", commands(10.0, 0.0), Code.COMMAND_RANGE),
        ("percent for per unit", commands(10.0, 100.0), Code.COMMAND_RANGE),
        ("jump up", commands(40.0), Code.COMMAND_RATE),
        ("jump down", commands(-40.0), Code.COMMAND_RATE),
        ("sign flipped", commands(-10.0), Code.COMMAND_RATE),
        ("power limit jumps", commands(10.0, 0.1), Code.COMMAND_RATE),
    ]


FAULTY_PROPOSALS = [pytest.param(*case[1:], id=case[0]) for case in _proposals()]


@pytest.mark.parametrize(("proposed", "code"), FAULTY_PROPOSALS)
def test_a_faulty_proposal_is_answered_within_the_period(proposed: Any, code: Code) -> None:
    shield = Shield(FARM)
    state = warm(shield)
    decision = shield.filter(reading(), proposed, NOW_S, state)
    assert_safe(decision, state.applied[GROUP])
    assert codes(decision) == {code}
    unusable = code not in (Code.COMMAND_RANGE, Code.COMMAND_RATE)
    assert set(decision.source.values()) == {Source.FALLBACK if unusable else Source.POLICY}
    if unusable:  # towards neutral, as fast as the rate allows
        np.testing.assert_allclose(decision.commands[GROUP][:, YAW], 10.0 - YAW_STEP_DEG)


def _broken_readings() -> list[tuple[str, Any, Code]]:
    good = reading()
    values = good.values[GROUP]
    return [
        ("none", None, Code.INPUT_MISSING),
        ("no telemetry", {"values": 1}, Code.INPUT_TYPE),
        ("text sequence", reading(sequence="7"), Code.INPUT_TYPE),
        ("NaN sequence", reading(sequence=math.nan), Code.INPUT_TYPE),
        ("duplicate", reading(0), Code.INPUT_OUT_OF_ORDER),
        ("group missing", reading(values={}), Code.INPUT_MISSING),
        ("values of None", reading(values={GROUP: None}), Code.INPUT_MISSING),
        ("no times", reading(source_time_s=None), Code.INPUT_MISSING),
        ("asset missing", reading(values={GROUP: values[:2]}), Code.INPUT_SHAPE),
        ("flat", reading(values={GROUP: values.ravel()}), Code.INPUT_SHAPE),
        ("text values", reading(values={GROUP: values.astype(str)}), Code.INPUT_TYPE),
        ("quality of wrong shape", reading(quality={GROUP: np.zeros(3)}), Code.INPUT_SHAPE),
        ("NaN", with_value("values", math.nan), Code.INPUT_NOT_FINITE),
        ("infinity", with_value("values", math.inf), Code.INPUT_NOT_FINITE),
        ("spike", with_value("values", 1e30), Code.INPUT_RANGE),
        ("watts for kilowatts", with_value("values", 1.7e6), Code.INPUT_UNIT),
        ("below the range", with_value("values", -501.0), Code.INPUT_RANGE),
        ("bad quality", with_value("quality", Quality.BAD), Code.INPUT_BAD_QUALITY),
        ("unknown quality", with_value("quality", 77), Code.INPUT_BAD_QUALITY),
        ("stale", with_value("source_time_s", NOW_S - 26.0), Code.INPUT_STALE),
        ("from 1970", with_value("source_time_s", 0.0), Code.INPUT_STALE),
        ("no time", with_value("source_time_s", math.nan), Code.INPUT_STALE),
        ("future", with_value("source_time_s", NOW_S + 3600.0), Code.INPUT_FUTURE),
        ("infinite time", with_value("source_time_s", math.inf), Code.INPUT_FUTURE),
        ("older than the one before", with_value("source_time_s", NOW_S - 11.0), Code.INPUT_OUT_OF_ORDER),
    ]


@pytest.mark.parametrize(
    ("telemetry", "code"), [c[1:] for c in _broken_readings()], ids=[c[0] for c in _broken_readings()]
)
def test_a_faulty_reading_is_held_then_sent_to_fallback(telemetry: Any, code: Code) -> None:
    shield = Shield(FARM)
    state = warm(shield)
    agent = f"{GROUP}/WT02"
    for period in range(4):
        before = state.applied[GROUP]
        decision = shield.filter(telemetry, commands(10.0), NOW_S, state)
        assert_safe(decision, before)
        if period == 0:
            assert codes(decision) == {code}
            np.testing.assert_array_equal(shield.guard(telemetry, NOW_S, state).values[GROUP][1], GOOD_ROW)
        assert decision.source[agent] is (Source.SUBSTITUTED if period < 2 else Source.FALLBACK)
        state = dataclasses.replace(decision.state, time_s=NOW_S - PERIOD_S)
    assert state.applied[GROUP][1, YAW] == pytest.approx(10.0 - 2 * YAW_STEP_DEG)


@pytest.mark.parametrize("clock_s", [math.nan, math.inf, -math.inf, NOW_S - 3600.0, 0.0, None, "noon"])
def test_a_broken_clock_never_moves_a_command_beyond_its_rate(clock_s: Any) -> None:
    shield = Shield(FARM)
    state = warm(shield)
    decision = shield.filter(reading(), commands(40.0), clock_s, state)
    assert_safe(decision, state.applied[GROUP])


@pytest.mark.parametrize("state", [None, "lost", ShieldState(applied={}, inputs=None)])  # type: ignore[arg-type]  # the fault
def test_a_lost_state_ends_in_a_safe_command(state: Any) -> None:
    decision = Shield(FARM).filter(reading(), commands(40.0), NOW_S, state)
    assert_safe(decision, commands(0.0)[GROUP])
    assert codes(decision) == {Code.SHIELD_FAILED}


def test_only_the_faulty_asset_loses_its_policy() -> None:
    shield = Shield(FARM)
    proposed = commands([12.0, math.nan, 8.0])
    decision = shield.filter(reading(), proposed, NOW_S, warm(shield))
    assert list(decision.source.values()) == [Source.POLICY, Source.FALLBACK, Source.POLICY]
    np.testing.assert_array_equal(decision.commands[GROUP][:, YAW], [12.0, 7.0, 8.0])
    assert {r.asset for r in decision.reasons} == {f"{GROUP}/WT02"}


def test_a_good_reading_gives_an_asset_back_to_its_policy() -> None:
    shield = Shield(FARM)
    state = warm(shield)
    for k in range(5):
        state = shield.filter(None, commands(0.0), NOW_S + k * PERIOD_S, state).state
    later_s = NOW_S + 5 * PERIOD_S
    decision = shield.filter(reading(6, later_s), commands(0.0), later_s, state)
    assert set(decision.source.values()) == {Source.POLICY}
    assert not decision.reasons


def test_a_source_that_counts_from_the_start_again_is_believed_once_holding_has_run_out() -> None:
    shield = Shield(FARM)
    now_s = NOW_S
    state = shield.filter(reading(1000, now_s), commands(), now_s, shield.start()).state
    modes, found = [], []
    for k in range(1, 6):
        now_s += PERIOD_S
        decision = shield.filter(reading(k, now_s), commands(), now_s, state)
        modes.append(decision.source[f"{GROUP}/WT01"])
        found.append(Code.INPUT_OUT_OF_ORDER in codes(decision))
        state = decision.state
    assert found == [True, True, True, False, False]
    assert modes == [Source.SUBSTITUTED, Source.SUBSTITUTED, Source.FALLBACK, Source.POLICY, Source.POLICY]


def test_a_frozen_signal_is_found_where_it_is_asked_for() -> None:
    shield = Shield(FARM, settings=ShieldSettings(frozen_after_periods={"wind_speed_mps": 4}))
    state, found = shield.start(), []
    for k in range(8):
        now_s = NOW_S + k * PERIOD_S
        decision = shield.filter(reading(k, now_s), commands(), now_s, state)
        state = decision.state
        found.append(Code.INPUT_FROZEN in codes(decision))
    assert found == [False] * 4 + [True] * 4


def test_the_range_wins_over_the_rate_when_the_applied_command_is_outside() -> None:
    shield = Shield(FARM)
    state = shield.start(commands(90.0))
    decision = shield.filter(reading(), commands(0.0), NOW_S, state)
    np.testing.assert_array_equal(decision.commands[GROUP][:, YAW], 40.0)


def test_rate_counts_from_what_the_plant_accepted_not_from_what_was_asked() -> None:
    shield = Shield(FARM)
    decision = shield.filter(reading(), commands(3.0), NOW_S, shield.start())
    state = shield.accepted(decision.state, commands(1.0))
    later = shield.filter(reading(2, NOW_S + PERIOD_S), commands(40.0), NOW_S + PERIOD_S, state)
    np.testing.assert_allclose(later.commands[GROUP][:, YAW], 4.0)


def test_an_unconfirmed_write_is_followed_by_the_last_confirmed_command() -> None:
    shield = Shield(FARM)
    before = warm(shield)
    decision = shield.filter(reading(), commands(13.0), NOW_S, before)
    state = shield.unconfirmed(before, decision.state)
    again = shield.filter(reading(2, NOW_S + PERIOD_S), commands(16.0), NOW_S + PERIOD_S, state)
    np.testing.assert_array_equal(again.commands[GROUP][:, YAW], 10.0)  # within 3 deg of both 10 and 13


@pytest.mark.parametrize("answer", [None, {}, {GROUP: "ok"}, {GROUP: np.zeros((1, 1))}, commands(math.nan, math.nan)])
def test_an_answer_of_the_plant_that_makes_no_sense_leaves_the_sent_command_as_applied(answer: Any) -> None:
    shield = Shield(FARM)
    decision = shield.filter(reading(), commands(2.0), NOW_S, shield.start())
    assert shield.accepted(decision.state, answer).applied[GROUP][0, YAW] == 2.0


def _raises(values: Any) -> Any:
    raise RuntimeError("local controller is away")


@pytest.mark.parametrize(
    ("fallback", "expected_deg"),
    [
        (lambda values: commands(-5.0), -5.0),
        (lambda values: commands(-90.0), -40.0),
        (lambda values: commands(math.nan), 0.0),
        (lambda values: {GROUP: "off"}, 0.0),
        (lambda values: None, 0.0),
        (_raises, 0.0),
    ],
)
def test_the_fallback_is_limited_like_any_command_and_neutral_if_it_fails(
    fallback: Callable[[Any], Any], expected_deg: float
) -> None:
    shield = Shield(FARM, fallback=fallback)
    state = shield.start()
    for k in range(20):
        now_s = NOW_S + k * PERIOD_S
        before = state.applied[GROUP]
        decision = shield.filter(reading(k, now_s), None, now_s, state)
        assert_safe(decision, before)
        state = decision.state
    np.testing.assert_allclose(state.applied[GROUP][:, YAW], expected_deg)


LEVELS = Nameplate(
    "pumps",
    1.0,
    (
        Group(
            "pump",
            ("P1", "P2", "P3"),
            measured=(Signal("flow_pu", "pu", 0.0, 1.0),),
            commanded=(Signal("speed_step", "1", 0.0, 4.0, levels=(0.0, 1.0, 2.0, 4.0), rate_limit_per_s=1.0),),
        ),
    ),
)


@pytest.mark.parametrize(
    ("asked", "before", "sent"), [(1.4, 1.0, 1.0), (4.0, 0.0, 1.0), (4.0, 2.0, 2.0), (1.6, 1.0, 2.0)]
)
def test_a_discrete_command_goes_to_the_nearest_level_within_reach(asked: float, before: float, sent: float) -> None:
    shield = Shield(LEVELS)
    flow = np.full((3, 1), 0.5)
    telemetry = Telemetry({"pump": flow}, {"pump": flow * 0 + NOW_S}, {"pump": np.zeros((3, 1), np.int8)}, NOW_S, 1)
    state = shield.start({"pump": np.full((3, 1), before)})
    decision = shield.filter(telemetry, {"pump": np.full((3, 1), asked)}, NOW_S, state)
    np.testing.assert_array_equal(decision.commands["pump"], sent)


# Properties

any_float = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-60.0, 60.0),
    st.sampled_from([0.0, -0.0, 5e-324, 40.0, -40.0, 1e30, 0.1, 1.0]),
)
pairs = st.lists(st.tuples(any_float, any_float), min_size=N, max_size=N).map(np.array)
inside = st.lists(st.tuples(st.floats(-40.0, 40.0), st.floats(0.1, 1.0)), min_size=N, max_size=N).map(np.array)
clocks = st.one_of(st.floats(0.0, 60.0), st.floats(-1e6, 1e6), st.just(math.nan))


@given(proposed=pairs, applied=inside, elapsed_s=clocks, column=st.integers(0, 7), value=any_float)
@settings(max_examples=1000, deadline=None)
def test_commands_are_finite_in_range_in_rate_and_every_change_has_a_reason(
    proposed: Floats, applied: Floats, elapsed_s: float, column: int, value: float
) -> None:
    shield = Shield(FARM)
    state = dataclasses.replace(warm(shield), applied={GROUP: applied})
    now_s = NOW_S - PERIOD_S + elapsed_s
    telemetry = with_value("values", value, signal=column)
    decision = shield.filter(telemetry, {GROUP: proposed}, now_s, state)
    passed_s = now_s - (NOW_S - PERIOD_S)  # as the clock resolves it
    assert_safe(decision, applied, dt_s=min(passed_s * 1.002, PERIOD_S) if passed_s > 0 else 0.0)
    told = {(r.asset, r.signal) for r in decision.reasons}
    for i, asset in enumerate(FARM.group(GROUP).assets):
        for a, signal in enumerate(FARM.group(GROUP).commanded):
            if not abs(decision.commands[GROUP][i, a] - proposed[i, a]) <= 1e-6:
                assert (f"{GROUP}/{asset}", signal.name) in told


@given(applied=inside, share=st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=N, max_size=N))
@settings(max_examples=500, deadline=None)
def test_a_safe_proposal_passes_unchanged(applied: Floats, share: list[tuple[float, float]]) -> None:
    shield = Shield(FARM)
    state = dataclasses.replace(warm(shield), applied={GROUP: applied})
    reach = np.array([0.3, 0.05]) * PERIOD_S
    proposed = np.clip(applied + np.array(share) * reach, [-40.0, 0.1], [40.0, 1.0])
    decision = shield.filter(reading(), {GROUP: proposed}, NOW_S, state)
    np.testing.assert_allclose(decision.commands[GROUP], proposed, rtol=0, atol=1e-9)
    assert not decision.reasons


@given(proposed=pairs, applied=inside)
@settings(max_examples=500, deadline=None)
def test_filtering_twice_changes_nothing_more(proposed: Floats, applied: Floats) -> None:
    shield = Shield(FARM)
    state = dataclasses.replace(warm(shield), applied={GROUP: applied})
    once = shield.filter(reading(), {GROUP: proposed}, NOW_S, state)
    twice = shield.filter(reading(), once.commands, NOW_S, state)
    np.testing.assert_array_equal(twice.commands[GROUP], once.commands[GROUP])
    assert not twice.reasons


@given(proposed=pairs)
@settings(max_examples=50, deadline=None)
def test_the_same_arguments_give_the_same_decision_and_stay_untouched(proposed: Floats) -> None:
    shield = Shield(FARM)
    state = warm(shield)
    kept = proposed.copy(), state.applied[GROUP].copy(), state.inputs.good.copy()
    a, b = (shield.filter(reading(), {GROUP: proposed}, NOW_S, state) for _ in range(2))
    np.testing.assert_array_equal(a.commands[GROUP], b.commands[GROUP])
    assert repr(a.reasons) == repr(b.reasons)  # by text: NaN is not equal to itself
    for now, then in zip((proposed, state.applied[GROUP], state.inputs.good), kept, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_day_of_hostile_commands_under_faults_never_breaks_a_limit() -> None:
    shield, rng = Shield(FARM), np.random.default_rng(0)
    state = shield.start()
    poison = np.array([math.nan, math.inf, -math.inf, 1e30, 40.0, -40.0])
    for k in range(1000):
        now_s = NOW_S + k * PERIOD_S
        telemetry = reading(k, now_s)
        if rng.random() < 0.3:
            telemetry.values[GROUP][rng.integers(N), rng.integers(8)] = rng.choice(poison)
        proposed = {GROUP: np.where(rng.random((N, 2)) < 0.2, rng.choice(poison, (N, 2)), rng.uniform(-80, 80, (N, 2)))}
        before = state.applied[GROUP]
        decision = shield.filter(telemetry if rng.random() < 0.9 else None, proposed, now_s, state)
        assert_safe(decision, before)
        state = decision.state


# The second look

VERIFIER = Verifier(declare(FARM))


@pytest.mark.parametrize(
    ("yaw_deg", "limit_pu", "column"),
    [
        (math.nan, 1.0, 0),
        (math.inf, 1.0, 0),
        (40.1, 1.0, 0),
        (13.1, 1.0, 0),
        (6.9, 1.0, 0),
        (10.0, 1.1, 1),
        (10.0, 0.4, 1),
    ],
)
def test_the_second_look_finds_each_kind_of_unsafe_command(yaw_deg: float, limit_pu: float, column: int) -> None:
    sent = commands([10.0, yaw_deg, 10.0], [1.0, limit_pu, 1.0])
    found = VERIFIER.failures(sent, commands(10.0), PERIOD_S).local
    assert {place: failure.column for place, failure in found.items()} == {(GROUP, 1): column}


@pytest.mark.parametrize("sent", [{}, {GROUP: None}, {GROUP: "abc"}, {GROUP: np.zeros((N, 0))}])
def test_the_second_look_fails_what_it_cannot_read(sent: Any) -> None:
    assert len(VERIFIER.failures(sent, commands(10.0), PERIOD_S).local) == N


@given(before=st.tuples(any_float, any_float), elapsed_s=st.floats(0.0, PERIOD_S))
@settings(max_examples=500, deadline=None)
def test_the_limiter_of_last_resort_passes_the_second_look(before: tuple[float, float], elapsed_s: float) -> None:
    applied = {GROUP: np.tile(before, (N, 1))}
    sent = {GROUP: [VERIFIER.last_resort(applied, GROUP, i, elapsed_s) for i in range(N)]}
    assert VERIFIER.failures(sent, applied, elapsed_s).fine


@pytest.mark.parametrize("field", ["lower", "upper", "rate"])
def test_a_filter_with_damaged_limits_is_stopped_by_the_second_look(field: str) -> None:
    shield = Shield(FARM)
    state = warm(shield)
    limits = shield._keeping.local
    limits._step[:] = np.inf
    if field != "rate":
        getattr(limits, field)[:] = {"lower": -1e9, "upper": 1e9}[field]
    decision = shield.filter(reading(), commands(-80.0 if field == "lower" else 80.0), NOW_S, state)
    assert_safe(decision, state.applied[GROUP])
    assert Code.VERIFICATION_FAILED in codes(decision)
    assert set(decision.source.values()) == {Source.FALLBACK}


def test_a_shield_that_breaks_inside_still_answers() -> None:
    shield = Shield(FARM)
    state = warm(shield)
    del shield._keeping.local
    decision = shield.filter(reading(), commands(40.0), NOW_S, state)
    assert_safe(decision, state.applied[GROUP])
    assert codes(decision) == {Code.SHIELD_FAILED}
    np.testing.assert_allclose(decision.commands[GROUP][:, YAW], 10.0 - YAW_STEP_DEG)


# Declaration


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (RangeConstraint(GROUP, "yaw_offset_deg", -1.0, 1.0, "rad"), "unit 'rad'"),
        (RangeConstraint(GROUP, "yaw_offset_deg", 50.0, 60.0, "deg"), "inverted"),
        (RangeConstraint(GROUP, "yaw_offset_deg", 5.0, 20.0, "deg"), "neutral command 0 "),
        (RateConstraint(GROUP, "yaw_offset_deg", 0.0, "deg"), "must be finite and positive"),
        (RateConstraint(GROUP, "yaw_deg", 0.1, "deg"), "yaw_offset_deg"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused_at_the_start(constraint: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Shield(FARM, constraints=[constraint])


def test_extra_constraints_tighten_the_nameplate_and_never_widen_it() -> None:
    extra: list[Constraint] = [
        RangeConstraint(GROUP, "yaw_offset_deg", -90.0, 5.0, "deg"),
        RateConstraint(GROUP, "yaw_offset_deg", 9.0, "deg"),
    ]
    shield = Shield(FARM, constraints=extra)
    high = shield.filter(reading(), commands(40.0), NOW_S, shield.start(commands(4.0)))
    low = shield.filter(reading(), commands(-40.0), NOW_S, shield.start(commands(4.0)))
    np.testing.assert_array_equal(high.commands[GROUP][:, YAW], 5.0)
    np.testing.assert_array_equal(low.commands[GROUP][:, YAW], 1.0)


def test_eighty_turbines_take_a_small_part_of_a_second() -> None:
    n = 80
    plate = make_nameplate("large", 1.0, n, tuple((630.0 * i, 0.0, 126.0, 90.0, 5000.0) for i in range(n)))
    shield, rng = Shield(plate), np.random.default_rng(0)
    state, values = shield.start(), np.tile(GOOD_ROW, (n, 1))
    spent = []
    for k in range(50):
        now_s = NOW_S + k
        quality = {GROUP: np.zeros(values.shape, np.int8)}
        telemetry = Telemetry({GROUP: values}, {GROUP: np.full(values.shape, now_s)}, quality, now_s, k)
        proposed = {GROUP: rng.uniform(-60.0, 60.0, (n, 2))}
        begun_s = time.thread_time()
        state = shield.filter(telemetry, proposed, now_s, state).state
        spent.append(time.thread_time() - begun_s)
    assert np.median(spent) < 0.01  # seconds of CPU; 0.6 ms when written
