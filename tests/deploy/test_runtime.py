"""The loop outlives its plant, its policy and its journal, and always says how it ended."""

from __future__ import annotations

import dataclasses
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.agents.controllers.reference import NeutralPolicy, RandomPolicy
from twinloop.deploy.journal import Journal, read, verify
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.deploy.summary import Ending, RunSummary
from twinloop.envs.errors import ContractError, PlantError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.plant import Arrays, Telemetry
from twinloop.envs.twin import Observation
from twinloop.envs.wind_farm.nameplate import GROUP, make_nameplate

Floats = NDArray[np.float64]

N = 3
PERIOD_S = 10.0
FARM = make_nameplate("farm", PERIOD_S, N, tuple((630.0 * i, 0.0, 126.0, 90.0, 5000.0) for i in range(N)))
AT_ONCE = RuntimeSettings(retry_wait_s=0.0)


class Turbines:
    """A small farm: power falls with the cube of the cosine of the yaw offset, commands act at once.

    ``dead(period)`` says in which periods every call raises; ``most_yaw_deg`` is a limit of the equipment's own.
    """

    def __init__(self, dead: Callable[[int], bool] = lambda period: False, most_yaw_deg: float = 40.0) -> None:
        self.nameplate: Nameplate = FARM
        self.commands: Floats = np.tile(FARM.group(GROUP).neutral(), (N, 1))
        self.history: list[Floats] = []
        self.period = 0
        self._dead = dead
        self._most_yaw_deg = most_yaw_deg
        self._sequence = 0

    @property
    def clock_s(self) -> float:
        self._answer()
        return 1e9 + PERIOD_S * self.period

    def read(self) -> Telemetry:
        self._answer()
        self._sequence += 1
        power_kw = 1000.0 * np.cos(np.deg2rad(self.commands[:, 0])) ** 3
        values = np.tile([8.0, 270.0, 270.0, 0.0, 0.06, 0.1, 0.0, 1.0], (N, 1))
        values[:, 3] = power_kw
        quality = np.zeros(values.shape, dtype=np.int8)
        times = np.full(values.shape, 1e9 + PERIOD_S * self.period)
        return Telemetry({GROUP: values}, {GROUP: times}, {GROUP: quality}, 1e9, self._sequence)

    def write(self, commands: Arrays) -> Arrays:
        self._answer()
        self.commands = commands[GROUP].copy()
        self.commands[:, 0] = np.clip(self.commands[:, 0], -self._most_yaw_deg, self._most_yaw_deg)
        self.history.append(self.commands.copy())
        return {GROUP: self.commands.copy()}

    def advance(self) -> None:
        self.period += 1
        self._answer()

    def close(self) -> None:
        self.commands = self.commands * math.nan

    def _answer(self) -> None:
        if self._dead(self.period):
            raise PlantError(f"no answer in period {self.period}")


class Steering(NeutralPolicy):
    """Asks for one yaw offset, remembers how often it was asked, and does ``prank`` first."""

    def __init__(self, yaw_deg: float = 20.0, prank: Callable[[int], Any] = lambda turn: None) -> None:
        super().__init__(FARM, name="steering")
        self.seen: list[Observation] = []
        self._yaw_deg = yaw_deg
        self._prank = prank

    def start(self, n_rows: int) -> Mapping[str, NDArray[Any]]:
        return {"turn": np.zeros(n_rows)}

    def act(self, observation: Observation, memory: Mapping[str, NDArray[Any]]) -> Any:
        turn = int(memory["turn"][0])
        self.seen.append(observation)
        told = self._prank(turn)
        if told is not None:
            return told
        commands = np.tile([self._yaw_deg, 1.0], (1, N, 1))
        return {GROUP: commands}, {"turn": memory["turn"] + 1.0}


def run(
    path: Path,
    plant: Turbines,
    policy: Any,
    n_periods: int | None = 10,
    on_period: Callable[[Period], None] | None = None,
    settings: RuntimeSettings = AT_ONCE,
) -> RunSummary:
    return Runtime(plant, policy, Shield(FARM), Journal(path / "journal"), settings).run(n_periods, on_period)


def decisions(path: Path) -> list[dict[str, Any]]:
    return [row for row in read(path / "journal") if row["kind"] == "decision"]


