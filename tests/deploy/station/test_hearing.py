"""Who beside control is heard: ages without trust in clocks, one row a change, no fuss about who took their leave."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from twinloop.deploy.console.desk import Desk
from twinloop.deploy.console.words import heard_words
from twinloop.deploy.shield import Mode
from twinloop.deploy.station.desk import StationDesk
from twinloop.deploy.station.folder import StationFolder, write_whole
from twinloop.deploy.station.hearing import LIVE_TWIN, PAGES, SILENT_S, Heard, Hearing, RollCall, pages_beat, told
from twinloop.training.benchmarks.console_site import mills


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def station(tmp_path: Path) -> StationFolder:
    found = StationFolder(tmp_path / "s")
    found.make()
    return found


def speaks(station: StationFolder, ago_s: float = 0.0) -> None:
    file = station.twin / "verdict.json"
    write_whole(file, {"open": True, "utc_s": time.time()}, durable=False)
    os.utime(file, (time.time() - ago_s,) * 2)


def test_an_age_goes_on_by_a_clock_that_never_steps(station: StationFolder) -> None:
    clock, utc = Clock(), Clock()
    hearing = Hearing(station, clock, utc)
    assert hearing.look() == ()
    speaks(station)
    utc.now_s = (station.twin / "verdict.json").stat().st_mtime + 4.0
    (one,) = hearing.look()
    assert (one.who, one.is_silent) == (LIVE_TWIN, False)
    assert one.age_s == pytest.approx(4.0)
    utc.now_s -= 3600.0
    clock.now_s += 16.0
    (one,) = hearing.look()
    assert one.age_s == pytest.approx(20.0)
    assert heard_words(one) == "live twin: not heard for 20 s"
    assert heard_words(Heard(LIVE_TWIN, SILENT_S)) == "live twin: heard 15 s ago"


def test_who_falls_silent_is_missed_once_and_who_is_back_is_told_once(station: StationFolder) -> None:
    clock = Clock()
    roll = RollCall(Hearing(station, clock), clock)

    def after(seconds: float) -> list[str]:
        clock.now_s += seconds
        return [told(change) for change in roll.changes()]

    speaks(station)
    assert after(1.0) == []
    assert after(SILENT_S - 2.0) == []
    assert after(3.0) == ["live twin: not heard for 16 s; control goes on without it"]
    assert after(5.0) == []
    speaks(station)
    assert after(1.0) == ["live twin: heard again"]
    assert after(1.0) == []
    station.path.rename(station.path.with_name("away"))  # a share that is gone
    assert after(SILENT_S + 1.0) == ["live twin: not heard for 17 s; control goes on without it"]


def test_nobody_is_missed_who_was_never_there_or_took_leave(station: StationFolder) -> None:
    clock = Clock()
    speaks(station, ago_s=3600.0)  # of a run of long ago
    roll = RollCall(Hearing(station, clock), clock)
    pages_beat(station).parent.mkdir()
    write_whole(pages_beat(station), {"utc_s": 0.0}, durable=False)
    assert roll.changes() == []
    pages_beat(station).unlink()
    clock.now_s += 100.0
    assert roll.changes() == []


def test_pages_give_signs_of_life_and_take_them_away_when_they_end(station: StationFolder) -> None:
    desk = Desk(station)
    desk.open()
    assert [one.who for one in Hearing(station).look()] == [PAGES]
    desk.close()
    assert Hearing(station).look() == ()


def test_controls_journal_gets_a_row_when_the_live_twin_falls_silent(
    station: StationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    desk = StationDesk(station, mills(2, 1, 0.2), Mode.AUTONOMOUS, 0.2)
    speaks(station)
    assert desk.rows() == []
    speaks(station, ago_s=100.0)
    rows, give_up_s = list(desk.rows()), time.monotonic() + 30.0
    while not rows and time.monotonic() < give_up_s:
        time.sleep(0.1)
        rows += desk.rows()
    (row,) = rows
    assert (row["kind"], row["who"], row["heard"]) == ("beside", LIVE_TWIN, False)
    assert row["silent_s"] == pytest.approx(100.0, abs=20.0)
    assert desk.change.startswith("live twin: not heard for 10")
    assert desk.change in caplog.text
