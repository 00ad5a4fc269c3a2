"""Alarms go through the states of ISA-18.2, and nobody can hide a trip."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.console.alarm_book import (
    FLOOD_BEGINS,
    OFF_DELAY_S,
    WINDOW_S,
    AlarmBook,
    AlarmState,
    Condition,
    Priority,
)
from twinloop.deploy.console.alarm_conditions import conditions_of
from twinloop.deploy.console.sheet import Sheet
from twinloop.deploy.shield import Code
from twinloop.envs.errors import ConfigurationError
from twinloop.training.benchmarks.console_site import mills

PUMP = Condition("pump/P1/mode", Priority.MEDIUM, "backup", "pump/P1")
TRIP = Condition("pump/P2/mode", Priority.HIGH, "tripped", "pump/P2", shelvable=False)
GONE_S = OFF_DELAY_S + 1.0


def state(book: AlarmBook, key: str = PUMP.key) -> AlarmState | None:
    return book.alarms[key].state if key in book.alarms else None


def test_acknowledged_while_it_stands_it_is_normal_when_it_returns() -> None:
    book = AlarmBook()
    book.update([PUMP], 0.0)
    assert state(book) is AlarmState.UNACKNOWLEDGED
    book.acknowledge(PUMP.key, "olga", 1.0)
    assert state(book) is AlarmState.ACKNOWLEDGED
    book.update([], 2.0)
    book.update([], 2.0 + GONE_S)
    assert state(book) is None


def test_returned_before_anybody_saw_it_it_waits_to_be_acknowledged() -> None:
    book = AlarmBook()
    book.update([PUMP], 0.0)
    book.update([], 1.0)
    book.update([], 1.0 + GONE_S)
    assert state(book) is AlarmState.RETURNED
    book.acknowledge(PUMP.key, "olga", 9.0)
    assert state(book) is None


def test_what_comes_and_goes_is_one_alarm() -> None:
    book = AlarmBook()
    for second in range(0, 100, 2):
        book.update([PUMP] if second % 4 == 0 else [], float(second))
    assert book.announced(100.0) == 1


def test_an_acknowledged_alarm_that_gets_graver_must_be_seen_again() -> None:
    book = AlarmBook()
    book.update([PUMP], 0.0)
    book.acknowledge(PUMP.key, "olga", 1.0)
    book.update([Condition(PUMP.key, Priority.HIGH, "tripped", "pump/P1", shelvable=False)], 2.0)
    assert state(book) is AlarmState.UNACKNOWLEDGED


def test_a_shelf_ends_by_itself_and_a_trip_is_never_on_one() -> None:
    book = AlarmBook()
    book.update([PUMP, TRIP], 0.0)
    book.shelve(PUMP.key, "olga", 60.0, "being mended", 0.0)
    assert [a.condition for a in book.shown()] == [TRIP]
    events = book.update([PUMP, TRIP], 61.0)
    assert {"alarm_unshelved"} == {e["kind"] for e in events}
    assert [a.condition for a in book.shown()] == [TRIP, PUMP]
    with pytest.raises(ConfigurationError, match="never shelved"):
        book.shelve(TRIP.key, "olga", 60.0, "noise", 62.0)
    for lasts_s, reason in ((0.0, "x"), (9 * 3600.0, "x"), (float("nan"), "x"), (60.0, " ")):
        with pytest.raises(ConfigurationError):
            book.shelve(PUMP.key, "olga", lasts_s, reason, 62.0)


def test_a_shelved_alarm_that_becomes_a_trip_leaves_the_shelf() -> None:
    book = AlarmBook()
    book.update([PUMP], 0.0)
    book.shelve(PUMP.key, "olga", 600.0, "being mended", 0.0)
    book.update([Condition(PUMP.key, Priority.HIGH, "tripped", "pump/P1", shelvable=False)], 1.0)
    assert [a.condition.priority for a in book.shown()] == [Priority.HIGH]


def test_more_than_ten_in_ten_minutes_are_a_flood_until_there_are_fewer_than_five() -> None:
    book = AlarmBook()
    many = [Condition(f"pump/P{i}/mode", Priority.LOW, "x") for i in range(FLOOD_BEGINS + 1)]
    book.update(many[:FLOOD_BEGINS], 0.0)
    assert not book.in_flood
    book.update(many, 1.0)
    assert book.in_flood
    book.update(many, 1.0 + WINDOW_S)
    assert not book.in_flood


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["stand", "gone", "acknowledge", "shelve", "unshelve"]), st.integers(0, 20)),
        max_size=40,
    )
)
def test_whatever_happens_a_standing_trip_is_shown_and_the_book_survives_a_file(steps: list[tuple[str, int]]) -> None:
    book, now_s, standing = AlarmBook(), 0.0, [TRIP]
    for what, wait_s in steps:
        now_s += wait_s
        if what in ("stand", "gone"):
            standing = [PUMP, TRIP] if what == "stand" else [TRIP]
        book.update(standing, now_s)
        for key in (PUMP.key, TRIP.key):
            try:
                if what == "acknowledge":
                    book.acknowledge(key, "olga", now_s)
                elif what == "shelve":
                    book.shelve(key, "olga", 30.0, "x", now_s)
                elif what == "unshelve":
                    book.unshelve(key)
            except ConfigurationError:
                pass
        assert TRIP.key in [a.condition.key for a in book.shown()]
        again = AlarmBook.from_dict(json.loads(json.dumps(book.to_dict())))
        assert (again.alarms, again.shelves) == (book.alarms, book.shelves)


def sheet() -> Sheet:
    plate = mills(4, 2, 1.0)
    return Sheet(plate, 1.0, {}, frozenset(plate.agents))


def test_a_cause_of_the_whole_site_is_one_alarm_and_a_stop_is_its_own() -> None:
    agents = sheet().nameplate.agents
    lost = {"modes": dict.fromkeys(agents, "tripped"), "causes": dict.fromkeys(agents, Code.WATCHDOG_LOST.value)}
    assert [(c.key, c.priority, c.shelvable) for c in conditions_of(sheet(), lost)] == [
        ("site/watchdog_lost", Priority.HIGH, False)
    ]
    stop = {"stop": True, "modes": lost["modes"], "causes": dict.fromkeys(agents, Code.EMERGENCY_STOP.value)}
    assert [c.key for c in conditions_of(sheet(), stop)] == ["site/stop"]


def test_modes_readings_roll_outs_and_the_twin_have_priorities_and_assets() -> None:
    one = "mill/M02"
    told = {
        "modes": {one: "backup"},
        "causes": {one: Code.POLICY_LATE.value},
        "groups": {"mill": {"quality": {"power_kw": [0, 2, 0, 0]}}},
        "executions": {"01-x": {"status": "rolled back", "why": "the effect left its interval"}},
        "cycle": {"misses": 3},
    }
    found = {c.key: c for c in conditions_of(sheet(), told, {"open": False, "why": "NIS 3.1"}, 1)}
    assert found[f"{one}/mode"].priority is Priority.MEDIUM
    assert "the policy did not answer in time" in found[f"{one}/mode"].text
    assert found[f"{one}/readings"].asset == one
    assert found["proposal/01-x"].priority is Priority.MEDIUM
    assert "NIS 3.1" in found["site/twin"].text
    assert found["site/misses"].priority is Priority.LOW
    assert len(found) == 5


def test_a_live_twin_that_drifts_or_falls_silent_is_an_alarm() -> None:
    verdict = {"open": True, "why": "", "alarm": "drift since 12:00", "utc_s": 100.0, "period_s": 5.0}
    assert [c.key for c in conditions_of(sheet(), {"utc_s": 120.0}, verdict)] == ["site/drift"]
    assert [c.key for c in conditions_of(sheet(), {"utc_s": 151.0}, {**verdict, "alarm": ""})] == ["site/twin-silent"]
    assert conditions_of(sheet(), {"utc_s": 149.0}, {**verdict, "alarm": ""}) == []