def assert_orderly(path: Path, plant: Turbines, summary: RunSummary) -> None:
    """A sound journal with an end row, and no command that jumped."""
    report = verify(path / "journal", summary.journal_head)
    assert report.problems == ()
    assert report.ended
    neutral = FARM.group(GROUP).neutral()
    steps = np.diff(np.array([np.tile(neutral, (N, 1)), *plant.history]), axis=0)
    assert np.all(np.abs(steps) <= np.array([3.0, 0.5]) + 1e-9)
    assert np.isfinite(steps).all()


def test_a_run_sends_what_the_policy_asks_within_the_rate_and_hands_back_at_the_end(tmp_path: Path) -> None:
    plant = Turbines()
    summary = run(tmp_path, plant, Steering(20.0))
    assert summary.ending is Ending.COMPLETED
    assert summary.handed_back
    np.testing.assert_allclose([h[0, 0] for h in plant.history[:8]], [3, 6, 9, 12, 15, 18, 20, 20])
    np.testing.assert_allclose([h[0, 0] for h in plant.history[10:]], [17, 14, 11, 8, 5, 2, 0])
    assert summary.interventions == {"command_rate": 6 * N}
    assert (summary.periods, summary.fallback_periods, summary.plant_errors) == (10, 0, 0)
    assert_orderly(tmp_path, plant, summary)


def test_energy_is_the_sum_of_the_measured_power(tmp_path: Path) -> None:
    summary = run(tmp_path, Turbines(), NeutralPolicy(FARM), n_periods=36)
    assert summary.energy_kwh == pytest.approx(N * 1000.0 * 36 * PERIOD_S / 3600.0)
    assert summary.latency_p99_ms >= summary.latency_p50_ms > 0.0


def test_every_decision_is_in_the_journal_before_it_is_sent(tmp_path: Path) -> None:
    class Watching(Turbines):
        def write(self, commands: Arrays) -> Arrays:
            np.testing.assert_array_equal(decisions(tmp_path)[-1]["sent"][GROUP], commands[GROUP])
            return super().write(commands)

    plant = Watching()
    summary = run(tmp_path, plant, RandomPolicy(FARM))
    assert summary.plant_errors == 0  # a failed comparison would count as an error of the plant
    assert len(plant.history) == len(decisions(tmp_path))
    assert_orderly(tmp_path, plant, summary)


def test_a_decision_can_be_made_again_from_its_row(tmp_path: Path) -> None:
    run(tmp_path, Turbines(), RandomPolicy(FARM), n_periods=5)
    rows, shield = read(tmp_path / "journal"), Shield(FARM)
    assert [r["kind"] for r in rows[:6]] == ["start"] + ["decision"] * 5
    assert rows[0]["nameplate_hash"] == FARM.hash
    state = shield.start()
    for row, following in itertools.pairwise(rows[1:7]):
        told, shape = row["telemetry"], (N, 8)
        telemetry = Telemetry(
            {GROUP: np.array(told["values"][GROUP])},
            {GROUP: np.full(shape, told["source_time_s"][GROUP])},
            {GROUP: np.full(shape, told["quality"][GROUP], dtype=np.int8)},
            told["received_time_s"],
            told["sequence"],
        )
        proposed = {GROUP: np.array(row["proposed"][GROUP])}
        decision = shield.filter(telemetry, proposed, row["plant_time_s"], state)
        np.testing.assert_array_equal(decision.commands[GROUP], row["sent"][GROUP])
        assert len(decision.reasons) == len(row["reasons"])
        state = shield.accepted(decision.state, {GROUP: np.array(following["previous"]["accepted"][GROUP])})


def test_memory_goes_from_period_to_period(tmp_path: Path) -> None:
    turns: list[int] = []
    run(tmp_path, Turbines(), Steering(prank=turns.append), n_periods=6)
    assert turns == list(range(6))


# The plant fails


def test_a_plant_that_dies_in_mid_run_ends_it_with_everything_recorded(tmp_path: Path) -> None:
    plant = Turbines(dead=lambda period: period >= 5)
    settings = AT_ONCE.model_copy(update={"max_plant_failures": 6})
    summary = run(tmp_path, plant, Steering(), n_periods=1000, settings=settings)
    assert summary.ending is Ending.PLANT_LOST
    assert "no answer in period" in summary.detail
    assert not summary.handed_back
    rows = decisions(tmp_path)
    assert [bool(r["sources"]["fallback"]) for r in rows[:10]] == [False] * 7 + [True] * 3  # two periods held
    assert summary.periods == 10
    assert summary.interventions["input_missing"] == 5 * N
    assert rows[6]["previous"]["written"] == "unknown"
    assert_orderly(tmp_path, plant, summary)


