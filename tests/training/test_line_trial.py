"""The search for a line's hysteresis, and lines drawn from a configuration."""

from __future__ import annotations

import numpy as np

from twinloop.agents.controllers.line_optimum import rule_of
from twinloop.agents.controllers.production_line import AlwaysOn, Hysteresis, Switch
from twinloop.envs.production_line.config import BernoulliMachine, FixedLine, LineConfig, Machine, RandomLine
from twinloop.envs.production_line.drawn_line import drawn_line
from twinloop.envs.production_line.exact_control import ControlledLine
from twinloop.envs.production_line.nameplate import line_nameplate
from twinloop.training.line_trial import tune_hysteresis

CONFIG = LineConfig(
    line=FixedLine(
        machines=tuple(Machine(model=BernoulliMachine(efficiency_pu=p), warm_up_slots=2) for p in (0.9, 0.6, 0.9)),
        capacities=(6, 4),
    ),
    modes=("off", "on"),
)


def test_the_search_finds_a_hysteresis_that_is_near_the_best_of_all() -> None:
    line, plate = ControlledLine.of(CONFIG, part_value=400.0, energy_weight=60.0), line_nameplate(CONFIG)
    found = tune_hysteresis(CONFIG, {"part_value": 400.0, "energy_weight": 60.0}, replicas=24, periods=120)

    def gain(switches: tuple[Switch, ...]) -> float:
        return line.worth_of(rule_of(Hysteresis(plate, switches), CONFIG)).gain

    every = [
        gain((Switch("behind", a, b), Switch(), Switch("before", c, 4)))
        for b in (5, 6) for a in range(b) for c in range(4)
    ]  # fmt: skip
    on = line.worth_of(rule_of(AlwaysOn(plate), CONFIG)).gain
    assert gain(found) > on + 0.8 * (max(every) - on)


def test_lines_are_drawn_within_the_ranges_of_their_configuration() -> None:
    config = LineConfig(line=RandomLine(machines=(3, 5), efficiency_pu=(0.6, 0.8), capacity=(2, 9)))
    for k in range(20):
        line = drawn_line(config, np.random.default_rng(k)).line
        assert isinstance(line, FixedLine)
        assert 3 <= len(line.machines) <= 5
        assert all(2 <= c <= 9 for c in line.capacities)
        assert all(isinstance(m.model, BernoulliMachine) and 0.6 <= m.model.efficiency_pu <= 0.8 for m in line.machines)
