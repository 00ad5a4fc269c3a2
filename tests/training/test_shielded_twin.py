"""The shield inside the twin is the one before the plant: same commands, same memory, a state a replica."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from tests.linear_site import RATE_KW_PER_S, HoldTemperature, TankTwin, tank_nameplate

from twinloop.agents.action_layout import ActionLayout
from twinloop.deploy.shield import Shield, ShieldSettings, ShieldState
from twinloop.envs.configuration import Strict
from twinloop.envs.conformance import check_twin
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.plant import Quality, Telemetry
from twinloop.envs.registry import load_site
from twinloop.envs.task import Task
from twinloop.envs.twin import Readings, Tensors, Twin
from twinloop.training.configuration import TaskChoice, TrainConfiguration
from twinloop.training.learning import make_learning
from twinloop.training.problem import Problem
from twinloop.training.rollout_settings import ShieldedConfiguration
from twinloop.training.run import IterationReport, RunInterrupted, resume, train
from twinloop.training.run_folder import TIMING_FIGURES, RunFolder
from twinloop.training.shielded_evaluation import reward_shielded, reward_unshielded
from twinloop.training.shielded_twin import ShieldedTwin, actions_of

SEEDS = torch.tensor([5, 6, 7])
STEP_KW = RATE_KW_PER_S * TankTwin.dt_s


def tanks(n: int = 3, **options: Any) -> ShieldedTwin:
    return ShieldedTwin(TankTwin(n, **options))


def ask(twin: ShieldedTwin, heater_kw: float, speed_pu: float = 0.5) -> dict[str, torch.Tensor]:
    values = {"tank": heater_kw, "pump": speed_pu}
    return {
        g.name: torch.full((twin.n_replicas, g.n_assets, 1), values[g.name], dtype=twin.dtype)
        for g in twin.nameplate.groups
    }


@pytest.mark.parametrize(
    "options",
    [{}, {"dtype": torch.float64, "pump": True}, {"n_tanks": 4, "n_min": 2, "pump": True}],
    ids=["one group", "two groups", "absent assets"],
)
def test_a_shielded_twin_keeps_the_whole_contract(options: dict[str, Any]) -> None:
    check_twin(lambda n: tanks(n, **options), steps=6, batch_sizes=(2, 7))


def test_the_shielded_wind_farm_keeps_the_contract() -> None:
    site = load_site("wind_farm")
    config = site.config_model.model_validate({"layout": {"kind": "random", "n_min": 2, "n_max": 4}})
    check_twin(lambda n: ShieldedTwin(site.twin(config, n, "cpu", torch.float32)), steps=4, batch_sizes=(5,))


def test_what_the_twin_obeys_is_what_the_shield_answers_one_site_at_a_time() -> None:
    """The reference is the runtime's own loop, written out: read, filter, write."""
    twin, shield = tanks(dtype=torch.float64, pump=True), Shield(tank_nameplate(pump=True))
    readings = twin.reset(SEEDS)
    states: list[ShieldState] = [shield.start() for _ in SEEDS]
    random = np.random.default_rng(0)
    for step in range(6):
        now_s = step * twin.dt_s
        asked = {
            "tank": random.uniform(-5.0, 30.0, (3, 3, 1)),
            "pump": random.uniform(-0.2, 1.2, (3, 1, 1)),
        }
        expected = []
        for row in range(3):
            values = {g: v[row].numpy().astype(np.float64) for g, v in readings.measured.items()}
            telemetry = Telemetry(
                values=values,
                source_time_s={g: np.full(v.shape, now_s) for g, v in values.items()},
                quality={g: np.full(v.shape, Quality.GOOD, np.int8) for g, v in values.items()},
                received_time_s=now_s,
                sequence=step,
            )
            decision = shield.filter(telemetry, {g: v[row] for g, v in asked.items()}, now_s, states[row])
            states[row] = decision.state
            expected.append(decision.commands)
        readings = twin.step({g: torch.from_numpy(v) for g, v in asked.items()})
        for group in asked:
            np.testing.assert_array_equal(twin.last().sent[group].numpy(), np.stack([c[group] for c in expected]))


def test_the_change_of_a_rate_limited_command_is_known_exactly() -> None:
    twin = tanks(dtype=torch.float64)
    twin.reset(SEEDS)
    twin.step(ask(twin, 20.0))  # neutral is 0 kW: 5 of the 20 kW asked are within the rate
    assert twin.last().sent["tank"].flatten().tolist() == [STEP_KW] * 9
    assert twin.last().costs() == {"shield/intervened": 1.0, "shield/change": (20.0 - STEP_KW) / 20.0}
    twin.step(ask(twin, 2.0 * STEP_KW))
    assert twin.last().costs() == {"shield/intervened": 0.0, "shield/change": 0.0}


