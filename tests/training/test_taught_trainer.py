"""The learner that is taught: it finds what its teacher knows, resumes exactly, and refuses what nobody teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinloop.agents.controllers.line_optimum import rule_of
from twinloop.envs.configuration import load, validate
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.exact_control import ControlledLine
from twinloop.envs.production_line.nameplate import MACHINE, line_nameplate
from twinloop.training.benchmarks.farm_learners import NetworkPolicy
from twinloop.training.configuration import TrainConfiguration, training_model
from twinloop.training.learning import check_learning
from twinloop.training.problem import Problem
from twinloop.training.taught_trainer import TaughtTrainer

POWER = {"off_kw": 9.0, "idle_kw": 9.0, "linear_kw": 6.0, "draws": "loaded"}
MACHINES = [
    {"model": {"kind": "bernoulli", "efficiency_pu": p}, "power": POWER, "warm_up_slots": 0} for p in (0.95, 0.85, 0.95)
]
LINE: dict[str, Any] = {
    "kind": "production_line", "line": {"kind": "fixed", "machines": MACHINES, "capacities": [3, 3]},
    "modes": ["off", "on"], "speeds": [0.6, 1.0],
}  # fmt: skip
OPTIONS = {"horizon": 20, "part_value": 60.0, "energy_weight": 60.0}


def configured(**changes: Any) -> TrainConfiguration:
    plain = {
        "site": LINE, "task": {"name": "line_profit", "options": OPTIONS}, "encoder": {"name": "levels"},
        "learner": {"kind": "taught", "lessons": 1, "states": 1500, "hidden": [32, 32], "lr": 1e-2},
        "rollout": {"replicas": 256, "steps": 20}, "iterations": 20,
    }  # fmt: skip
    return validate({**plain, **changes}, TrainConfiguration, "test")


def trainer(config: TrainConfiguration) -> TaughtTrainer:
    learner = config.learner
    assert learner.kind == "taught"
    return TaughtTrainer(config, Problem.of(config), learner)


def test_modes_and_speeds_are_learnt_to_the_exact_optimum() -> None:
    config = configured()
    learning = trainer(config)
    figures = [learning.iterate() for _ in range(learning.n_iterations)]
    assert figures[-1]["machine/regret"] < 0.1 * figures[0]["machine/regret"]
    site: Any = config.site
    line = ControlledLine.of(site, part_value=60.0, energy_weight=60.0)
    policy = NetworkPolicy(line_nameplate(site), learning.encoders[MACHINE], learning.export()[MACHINE])
    assert line.worth_of(rule_of(policy, site)).gain > 0.995 * line.best().gain


def test_a_run_that_is_resumed_ends_with_the_same_weights() -> None:
    config = configured(iterations=4)
    straight, first, second = (trainer(config) for _ in range(3))
    for _ in range(4):
        straight.iterate()
    for _ in range(2):
        first.iterate()
    second.restore(first.boundary()())
    for _ in range(2):
        second.iterate()
    ours, theirs = (t.export()[MACHINE].to_arrays() for t in (second, straight))
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"shield": {}}, "plays nothing"),
        ({"iterations": None, "agent_steps": 100}, "counts iterations"),
    ],
)
def test_what_a_taught_learner_cannot_honour_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        configured(**changes)


def test_a_site_that_does_not_teach_is_refused() -> None:
    file = Path(__file__).parents[2] / "configs" / "wind_farm" / "fast_ablaincourt.yaml"
    told = ["learner=null", "learner={kind: taught}"]
    config = load(file, training_model(file, told), told)
    with pytest.raises(ConfigurationError, match="does not know the best answers"):
        check_learning(config, Problem.of(config))


@pytest.mark.parametrize(
    ("site", "task", "why"),
    [
        ({"slots_per_period": 2}, {}, "slots_per_period 2"),
        ({"tariff": {"prices_per_kwh": [0.1, 0.3]}}, {}, "prices change"),
        ({}, {"name": "fleet_profit", "options": {}}, "known for task line_profit"),
    ],
)
def test_a_line_whose_best_answer_nobody_knows_is_refused_with_the_reason(
    site: dict[str, Any], task: dict[str, Any], why: str
) -> None:
    config = configured(site={**LINE, **site}, **({"task": task} if task else {}))
    with pytest.raises(ConfigurationError, match=why):
        trainer(config).iterate()
