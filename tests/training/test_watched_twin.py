"""Training costs come from the one declaration: counted in rollouts, priced where asked, exact over a resume."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.linear_site import TankTwin, tank_nameplate

from twinloop.envs.conformance import check_twin
from twinloop.envs.constraint import (
    Constraint,
    DwellConstraint,
    SumConstraint,
    SumRateConstraint,
    SwitchesConstraint,
    declare,
)
from twinloop.envs.errors import ConfigurationError
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.problem import Problem
from twinloop.training.trainer import Trainer
from twinloop.training.watched_twin import WatchedTwin
from twinloop.training.workers import make_collector

SEEDS = torch.tensor([5, 6, 7])
DT_S = TankTwin.dt_s
CAP = SumConstraint("heating cap", "tank", "heater_kw", "kW", maximum=10.0)
RAMP = SumRateConstraint("heating ramp", "tank", "heater_kw", "kW", up_per_second=0.5 / DT_S)
DWELL = DwellConstraint("tank", "heater_kw", 3.0 * DT_S, "kW")
SWITCHES = SwitchesConstraint("tank", "heater_kw", 2, "kW")
ALL: tuple[Constraint, ...] = (CAP, RAMP, DWELL, SWITCHES)


def watched(n: int = 3, constraints: tuple[Constraint, ...] = ALL, **options: Any) -> WatchedTwin:
    return WatchedTwin(TankTwin(n, **options), declare(tank_nameplate(**options), constraints))


def ask(twin: WatchedTwin, heater_kw: float) -> dict[str, torch.Tensor]:
    return {
        g.name: torch.full((twin.n_replicas, g.n_assets, 1), heater_kw, dtype=twin.dtype) for g in twin.nameplate.groups
    }


def test_a_watched_twin_keeps_the_whole_contract() -> None:
    check_twin(watched, steps=6, batch_sizes=(2, 7))


def test_costs_are_the_violations_in_shares_of_their_scale() -> None:
    twin = watched()
    group = twin.nameplate.group("tank")
    signal = group.commanded[group.index("commanded", "heater_kw")]
    scale = (signal.maximum - signal.minimum) * group.n_assets
    neutral = float(group.neutral()[group.index("commanded", "heater_kw")]) * group.n_assets
    twin.reset(SEEDS)
    asked = signal.maximum
    twin.step(ask(twin, asked))
    costs = {name: cost[0].tolist() for name, cost in twin.costs().items()}
    total = asked * group.n_assets
    np.testing.assert_allclose(costs["constraint/heating cap"], max(0.0, total - 10.0) / scale, rtol=1e-6)
    np.testing.assert_allclose(costs["constraint/heating ramp"], max(0.0, total - neutral - 0.5) / scale, rtol=1e-6)
    assert costs["constraint/tank/heater_kw dwell"] == [0.0] * group.n_assets
    twin.step(ask(twin, signal.minimum))  # one period after the last change, where three are asked
    np.testing.assert_allclose(twin.costs()["constraint/tank/heater_kw dwell"].numpy(), 2.0 / 3.0, rtol=1e-6)
    assert float(twin.costs()["constraint/tank/heater_kw switches"].max()) == 0.0
    twin.step(ask(twin, asked))  # the third change in an hour of two
    np.testing.assert_allclose(twin.costs()["constraint/tank/heater_kw switches"].numpy(), 0.5, rtol=1e-6)


def test_a_row_that_is_reset_forgets_and_the_others_do_not() -> None:
    twin = watched()
    twin.reset(SEEDS)
    for heater_kw in (1.0, 0.0):
        twin.step(ask(twin, heater_kw))
    twin.reset(SEEDS[1:2], torch.tensor([1]))
    twin.step(ask(twin, 1.0))
    dwell = twin.costs()["constraint/tank/heater_kw dwell"].amax(-1)
    switches = twin.costs()["constraint/tank/heater_kw switches"].amax(-1)
    assert [bool(x > 0) for x in dwell] == [True, False, True]
    assert [bool(x > 0) for x in switches] == [True, False, True]


CAP_NAME = "farm power cap"


def farm(**more: Any) -> TrainConfiguration:
    return TrainConfiguration.model_validate(
        {
            "site": {
                "kind": "wind_farm",
                "layout": {"kind": "named", "name": "turb3_row1"},
                "limits": {"power_cap_kw": 6000.0, "power_rise_kw_per_s": 10.0},
            },
            "task": {"name": "farm_power", "options": {"horizon": 8}},
            "learner": {"kind": "ppo"},
            "rollout": {"replicas": 2, "steps": 4},
            "iterations": 2,
            **more,
        }
    )


def trainer_of(config: TrainConfiguration) -> Trainer:
    problem = Problem.of(config)
    return Trainer(config, problem, make_collector(problem, config))


def test_a_rollout_counts_what_is_broken_and_takes_its_price_from_everyones_reward() -> None:
    free, priced = trainer_of(farm()).iterate(), trainer_of(farm(constraint_prices={CAP_NAME: 3.0})).iterate()
    cost = free[f"cost/constraint/{CAP_NAME}"]
    assert cost > 0.0
    assert priced[f"cost/constraint/{CAP_NAME}"] == cost
    assert priced["reward/mean"] == pytest.approx(free["reward/mean"] - 3.0 * cost, rel=1e-5)


def test_behind_the_shield_only_what_was_executed_costs() -> None:
    alone, shielded = trainer_of(farm()).iterate(), trainer_of(farm(shield={})).iterate()
    ramp = "cost/constraint/farm power ramp"
    assert alone[ramp] > 0.0
    assert shielded[ramp] <= 1e-6
    assert shielded["cost/shield/intervened"] > 0.0


def test_resuming_with_a_history_equals_never_having_stopped() -> None:
    config = farm(constraint_prices={CAP_NAME: 1.0})
    trainer = trainer_of(config)
    trainer.iterate()
    stored = io.BytesIO()
    torch.save(trainer.boundary()(), stored)
    figures = [trainer.iterate() for _ in range(2)]
    stored.seek(0)
    again = trainer_of(config)
    again.restore(torch.load(stored, weights_only=True))
    assert [again.iterate() for _ in range(2)] == figures


def test_a_site_that_adds_nothing_is_not_watched() -> None:
    config = farm(site={"kind": "wind_farm", "layout": {"kind": "named", "name": "turb3_row1"}})
    assert not [name for name in trainer_of(config).iterate() if "constraint/" in name]


def test_a_price_on_what_the_site_does_not_declare_names_what_it_does() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'farm power cap'"):
        Problem.of(farm(constraint_prices={"farm power cup": 1.0})).check()


@pytest.mark.parametrize("learner", [{"kind": "analytic"}, {"kind": "sb3"}])
def test_a_learner_that_cannot_take_prices_refuses_them(learner: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="constraint_prices: only learners ppo"):
        farm(constraint_prices={CAP_NAME: 1.0}, learner=learner)