def test_a_command_between_two_levels_counts_as_changed() -> None:
    twin = tanks(pump=True)
    twin.reset(SEEDS)
    twin.step(ask(twin, 0.0, 0.6))
    assert twin.last().sent["pump"].flatten().tolist() == [0.5] * 3
    assert twin.last().costs()["shield/intervened"] == 3 / 12  # one pump of four assets, in each of three replicas


def test_slots_without_an_asset_count_nowhere() -> None:
    twin = tanks(n_tanks=4, n_min=1)
    present = twin.reset(torch.arange(3)).present["tank"].numpy()
    assert not present.all()
    commands = ask(twin, 20.0)
    commands["tank"][~torch.from_numpy(present)] = torch.nan
    twin.step(commands)
    last = twin.last()
    np.testing.assert_array_equal(last.intervened["tank"], present)
    assert not last.change["tank"][~present].any()
    assert torch.isfinite(last.sent["tank"]).all()
    assert last.costs()["shield/intervened"] == 1.0


def test_a_command_that_is_no_number_is_answered_by_the_fallback_and_counts_whole() -> None:
    twin = tanks()
    twin.reset(SEEDS)
    commands = ask(twin, 3.0)
    commands["tank"][1, 2, 0] = torch.nan
    twin.step(commands)
    assert twin.last().sent["tank"][1, 2, 0] == 0.0
    assert twin.last().change["tank"][1, 2] == 1.0
    assert twin.last().intervened["tank"].sum() == 1


def test_a_partial_reset_starts_the_shields_of_those_rows_afresh() -> None:
    twin = tanks(dtype=torch.float64)
    twin.reset(SEEDS)
    for _ in range(3):
        twin.step(ask(twin, 20.0))
    twin.reset(torch.tensor([9]), torch.tensor([1]))
    twin.step(ask(twin, 20.0))
    assert twin.last().sent["tank"][:, 0, 0].tolist() == [4 * STEP_KW, STEP_KW, 4 * STEP_KW]


class DoubtfulTwin(TankTwin):
    """A thermometer that fails for two readings: what its shield remembers of it must be in the snapshot."""

    def _read(self, fresh: torch.Tensor) -> Readings:
        readings = super()._read(fresh)
        failing = (self._steps >= 2) & (self._steps <= 5)
        readings.measured["tank"][failing, 0, 0] = torch.nan
        return readings


def continued(twin: ShieldedTwin, steps: int) -> list[Mapping[str, torch.Tensor]]:
    found: list[Tensors] = []
    for step in range(steps):
        twin.step(ask(twin, 4.0 + step))
        found.append({g: t.clone() for g, t in twin.last().sent.items()})
    return found


@pytest.mark.parametrize("after", range(8))
def test_a_snapshot_at_any_step_holds_all_that_the_shield_remembers(after: int) -> None:
    shield = Shield(tank_nameplate(), settings=ShieldSettings(hold_periods=1, frozen_after_periods={"heater_kw": 3}))
    whole = ShieldedTwin(DoubtfulTwin(3), shield)
    whole.reset(SEEDS)
    continued(whole, after)
    snapshot = whole.snapshot()
    assert all(isinstance(tensor, torch.Tensor) for tensor in snapshot.values())
    expected = continued(whole, 8)
    other = ShieldedTwin(DoubtfulTwin(3), shield)
    other.reset(SEEDS + 1)
    continued(other, 3)
    other.restore(snapshot)
    for got, want in zip(continued(other, 8), expected, strict=True):
        assert torch.equal(got["tank"], want["tank"])


def test_the_failing_thermometer_of_the_test_above_makes_the_shield_fall_back() -> None:
    twin = ShieldedTwin(DoubtfulTwin(3), Shield(tank_nameplate(), settings=ShieldSettings(hold_periods=1)))
    twin.reset(SEEDS)
    heater_kw = [float(sent["tank"][0, 0, 0]) for sent in continued(twin, 8)]
    assert heater_kw[3] < heater_kw[2], "lost inputs hand the tank back to neutral"
    assert heater_kw[7] > heater_kw[5], "and good ones return it"


