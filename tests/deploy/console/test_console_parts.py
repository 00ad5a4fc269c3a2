"""The parts of the pages on their own: texts, sessions, streams, trends, the chain, libraries, colours."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from twinloop.deploy.console import third_party
from twinloop.deploy.console.asking import Asking, Wish
from twinloop.deploy.console.chain_watch import ChainWatch, recent_rows
from twinloop.deploy.console.live_values import SITE, live_values
from twinloop.deploy.console.server import check_address
from twinloop.deploy.console.sessions import ACTS_S, LASTS_S, ROTATES_S, TRIES, TRIES_WINDOW_S, Sessions, Tries
from twinloop.deploy.console.sheet import NONE, Sheet, number_text, unit_text
from twinloop.deploy.console.state_feed import StateFeed
from twinloop.deploy.console.stream import Broadcast
from twinloop.deploy.console.trend import Trend
from twinloop.deploy.console.words import CODE_WORDS, code_words, slot_words
from twinloop.deploy.journal import Journal
from twinloop.deploy.shield import Code
from twinloop.deploy.shield.causes import TABLE
from twinloop.deploy.station.folder import StationFolder, write_whole
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Signal
from twinloop.training.benchmarks.console_site import mills

CSS = (Path(third_party.__file__).parent / "static" / "console.css").read_text(encoding="utf-8")


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def sheet(period_s: float = 1.0) -> Sheet:
    plate = mills(2, 2, period_s)
    return Sheet(plate, period_s, {}, frozenset(plate.agents))


def state(power_kw: float = 100.0, **more: Any) -> dict[str, Any]:
    one = {"power_kw": [power_kw, None], "sensor1_degc": [20.0, 30.0]}
    speeds = {"speed_pu": [0.5, 0.6]}
    group = {
        "agents": ["mill/M01", "mill/M02"], "measured": one, "quality": {"power_kw": [0, 2], "sensor1_degc": [0, 1]},
        "asked": {"speed_pu": [0.9, 0.6]}, "sent": speeds, "accepted": None, "slot": {"speed_pu": [16, 8]},
    }  # fmt: skip
    return {
        "format": 1, "utc_s": 1.0, "number": 7, "groups": {"mill": group}, "who": {"mill/M02": "olga"},
        "modes": {"mill/M01": "autonomous", "mill/M02": "backup"}, "causes": {"mill/M02": "input_lost"},
        "reasons": [
            ["mill/M01", "speed_pu", "command_rate", 0.9, 0.5, 0.2, "rate of speed", -0.1, None],
            ["mill/M02", "power_kw", "input_not_finite", None, 80.0, None, "", None, None],
        ],
        **more,
    }  # fmt: skip


def test_every_code_of_the_shield_has_words_and_every_cause_its_own() -> None:
    assert set(CODE_WORDS) == set(Code)
    for row in TABLE:
        if row.of is row.cause:
            assert code_words(row.code.value) in {other.text for other in TABLE if other.code is row.code}
    assert [slot_words(n) for n in (0, 2, 8, 16)] == ["nobody", "2 emergency stop", "8 operator", "16 policy"]


def test_a_state_becomes_texts_with_the_reason_where_it_belongs() -> None:
    live = live_values(sheet(), state())
    site, one, two = live[SITE], live["mill/M01"], live["mill/M02"]
    assert site["value:mill/M01/power_kw"] == "100.0"
    assert site["value:mill/M02/power_kw"] == "\N{EN DASH}"
    assert site["quality:mill/M02/power_kw"] == "bad"
    assert two["quality:mill/M02/sensor1_degc"] == "uncertain"
    assert (one["asked:mill/M01/speed_pu"], one["sent:mill/M01/speed_pu"]) == ("0.900", "0.500")
    assert one["accepted:mill/M01/speed_pu"] == "\N{EN DASH}"
    assert one["why:mill/M01/speed_pu"] == "kept to its rate of change (rate of speed), limit 0.2"
    assert two["why:mill/M02/speed_pu"] == ""
    assert two["heed:mill/M02/power_kw"] == "not a number"
    assert site["slot:mill/M02"] == "8 operator"
    assert site["who:mill/M02"] == "olga"
    assert site["mode-state:mill/M02"] == "medium"
    assert site["bar:mill/M01/power_kw"] == "20.0"


def test_a_state_that_says_little_is_shown_as_little() -> None:
    assert live_values(sheet(), {"groups": {"mill": {"measured": {}, "quality": {}}}})["mill/M01"]
    assert SITE in live_values(sheet(), {})


@pytest.mark.parametrize(
    ("value", "high", "text"), [(1234.5678, 5000.0, "1235"), (0.123456, 1.0, "0.123"), (12.3, 360.0, "12.3")]
)
def test_a_number_has_the_figures_that_its_range_is_worth(value: float, high: float, text: str) -> None:
    assert number_text(value, Signal("x", "", 0.0, high)) == text


def test_a_named_level_is_shown_with_its_name_and_without_a_unit() -> None:
    state = Signal("state", "1", 0.0, 2.0, "0 running, 1 blocked, 2 starved")
    assert [number_text(v, state) for v in (2.0, 0.0, 1.5, None)] == ["2 starved", "0 running", "1.500", NONE]
    assert unit_text(state) == ""
    assert unit_text(Signal("power_kw", "kW", 0.0, 5.0)) == "kW"


def test_a_viewer_gets_all_once_and_then_what_changed_and_a_slow_one_the_latest() -> None:
    async def watch() -> list[dict[str, Any]]:
        broadcast = Broadcast()
        broadcast.tell(live_values(sheet(), state()), 1.0)
        events = broadcast.events("mill/M01", lambda: 0.1, lambda: 2.0)
        assert (await anext(events)).startswith(b"retry:")
        found = [json.loads((await anext(events))[6:])]
        for power_kw in (110.0, 120.0):
            broadcast.tell(live_values(sheet(), state(power_kw)), 2.0)
        found.append(json.loads((await anext(events))[6:]))
        found.append(json.loads((await anext(events))[6:]))  # a sign of life
        await events.aclose()  # type: ignore[attr-defined]
        assert broadcast.n_viewers == 0
        return found

    first, second, third = asyncio.run(watch())
    assert first["c"]["value:mill/M01/power_kw"] == "100.0"
    assert first["c"]["sent:mill/M01/speed_pu"] == "0.500"
    assert "sent:mill/M02/speed_pu" not in first["c"]
    assert second["c"] == {"value:mill/M01/power_kw": "120.0", "bar:mill/M01/power_kw": "24.0"}
    assert third["c"] == {}
    assert (second["t"], second["age"], second["limit"]) == (2.0, 0.1, 2.0)


def test_a_state_is_stale_after_two_periods_and_a_step_of_the_clock_changes_nothing(tmp_path: Path) -> None:
    station = StationFolder(tmp_path / "s")
    station.make()
    utc, mono = Clock(), Clock()
    feed = StateFeed(station, mono, utc)
    assert not feed.look()
    assert feed.is_stale
    plate = mills(2, 2, 1.0)
    write_whole(station.control, {"nameplate": plate.to_dict(), "wall_period_s": 3.0})
    write_whole(station.state, state(utc_s=utc.s))
    assert feed.look()
    assert not feed.look()
    assert feed.stale_after_s == 6.0
    utc.s -= 3600.0
    mono.s += 5.9
    assert not feed.is_stale
    mono.s += 0.2
    assert feed.is_stale
    write_whole(station.state, state(utc_s=utc.s - 60.0))
    assert feed.look()
    assert feed.is_stale
    write_whole(station.state, state(utc_s=utc.s + 3600.0))
    assert feed.look()
    assert "ahead of this clock" in feed.trouble


def test_a_damaged_state_is_told_and_the_last_good_one_stays(tmp_path: Path) -> None:
    station = StationFolder(tmp_path / "s")
    station.make()
    feed = StateFeed(station)
    write_whole(station.control, {"nameplate": mills(2, 2, 1.0).to_dict()})
    write_whole(station.state, state())
    assert feed.look()
    station.state.write_text("[]")
    assert not feed.look()
    assert "expected an object" in feed.trouble
    assert feed.state is not None


def test_a_trend_keeps_ten_minutes_and_says_what_is_usual() -> None:
    trend = Trend(sheet())
    for second in range(700):
        trend.add(state(float(second % 100), utc_s=float(second)))
    times, values = trend.series("measured:mill/M01/power_kw")
    assert (times[0], times[-1], len(times)) == (100.0, 699.0, 600)
    assert values[-1] == 99.0
    assert set(trend.series("measured:mill/M02/power_kw")[1]) == {None}
    assert trend.series("sent:mill/M02/speed_pu")[1][0] == pytest.approx(0.6)
    usual = trend.usual("measured:mill/M01/power_kw")
    assert usual is not None
    assert usual[0] == pytest.approx(5.0, abs=1.0)
    assert usual[1] == pytest.approx(94.0, abs=1.0)
    assert trend.usual("measured:mill/M02/power_kw") is None


def test_a_session_ends_may_only_look_after_a_while_and_changes_its_token() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    token, session = sessions.begin("olga", "operator")
    assert sessions.find(token) is session
    assert sessions.find(token + "x") is None
    assert sessions.rotated(token, session) is None
    clock.s += ROTATES_S
    fresh = sessions.rotated(token, session)
    assert fresh is not None
    assert sessions.find(fresh) is sessions.find(token) is session
    clock.s += 31.0
    assert sessions.find(token) is None
    assert sessions.find(fresh) is session
    clock.s += ACTS_S - ROTATES_S
    assert not sessions.may_act(session)
    clock.s += LASTS_S
    assert sessions.find(fresh) is None
    assert sessions.all() == []


def test_passwords_can_be_tried_five_times_a_minute() -> None:
    clock = Clock()
    tries = Tries(clock)
    for _ in range(TRIES):
        assert tries.wait_s("name olga", "address 1") == 0.0
        tries.failed("name olga", "address 1")
    assert tries.wait_s("name olga") == TRIES_WINDOW_S
    assert tries.wait_s("name vera", "address 1") == TRIES_WINDOW_S
    assert tries.wait_s("name vera", "address 2") == 0.0
    clock.s += TRIES_WINDOW_S
    assert tries.wait_s("name olga") == 0.0


def test_a_wish_that_was_not_answered_may_be_asked_again_when_it_has_lapsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = StationFolder(tmp_path / "s")
    station.make()
    asking, clock = Asking(station), Clock()
    monkeypatch.setattr("twinloop.deploy.console.asking.time.monotonic", clock)
    wish = Wish("session", asking.epoch("all"), "reset", "olga")
    first, is_new = asking.reserve(wish)
    assert is_new
    asking.place(first, wish)
    assert asking.reserve(wish) == (first, False)
    assert asking.epoch("all") == wish.epoch
    clock.s += 11.0
    assert asking.epoch("all") != wish.epoch
    assert len(list(station.inbox.glob("*.json"))) == 1


def test_the_chain_is_followed_and_a_changed_or_missing_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        for i in range(30):
            journal.append({"kind": "decision", "number": i, "reasons": [["mill/M01", "speed_pu", "command_rate"]]})
        watch = ChainWatch(path)
        assert watch.check().checked == 30
        journal.append({"kind": "end"})
        assert watch.check().checked == 31
        assert not watch.state.fault
    found, older = recent_rows(path, most=5, kind="decision")
    assert [r.number for r in found] == [29, 28, 27, 26, 25]
    assert "kept to its rate of change" in found[0].what
    assert older is not None
    assert recent_rows(path, before=older, kind="decision", most=1)[0][0].number == 24
    assert [r.number for r in recent_rows(path, text='"number":7,')[0]] == [7]
    import sqlite3

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("UPDATE journal SET body = replace(body, '12', '13') WHERE sequence = 13")
        connection.commit()
    assert ChainWatch(path).check().fault == "row 13: its content does not match its hash"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER no_delete")
        connection.execute("DELETE FROM journal WHERE sequence > 20")
        connection.commit()
    assert "were there and are gone" in watch.check().fault


def test_the_libraries_are_those_that_their_authors_published_and_others_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in third_party.LIBRARIES:
        assert third_party.load(name)
    library = third_party.LIBRARIES["htmx.js"]
    changed = {
        **third_party.LIBRARIES,
        "htmx.js": third_party.Library(library.package, library.path, "1", "0" * 64, ""),
    }
    monkeypatch.setattr(third_party, "LIBRARIES", changed)
    with pytest.raises(ConfigurationError, match="from a source that you trust"):
        third_party.load("htmx.js")


def test_no_password_crosses_a_network_in_the_clear(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
        check_address(host, None)
    for host in ("0.0.0.0", "::", "10.0.0.5", "north.example"):
        with pytest.raises(ConfigurationError, match="in the clear"):
            check_address(host, None)
    with pytest.raises(ConfigurationError, match="no such file"):
        check_address("0.0.0.0", (tmp_path / "c", tmp_path / "k"))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2), all that is left of a colour on a grey screen."""
    parts = [int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted(luminance(COLOURS[name]) for name in (one, other))
    return (high + 0.05) / (low + 0.05)


COLOURS = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", CSS))


def test_every_text_can_be_read_on_its_ground_without_colour() -> None:
    pairs = {
        tuple(re.findall(r"var\(--([a-z-]+)\)", f"{ground};{text}"))
        for ground, text in re.findall(r"background: ([^;]+); color: ([^;}]+)", CSS)
    }
    assert {("high", "high-text"), ("stop", "stop-text"), ("ground", "text"), ("panel", "text")} <= pairs
    for ground, text in {*pairs, ("ground", "quiet"), ("panel", "quiet")}:
        assert contrast(ground, text) >= 4.5, (ground, text)
    for bar in ("usual", "value"):
        assert contrast(bar, "panel") >= (1.8 if bar == "usual" else 4.5), bar
    assert contrast("focus", "ground") >= 3.0


def test_colour_is_kept_for_what_is_abnormal() -> None:
    def is_grey(colour: str) -> bool:
        parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return max(parts) - min(parts) <= 24

    coloured = {name for name, colour in COLOURS.items() if not is_grey(colour)}
    assert coloured == {"high", "medium", "low", "stop", "focus"}
    assert not re.search(r"animation:|transition:|@keyframes", CSS)


def test_the_command_line_and_a_run_load_nothing_of_the_pages() -> None:
    program = (
        "import sys, twinloop.__main__ as m; m.overview(); import twinloop.deploy.commands.run, argparse\n"
        "import twinloop.deploy.commands.overview, twinloop.deploy.commands.console, twinloop.deploy.console.terminal\n"
        "p = argparse.ArgumentParser(); twinloop.deploy.commands.console.configure(p)\n"
        "print([n for n in ('fastapi', 'starlette', 'uvicorn', 'jinja2', 'torch', 'playwright') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
