"""When a heartbeat counts as stopped, to the half period, and what the loop's side makes of its watchdog."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.deploy.heartbeat import Lines, Silence, Watched
from twinloop.envs.errors import PlantError

ECHO = """
import json, sys
print(json.dumps({"ready": "here"}), flush=True)
for line in sys.stdin:
    beat = json.loads(line)
    if "bye" in beat:
        print("bye", file=sys.stderr)
        sys.exit(0)
    ANSWER
"""
"""A watchdog's manners without a plant, as a program of its own."""

STANDBY = {"turbine": np.zeros((3, 2))}


def program(answer: str) -> list[str]:
    return [sys.executable, "-c", ECHO.replace("ANSWER", answer)]


HEARS = 'print(json.dumps({"heard": beat["beat"]}), flush=True)'


@pytest.mark.parametrize("periods", [1, 2, 5])
def test_the_time_out_is_so_many_and_a_half_periods(periods: int) -> None:
    silence = Silence(0.2, periods)
    assert silence.timeout_s == pytest.approx((periods + 0.5) * 0.2)


@pytest.mark.parametrize(
    ("gap_periods", "stopped"), [(1, False), (2, False), (3, False), (3.49, False), (3.51, True), (4, True)]
)
def test_a_gap_at_the_threshold_is_content_and_one_period_more_is_not(gap_periods: float, stopped: bool) -> None:
    silence = Silence(10.0, 3)
    assert silence.heard(1, 100.0)
    assert silence.has_stopped(100.0 + 10.0 * gap_periods) is stopped


@given(st.lists(st.floats(-0.24, 0.24), min_size=1, max_size=50))
def test_beats_that_come_at_the_threshold_with_less_than_a_quarter_period_of_jitter_never_trip(
    jitters: list[float],
) -> None:
    silence, period_s, periods = Silence(1.0, 2), 1.0, 2
    silence.heard(0, 0.0)
    for k, jitter in enumerate(jitters, start=1):
        at_s = periods * period_s * k + jitter
        assert not silence.has_stopped(at_s)
        assert silence.heard(k, at_s)


@pytest.mark.parametrize("number", [1, 0, -3, True, None, "2", 2.0, [2]])
def test_an_old_number_or_none_is_no_sign_of_life(number: object) -> None:
    silence = Silence(1.0, 2)
    silence.heard(1, 0.0)
    assert not silence.heard(number, 2.0)
    assert silence.has_stopped(2.6)


def test_before_the_first_beat_there_is_nothing_to_miss() -> None:
    assert not Silence(1.0, 2).has_stopped(1e9)


def test_lines_come_whole_and_rubbish_is_left_out() -> None:
    reader, writer = os.pipe()
    lines = Lines(reader)
    assert lines.read() == []
    os.write(writer, b'{"beat": 1}\nno json\n[1]\n{"be')
    assert lines.read() == [{"beat": 1}]
    os.write(writer, b'at": 2}\n')
    assert lines.read() == [{"beat": 2}]
    assert not lines.ended
    os.close(writer)
    assert lines.read() == []
    assert lines.ended
    os.close(reader)


def beat_until_lost(watched: Watched, period_s: float, most: int = 40) -> tuple[str, float]:
    """Beat once a period; what was found lost, and how long that took."""
    begun_s = time.monotonic()
    for _ in range(most):
        watched.beat(STANDBY)
        if watched.lost:
            break
        time.sleep(period_s)
    return watched.lost, time.monotonic() - begun_s


def test_a_watchdog_that_answers_is_never_lost_and_hears_the_good_bye(capfd: pytest.CaptureFixture[str]) -> None:
    with Watched(program(HEARS), 0.1, 3) as watched:
        assert beat_until_lost(watched, 0.05, most=12)[0] == ""
    assert capfd.readouterr().err == "bye\n"


def test_a_watchdog_that_ends_is_noticed_at_the_next_beat() -> None:
    with Watched(program(HEARS + '\n    if beat["beat"] == 3: sys.exit(7)'), 0.2, 3) as watched:
        lost, took_s = beat_until_lost(watched, 0.2)
    assert lost.startswith("its process ended")
    assert took_s < 0.2 * (3 + 3.5)


def test_a_watchdog_that_says_the_same_for_ever_is_lost_after_its_time_out() -> None:
    with Watched(program('print(json.dumps({"heard": 1}), flush=True)'), 0.1, 3) as watched:
        lost, took_s = beat_until_lost(watched, 0.1)
    assert "confirmed nothing" in lost
    assert 0.35 <= took_s < 2.0


def test_a_watchdog_that_took_over_is_lost() -> None:
    with Watched(program('print(json.dumps({"acting": "no heartbeat"}), flush=True)'), 0.1, 3) as watched:
        assert beat_until_lost(watched, 0.1)[0] == "it has taken over: no heartbeat"


def test_a_watchdog_that_does_not_read_never_holds_the_loop_up() -> None:
    large = {"turbine": np.zeros((20_000, 2))}  # far more than a pipe holds
    with Watched(program("import time; time.sleep(3600)"), 0.05, 3) as watched:
        begun_s = time.monotonic()
        for _ in range(4):
            watched.beat(large)
        assert time.monotonic() - begun_s < 2.0
        assert watched.pid is not None
        os.kill(watched.pid, 9)


def test_a_watchdog_that_does_not_start_is_said_before_anything_is_sent() -> None:
    with pytest.raises(PlantError, match="--watchdog-periods 0"), Watched([sys.executable, "-c", "pass"], 0.1, 3):
        pytest.fail("it did not start")


def test_a_beat_carries_the_standby() -> None:
    told = 'print(json.dumps({"heard": beat["beat"], "ready": beat["standby"]}), flush=True)'
    with Watched(program(told), 1.0, 3) as watched:
        watched.beat({"turbine": np.array([[1.5, 0.1 + 0.2]])})
        assert watched._lines is not None
        found: list[dict[str, object]] = []
        while not found:
            found = watched._lines.read()
    assert found == [{"heard": 1, "ready": json.loads(json.dumps({"turbine": [[1.5, 0.1 + 0.2]]}))}]