@given(heater=st.floats(0.0, 20.0, width=32), level=st.integers(0, 2), step=st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_actions_of_inverts_the_layout(heater: float, level: int, step: int) -> None:
    nameplate = tank_nameplate(pump=True)
    tank, pump = (ActionLayout.of(group, None) for group in nameplate.groups)
    asked = np.full((step, 2, 1), heater, np.float32)
    np.testing.assert_allclose(tank.commands(actions_of(tank, asked)), asked, atol=2e-6)
    chosen = np.full((step, 1, 1), level, np.float32)
    np.testing.assert_array_equal(actions_of(pump, pump.commands(chosen)), chosen)


def shielded_run(folder: Path, iterations: int, penalty: float = 0.0, **rollout: Any) -> TrainConfiguration:
    return TrainConfiguration.model_validate(
        {
            "site": {"kind": "wind_farm", "layout": {"kind": "named", "name": "turb3_row1"}, "dt_s": 30},
            "task": {"name": "farm_power", "options": {"horizon": 5}},
            "learner": {"kind": "ppo", "controlled": {"turbine": ["yaw_offset_deg"]}, "hidden": [8], "epochs": 1},
            "rollout": {"replicas": 4, "shard_replicas": 2, "steps": 4, **rollout},
            "shield": {"intervention_penalty": penalty},
            "evaluation": {"every": 1, "replicas": 2},
            "log": {"tensorboard": False},
            "iterations": iterations,
            "checkpoint_every": 1,
        }
    )


def test_a_shielded_run_reports_both_rewards_and_resumes_exactly(tmp_path: Path) -> None:
    whole = shielded_run(tmp_path, 3, penalty=0.1)
    train(whole, tmp_path / "whole")
    rows = [
        {k: v for k, v in row.items() if k not in TIMING_FIGURES} for row in RunFolder(tmp_path / "whole").metrics()
    ]
    # Half of the range in one period is what a policy that knows nothing often asks; 9 of 80 degrees is what it gets.
    assert 0.5 < rows[0]["cost/shield/intervened"] <= 1.0
    assert 0.05 < rows[0]["cost/shield/change"] < 0.5
    assert all("evaluation/reward_unshielded" in row for row in rows)

    def stop(report: IterationReport) -> None:
        if report.iteration == 1:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        train(whole, tmp_path / "half", stop)
    resume(tmp_path / "half")
    assert rows == [
        {k: v for k, v in row.items() if k not in TIMING_FIGURES} for row in RunFolder(tmp_path / "half").metrics()
    ]
    report = json.loads((tmp_path / "whole" / "artifact" / "report.json").read_text())
    assert report["twin_unshielded"]["reward"] == rows[-1]["evaluation/reward_unshielded"]


class EagerTanks(TankTwin):
    """Heaters that jump: the rate limit is the shield's alone."""

    def step(self, commands: Tensors) -> Readings:
        self._heater_kw = commands["tank"][..., 0].to(self.dtype).clamp(0.0, 20.0)
        return super().step(commands)


class TankConfig(Strict):
    kind: Literal["tanks"] = "tanks"


class EagerSite:
    name, summary = "tanks", "a battery of tanks"
    config_model: type[BaseModel] = TankConfig
    plant_config_model: type[BaseModel] = TankConfig

    def nameplate(self, config: TankConfig) -> Nameplate:
        return tank_nameplate()

    def twin(self, config: TankConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        return EagerTanks(n_replicas, dtype=dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("hold",)

    def task(self, name: str, config: TankConfig, options: Mapping[str, Any]) -> Task:
        return HoldTemperature(horizon=5)

    def encoders(self) -> tuple[str, ...]:
        return ()

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def plant(self, config: TankConfig, plant_config: TankConfig) -> Any:
        raise NotImplementedError


def test_rewards_with_and_without_the_shield_are_those_of_the_same_policy() -> None:
    shielded = TrainConfiguration(
        site=TankConfig(), task=TaskChoice(name="hold"), shield=ShieldedConfiguration(), iterations=1
    )
    bare = shielded.model_copy(update={"shield": None})
    rewards = {}
    with ExitStack() as stack:
        for name, config in {"shielded": shielded, "bare": bare}.items():
            problem = Problem.of(config, EagerSite())
            trainer = make_learning(config, problem, stack)
            rewards[name] = trainer.evaluate()
            rewards[f"{name}, unshielded"] = reward_unshielded(trainer, config, problem)
            rewards[f"{name}, shielded"] = reward_shielded(trainer, config, problem)
    assert rewards["shielded, unshielded"] == rewards["bare"] == rewards["bare, unshielded"]
    assert rewards["bare, shielded"] == rewards["shielded"] == rewards["shielded, shielded"]
    assert rewards["shielded"] < rewards["bare"], "the tanks are cold, and the shield heats them more slowly"


def test_the_price_of_interventions_moves_the_learner_and_not_the_reported_reward(tmp_path: Path) -> None:
    problems = {p: (c := shielded_run(tmp_path, 1, p), Problem.of(c)) for p in (0.0, 5.0)}
    found = {}
    for price, (config, problem) in problems.items():
        with ExitStack() as stack:
            trainer = make_learning(config, problem, stack)
            figures = trainer.iterate()
            found[price] = figures["reward/mean"], trainer.boundary()()["learners"]["turbine"]["parameters"]
    assert found[0.0][0] == found[5.0][0]
    assert not torch.equal(found[0.0][1], found[5.0][1])


def test_a_learner_that_needs_gradients_through_commands_is_refused() -> None:
    with pytest.raises(ValidationError, match="no gradient passes a shield"):
        TrainConfiguration.model_validate(
            {
                "site": {"kind": "wind_farm"},
                "task": {"name": "farm_power"},
                "learner": {"kind": "analytic"},
                "shield": {},
                "iterations": 1,
            }
        )
