"""A journal makes every decision again, bit for bit, whatever went wrong in its run; and a changed one does not."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.__main__ import main
from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.deploy.journal import Journal, read
from twinloop.deploy.order_desk import OrderDesk
from twinloop.deploy.replay import Replay, replay
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Decision, Mode, Shield
from twinloop.envs.constraint import (
    AccelerationConstraint,
    Constraint,
    DwellConstraint,
    SumConstraint,
    declare,
)
from twinloop.envs.errors import JournalError, PlantError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Arrays, Telemetry
from twinloop.envs.twin import Observation

PERIOD_S = 10.0
PLATE = Nameplate(
    "pumps",
    PERIOD_S,
    (
        Group(
            "pump",
            ("P1", "P2", "P3"),
            measured=(Signal("flow", "", 0.0, 100.0), Signal("pressure", "", 0.0, 10.0)),
            commanded=(
                Signal("speed", "", 0.0, 100.0, neutral=0.0, rate_limit_per_s=0.7),
                Signal("stage", "", 0.0, 2.0, neutral=0.0, levels=(0.0, 1.0, 2.0)),
            ),
        ),
    ),
)
LIMITS: tuple[Constraint, ...] = (
    SumConstraint("total speed", "pump", "speed", "", maximum=120.0),
    AccelerationConstraint("pump", "speed", 0.05, ""),
    DwellConstraint("pump", "stage", 25.0, ""),
)
AT_ONCE = RuntimeSettings(retry_wait_s=0.0, max_plant_failures=100, hand_back_periods=5)


class Pumps:
    """Everything goes wrong at some time: bad values, lost readings, unanswered writes, another hand."""

    def __init__(self, seed: int = 0, tells: bool = True) -> None:
        self.nameplate = PLATE
        self.commands: NDArray[np.float64] = np.zeros((3, 2))
        self.period = 0
        self._tells = tells
        self._rng = np.random.default_rng(seed)

    @property
    def clock_s(self) -> float:
        return 1e9 + PERIOD_S * self.period

    def read(self) -> Telemetry:
        chance = self._rng.random()
        if chance < 0.08:
            raise PlantError("no answer")
        values = self._rng.uniform(1.0, 9.0, (3, 2))
        quality = np.zeros((3, 2), np.int8)
        times = np.full((3, 2), self.clock_s)
        if chance < 0.16:
            values[self._rng.integers(3), 0] = [math.nan, math.inf, 1e30, -0.0][self._rng.integers(4)]
        elif chance < 0.2:
            quality[1] = 2
        elif chance < 0.24:
            times[2] -= 1000.0
        if chance > 0.97:
            self.commands[0, 0] = min(self.commands[0, 0] + 1.3, 100.0)
        notes: dict[str, Any] = {"obeyed": {"pump": self.commands.copy()}} if self._tells else {}
        return Telemetry({"pump": values}, {"pump": times}, {"pump": quality}, self.clock_s, self.period + 1, notes)

    def write(self, commands: Arrays) -> Arrays:
        chance = self._rng.random()
        if chance > 0.04:
            self.commands = commands["pump"].copy()
        if chance < 0.08:
            raise PlantError("connection lost around the write")
        return {"pump": self.commands.copy()}

    def advance(self) -> None:
        self.period += 1

    def close(self) -> None:
        """Nothing is open."""


class Wild(NeutralPolicy):
    """Asks for anything, in any form."""

    def __init__(self) -> None:
        super().__init__(PLATE, name="wild")
        self._rng = np.random.default_rng(3)

    def act(self, observation: Observation, memory: Mapping[str, Any]) -> Any:
        chance = self._rng.random()
        asked = self._rng.uniform(-20.0, 120.0, (1, 3, 2))
        asked[..., 1] = self._rng.integers(0, 3, (1, 3))
        odd: list[Any] = [
            {"pump": np.full((1, 3, 2), np.nan)},
            {"pump": asked.astype(np.float32)},
            {"pump": asked.astype(np.int64)},
            {"pump": asked > 0.0},
            {"pump": np.ma.masked_array(asked[0], asked[0] > 0.0)},
            {"pump": asked[:, :2]},
            {"pump": [["x"] * 2] * 3},
            {"pump": None},
            {},
            "full speed",
            None,
        ]
        if chance < 0.2:
            return odd[self._rng.integers(len(odd))], memory
        if chance < 0.23:
            raise ValueError("diverged")
        return {"pump": asked}, memory


def shield(_: Any = None) -> Shield:
    return Shield(declare(PLATE, LIMITS))


def run(
    path: Path,
    plant: Pumps,
    n_periods: int = 120,
    of: Callable[[], Shield] = shield,
    on_period: Callable[[Period], None] | None = None,
    **options: Any,
) -> None:
    settings = options.pop("settings", AT_ONCE)
    Runtime(plant, Wild(), of(), Journal(path), settings, **options).run(n_periods, on_period)


def again(path: Path) -> Replay:
    return replay(path, shield)


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_every_decision_comes_out_again_whatever_went_wrong(tmp_path: Path, seed: int, tells: bool) -> None:
    run(tmp_path / "j", Pumps(seed, tells))
    found = again(tmp_path / "j")
    assert found.differences == ()
    assert found.decisions >= 120
    codes = {reason[2] for row in read(tmp_path / "j") if row["kind"] == "decision" for reason in row["reasons"]}
    assert {"command_rate", "command_not_finite", "input_missing"} <= codes  # the run had what it should replay


def test_modes_orders_stops_and_two_runs_in_one_journal_are_replayed(tmp_path: Path) -> None:
    sheet = tmp_path / "orders.yaml"

    def put(text: str) -> None:
        beside = tmp_path / "new"
        beside.write_text(text, encoding="utf-8")
        beside.replace(sheet)

    put("")
    told = {
        10: "mode: shadow",
        20: "mode: approved\napproved: [pump/P2]",
        30: "mode: autonomous\nlimits: {total speed: [null, 60.0]}",
        50: "stop: true",
        60: "reset: true\nmode: autonomous",
        70: "mode: advise\napproved: [nobody]",
    }

    def order(period: Period) -> None:
        if period.number in told:
            put(told[period.number])

    ticks = iter(range(10_000))
    for mode in (Mode.AUTONOMOUS, Mode.ADVISE):
        desk = OrderDesk(Mode.AUTONOMOUS, sheet)
        run(
            tmp_path / "j", Pumps(5), 90, on_period=order, mode=mode, orders=desk, clock_s=lambda: 10.0 * next(ticks)
        )  # fmt: skip
    found = again(tmp_path / "j")
    assert (found.runs, found.differences) == (2, ())
    modes = {json.dumps(row["modes"]) for row in read(tmp_path / "j") if row["kind"] == "decision"}
    assert {'"shadow"', '"tripped"', '"advise"'} <= modes


def test_missed_periods_are_replayed(tmp_path: Path) -> None:
    class Slow(Shield):
        calls = 0

        def filter(self, *arguments: Any, **options: Any) -> Decision:
            Slow.calls += 1
            if Slow.calls in (10, 11, 20):
                time.sleep(0.25)
            return super().filter(*arguments, **options)

    settings = AT_ONCE.model_copy(update={"deadline_max_s": 0.1, "decision_max_s": 0.2})
    run(tmp_path / "j", Pumps(1), 30, of=lambda: Slow(declare(PLATE, LIMITS)), settings=settings)
    found = again(tmp_path / "j")
    assert found.missed >= 2
    assert found.differences == ()


def test_ctrl_c_in_mid_period_is_replayed(tmp_path: Path) -> None:
    class Interrupted(Pumps):
        def write(self, commands: Arrays) -> Arrays:
            if self.period == 7:
                self.period += 1
                raise KeyboardInterrupt
            return super().write(commands)

    run(tmp_path / "j", Interrupted(2), 20)
    assert again(tmp_path / "j").differences == ()


def tampered(path: Path, sequence: int, change: Callable[[dict[str, Any]], None]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("DROP TRIGGER no_update;")
        (body,) = connection.execute("SELECT body FROM journal WHERE sequence = ?", (sequence,)).fetchone()
        row = json.loads(body)
        change(row)
        connection.execute("UPDATE journal SET body = ? WHERE sequence = ?", (json.dumps(row), sequence))


def _sent(row: dict[str, Any]) -> None:
    row["sent"]["pump"][0][0] = math.nextafter(row["sent"]["pump"][0][0], math.inf)


def _reason(row: dict[str, Any]) -> None:
    row["reasons"] = row["reasons"][1:]


def _standby(row: dict[str, Any]) -> None:
    row["standby"]["pump"][2][0] += 0.5


def _mode(row: dict[str, Any]) -> None:
    row["modes"] = "shadow"


@pytest.mark.parametrize(
    ("change", "part"), [(_sent, "sent"), (_reason, "reasons"), (_standby, "standby"), (_mode, "modes")]
)
def test_a_changed_row_shows_as_what_was_changed(tmp_path: Path, change: Callable[[Any], None], part: str) -> None:
    run(tmp_path / "j", Pumps(0), 20)
    tampered(tmp_path / "j", 8, change)
    assert [(d.number, d.part) for d in again(tmp_path / "j").differences] == [(7, part)]


def test_other_limits_show_before_the_first_decision(tmp_path: Path) -> None:
    run(tmp_path / "j", Pumps(0), 5)
    found = replay(tmp_path / "j", lambda start: Shield(declare(PLATE)))
    assert (found.differences[0].number, found.differences[0].part) == (0, "declaration")


def test_the_command_replays_a_run_from_its_journal_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "j"
    run(path, Pumps(0), 30, of=lambda: Shield(declare(PLATE)))
    assert main(["replay", str(path)]) == 0
    assert "every decision came out again, bit for bit" in capsys.readouterr().out
    tampered(path, 8, _sent)
    assert main(["replay", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "row 8: its content does not match its hash" in printed
    assert "decision 7: sent: recorded" in printed


def test_the_command_refuses_limits_that_were_not_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "j", Pumps(0), 5)
    assert main(["replay", str(tmp_path / "j")]) == 2
    assert "the run had other limits" in capsys.readouterr().err


def test_what_is_no_journal_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "none")]) == 2
    assert "no such journal" in capsys.readouterr().err
    (tmp_path / "notes").write_text("no database" * 100)
    with pytest.raises(JournalError, match="cannot be read"):
        read(tmp_path / "notes")
