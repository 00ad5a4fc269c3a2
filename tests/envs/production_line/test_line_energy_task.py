"""What energy agents see and are paid: the encoder of levels, and parts counted as the slowest machine makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from twinloop.agents.controllers.production_line import Hysteresis, switches_about
from twinloop.envs.conformance import check_encoder
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    GeometricMachine,
    LineConfig,
    Machine,
    RandomLine,
)
from twinloop.envs.production_line.nameplate import MACHINE, MEASURED, line_nameplate
from twinloop.envs.production_line.site import SITE
from twinloop.envs.production_line.task import LineProfit
from twinloop.envs.production_line.twin import ProductionLineTwin
from twinloop.training.line_trial import earn

ROW = LineConfig(
    line=FixedLine(
        machines=tuple(Machine(model=BernoulliMachine(efficiency_pu=p), warm_up_slots=2) for p in (0.9, 0.6, 0.9)),
        capacities=(6, 6),
    ),
    modes=("off", "on"),
)
PRICES = {"part_value": 400.0, "energy_weight": 60.0}
MEASURED_AT = {s.name: k for k, s in enumerate(MEASURED)}


@pytest.mark.parametrize("config", [ROW, LineConfig(line=RandomLine(machines=(2, 5)))])
def test_the_encoder_of_levels_keeps_its_contract(config: LineConfig) -> None:
    plate = line_nameplate(config)
    check_encoder(SITE.encoder("levels", plate, {"n_upstream": 1, "n_downstream": 3, "compares": True}), plate)


def test_what_happened_in_the_last_slot_does_not_show_in_levels() -> None:
    twin = ProductionLineTwin(ROW, 2, dtype=torch.float64)
    readings = twin.reset(torch.arange(2))
    measured = readings.measured[MACHINE].clone()
    encoder = SITE.encoder("levels", twin.nameplate, {})
    args: tuple[Any, ...] = (readings.statics[MACHINE], readings.present[MACHINE], {}, 60.0)
    before, _ = encoder.encode(measured, *args)
    for name, value in (("state", 2.0), ("parts", 1.0), ("blocked_pu", 1.0), ("power_kw", 15.0)):
        measured[..., MEASURED_AT[name]] = value
    after, _ = encoder.encode(measured, *args)
    measured[..., MEASURED_AT["state"]] = 6.0  # off, which a machine decides itself, does show
    off, _ = encoder.encode(measured, *args)
    assert torch.equal(before, after)
    assert not torch.equal(before, off)


def test_parts_of_the_slowest_machine_earn_the_same_in_the_long_run_with_less_noise() -> None:
    policy = Hysteresis(line_nameplate(ROW), switches_about(1, (6, 6), 0.5, 1.0))
    earned = earn(ROW, policy, PRICES, range(500), periods=300, warm_up=60)
    difference = earned.profit - earned.expected_profit
    assert abs(difference.mean()) < 3.0 * difference.std(ddof=1) / np.sqrt(500)
    assert earned.expected_profit.std() < 0.3 * earned.profit.std()


def test_the_usual_profit_moves_every_reward_by_the_same() -> None:
    config = LineConfig(line=RandomLine(machines=(3, 4)))
    twin = ProductionLineTwin(config, 6, dtype=torch.float64)
    before = twin.reset(torch.arange(6))
    commands = {MACHINE: torch.tensor([2.0, 1.0], dtype=torch.float64).expand(6, 4, 2).contiguous()}
    options: dict[str, Any] = {**PRICES, "parts_count": "slowest"}
    plain, shifted, own = (
        LineProfit.from_options(config, {**options, **more})
        for more in ({}, {"usual_profit": 200.0, "reward_scale": 0.5}, {"usual_profit": "unhindered"})
    )
    for _ in range(5):
        after = twin.step(commands)
        rewards = [task.score(before, commands, after).reward[MACHINE][:, 0] for task in (plain, shifted, own)]
        before = after
        assert torch.allclose(rewards[1], 0.5 * (rewards[0] - 200.0))
        statics, present = after.statics[MACHINE], after.present[MACHINE]
        slowest = torch.where(present, statics[..., 2], 2.0).amin(-1)
        assert torch.allclose(rewards[0] - rewards[2], 400.0 * slowest - 9.0 * present.sum(-1))


@pytest.mark.parametrize(
    ("config", "options", "why"),
    [
        (LineConfig(line=FixedLine(machines=(Machine(model=GeometricMachine()),), capacities=())),
         {"parts_count": "slowest"}, "all Bernoulli: False"),
        (ROW.model_copy(update={"slots_per_period": 5}), {"parts_count": "slowest"}, "slots_per_period 5"),
        (ROW, {"usual_profit": "unhindered"}, "parts_count slowest"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_the_line_are_refused(config: LineConfig, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        LineProfit.from_options(config, options)


def test_a_line_takes_the_modes_that_it_has_and_no_others() -> None:
    twin = ProductionLineTwin(ROW, 1, dtype=torch.float64)
    twin.reset(torch.zeros(1, dtype=torch.int64))
    commands = {MACHINE: torch.tensor([[[0.0, 1.0], [1.4, 1.0], [2.0, 1.0]]], dtype=torch.float64)}
    state = twin.step(commands).measured[MACHINE][0, :, MEASURED_AT["state"]]
    assert [float(s) for s in state[:2]] == [6.0, 2.0]  # off; stand-by is not there: on, and starved
    with pytest.raises(ValueError, match="name on"):
        LineConfig(modes=("off",))