def test_a_plant_that_comes_back_is_taken_up_where_it_stands(tmp_path: Path) -> None:
    plant = Turbines(dead=lambda period: 5 <= period < 9)
    summary = run(tmp_path, plant, Steering(), n_periods=20)
    assert summary.ending is Ending.COMPLETED
    assert summary.plant_errors > 0
    assert summary.handed_back
    assert_orderly(tmp_path, plant, summary)


def test_after_the_plants_watchdog_tripped_commands_start_from_neutral_again(tmp_path: Path) -> None:
    class Watchful(Turbines):
        """Goes to neutral after three silent periods, as the OPC UA server's watchdog does, and says so."""

        def __init__(self) -> None:
            super().__init__(dead=lambda period: 8 <= period < 14)
            self.silent = 0
            self.steps_deg: list[float] = []

        def read(self) -> Telemetry:
            return dataclasses.replace(super().read(), notes={"watchdog_tripped": self.silent >= 3})

        def write(self, commands: Arrays) -> Arrays:
            held = self.commands
            accepted = super().write(commands)
            self.silent = 0
            self.steps_deg.append(float(np.abs(self.commands - held)[:, 0].max()))
            return accepted

        def advance(self) -> None:
            self.silent += 1
            if self.silent > 3:
                self.commands = np.tile(FARM.group(GROUP).neutral(), (N, 1))
            super().advance()

    plant = Watchful()
    summary = run(tmp_path, plant, Steering(20.0), n_periods=30)
    assert summary.ending is Ending.COMPLETED
    assert summary.plant_errors > 0
    assert max(plant.steps_deg) <= 3.0 + 1e-9


def test_a_write_that_arrived_but_was_not_answered_never_makes_a_jump(tmp_path: Path) -> None:
    class Deaf(Turbines):
        def write(self, commands: Arrays) -> Arrays:
            accepted = super().write(commands)
            if self.period % 3 == 1:
                raise PlantError("connection lost after the write")
            return accepted

    plant = Deaf()
    summary = run(tmp_path, plant, RandomPolicy(FARM), n_periods=60)
    assert summary.ending is Ending.COMPLETED
    assert summary.plant_errors >= 20
    assert_orderly(tmp_path, plant, summary)


def test_a_driver_that_raises_anything_is_survived(tmp_path: Path) -> None:
    class Broken(Turbines):
        def read(self) -> Telemetry:
            if self.period == 2:
                raise ZeroDivisionError
            return super().read()

    summary = run(tmp_path, Broken(), Steering())
    assert (summary.ending, summary.plant_errors) == (Ending.COMPLETED, 1)


def test_a_reading_that_never_changes_its_number_ends_in_fallback(tmp_path: Path) -> None:
    class Cached(Turbines):
        def read(self) -> Telemetry:
            return dataclasses.replace(super().read(), sequence=1)

    plant = Cached()
    summary = run(tmp_path, plant, Steering())
    assert (summary.substituted_periods, summary.fallback_periods) == (2, 7)
    assert_orderly(tmp_path, plant, summary)


def test_what_the_plant_accepts_counts_not_what_was_sent(tmp_path: Path) -> None:
    plant = Turbines(most_yaw_deg=10.0)
    summary = run(tmp_path, plant, Steering(20.0), n_periods=10)
    # 12 and then 13 deg asked, 10 accepted; a plant that obeys something else three times gets its fallback, 0 deg
    assert summary.rejected_periods == 3
    sent = [r["sent"][GROUP][0][0] for r in decisions(tmp_path)[3:10]]
    np.testing.assert_allclose(sent, [12.0, 13.0, 13.0, 7.0, 4.0, 1.0, 0.0])
    assert decisions(tmp_path)[4]["previous"]["as_sent"] is False
    told = [any(reason[2] == "read_back_wrong" for reason in r["reasons"]) for r in decisions(tmp_path)]
    assert told[:7] == [False] * 6 + [True]


