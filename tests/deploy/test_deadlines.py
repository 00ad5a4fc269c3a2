"""A period gets its answer in time, whatever hangs; and what comes too late is as if it had never been."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.deploy.decider import Ticket
from twinloop.deploy.journal import Journal, read, verify
from twinloop.deploy.leash import Leash, Outcome
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Decision, Shield
from twinloop.deploy.summary import Ending, RunSummary
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Arrays, Telemetry

PERIOD_S = 0.4
BUDGET_S = 0.25  # long enough for a machine that is busy with other things
PLATE = Nameplate(
    "valves",
    PERIOD_S,
    (
        Group(
            "valve",
            ("V1", "V2"),
            measured=(Signal("flow", "", 0.0, 100.0),),
            commanded=(Signal("opening", "", 0.0, 100.0, neutral=0.0, rate_limit_per_s=5.0 / PERIOD_S),),
        ),
    ),
)
QUICK = RuntimeSettings(
    deadline_pu=0.25, decision_pu=BUDGET_S / PERIOD_S, retry_wait_s=0.0, hand_back_periods=0, max_journal_failures=100
)


class Valves:
    """Obeys at once, at the pace of its period, and says what it obeys if ``tells``."""

    def __init__(self, tells: bool = True) -> None:
        self.nameplate = PLATE
        self.commands: NDArray[np.float64] = np.zeros((2, 1))
        self.history: list[NDArray[np.float64]] = []
        self.waits_s: list[float] = []
        self.period = 0
        self._tells = tells
        self._read_s = 0.0

    @property
    def clock_s(self) -> float:
        return 1e9 + PERIOD_S * self.period

    def read(self) -> Telemetry:
        self._read_s = time.perf_counter()
        now = np.full((2, 1), self.clock_s)
        flow = self.commands + 1e-3 * (self.period % 7)
        notes = {"obeyed": {"valve": self.commands.copy()}} if self._tells else None
        return Telemetry(
            {"valve": flow}, {"valve": now}, {"valve": np.zeros((2, 1), np.int8)}, 0.0, self.period + 1, notes
        )

    def write(self, commands: Arrays) -> Arrays:
        self.waits_s.append(time.perf_counter() - self._read_s)
        self.commands = commands["valve"].copy()
        self.history.append(self.commands.copy())
        return {"valve": self.commands.copy()}

    def advance(self) -> None:
        self.period += 1
        time.sleep(max(self._read_s + PERIOD_S - time.perf_counter(), 0.0))

    def close(self) -> None:
        """Nothing is open."""


class Opening(NeutralPolicy):
    """Opens both valves."""

    def __init__(self) -> None:
        super().__init__(PLATE, name="opening")

    def act(self, observation: Any, memory: Mapping[str, Any]) -> Any:
        return {"valve": np.full((1, 2, 1), 80.0)}, memory


class Slow(Shield):
    """A shield that hangs in the periods that it is told."""

    def __init__(self, hang: Callable[[int], None]) -> None:
        super().__init__(PLATE)
        self._hang = hang
        self._calls = -1  # the first is the loop's own, before the first period

    def filter(self, *arguments: Any, **options: Any) -> Decision:
        self._calls += 1
        if self._calls:
            self._hang(self._calls)
        return super().filter(*arguments, **options)


def sleep_in(*periods: int, for_s: float = 0.06) -> Callable[[int], None]:
    return lambda call: time.sleep(BUDGET_S + for_s) if call in periods else None


def run(
    path: Path,
    plant: Valves,
    shield: Shield,
    n_periods: int,
    journal: Journal | None = None,
    on_period: Callable[[Period], None] | None = None,
) -> RunSummary:
    recorder = journal or Journal(path / "journal")
    return Runtime(plant, Opening(), shield, recorder, QUICK).run(n_periods, on_period)


def rows(path: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read(path / "journal") if row["kind"] == kind]


def test_a_late_shield_costs_one_period_and_its_standby_goes_out_in_time(tmp_path: Path) -> None:
    plant = Valves()
    summary = run(tmp_path, plant, Slow(sleep_in(4)), 6)
    assert summary.ending is Ending.COMPLETED
    assert summary.missed_periods == 1
    sent = [float(c[0, 0]) for c in plant.history]
    assert sent[:5] == [5.0, 10.0, 15.0, 10.0, 15.0]  # towards neutral in the fourth, by one period's rate
    assert max(plant.waits_s) < BUDGET_S + 0.12  # the loop's own thread was free at once
    (missed,) = rows(tmp_path, "missed")
    assert (missed["number"], missed["code"]) == (4, "deadline_missed")
    before = next(r for r in rows(tmp_path, "decision") if r["number"] == 3)
    assert missed["sent"] == before["standby"]  # what went out stood in the journal before it did
    assert missed["outcome"]["written"] is True
    assert summary.interventions["deadline_missed"] == 2
    assert verify(tmp_path / "journal", summary.journal_head).is_sound


def test_the_late_answer_is_thrown_away_and_never_recorded(tmp_path: Path) -> None:
    run(tmp_path, Valves(), Slow(sleep_in(4)), 6)
    assert [r["number"] for r in rows(tmp_path, "decision")] == [1, 2, 3, 5, 6]


def test_misses_in_a_row_walk_to_the_safe_state_and_trip(tmp_path: Path) -> None:
    plant, release = Valves(), threading.Event()

    def hang(call: int) -> None:
        if call == 5:
            release.wait(30.0)

    summary = run(tmp_path, plant, Slow(hang), 10)
    release.set()
    assert summary.missed_periods == 6
    sent = [float(c[0, 0]) for c in plant.history]
    assert sent == [5.0, 10.0, 15.0, 20.0, 15.0, 10.0, 5.0, 0.0, 0.0, 0.0]
    assert np.all(np.abs(np.diff(np.array(sent))) <= 5.0 + 1e-9)
    assert verify(tmp_path / "journal", summary.journal_head).is_sound


@pytest.mark.parametrize(("misses", "trips"), [(1, False), (2, False), (3, True), (4, True)])
def test_so_many_misses_in_a_row_trip_and_one_fewer_do_not(tmp_path: Path, misses: int, trips: bool) -> None:
    release = threading.Event()

    def hang(call: int) -> None:
        if call == 3:
            release.wait(30.0)

    def free(period: Period) -> None:
        if period.number == 2 + misses:
            release.set()
            time.sleep(0.05)  # the belated answer arrives

    summary = run(tmp_path, Valves(), Slow(hang), 8, on_period=free)
    assert summary.missed_periods == misses
    assert summary.tripped is trips
    assert rows(tmp_path, "decision")[-1]["modes"] == ("tripped" if trips else "autonomous")


def test_misses_that_are_not_in_a_row_do_not_trip(tmp_path: Path) -> None:
    summary = run(tmp_path, Valves(), Slow(sleep_in(3, 5, 7, 9)), 12)
    assert summary.missed_periods == 4
    assert not summary.tripped


def test_a_disk_that_does_not_answer_costs_its_period_and_not_the_loop(tmp_path: Path) -> None:
    class Stuck(Journal):
        def append(self, record: Mapping[str, Any]) -> str:
            if record.get("number") == 4 and record["kind"] == "decision":
                time.sleep(BUDGET_S + 0.06)
            return super().append(record)

    plant = Valves()
    summary = run(tmp_path, plant, Shield(PLATE), 6, Stuck(tmp_path / "journal"))
    assert summary.missed_periods == 1
    assert [float(c[0, 0]) for c in plant.history][:5] == [5.0, 10.0, 15.0, 10.0, 15.0]
    assert max(plant.waits_s) < BUDGET_S + 0.12
    (missed,) = rows(tmp_path, "missed")
    assert missed["number"] == 4
    assert "the journal had not taken its row" in missed["why"]


def test_a_missed_period_and_the_next_decision_wait_for_the_disk_once(tmp_path: Path) -> None:
    written: list[list[tuple[str, int]]] = []

    class Counted(Journal):
        def append_all(self, records: Sequence[Mapping[str, Any]]) -> str:
            written.append([(r["kind"], r["number"]) for r in records if "number" in r])
            return super().append_all(records)

    run(tmp_path, Valves(), Slow(sleep_in(3)), 5, Counted(tmp_path / "journal"))
    assert [("missed", 3), ("decision", 4)] in written


def test_a_loop_that_stood_still_sends_nothing_before_it_knows_what_the_plant_obeys(tmp_path: Path) -> None:
    class Overtaken(Valves):
        """Stands in for a process that is stopped in mid-period, while the watchdog takes the valves to neutral."""

        def read(self) -> Telemetry:
            told = super().read()
            if self.period == 5:
                time.sleep(2.0 * BUDGET_S + 0.1)
                self.commands = np.zeros((2, 1))
            return told

    plant = Overtaken()
    summary = run(tmp_path, plant, Shield(PLATE), 9)
    assert [float(c[0, 0]) for c in plant.history] == [5.0, 10.0, 15.0, 20.0, 25.0, 5.0, 10.0, 15.0]
    (missed,) = rows(tmp_path, "missed")
    assert "stood still" in missed["instead"]
    assert missed["outcome"] == {"written": False}
    assert summary.missed_periods == 1


def test_what_another_hand_put_at_the_plant_is_where_the_next_command_starts(tmp_path: Path) -> None:
    plant = Valves()

    def turn(period: Period) -> None:
        if period.number == 3:
            plant.commands = np.array([[50.0], [0.0]])

    run(tmp_path, plant, Shield(PLATE), 5, on_period=turn)
    np.testing.assert_allclose(np.array(plant.history)[:, :, 0], [[5, 5], [10, 10], [15, 15], [55, 5], [60, 10]])


def test_a_run_that_starts_in_mid_operation_goes_on_from_what_the_plant_obeys(tmp_path: Path) -> None:
    plant = Valves()
    plant.commands = np.array([[40.0], [30.0]])
    run(tmp_path, plant, Shield(PLATE), 2)
    np.testing.assert_allclose(np.array(plant.history)[:, :, 0], [[45, 35], [50, 40]])


def test_a_plant_that_cannot_tell_is_taken_to_be_at_its_safe_place(tmp_path: Path) -> None:
    plant = Valves(tells=False)
    plant.commands = np.array([[40.0], [30.0]])
    run(tmp_path, plant, Shield(PLATE), 2)
    np.testing.assert_allclose(np.array(plant.history)[:, :, 0], [[5, 5], [10, 10]])


def test_the_whole_budget_must_be_longer_than_the_policys() -> None:
    with pytest.raises(ValueError, match="decision_pu"):
        RuntimeSettings(deadline_pu=0.6)


# The leash itself


def test_a_leash_answers_raises_and_is_late() -> None:
    release = threading.Event()

    def work(what: str) -> str:
        if what == "hang":
            release.wait(30.0)
        if what == "raise":
            raise ValueError("no")
        return what

    leash = Leash(work, "work")
    assert leash.ask(5.0, "fine").value == "fine"
    answer = leash.ask(5.0, "raise")
    assert (answer.outcome, answer.error) == (Outcome.RAISED, "ValueError: no")
    assert leash.ask(0.05, "hang").outcome is Outcome.LATE
    begun_s = time.monotonic()
    assert "earlier period" in leash.ask(0.1, "fine").error
    assert time.monotonic() - begun_s < 1.0
    release.set()
    assert leash.ask(5.0, "again").value == "again"  # never the belated "hang"
    leash.close()


def test_a_ticket_is_claimed_or_given_up_once() -> None:
    claimed, given_up = Ticket(), Ticket()
    assert claimed.claim()
    assert not claimed.give_up()
    assert given_up.give_up()
    assert not given_up.claim()


def test_a_leash_that_was_interrupted_at_any_place_answers_its_next_turn() -> None:
    leash = Leash(lambda k: k, "work")
    assert leash.ask(5.0, -1).value == -1
    for k in range(200):
        timer = threading.Timer(1e-5 * (k % 40), signal.raise_signal, (signal.SIGINT,))
        try:
            timer.start()  # which may be interrupted itself
            while True:
                leash.ask(5.0, 10_000)
        except KeyboardInterrupt:
            timer.join()
        begun_s = time.monotonic()
        assert leash.ask(5.0, k).value == k
        assert time.monotonic() - begun_s < 4.0
    leash.close()
