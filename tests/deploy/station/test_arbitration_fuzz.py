"""A short life of random events leads to no policy write in a stop; and the judge sees a loop that lets one out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinloop.deploy.shield import ShieldState
from twinloop.deploy.shield.modes import ModeMachine, Modes, ModeState
from twinloop.deploy.shield.orders import Orders
from twinloop.deploy.station.desk import StationDesk
from twinloop.deploy.station.stop_file import StopFile
from twinloop.training.benchmarks.arbitration_fuzz import Fuzz

EVENTS = 600


def lived(path: Path, seed: int = 0, n_events: int = EVENTS) -> Fuzz:
    fuzz = Fuzz(path, seed)
    fuzz.run(n_events)
    return fuzz


def test_random_events_lead_to_no_policy_write_in_a_stop_and_all_replays(tmp_path: Path) -> None:
    fuzz = lived(tmp_path, seed=1)
    assert fuzz.judge.violations == []
    assert fuzz.differences == 0
    assert sum(fuzz.events.values()) == EVENTS
    assert fuzz.judge.held_periods > 20
    assert fuzz.judge.releases > 3
    assert {2, 8, 14, 16} <= set(fuzz.judge.slots)


def test_the_judge_sees_a_desk_that_forgets_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = StationDesk._gathered

    def forgetful(self: StationDesk, held: bool, number: int, now_s: float, state: ShieldState) -> Orders:
        return replace(honest(self, held, number, now_s, state), stop=False)

    monkeypatch.setattr(StationDesk, "_gathered", forgetful)
    assert lived(tmp_path).judge.violations != []


def test_the_judge_sees_a_reset_that_ends_a_stop_pressed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = StopFile.release
    monkeypatch.setattr(StopFile, "release", lambda self, asked_utc_s: honest(self, float("inf")))
    assert any(lived(tmp_path / str(seed), seed).judge.violations for seed in range(5))


def test_the_judge_sees_commands_that_go_on_from_the_policy_in_a_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the plant itself: whatever slots are reported, commands lead away from the safe state."""
    honest = ModeMachine.step

    def lax(self: ModeMachine, state: ModeState, causes: Mapping[Any, Any], orders: Any, clock_s: float) -> Any:
        new, modes, reasons = honest(self, state, causes, orders, clock_s)
        code = np.where(modes.code == 6, np.int8(3), modes.code).astype(np.int8)
        return new, Modes(code, modes.acts, modes.approval, modes.forced, modes.why, False), reasons

    monkeypatch.setattr(ModeMachine, "step", lax)
    assert any("sent" in what or "slots" in what for what in lived(tmp_path).judge.violations)
