"""What the input guard believes: each fault by its code, what stands in and for how long, and the short way's cost."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.decision import Code, InputState
from twinloop.deploy.shield.input_checks import CHECKS, KEPT_READINGS
from twinloop.deploy.shield.input_confusions import CONFUSIONS
from twinloop.deploy.shield.inputs import Guarded, InputGuard
from twinloop.deploy.shield.settings import ShieldSettings
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

Floats = NDArray[np.float64]

PERIOD_S = 10.0
NOW_S = 1_735_689_600.0
MEASURED = (
    Signal("speed_mps", "m/s", 0.0, 60.0),
    Signal("heading_deg", "deg", 0.0, 360.0, circular=True),
    Signal("power_kw", "kW", -500.0, 5000.0),
    Signal("oil_degc", "degC", -40.0, 120.0),
    Signal("torque_pu", "pu", 0.0, 1.2),
    Signal("open_pu", "pu", 0.0, 1.0),
)
SPEED, HEADING, POWER, OIL, TORQUE, OPEN = range(6)
ASSETS = ("A", "B", "C")
COMMANDED = (Signal("limit_pu", "pu", 0.0, 1.0),)
PUMP = Group("pump", ("P",), measured=(Signal("flow_pu", "pu", 0.0, 1.0),), commanded=COMMANDED)
SITE = Nameplate("works", PERIOD_S, (Group("mill", ASSETS, measured=MEASURED, commanded=COMMANDED), PUMP))
ROWS = np.array(
    [
        [8.0, 270.0, 1700.0, 60.0, 0.60, 1.0],
        [9.5, 120.0, 2600.0, 95.0, 0.80, 1.0],
        [11.0, 20.0, 3900.0, 30.0, 0.35, 1.0],
    ]
)


def reading(number: int, rows: Floats = ROWS, now_s: float | None = None, **fields: Any) -> Telemetry:
    """What the mills say in period ``number``; the pump always says the same."""
    at = NOW_S + PERIOD_S * number if now_s is None else now_s
    complete: dict[str, Any] = {
        "values": {"mill": rows.copy(), "pump": np.full((1, 1), 0.5)},
        "source_time_s": {"mill": np.full(rows.shape, at), "pump": np.full((1, 1), at)},
        "quality": {"mill": np.zeros(rows.shape, np.int8), "pump": np.zeros((1, 1), np.int8)},
        "received_time_s": at,
        "sequence": number,
    }
    return Telemetry(**{**complete, **fields})


def plain(group: str, values: Floats, now_s: float, number: int) -> Telemetry:
    """A good reading of one group."""
    times, quality = np.full(values.shape, now_s), np.zeros(values.shape, np.int8)
    return Telemetry({group: values}, {group: times}, {group: quality}, now_s, number)


def changed(value: float, asset: int, signal: int, rows: Floats = ROWS) -> Floats:
    rows = rows.copy()
    rows[asset, signal] = value
    return rows


def guard_of(**settings_of: Any) -> InputGuard:
    """A guard that learns within a period how far signals step."""
    return InputGuard(SITE, ShieldSettings(**{"confusion_learn_periods": 1, **settings_of}))


def believe(guard: InputGuard, state: InputState, number: int, values: Floats = ROWS, **more: Any) -> Guarded:
    at = NOW_S + PERIOD_S * number
    return guard.guard(reading(number, values), at, state, clock_s=PERIOD_S * number, **more)


def warm(guard: InputGuard, periods: int = 3) -> InputState:
    state = guard.start()
    for number in range(periods):
        found = believe(guard, state, number)
        assert found.clean
        state = found.state
    return state


def told(found: Guarded) -> set[tuple[str, str, Code]]:
    return {(r.asset, r.signal, r.code) for r in found.reasons}


# Jumps


def test_a_value_that_moves_faster_than_its_signal_can_is_held_until_it_could_have_come_there() -> None:
    guard = guard_of(jump_per_s={"oil_degc": 1.0}, hold_periods=5)
    state, found = warm(guard), []
    for number in range(3, 8):  # from 60 to 95 degC: 35 s away at 1 degC/s
        answer = believe(guard, state, number, changed(95.0, 0, OIL))
        found.append((answer.values["mill"][0, OIL], told(answer)))
        state = answer.state
    jump = {("mill/A", "oil_degc", Code.INPUT_JUMP)}
    assert found == [(60.0, jump), (60.0, jump), (60.0, jump), (95.0, set()), (95.0, set())]


def test_a_jump_limit_may_be_a_share_of_the_range_or_come_from_the_nameplate() -> None:
    share = guard_of(jump_pu={"oil_degc": 0.1})  # 16 degC a period
    state = warm(share)
    assert not believe(share, state, 3, changed(75.9, 0, OIL)).reasons
    assert told(believe(share, state, 3, changed(76.1, 0, OIL))) == {("mill/A", "oil_degc", Code.INPUT_JUMP)}
    slow = tuple(dataclasses.replace(s, rate_limit_per_s=0.5) if s.name == "oil_degc" else s for s in MEASURED)
    plate = dataclasses.replace(SITE, groups=(dataclasses.replace(SITE.groups[0], measured=slow), PUMP))
    guard = InputGuard(plate, ShieldSettings())
    state = warm(guard)
    assert not believe(guard, state, 3, changed(65.4, 0, OIL)).reasons
    assert told(believe(guard, state, 3, changed(65.6, 0, OIL))) == {("mill/A", "oil_degc", Code.INPUT_JUMP)}


def test_an_angle_that_passes_north_does_not_jump() -> None:
    guard = guard_of(jump_per_s={"heading_deg": 3.0})
    state = believe(guard, warm(guard), 3, changed(355.0, 2, HEADING)).state
    assert not believe(guard, state, 4, changed(10.0, 2, HEADING)).reasons


def test_without_a_limit_any_step_inside_the_range_is_believed() -> None:
    guard = guard_of()
    found = believe(guard, warm(guard), 3, changed(4800.0, 0, POWER))
    assert not found.reasons
    assert found.values["mill"][0, POWER] == 4800.0


# Units and swaps


@pytest.mark.parametrize(
    ("signal", "value"),
    [
        (SPEED, 8.0 * 3.6),
        (SPEED, 8.0 / 0.514444),
        (HEADING, math.radians(270.0)),
        (POWER, 1.7e6),
        (POWER, 1.7),
        (OIL, 60.0 + 273.15),
        (OIL, 60.0 * 1.8 + 32.0),
        (TORQUE, 60.0),
        (OPEN, 100.0),
    ],
    ids=["km/h", "knots", "rad", "W", "MW", "K", "degF", "%", "% at the end of the range"],
)
def test_a_value_in_another_unit_is_refused_and_never_converted(signal: int, value: float) -> None:
    guard = guard_of()
    state = warm(guard)
    for number in range(3, 40):  # while the true value wanders away from the last that was accepted
        drift = 1.0 if signal in (OIL, HEADING) else 1.0 - 0.01 * (number - 3)
        found = believe(guard, state, number, changed(value * drift, 0, signal))
        assert told(found) == {("mill/A", MEASURED[signal].name, Code.INPUT_UNIT)}
        assert found.values["mill"][0, signal] == ROWS[0, signal]
        assert found.trusted["mill"].tolist() == [number <= 4, True, True]
        state = found.state
    back = believe(guard, state, 40, changed(ROWS[0, signal] * drift, 0, signal))
    assert not back.reasons
    assert back.trusted["mill"].all()


def test_every_unit_of_the_table_is_told_from_its_confusions() -> None:
    for unit, others in CONFUSIONS.items():
        signal = Signal("x", unit, -1e6, 1e6)
        plate = Nameplate("units", 1.0, (Group("g", ("a",), measured=(signal,), commanded=COMMANDED),))
        guard = InputGuard(
            plate, ShieldSettings(confusion_step_pu=1e-5, confusion_learn_periods=1)
        )  # the range is wide, so look at small steps
        for other, scale, zero in others:
            state, good = guard.start(), 300.0
            for number, value in enumerate((good, good, good * scale + zero)):
                now_s = NOW_S + number
                found = guard.guard(plain("g", np.full((1, 1), value), now_s, number), now_s, state)
                state = found.state
            assert [r.code for r in found.reasons] == [Code.INPUT_UNIT], (unit, other)
            assert found.values["g"][0, 0] == good


def test_a_wild_value_that_no_unit_explains_is_out_of_range() -> None:
    guard = guard_of()
    for value in (1e30, 1.7e9, -501.0, 6000.0):
        found = believe(guard, warm(guard), 3, changed(value, 0, POWER))
        assert told(found) == {("mill/A", "power_kw", Code.INPUT_RANGE)}
    first = believe(guard, guard.start(), 0, changed(1.7e6, 0, POWER))  # nothing is expected yet
    assert told(first) == {("mill/A", "power_kw", Code.INPUT_RANGE)}


def test_near_zero_every_unit_looks_alike_and_none_is_found() -> None:
    guard = guard_of()
    state = believe(guard, warm(guard), 3, changed(0.0, 0, POWER)).state
    assert not believe(guard, state, 4, changed(1700.0, 0, POWER)).reasons


def test_swapped_channels_are_both_refused_until_they_are_back() -> None:
    guard = guard_of()
    state, swapped = warm(guard), ROWS.copy()
    swapped[0, [SPEED, HEADING]] = ROWS[0, [HEADING, SPEED]]  # 270 m/s is out of range, 8 degrees is not
    swapped[1, [HEADING, OIL]] = ROWS[1, [OIL, HEADING]]  # 120 deg and 95 degC: too near each other to be told
    for number in range(3, 30):
        found = believe(guard, state, number, swapped)
        assert told(found) == {
            ("mill/A", "speed_mps", Code.INPUT_SWAPPED),
            ("mill/A", "heading_deg", Code.INPUT_SWAPPED),
        }
        np.testing.assert_array_equal(found.values["mill"][0], ROWS[0])
        state = found.state
    assert not believe(guard, state, 30).reasons


def test_swapped_assets_are_told_from_assets_that_both_changed() -> None:
    guard = guard_of()
    state = warm(guard)
    found = believe(guard, state, 3, ROWS[[2, 1, 0]])
    assert {(asset, code) for asset, _, code in told(found)} == {
        ("mill/A", Code.INPUT_SWAPPED),
        ("mill/C", Code.INPUT_SWAPPED),
    }
    np.testing.assert_array_equal(found.values["mill"], ROWS)
    for number in range(4, 20):
        found = believe(guard, found.state, number, ROWS[[2, 1, 0]])
        assert found.trusted["mill"].tolist() == [number <= 4, True, number <= 4]
    assert not believe(guard, found.state, 20).reasons
    other = ROWS[[2, 1, 0]]
    other[0, SPEED] += 30.0  # one signal that is not the other's
    assert not believe(guard, state, 3, other).reasons


@pytest.mark.parametrize("relayed", [False, True])
def test_messages_that_come_again_after_a_loss_are_no_swap(relayed: bool) -> None:
    told_by = tuple(Signal(f"heard_{c}", "rad/s", -4.0, 4.0, relayed=relayed) for c in "ab")
    plate = Nameplate("cell", PERIOD_S, (Group("arm", ("x", "y"), measured=told_by, commanded=COMMANDED),))
    guard = InputGuard(plate, ShieldSettings())
    state, refused = guard.start(), 0
    for number in range(600):
        rows = np.array([[1.4, -1.4], [0.1, 0.2]])
        if number >= 500:  # long after the guard has forgotten how far they stepped at first
            rows[0] = -rows[0]
        now_s = NOW_S + PERIOD_S * number
        found = guard.guard(plain("arm", rows, now_s, number), now_s, state)
        refused += any(r.code is Code.INPUT_SWAPPED for r in found.reasons)
        state = found.state
    assert (refused > 0) == (not relayed)


def test_what_is_lost_is_seen_no_more_while_its_value_is_held() -> None:
    guard = guard_of(hold_periods=2)
    state = warm(guard)
    for number in range(3, 9):
        found = believe(guard, state, number, changed(math.nan, 1, OIL))
        held, lost = found.values["mill"], np.isnan(found.seen["mill"])
        np.testing.assert_array_equal(held, ROWS)
        assert lost.sum() == lost[1, OIL] == (number > 4)
        assert found.trusted["mill"].tolist() == [True, number <= 4, True]
        state = found.state
    back = believe(guard, state, 9)
    np.testing.assert_array_equal(back.seen["mill"], ROWS)


def test_flags_that_change_places_are_no_swap() -> None:
    flags = (Signal("busy_pu", "pu", 0.0, 1.0), Signal("blocked_pu", "pu", 0.0, 1.0))
    plate = Nameplate("line", PERIOD_S, (Group("cell", ("a", "b"), measured=flags, commanded=COMMANDED),))
    guard, state = InputGuard(plate, ShieldSettings()), None
    for number, rows in enumerate(([[1, 0], [0, 1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [0, 1]])):
        array, now_s = np.array(rows, dtype=np.float64), NOW_S + PERIOD_S * number
        found = guard.guard(plain("cell", array, now_s, number), now_s, guard.start() if state is None else state)
        assert not found.reasons
        state = found.state


def test_steps_as_far_as_a_signal_takes_them_anyway_are_no_confusion() -> None:
    """Bang-bang commands make turbines exchange what they say; only a signal that is calm by habit tells by a step."""
    guard = guard_of(confusion_learn_periods=20)
    state, found = warm(guard, 1), []
    for number in range(1, 61):  # restless for 20 periods, then calm, then swapped again
        rows = ROWS[[2, 1, 0]] if (number < 20 and number % 3 == 0) or number == 60 else ROWS
        answer = believe(guard, state, number, rows)
        found.append({r.code for r in answer.reasons})
        state = answer.state
    assert found == [set()] * 59 + [{Code.INPUT_SWAPPED}]


def test_confusions_are_not_looked_for_where_they_are_switched_off() -> None:
    guard = guard_of(confusion_step_pu=None)
    assert not believe(guard, warm(guard), 3, changed(28.8, 0, SPEED)).reasons
    assert told(believe(guard, warm(guard), 3, changed(1.7e6, 0, POWER))) == {("mill/A", "power_kw", Code.INPUT_RANGE)}


# Time


def test_a_reading_that_comes_again_under_a_new_number_is_a_replay() -> None:
    guard = guard_of()
    state, kept = guard.start(), []
    rng = np.random.default_rng(0)
    for number in range(10):
        values = ROWS + rng.normal(0.0, 0.01, ROWS.shape) * [1, 1, 1, 1, 1, 0]
        kept.append(reading(number, values))
        state = guard.guard(kept[-1], NOW_S + PERIOD_S * number, state).state
    for number, old in enumerate(kept[3:9], start=10):
        again = dataclasses.replace(old, sequence=number)
        found = guard.guard(again, NOW_S + PERIOD_S * number, state)
        assert {r.code for r in found.reasons} == {Code.INPUT_REPLAYED}
        assert found.trusted["mill"].all() == (number < 12)
        state = found.state
    assert guard.guard(reading(16), NOW_S + PERIOD_S * 16, state).clean


def test_a_reading_older_than_all_that_is_remembered_is_refused_all_the_same() -> None:
    guard = guard_of()
    state = warm(guard, KEPT_READINGS + 5)
    old = reading(KEPT_READINGS + 5, now_s=NOW_S)
    found = guard.guard(old, NOW_S + PERIOD_S * (KEPT_READINGS + 5), state)
    assert {r.code for r in found.reasons} == {Code.INPUT_STALE}


def test_a_source_that_waits_is_no_replay_and_grows_stale_by_our_own_clock() -> None:
    guard = guard_of(max_age_periods=3.5)
    state, waiting, found = warm(guard), reading(2), []
    now_s = NOW_S + 2 * PERIOD_S  # a plant whose clock stands still with its stamps, or is made to
    for number in range(3, 8):
        again = dataclasses.replace(waiting, sequence=number)
        answer = guard.guard(again, now_s, state, clock_s=PERIOD_S * number)
        found.append({r.code for r in answer.reasons})
        state = answer.state
    assert found == [set(), set(), set(), {Code.INPUT_STALE}, {Code.INPUT_STALE}]


@pytest.mark.parametrize(
    ("now_s", "clock_s", "names"),
    [
        (NOW_S + 3 * PERIOD_S, 19.0, {"clock_s"}),
        (NOW_S + 19.0, 30.0, {"utc_s"}),
        (NOW_S + 19.0, None, {"utc_s"}),
        (math.nan, 30.0, {"utc_s"}),
        (NOW_S + 3 * PERIOD_S, math.inf, {"clock_s"}),
        ("noon", "noon", {"utc_s", "clock_s"}),
        (None, None, {"utc_s"}),
    ],
)
def test_a_clock_that_steps_back_or_is_no_number_is_told(now_s: Any, clock_s: Any, names: set[str]) -> None:
    guard = guard_of()
    found = guard.guard(reading(3), now_s, warm(guard), clock_s=clock_s)
    assert found.clock_wrong
    assert {r.signal for r in found.reasons if r.asset == "" and r.code is Code.INPUT_CLOCK} == names
    next_clock_s = None if clock_s is None else 4 * PERIOD_S
    later = guard.guard(reading(4), NOW_S + 4 * PERIOD_S, found.state, clock_s=next_clock_s)
    assert not later.clock_wrong
    assert later.trusted["mill"].all()


# Frozen and stuck


def test_a_value_that_stands_while_its_peers_move_is_stuck_and_one_among_still_peers_is_not() -> None:
    guard = guard_of(stuck_after_periods={"power_kw": 4})
    state, rng, found = guard.start(), np.random.default_rng(1), []
    for number in range(20):
        values = ROWS.copy()
        if number >= 8:  # all stand still before
            values[[0, 2], POWER] += rng.normal(0.0, 5.0, 2)
        answer = believe(guard, state, number, values)
        found.append(told(answer))
        state = answer.state
    stuck = {("mill/B", "power_kw", Code.INPUT_STUCK)}
    assert found == [set()] * 11 + [stuck] * 9


def test_a_frozen_value_is_found_without_peers() -> None:
    guard = guard_of(frozen_after_periods={"flow_pu": 3})
    state, found = guard.start(), []
    for number in range(6):
        answer = believe(guard, state, number)
        found.append(told(answer))
        state = answer.state
    assert found == [set()] * 3 + [{("pump/P", "flow_pu", Code.INPUT_FROZEN)}] * 3


@pytest.mark.parametrize("key", ["frozen_after_periods", "stuck_after_periods", "jump_per_s", "jump_pu"])
def test_a_setting_of_a_signal_that_does_not_exist_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key}: 'oil_degf' is no measured signal"):
        guard_of(**{key: {"oil_degf": 3}})


# What stands in


def test_the_estimate_stands_in_for_a_bounded_time_then_the_asset_is_lost() -> None:
    guard = guard_of(estimate_periods=4, hold_periods=1)
    state, sent, trusted = warm(guard), [], []
    for number in range(3, 9):
        estimate = {"mill": np.full(ROWS.shape, 50.0 + number)}
        found = believe(guard, state, number, changed(math.nan, 1, OIL), estimate=estimate)
        sent.append(found.values["mill"][1, OIL])
        trusted.append(bool(found.trusted["mill"][1]))
        assert found.reasons[0].sent == sent[-1]
        np.testing.assert_array_equal(found.values["mill"][0], ROWS[0])
        state = found.state
    assert sent == [53.0, 54.0, 55.0, 56.0, 95.0, 95.0]
    assert trusted == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    "estimate",
    [None, {}, {"mill": None}, {"mill": "warm"}, {"mill": np.zeros((2, 2))}, {"mill": np.full(ROWS.shape, np.nan)}, 7],
)
def test_an_estimate_that_is_none_leaves_the_held_value(estimate: Any) -> None:
    guard = guard_of(estimate_periods=9, hold_periods=1)
    state = warm(guard)
    first = believe(guard, state, 3, changed(math.nan, 1, OIL), estimate=estimate)
    assert first.values["mill"][1, OIL] == 95.0
    assert first.substituted["mill"].tolist() == [False, True, False]
    assert first.agents_substituted.tolist() == [False, True, False, False]
    second = believe(guard, first.state, 4, changed(math.nan, 1, OIL), estimate=estimate)
    assert second.agents_trusted.tolist() == [True, False, True, True]


def test_an_estimate_is_brought_into_range_and_never_replaces_a_good_value() -> None:
    guard = guard_of()
    estimate = {"mill": np.full(ROWS.shape, 1e9), "pump": np.full((1, 1), 0.9)}
    found = believe(guard, warm(guard), 3, changed(math.inf, 1, OIL), estimate=estimate)
    assert found.values["mill"][1, OIL] == 120.0
    assert found.values["pump"][0, 0] == 0.5
    never = believe(guard, guard.start(), 0, changed(math.nan, 1, OIL), estimate=estimate)
    assert not never.trusted["mill"][1]  # a twin that never saw the signal knows nothing of it


def test_a_group_that_cannot_be_read_leaves_the_others_as_they_are() -> None:
    guard = guard_of()
    broken = reading(3, values={"mill": np.zeros((3, 2)), "pump": np.full((1, 1), 0.7)})
    found = guard.guard(broken, NOW_S + 3 * PERIOD_S, warm(guard), clock_s=30.0)
    assert told(found) == {(f"mill/{a}", "", Code.INPUT_SHAPE) for a in ASSETS}
    assert found.values["pump"][0, 0] == 0.7
    assert found.agents_substituted.tolist() == [True, True, True, False]


def test_an_asset_that_fails_as_a_whole_gives_one_reason() -> None:
    guard = guard_of()
    times = np.full(ROWS.shape, NOW_S + 3 * PERIOD_S)
    times[1] -= 1000.0
    late = reading(3, source_time_s={"mill": times, "pump": np.full((1, 1), NOW_S + 3 * PERIOD_S)})
    found = guard.guard(late, NOW_S + 3 * PERIOD_S, warm(guard), clock_s=30.0)
    assert told(found) == {("mill/B", "", Code.INPUT_STALE)}


# Properties

any_float = st.one_of(
    st.floats(), st.floats(-60.0, 400.0), st.sampled_from([0.0, -0.0, 5e-324, 1e30, 270.0, 1700.0, 1.7e6, NOW_S])
)


@given(values=st.lists(any_float, min_size=18, max_size=18), times=st.lists(any_float, min_size=18, max_size=18))
@settings(max_examples=200, deadline=None)
def test_what_is_believed_is_finite_and_in_range_and_every_substitute_has_a_reason(
    values: list[float], times: list[float]
) -> None:
    guard = guard_of(jump_per_s={"speed_mps": 1.0}, stuck_after_periods={"power_kw": 2})
    state = warm(guard)
    low, high = SITE.groups[0].lower("measured"), SITE.groups[0].upper("measured")
    rows, stamps = np.reshape(values, ROWS.shape), np.reshape(times, ROWS.shape)
    for number in range(3, 7):
        now_s = NOW_S + PERIOD_S * number
        stamped = np.where(stamps == NOW_S, now_s, stamps) if number % 2 else np.full(ROWS.shape, now_s)
        telemetry = reading(number, rows, source_time_s={"mill": stamped, "pump": np.full((1, 1), now_s)})
        with np.errstate(all="ignore"):  # as the shield does: infinities are judged, not warned of
            found, again = (guard.guard(telemetry, now_s, state, clock_s=PERIOD_S * number) for _ in range(2))
        assert repr(found) == repr(again)
        believed = found.values["mill"]
        assert np.isfinite(believed).all()
        assert ((believed >= low) & (believed <= high)).all()
        named = {(r.asset, r.signal) for r in found.reasons}
        for i, k in np.argwhere(~(np.abs(believed - rows) <= 1e-6 * (high - low) + 1e-12)):
            assert {(f"mill/{ASSETS[i]}", MEASURED[k].name), (f"mill/{ASSETS[i]}", "")} & named
        state = found.state


@given(seed=st.integers(0, 2**32 - 1), step=st.floats(0.0, 0.2), jumps=st.booleans(), counts=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_short_way_gives_what_the_whole_way_gives(seed: int, step: float, jumps: bool, counts: bool) -> None:
    guard = guard_of(
        jump_per_s={"speed_mps": 1.0} if jumps else {},
        stuck_after_periods={"oil_degc": 50} if counts else {},
        confusion_learn_periods=1 + seed % 20,
    )
    rng = np.random.default_rng(seed)
    low, high = SITE.groups[0].lower("measured"), SITE.groups[0].upper("measured")
    values, short, whole = ROWS, guard.start(), guard.start()
    for number in range(15):
        values = np.clip(values + step * (high - low) * rng.uniform(-1.0, 1.0, ROWS.shape), low, high)
        a = believe(guard, short, number, values)
        b = believe(guard, whole._replace(clean=False), number, values)
        assert repr(a) == repr(b)
        short, whole = a.state, b.state


def test_every_check_has_its_own_code() -> None:
    assert len(set(CHECKS)) == len(CHECKS)


def _busy(n: int, seed: int = 0) -> tuple[InputGuard, list[Telemetry]]:
    plate = Nameplate("many", 1.0, (Group("mill", tuple(f"M{i}" for i in range(n)), MEASURED, COMMANDED),))
    rng, found = np.random.default_rng(seed), []
    for number in range(60):
        values = np.tile(ROWS[0], (n, 1)) * (1.0 - 0.01 * rng.random((n, 6)))
        found.append(plain("mill", values, NOW_S + number, number))
    return InputGuard(plate, ShieldSettings()), found


@pytest.mark.parametrize(("n", "most_s"), [(20, 1e-4), (1000, 1e-3)])  # CPU seconds; 20 us and 107 us when written
def test_a_good_reading_costs_little(n: int, most_s: float) -> None:
    guard, readings = _busy(n)
    state, spent = guard.start(), []
    for number, telemetry in enumerate(readings):
        begun_s = time.thread_time()
        found = guard.guard(telemetry, NOW_S + number, state, clock_s=float(number))
        spent.append(time.thread_time() - begun_s)
        assert found.clean
        state = found.state
    assert np.median(spent) < most_s
