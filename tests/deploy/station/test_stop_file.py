"""The stop file: clocks that step, presses in the midst of a reset, and what else may lie at its path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from twinloop.deploy.station.stop_file import StopFile


class Clocks:
    """The wall's, which steps, and the steady one."""

    def __init__(self) -> None:
        self.utc_s, self.steady_s = 1.8e9, 100.0

    def passes(self, seconds: float) -> None:
        self.utc_s += seconds
        self.steady_s += seconds

    def of(self, path: Path) -> StopFile:
        return StopFile(path, lambda: self.utc_s, lambda: self.steady_s)


def put(path: Path, clocks: Clocks, text: str = "shift B\n") -> None:
    path.write_text(text)
    os.utime(path, (clocks.utc_s, clocks.utc_s))


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
@pytest.mark.parametrize("press", ["file", "key"])
def test_a_clock_that_steps_neither_keeps_a_reset_out_nor_lets_an_old_one_in(
    tmp_path: Path, press: str, step_s: float
) -> None:
    clocks, path = Clocks(), tmp_path / "STOP"
    stop = clocks.of(path)
    asked_before_utc_s = clocks.utc_s
    clocks.passes(1.0)
    put(path, clocks) if press == "file" else stop.press("key")
    assert stop.look()
    assert "pressed after this reset" in stop.release(asked_before_utc_s)
    clocks.passes(1.0)
    clocks.utc_s += step_s
    assert stop.look()
    clocks.passes(1.0)
    assert stop.release(clocks.utc_s) == ""
    assert not path.exists()
    assert not stop.look()


def test_a_file_from_the_future_does_not_hold_for_ever(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "STOP"
    put(path, clocks)
    clocks.utc_s -= 86400.0
    stop = clocks.of(path)
    assert stop.look()
    clocks.passes(1.0)
    assert stop.release(clocks.utc_s) == ""


def test_a_press_in_the_midst_of_a_reset_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks, path = Clocks(), tmp_path / "STOP"
    stop = clocks.of(path)
    stop.press("anna")
    clocks.passes(10.0)
    rename = os.rename

    def pressed_meanwhile(source: Path, target: Path) -> None:
        stop.press_here("signal")  # finds the file still there, which is then taken away
        rename(source, target)

    monkeypatch.setattr(os, "rename", pressed_meanwhile)
    assert stop.release(clocks.utc_s) != ""
    monkeypatch.undo()
    assert stop.pressed_by == "signal"
    assert stop.look()
    assert path.read_text() == "signal\n"


def test_a_file_that_is_put_there_after_the_look_survives_the_reset(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "STOP"
    stop = clocks.of(path)
    put(path, clocks)
    assert stop.look()
    clocks.passes(10.0)
    put(path, clocks, "bert\n")
    assert "pressed after this reset" in stop.release(clocks.utc_s)
    assert path.read_text() == "bert\n"
    assert stop.look()


def test_a_stop_file_that_was_removed_by_hand_comes_back_and_is_reset_at_once(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "STOP"
    stop = clocks.of(path)
    stop.press("anna")
    clocks.passes(1.0)
    path.unlink()
    assert stop.look()
    assert path.read_text() == "anna\n"
    assert stop.release(clocks.utc_s) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_at_its_path_is_a_stop_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "STOP"
    os.mkfifo(path)
    os.utime(path, (clocks.utc_s, clocks.utc_s))
    stop = clocks.of(path)
    assert stop.look()
    assert stop.pressed_by == "a stop file"
    clocks.passes(1.0)
    assert stop.release(clocks.utc_s) == ""


def test_a_key_that_is_held_down_for_hours_takes_no_memory_and_counts_to_its_end(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "STOP"
    stop = clocks.of(path)
    for _ in range(1500):
        stop.press("key")
        clocks.passes(0.03)
    assert len(stop._presses) <= 1000
    assert "pressed after this reset" in stop.release(clocks.utc_s - 1.0)
    clocks.passes(1.0)
    assert stop.look()
    assert stop.release(clocks.utc_s) == ""
