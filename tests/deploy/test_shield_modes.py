"""Modes: every reachable state against what the machine promises, each cause of the table in turn, and orders."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.shield import modes as modes_module
from twinloop.deploy.shield.causes import CAUSE_OF_CODE, TABLE, Cause, CauseRow, Clears
from twinloop.deploy.shield.decision import Code, Mode, Reason
from twinloop.deploy.shield.modes import MODES, ModeMachine, Modes, ModeState
from twinloop.deploy.shield.orders import NOTHING, ORDERABLE, Judged, Orders, judge
from twinloop.deploy.shield.settings import ShieldSettings
from twinloop.envs.configuration import validate
from twinloop.envs.errors import ConfigurationError
from twinloop.training.benchmarks.shield_modes import SMALL, explore_one, explore_three, site_of

SITE = site_of(3)
AGENTS = SITE.agents
MACHINE = ModeMachine(SITE, ShieldSettings())
STOP, RESET = Judged(stop=True), Judged(reset=True)
IDS = [row.cause.value for row in TABLE]


def only(*assets: int) -> Any:
    return np.isin(np.arange(3), assets)


def names(modes: Modes) -> list[Mode]:
    return list(modes.named(AGENTS).values())


def steps(machine: ModeMachine, state: ModeState, causes: Any, n: int, orders: Judged = NOTHING) -> Any:
    answer: Any = (state, None, ())
    for _ in range(n):
        answer = machine.step(answer[0], causes, orders, 0.0)
    return answer


# Every state


def test_no_reachable_state_of_one_asset_breaks_a_promise_under_any_causes_and_orders() -> None:
    found = explore_one(SMALL)
    assert found.broken == {}
    assert found.states > 1000


def test_three_assets_decide_each_alone_but_for_what_is_the_sites() -> None:
    found = explore_three(few=True)
    assert found.broken == {}
    assert found.states > 1000


def _always_reset(self: ModeMachine, state: ModeState, latched: Any, left: Any, scope: Any) -> Any:
    return np.zeros_like(latched), state.requested, np.zeros_like(scope)


def _always_grant(requested: Any, orders: Judged, scope: Any, blocked: Any) -> Any:
    assert orders.mode is not None
    return np.full_like(requested, MODES.index(orders.mode)), np.zeros_like(scope)


def _mildest(self: ModeMachine, standing: Any) -> Any:
    why = np.where(standing.any(axis=0), len(standing) - 1 - standing[::-1].argmax(axis=0), -1).astype(np.int8)
    force = np.array([MODES.index(row.mode) for row in self._table])
    return why, np.where(why < 0, 3, force[why]).astype(np.int8)


@pytest.mark.parametrize(
    ("where", "name", "wrong", "promise"),
    [
        (ModeMachine, "_reset", _always_reset, "a trip is left by a reset only"),
        (modes_module, "_ordered", _always_grant, "authority rises to what was asked, and only where nothing stands"),
        (ModeMachine, "_gravest", _mildest, "the gravest cause decides"),
    ],
)
def test_a_machine_with_a_fault_is_found_out(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, wrong: Any, promise: str
) -> None:
    monkeypatch.setattr(where, name, wrong)
    assert promise in explore_one((Cause.DEADLINE_MISSED, Cause.RESIDUAL)).broken


# The table


def test_each_cause_has_one_row_and_modes_never_become_graver_down_the_table() -> None:
    assert [row.cause for row in TABLE] == list(Cause)
    force = [MODES.index(row.mode) for row in TABLE]
    assert force == sorted(force, reverse=True)
    for row in TABLE:
        assert (row.clears is Clears.MANUAL_RESET) or row.mode is not Mode.TRIPPED
        assert row.clears is not Clears.WHEN_GONE or row.dwell == 0
        assert row.of is row.cause or row.patience > 1
    assert all(Code(code) and Cause(cause) for code, cause in CAUSE_OF_CODE.items())


@pytest.mark.parametrize("row", TABLE, ids=IDS)
def test_a_cause_forces_its_mode_after_its_patience_and_leaves_by_its_clear_rule(row: CauseRow) -> None:
    alone = tuple(r for r in TABLE if r is row or r.cause is Cause.EMERGENCY_STOP)
    machine = ModeMachine(SITE, ShieldSettings(), alone)
    told = {row.of: only(1)}
    state, modes, _ = machine.step(machine.start(), {}, NOTHING, 0.0)
    for period in range(1, row.patience + 1):
        state, modes, _ = machine.step(state, told, NOTHING, 0.0)
        hit = [row.mode if period == row.patience else Mode.AUTONOMOUS] * 3
        assert names(modes) == (hit if row.site else [Mode.AUTONOMOUS, hit[1], Mode.AUTONOMOUS])
    assert alone[modes.why[1]] is row
    for _ in range(row.dwell):
        _, modes, _ = machine.step(state, {}, RESET, 0.0)
        assert names(modes)[1] is row.mode  # neither time nor a reset ends it before the dwell
        state, modes, _ = machine.step(state, {}, NOTHING, 0.0)
        assert names(modes)[1] is row.mode
    stays, modes, _ = machine.step(state, {}, NOTHING, 0.0)
    if row.clears is not Clears.MANUAL_RESET:
        assert names(modes) == [Mode.AUTONOMOUS] * 3
        return
    for _ in range(100):
        stays, modes, _ = machine.step(stays, {}, NOTHING, 0.0)
    assert names(modes)[1] is row.mode
    _, modes, _ = machine.step(state, {}, RESET, 0.0)
    assert names(modes)[1] is (Mode.SHADOW if row.mode is Mode.TRIPPED else Mode.AUTONOMOUS)


@pytest.mark.parametrize("graver", range(len(TABLE)), ids=IDS)
def test_of_two_causes_the_one_higher_in_the_table_decides(graver: int) -> None:
    machine = ModeMachine(SITE, ShieldSettings(cause_patience_periods=dict.fromkeys(Cause, 1)))
    for milder in range(graver, len(TABLE)):
        told = {TABLE[graver].of: True, TABLE[milder].of: True}
        _, modes, _ = machine.step(machine.start(), told, NOTHING, 0.0)
        found = TABLE[modes.why[0]]
        assert TABLE.index(found) <= graver  # what a report escalates to may be graver still
        assert set(names(modes)) == {found.mode}


def test_repeated_misses_of_the_deadline_trip_only_in_a_row() -> None:
    miss = {Cause.DEADLINE_MISSED: True}
    state, modes, _ = steps(MACHINE, MACHINE.start(), miss, 2)
    assert names(modes) == [Mode.BACKUP] * 3
    state, modes, _ = MACHINE.step(state, {}, NOTHING, 0.0)
    assert names(modes) == [Mode.AUTONOMOUS] * 3
    state, modes, _ = steps(MACHINE, state, miss, 2)
    assert names(modes) == [Mode.BACKUP] * 3
    _, modes, reasons = MACHINE.step(state, miss, NOTHING, 0.0)
    assert names(modes) == [Mode.TRIPPED] * 3
    assert reasons == (Reason("", "", Code.DEADLINES_MISSED),)


# Orders and authority


@pytest.mark.parametrize("mode", ORDERABLE)
def test_a_stop_trips_from_every_mode_in_the_same_period_and_commands_the_safe_state(mode: Mode) -> None:
    for causes in ({}, {Cause.INPUT_LOST: only(0)}, {Cause.RESIDUAL: True}):
        state, _, _ = MACHINE.step(MACHINE.start(mode), causes, NOTHING, 0.0)
        _, modes, reasons = MACHINE.step(state, causes, STOP, 0.0)
        assert names(modes) == [Mode.TRIPPED] * 3
        assert modes.acts.all()
        assert reasons == (Reason("", "", Code.EMERGENCY_STOP),)


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.ADVISE])
def test_nothing_is_written_in_shadow_and_advise_whatever_a_monitor_finds(mode: Mode) -> None:
    state = MACHINE.start(mode)
    _, modes, _ = MACHINE.step(state, {Cause.INPUT_LOST: True}, NOTHING, 0.0)
    assert names(modes) == [mode] * 3
    assert not modes.acts.any()
    assert set(modes.forced.tolist()) == {MODES.index(Mode.BACKUP)}  # what it would be, were it autonomous
    _, modes, _ = MACHINE.step(state, {Cause.WATCHDOG_LOST: True}, NOTHING, 0.0)
    assert names(modes) == [Mode.TRIPPED] * 3
    assert not modes.acts.any()  # the asset was never ours


def test_a_degraded_asset_still_needs_its_approvals() -> None:
    _, modes, _ = MACHINE.step(MACHINE.start(Mode.APPROVED), {Cause.RESIDUAL: only(2)}, NOTHING, 0.0)
    assert names(modes) == [Mode.APPROVED, Mode.APPROVED, Mode.DEGRADED]
    assert modes.approval.all()
    assert modes.acts.all()


def test_authority_is_given_up_at_once_and_taken_only_where_nothing_stands() -> None:
    state, _, _ = MACHINE.step(MACHINE.start(), {Cause.ROBUSTNESS: only(1)}, NOTHING, 0.0)
    state, modes, reasons = MACHINE.step(state, {}, Judged(mode=Mode.SHADOW), 0.0)
    assert names(modes) == [Mode.SHADOW] * 3
    assert reasons == ()
    state, modes, reasons = MACHINE.step(state, {}, Judged(mode=Mode.AUTONOMOUS), 0.0)
    assert names(modes) == [Mode.AUTONOMOUS, Mode.SHADOW, Mode.AUTONOMOUS]
    assert reasons == (Reason(AGENTS[1], "", Code.MODE_TAKEOVER_DENIED, constraint="robustness"),)
    state, modes, _ = steps(MACHINE, state, {}, 10)
    assert names(modes)[1] is Mode.SHADOW  # a denied order is not kept
    _, modes, reasons = MACHINE.step(state, {}, Judged(mode=Mode.AUTONOMOUS), 0.0)
    assert names(modes) == [Mode.AUTONOMOUS] * 3
    assert reasons == ()


def test_a_reset_is_denied_while_the_stop_is_held_and_gives_shadow_or_the_mode_with_it() -> None:
    state, _, _ = MACHINE.step(MACHINE.start(), {}, STOP, 0.0)
    _, modes, reasons = MACHINE.step(state, {}, Judged(stop=True, reset=True, mode=Mode.AUTONOMOUS), 0.0)
    assert names(modes) == [Mode.TRIPPED] * 3
    assert Reason("", "", Code.MODE_RESET_DENIED, constraint="emergency_stop") in reasons
    assert names(MACHINE.step(state, {}, RESET, 0.0)[1]) == [Mode.SHADOW] * 3
    for mode in ORDERABLE:
        assert names(MACHINE.step(state, {}, Judged(reset=True, mode=mode), 0.0)[1]) == [mode] * 3
    _, modes, reasons = MACHINE.step(state, {Cause.RESIDUAL: True}, Judged(reset=True, mode=Mode.AUTONOMOUS), 0.0)
    assert names(modes) == [Mode.SHADOW] * 3  # what stands, though it does not trip, keeps authority away
    assert reasons == (Reason("", "", Code.MODE_TAKEOVER_DENIED, constraint="residual"),)
    one = Judged(reset=True, assets=frozenset(AGENTS[:1]))
    assert names(MACHINE.step(state, {}, one, 0.0)[1]) == [Mode.SHADOW, Mode.TRIPPED, Mode.TRIPPED]


def test_an_asset_keeps_the_clock_at_which_it_entered_its_mode() -> None:
    state, _, _ = MACHINE.step(MACHINE.start(clock_s=5.0), {Cause.INPUT_LOST: only(1)}, NOTHING, 7.0)
    state, _, _ = MACHINE.step(state, {Cause.INPUT_LOST: only(1)}, NOTHING, 8.0)
    assert state.since_s.tolist() == [5.0, 7.0, 5.0]


# The machine as a function


@pytest.mark.parametrize("mode", ORDERABLE)
def test_the_short_way_and_the_whole_way_agree(mode: Mode) -> None:
    start = MACHINE.start(mode)
    long = dataclasses.replace(start, plain=False)
    for a, b in zip(MACHINE.step(start, {}, NOTHING, 0.0), MACHINE.step(long, {}, NOTHING, 0.0), strict=True):
        assert repr(a) == repr(b)


def test_a_step_changes_no_argument_and_repeats_itself() -> None:
    state, _, _ = MACHINE.step(MACHINE.start(), {Cause.ROBUSTNESS: only(1)}, NOTHING, 1.0)
    causes = {Cause.ROBUSTNESS: only(0, 1), Cause.INPUT_LOST: only(2)}
    kept = repr(state), repr(causes)
    first, second = (MACHINE.step(state, causes, Judged(reset=True, mode=Mode.ADVISE), 2.0) for _ in range(2))
    assert repr(first) == repr(second)
    assert (repr(state), repr(causes)) == kept


def test_all_is_autonomous_again_in_the_plain_state_once_causes_are_gone() -> None:
    state, modes, _ = MACHINE.step(MACHINE.start(), {Cause.RESIDUAL: only(1)}, NOTHING, 0.0)
    assert not modes.plain
    state, modes, _ = steps(MACHINE, state, {}, 6)
    assert modes.plain
    assert MACHINE.step(state, {}, NOTHING, 0.0)[0] is state


def test_a_site_may_make_a_cause_graver_and_never_milder() -> None:
    graver = ModeMachine(SITE, ShieldSettings(cause_modes={Cause.RESIDUAL: "tripped"}))
    state, modes, _ = graver.step(graver.start(), {Cause.RESIDUAL: only(1)}, NOTHING, 0.0)
    assert names(modes) == [Mode.AUTONOMOUS, Mode.TRIPPED, Mode.AUTONOMOUS]
    _, modes, _ = steps(graver, state, {}, 50)
    assert names(modes)[1] is Mode.TRIPPED  # and so needs a person
    with pytest.raises(ConfigurationError, match="not graver"):
        ModeMachine(SITE, ShieldSettings(cause_modes={Cause.EMERGENCY_STOP: "backup"}))


def test_settings_name_causes_that_exist() -> None:
    assert validate({"cause_dwell_periods": {"residual": 7}}, ShieldSettings, "here").cause_dwell_periods == {
        Cause.RESIDUAL: 7
    }
    with pytest.raises(ConfigurationError, match="cause_dwell_periods"):
        validate({"cause_dwell_periods": {"weather": 7}}, ShieldSettings, "here")


# What people send


def test_orders_that_are_right_are_followed_whole() -> None:
    orders = Orders(Mode.APPROVED, False, True, frozenset(AGENTS[:2]), {"cap": (None, 5)}, frozenset(AGENTS[:1]))
    found = judge(orders, AGENTS, ("cap",))
    expected = Judged(Mode.APPROVED, False, True, frozenset(AGENTS[:2]), {"cap": (None, 5.0)}, frozenset(AGENTS[:1]))
    assert found == expected
    assert judge(None, AGENTS, ()) is NOTHING


@pytest.mark.parametrize(
    ("orders", "part"),
    [
        ("stop", "orders"),
        (Orders(mode="autonomus"), "mode"),  # type: ignore[arg-type]  # the fault
        (Orders(mode=Mode.TRIPPED), "mode"),
        (Orders(mode=3), "mode"),  # type: ignore[arg-type]  # the fault
        (Orders(reset=1), "reset"),  # type: ignore[arg-type]  # the fault
        (Orders(approved="asset/A0"), "approved"),  # type: ignore[arg-type]  # the fault
        (Orders(approved=frozenset({"asset/A9"})), "approved"),
        (Orders(limits={"cap": (0.0, math.nan)}), "limits"),
        (Orders(limits={"cap": (2.0, 1.0)}), "limits"),
        (Orders(limits={"other": (None, 1.0)}), "limits"),
        (Orders(limits={"cap": (None, 10**400)}), "orders"),
        (Orders(limits=None), "limits"),  # type: ignore[arg-type]  # the fault
    ],
)
def test_an_order_that_is_not_valid_is_left_out_with_a_reason(orders: Any, part: str) -> None:
    found = judge(orders, AGENTS, ("cap",))
    assert [(r.signal, r.code) for r in found.reasons] == [(part, Code.ORDER_INVALID)]
    assert dataclasses.replace(found, reasons=()) == NOTHING
    _, modes, reasons = MACHINE.step(MACHINE.start(), {}, found, 0.0)
    assert modes.plain
    assert reasons == found.reasons


@pytest.mark.parametrize("stop", [1, "yes", None, np.nan])
def test_a_stop_that_cannot_be_read_counts_as_held(stop: Any) -> None:
    assert judge(Orders(stop=stop), AGENTS, ()).stop


def test_orders_for_assets_that_cannot_be_read_take_authority_and_give_none() -> None:
    unreadable: Any = 7
    shadow = judge(Orders(mode=Mode.SHADOW, assets=unreadable), AGENTS, ())
    assert names(MACHINE.step(MACHINE.start(), {}, shadow, 0.0)[1]) == [Mode.SHADOW] * 3
    autonomous = judge(Orders(mode=Mode.AUTONOMOUS, reset=True, assets=unreadable), AGENTS, ())
    _, modes, reasons = MACHINE.step(MACHINE.start(Mode.SHADOW), {}, autonomous, 0.0)
    assert names(modes) == [Mode.SHADOW] * 3
    assert Reason("", "", Code.MODE_TAKEOVER_DENIED, constraint="orders") in reasons


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from([*Mode, *AGENTS]),
    st.lists(st.sampled_from([*AGENTS, "x", 3]), max_size=3), st.dictionaries(st.text(max_size=2), st.floats()),
)  # fmt: skip


@given(mode=anything, stop=anything, reset=anything, approved=anything, limits=anything, assets=anything)
@settings(max_examples=300, deadline=None)
def test_no_order_raises_and_none_but_a_clear_one_gives_authority(
    mode: Any, stop: Any, reset: Any, approved: Any, limits: Any, assets: Any
) -> None:
    found = judge(Orders(mode, stop, reset, approved, limits, assets), AGENTS, ("cap",))
    _, modes, _ = MACHINE.step(MACHINE.start(Mode.ADVISE), {}, found, 0.0)
    if mode not in (Mode.APPROVED, Mode.AUTONOMOUS):
        assert not ((modes.code >= 2) & (modes.code < 6)).any()
    if stop is not False:
        assert (modes.code == 6).all()


# Time, and the page for people


def test_a_thousand_assets_cost_next_to_nothing_while_nothing_happens() -> None:
    site = site_of(1000)
    machine = ModeMachine(site, ShieldSettings())
    state, lost = machine.start(), {Cause.INPUT_LOST: np.arange(1000) == 7}
    busy, _, _ = machine.step(state, lost, NOTHING, 0.0)

    def spent_s(state: ModeState, causes: Any) -> float:
        found = []
        for _ in range(50):
            begun_s = time.thread_time()
            machine.step(state, causes, NOTHING, 0.0)
            found.append(time.thread_time() - begun_s)
        return float(np.median(found))

    assert spent_s(state, {}) < 2e-5  # seconds of CPU; 0.5 us when written
    assert spent_s(busy, lost) < 1e-3  # 130 us when written


def test_the_table_in_the_docs_is_the_table_in_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "shield_modes.md").read_text()
    clears = {
        Clears.WHEN_GONE: "when gone",
        Clears.AFTER_DWELL: "after dwell",
        Clears.MANUAL_RESET: "manual reset",
    }
    for number, row in enumerate(TABLE, start=1):
        reach = "site" if row.site else "asset"
        of = "" if row.of is row.cause else f" (`{row.of.value}` in a row)"
        line = (
            f"| {number} | `{row.cause.value}` | {row.text}{of} | {row.mode.value} | {reach} | {row.patience} | "
            f"{clears[row.clears]} | {row.dwell} |"
        )
        assert line in page
    causes = page.partition("## Causes")[2].partition("## What is believed")[0]
    assert causes.count("\n| ") == len(TABLE) + 2  # and its head


def test_the_page_names_every_mode_every_input_code_and_settings_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "shield_modes.md").read_text()
    for mode in Mode:
        assert f"| `{mode.value}` |" in page
    for code in (c for c in Code if c.value.startswith("input_")):
        assert f"`{code.value}`" in page, code
    for name in ShieldSettings.model_fields:
        assert name in page, name