def test_a_lost_turbine_keeps_the_others_on_their_policy(tmp_path: Path) -> None:
    class OneSensorDead(Turbines):
        def read(self) -> Telemetry:
            telemetry = super().read()
            telemetry.values[GROUP][1, 0] = math.nan
            return telemetry

    plant, policy = OneSensorDead(), Steering()
    run(tmp_path, plant, policy)
    np.testing.assert_allclose(plant.history[9][:, 0], [20.0, 0.0, 20.0])
    assert np.isfinite(policy.seen[-1].measured[GROUP]).all()
    np.testing.assert_array_equal(policy.seen[-1].present[GROUP], [[True, False, True]])


# The policy fails


def _raise(turn: int) -> None:
    raise ValueError("diverged")


HOSTILE: list[Any] = [
    pytest.param(lambda turn: ({GROUP: np.full((1, N, 2), math.nan)}, {"turn": np.zeros(1)}), "command_not_finite"),
    pytest.param(lambda turn: ({GROUP: np.zeros((1, N, 7))}, {"turn": np.zeros(1)}), "command_shape"),
    pytest.param(lambda turn: ({GROUP: np.zeros((2, N, 2))}, {"turn": np.zeros(1)}), "command_shape"),
    pytest.param(lambda turn: ({}, {"turn": np.zeros(1)}), "command_missing"),
    pytest.param(lambda turn: ("full speed", {"turn": np.zeros(1)}), "command_missing"),
    pytest.param(lambda turn: ({GROUP: [[["x"] * 2] * N]}, {"turn": np.zeros(1)}), "command_type"),
]


@pytest.mark.parametrize(("prank", "code"), HOSTILE)
def test_an_unusable_answer_sends_every_asset_to_fallback(tmp_path: Path, prank: Any, code: str) -> None:
    plant = Turbines()
    summary = run(tmp_path, plant, Steering(prank=prank))
    assert summary.interventions == {code: 10 * N * 2}
    assert summary.fallback_periods == 10
    np.testing.assert_array_equal(plant.history, np.tile([0.0, 1.0], (10, N, 1)))
    assert_orderly(tmp_path, plant, summary)


@pytest.mark.parametrize("prank", [_raise, lambda turn: 7, lambda turn: (1, 2, 3)])
def test_a_policy_that_raises_or_returns_no_pair_is_tripped_after_three_turns(tmp_path: Path, prank: Any) -> None:
    summary = run(tmp_path, Turbines(), Steering(prank=prank))
    assert summary.tripped
    assert summary.interventions == {"policy_raised": 3 * N * 2, "policy_tripped": 7 * N * 2}
    assert "3 turns in a row" in summary.detail


def test_a_policy_that_hangs_costs_its_turns_and_never_the_loop(tmp_path: Path) -> None:
    release = threading.Event()
    plant, begun_s = Turbines(), time.monotonic()
    settings = AT_ONCE.model_copy(update={"deadline_max_s": 0.2})
    policy = Steering(prank=lambda turn: release.wait(60.0) if turn >= 5 else None)
    summary = run(tmp_path, plant, policy, settings=settings)
    assert time.monotonic() - begun_s < 30.0
    release.set()
    assert summary.ending is Ending.COMPLETED
    assert summary.tripped
    assert summary.interventions["policy_late"] == 3 * N * 2
    assert_orderly(tmp_path, plant, summary)


def test_one_late_turn_is_one_turn_lost(tmp_path: Path) -> None:
    slow = iter([False, False, True] + [False] * 30)
    summary = run(
        tmp_path,
        Turbines(),
        Steering(prank=lambda turn: time.sleep(1.2) if next(slow) else None),
        n_periods=12,
        on_period=lambda period: time.sleep(1.0) if period.number == 3 else None,
        settings=AT_ONCE.model_copy(update={"deadline_max_s": 0.6}),
    )
    assert not summary.tripped
    assert summary.fallback_periods == 1
    assert summary.interventions["policy_late"] == 2 * N


def test_a_policy_that_cannot_start_leaves_the_plant_on_fallback(tmp_path: Path) -> None:
    class NoStart(Steering):
        def start(self, n_rows: int) -> Mapping[str, NDArray[Any]]:
            raise OSError("weights are gone")

    summary = run(tmp_path, Turbines(), NoStart())
    assert summary.tripped
    assert "weights are gone" in summary.detail
    assert summary.fallback_periods == 10


def test_a_policy_of_another_site_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    plant = Turbines()
    other = make_nameplate("other", PERIOD_S, 2, ((0.0, 0.0, 126.0, 90.0, 5000.0),) * 2)
    with pytest.raises(ContractError, match=r"the policy is made for 'other'.*WT03"):
        run(tmp_path, plant, NeutralPolicy(other))
    assert not plant.history
    assert not (tmp_path / "journal").exists()


