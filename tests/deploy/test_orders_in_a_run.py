"""Modes, orders and the emergency stop in a running loop, and transfer without a bump, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.deploy.bumpless import restarted
from twinloop.deploy.journal import Journal, read
from twinloop.deploy.order_desk import OrderDesk
from twinloop.deploy.run_display import RunDisplay, describe
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Mode, Shield, Source
from twinloop.deploy.summary import RunSummary
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Arrays, Telemetry
from twinloop.envs.twin import Observation

PERIOD_S = 1.0
STEP = 5.0
PLATE = Nameplate(
    "valves",
    PERIOD_S,
    (
        Group(
            "valve",
            ("V1", "V2", "V3"),
            measured=(Signal("flow", "", 0.0, 100.0),),
            commanded=(Signal("opening", "", 0.0, 100.0, neutral=0.0, rate_limit_per_s=STEP),),
        ),
    ),
)
AT_ONCE = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=40)


class Valves:
    """Obeys at once, says what it obeys, and counts writes; ``blind`` names the valves whose meter is broken when."""

    def __init__(self, blind: Callable[[int], list[int]] = lambda period: []) -> None:
        self.nameplate = PLATE
        self.commands: NDArray[np.float64] = np.zeros((3, 1))
        self.history: list[NDArray[np.float64]] = []
        self.writes: list[int] = []
        self.period = 0
        self.in_control = True
        self.looked_on: list[int] = []
        self._blind = blind

    @property
    def clock_s(self) -> float:
        return 1e9 + PERIOD_S * self.period

    def read(self) -> Telemetry:
        flow = 10.0 + 1e-3 * np.full((3, 1), float(self.period % 7))
        flow[self._blind(self.period)] = np.nan
        return Telemetry(
            {"valve": flow},
            {"valve": np.full((3, 1), self.clock_s)},
            {"valve": np.zeros((3, 1), np.int8)},
            0.0,
            self.period + 1,
            {"obeyed": {"valve": self.commands.copy()}},
        )

    def write(self, commands: Arrays) -> Arrays:
        self.commands = commands["valve"].copy()
        self.writes.append(self.period)
        return {"valve": self.commands.copy()}

    def advance(self) -> None:
        self.history.append(self.commands.copy())
        if not self.in_control:
            self.looked_on.append(self.period)
        self.period += 1

    def close(self) -> None:
        """Nothing is open."""


class Opening(NeutralPolicy):
    """Opens further each turn that it remembers, by valve: a memory that winds up where it is not restarted."""

    def __init__(self) -> None:
        super().__init__(PLATE, name="opening")
        self.turns: list[list[float]] = []

    def start(self, n_rows: int) -> Mapping[str, NDArray[Any]]:
        return {"valve/turns": np.zeros((n_rows, 3, 1))}

    def act(self, observation: Observation, memory: Mapping[str, NDArray[Any]]) -> Any:
        turns = memory["valve/turns"] + 1.0
        self.turns.append(turns[0, :, 0].tolist())
        return {"valve": 50.0 + turns}, {"valve/turns": turns}


def run(
    path: Path,
    plant: Valves,
    n_periods: int,
    *,
    mode: Mode = Mode.AUTONOMOUS,
    orders: OrderDesk | None = None,
    on_period: Callable[[Period], None] | None = None,
    policy: Opening | None = None,
) -> RunSummary:
    runtime = Runtime(
        plant, policy or Opening(), Shield(PLATE), Journal(path / "journal"), AT_ONCE, mode=mode, orders=orders
    )
    return runtime.run(n_periods, on_period)


def decisions(path: Path) -> list[dict[str, Any]]:
    return [row for row in read(path / "journal") if row["kind"] == "decision"]


def put(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def openings(plant: Valves) -> list[float]:
    return [float(c[0, 0]) for c in plant.history]


def assert_no_jump(plant: Valves, start: float = 0.0) -> None:
    steps = np.diff(np.array([np.full((3, 1), start), *plant.history]), axis=0)
    assert np.abs(steps).max() <= STEP + 1e-9


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.ADVISE])
def test_in_shadow_and_advise_nothing_is_written_and_the_advice_is_recorded(tmp_path: Path, mode: Mode) -> None:
    plant = Valves()
    summary = run(tmp_path, plant, 6, mode=mode)
    assert plant.writes == []
    assert plant.looked_on == list(
        range(6)
    )  # the equipment's own time-out is left to run; there is nothing to hand back
    assert summary.handed_back
    row = decisions(tmp_path)[-1]
    assert (row["modes"], row["sent"]["valve"]) == (mode.value, [[0.0]] * 3)
    assert row["advised"]["valve"] == [[STEP]] * 3
    assert row["previous"] == {"written": False}


def test_in_shadow_the_decision_follows_what_others_command(tmp_path: Path) -> None:
    plant = Valves()

    def other(period: Period) -> None:
        plant.commands = np.full((3, 1), 7.0 * period.number)

    run(tmp_path, plant, 4, mode=Mode.SHADOW, on_period=other)
    assert [r["sent"]["valve"][0][0] for r in decisions(tmp_path)[:4]] == [0.0, 7.0, 14.0, 21.0]


def test_an_emergency_stop_acts_in_the_next_period_from_every_mode(tmp_path: Path) -> None:
    for mode in (Mode.SHADOW, Mode.ADVISE, Mode.APPROVED, Mode.AUTONOMOUS):
        plant, desk = Valves(), OrderDesk(mode)
        plant.commands = np.full((3, 1), 20.0)

        def press(period: Period, desk: OrderDesk = desk) -> None:
            if period.number == 3:
                desk.stop("key")

        folder = tmp_path / mode.value
        folder.mkdir()
        summary = run(folder, plant, 10, mode=mode, orders=desk, on_period=press)
        rows = decisions(folder)
        assert [r["modes"] for r in rows[:5]] == [mode.value] * 3 + ["tripped"] * 2
        assert rows[3]["orders"]["stop"] is True
        assert openings(plant)[3] == openings(plant)[2] - STEP
        assert openings(plant)[9] == 0.0
        assert summary.tripped
        assert_no_jump(plant, start=20.0)


def test_leaving_and_taking_up_autonomy_makes_no_bump(tmp_path: Path) -> None:
    sheet = tmp_path / "orders.yaml"
    put(sheet, "")
    plant, desk = Valves(), OrderDesk(Mode.AUTONOMOUS, sheet)

    def order(period: Period) -> None:
        told = {5: "mode: shadow", 10: "mode: autonomous", 14: "stop: true", 18: "reset: true", 20: "mode: autonomous"}
        if period.number in told:
            put(sheet, told[period.number])
        if 5 < period.number < 10:
            plant.commands = np.full((3, 1), 3.0)  # another hand has it meanwhile, and leaves it elsewhere

    summary = run(tmp_path, plant, 24, orders=desk, on_period=order)
    modes = [r["modes"] for r in decisions(tmp_path)[:24]]
    assert modes == (
        ["autonomous"] * 5 + ["shadow"] * 5 + ["autonomous"] * 4 + ["tripped"] * 4 + ["shadow"] * 2 + ["autonomous"] * 4
    )
    found = openings(plant)
    assert found[:5] == [5.0, 10.0, 15.0, 20.0, 25.0]
    assert found[10:14] == [8.0, 13.0, 18.0, 23.0]  # on from 3, where it was found
    assert found[14:18] == [18.0, 13.0, 8.0, 3.0]
    assert found[20:24] == [8.0, 13.0, 18.0, 23.0]
    assert summary.handed_back


def test_in_approved_mode_only_what_a_person_approved_moves(tmp_path: Path) -> None:
    sheet = tmp_path / "orders.yaml"
    put(sheet, "approved: [valve/V2]")
    plant = Valves()
    run(tmp_path, plant, 4, mode=Mode.APPROVED, orders=OrderDesk(Mode.APPROVED, sheet))
    np.testing.assert_array_equal(plant.history[3][:, 0], [0.0, 20.0, 0.0])


def test_memory_of_a_valve_that_was_off_its_policy_begins_afresh_and_the_others_go_on(tmp_path: Path) -> None:
    policy, plant = Opening(), Valves(blind=lambda period: [1] if 4 <= period < 12 else [])
    run(tmp_path, plant, 24, policy=policy)
    on_policy = [list(r["sources"].get("fallback", [])) == [] for r in decisions(tmp_path)[:24]]
    lost, back = on_policy.index(False), len(on_policy) - on_policy[::-1].index(False)
    turns = np.array(policy.turns[:24])
    np.testing.assert_array_equal(turns[:, 0], np.arange(1, 25))
    np.testing.assert_array_equal(turns[: lost + 1, 1], np.arange(1, lost + 2))
    np.testing.assert_array_equal(turns[lost + 1 : back + 1, 1], 1.0)  # every period anew, and in that of the return
    np.testing.assert_array_equal(turns[back:, 1], np.arange(1, 25 - back))
    assert_no_jump(plant)


def test_memory_that_belongs_to_the_site_starts_again_only_with_all_of_it() -> None:
    memory, start = (
        {"step": np.array([7.0]), "valve/h": np.ones((1, 3, 2))},
        {
            "step": np.array([0.0]),
            "valve/h": np.zeros((1, 3, 2)),
        },
    )
    some = {"valve/V1": Source.POLICY, "valve/V2": Source.FALLBACK, "valve/V3": Source.NOBODY}
    found = restarted(memory, start, some, PLATE)
    assert found["step"] is memory["step"]
    np.testing.assert_array_equal(found["valve/h"][0], [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(memory["valve/h"], 1.0)  # the argument stays as it was
    assert restarted(memory, start, dict.fromkeys(some, Source.SAFE_STATE), PLATE) is start
    assert restarted(memory, start, dict.fromkeys(some, Source.POLICY), PLATE) is memory
    assert restarted("nonsense", start, some, PLATE) == "nonsense"


def test_the_display_says_the_mode_and_why_it_changed(tmp_path: Path) -> None:
    desk = OrderDesk()
    console = Console(record=True, width=200, force_terminal=False)
    lines: list[str] = []

    with RunDisplay(console, 4) as display:

        def show(period: Period) -> None:
            display.show(period)
            lines.append(describe(period))
            if period.number == 2:
                desk.stop("key")

        run(tmp_path, Valves(), 4, orders=desk, on_period=show)
    assert "tripped" not in lines[1]
    assert "3 of 3 tripped" in lines[2]
    assert "3 assets tripped (emergency_stop)" in console.export_text()


def test_a_period_that_the_display_shows_in_shadow_says_that_nothing_is_sent(tmp_path: Path) -> None:
    seen: list[Period] = []
    run(tmp_path, Valves(), 1, mode=Mode.SHADOW, on_period=seen.append)
    assert "3 of 3 shadow" in describe(seen[0])
    assert "nothing sent" in describe(seen[0])