# The journal fails


def test_without_a_journal_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    plant = Turbines()
    summary = run(tmp_path, plant, Steering())
    assert summary.ending is Ending.JOURNAL_LOST
    assert "nothing may be sent" in summary.detail
    assert not plant.history


def test_a_disk_that_fills_up_in_mid_run_stops_all_writing(tmp_path: Path) -> None:
    plant, journal = Turbines(), Journal(tmp_path / "journal")

    def fill_up(period: Period) -> None:
        if period.number == 5:
            assert journal._connection is not None
            journal._connection.execute("PRAGMA max_page_count = 1")  # SQLite's own way to a full disk

    summary = Runtime(plant, Steering(), Shield(FARM), journal, AT_ONCE).run(100, fill_up)
    assert summary.ending is Ending.JOURNAL_LOST
    assert len(plant.history) == len(decisions(tmp_path))
    assert len(plant.history) < 10
    assert verify(tmp_path / "journal", summary.journal_head).problems == ()


@pytest.mark.parametrize("again", [False, True])
def test_what_nobody_foresaw_is_raised_after_an_orderly_end(tmp_path: Path, again: bool) -> None:
    plant = Turbines()

    def leave(period: Period) -> None:
        if period.number == 4 or (again and period.handing_back):
            raise SystemExit("the host is going down")

    with pytest.raises(SystemExit):
        run(tmp_path, plant, Steering(20.0), on_period=leave)
    end = read(tmp_path / "journal")[-1]
    assert (end["kind"], end["ending"], end["handed_back"]) == ("end", Ending.FAILED.value, not again)
    assert "going down" in end["detail"]
    assert verify(tmp_path / "journal").ended


# People


def test_ctrl_c_walks_every_asset_to_neutral_and_closes_the_journal(tmp_path: Path) -> None:
    plant = Turbines()

    def interrupt(period: Period) -> None:
        if period.number == 7:
            signal.raise_signal(signal.SIGINT)

    summary = run(tmp_path, plant, Steering(20.0), n_periods=None, on_period=interrupt)
    assert summary.ending is Ending.INTERRUPTED
    assert summary.handed_back
    assert summary.periods == 7
    np.testing.assert_array_equal(plant.commands, np.tile([0.0, 1.0], (N, 1)))
    assert_orderly(tmp_path, plant, summary)


def test_a_second_ctrl_c_leaves_the_walk_and_says_so(tmp_path: Path) -> None:
    plant = Turbines()

    def interrupt(period: Period) -> None:
        if period.number in (7, 9):
            signal.raise_signal(signal.SIGINT)

    summary = run(tmp_path, plant, Steering(20.0), n_periods=None, on_period=interrupt)
    assert summary.ending is Ending.INTERRUPTED
    assert not summary.handed_back
    assert len(plant.history) == 9
    assert_orderly(tmp_path, plant, summary)


@pytest.mark.parametrize("call", ["read", "write", "advance"])
def test_ctrl_c_inside_a_call_to_the_plant_is_as_orderly(tmp_path: Path, call: str) -> None:
    class Interrupted(Turbines):
        pressed = False

        def __getattribute__(self, name: str) -> Any:
            if name == call and self.period == 4 and not Interrupted.pressed:
                Interrupted.pressed = True
                signal.raise_signal(signal.SIGINT)
            return super().__getattribute__(name)

    plant = Interrupted()
    summary = run(tmp_path, plant, Steering(20.0), n_periods=None)
    assert summary.ending is Ending.INTERRUPTED
    assert summary.handed_back
    assert_orderly(tmp_path, plant, summary)


def test_a_display_that_fails_does_not_stop_the_control(tmp_path: Path) -> None:
    def fail(period: Period) -> None:
        raise RuntimeError("terminal is gone")

    assert run(tmp_path, Turbines(), Steering(), on_period=fail).ending is Ending.COMPLETED


def test_commands_may_be_left_standing_if_asked(tmp_path: Path) -> None:
    plant = Turbines()
    settings = AT_ONCE.model_copy(update={"hand_back_periods": 0})
    summary = run(tmp_path, plant, Steering(20.0), settings=settings)
    assert not summary.handed_back
    assert plant.commands[0, 0] == 20.0
