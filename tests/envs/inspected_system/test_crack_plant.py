"""The plant of true cracks: its contract, and its costs beside the twin's."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from twinloop.agents.controllers.inspected_system import BeliefThreshold, NeverMaintain, PeriodicInspection
from twinloop.agents.policy import Policy
from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import PlantError
from twinloop.envs.inspected_system.config import CrackPlantConfig, InspectedSystemConfig
from twinloop.envs.inspected_system.crack_model import crack_model
from twinloop.envs.inspected_system.crack_world import CrackWorld
from twinloop.envs.inspected_system.nameplate import COMPONENT, PLAIN, system_nameplate
from twinloop.envs.inspected_system.plant import CrackPlant
from twinloop.training.benchmarks.imp_marl import play_plant, play_twin

CONFIG = InspectedSystemConfig()
PLATE = system_nameplate(CONFIG)
AT = {s.name: k for k, s in enumerate(PLAIN)}


@pytest.mark.parametrize("constants", ["kept", "redrawn"])
def test_the_plant_keeps_its_contract(constants: Literal["kept", "redrawn"]) -> None:
    settings = CrackPlantConfig(constants=constants, record_paths=5000, lost_reading_pu=0.1)
    check_plant(lambda: CrackPlant(CONFIG, settings))


def test_commands_that_are_no_numbers_are_refused_and_levels_are_snapped() -> None:
    plant = CrackPlant(CONFIG, CrackPlantConfig(record_paths=5000))
    with pytest.raises(PlantError, match="the commands before stand"):
        plant.write({COMPONENT: np.full((3, 1), np.nan)})
    assert plant.write({COMPONENT: np.array([[0.4], [0.6], [1.9]])})[COMPONENT][:, 0].tolist() == [0.0, 1.0, 2.0]
    plant.advance()
    assert plant.read().values[COMPONENT][:, AT["age_years"]].tolist() == [1.0, 1.0, 0.0]
    assert plant.read().values[COMPONENT][1, AT["finding"]] in (1.0, 2.0)
    plant.advance()  # what was written is done once
    assert plant.read().values[COMPONENT][:, AT["finding"]].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("constants", ["kept", "redrawn"])
def test_true_cracks_fail_as_often_as_the_twins_table_says(constants: Literal["kept", "redrawn"]) -> None:
    n = 40_000
    config = InspectedSystemConfig(components=1, needed=1)
    world = CrackWorld(config, CrackPlantConfig(constants=constants, record_paths=100_000, seed=5), n)
    belief, model = crack_model(CONFIG).initial, crack_model(CONFIG)
    for year in range(30):
        world.advance(np.zeros((n, 1), np.int64))
        belief = belief @ model.growth[year]
    failed, expected = world.has_failed.mean(), belief[-1]
    spread = math.sqrt(expected * (1 / n + 1 / 100_000))
    assert abs(failed - expected) <= 3.5 * spread
    assert abs(world.belief[0, 0, -1] - expected) <= 3.5 * math.sqrt(expected / 100_000)


def test_what_the_record_believes_is_how_often_it_is_so() -> None:
    """With constants redrawn beliefs are exact but for the bins' width: after findings, chances are frequencies."""
    n = 30_000
    config = InspectedSystemConfig(components=1, needed=1)
    world = CrackWorld(config, CrackPlantConfig(constants="redrawn", record_paths=100_000, seed=7), n)
    for year in range(20):
        world.advance(np.full((n, 1), int(year % 5 == 4), np.int64))
    believed, is_failed = world.belief[:, 0, -1], world.has_failed
    for low, high in ((0.0, 0.01), (0.01, 0.1), (0.1, 1.0)):
        among = (believed >= low) & (believed < high)
        assert among.sum() > 300
        expected = believed[among].mean()
        assert abs(is_failed[among].mean() - expected) <= 3.5 * math.sqrt(expected / among.sum()) + 0.05 * expected


@pytest.mark.parametrize(
    ("policy", "published"),
    [(PeriodicInspection(PLATE, 10, 2), -12.55), (BeliefThreshold(PLATE, 0.005, 0.06), -11.02)],
    ids=["published heuristic", "belief thresholds"],
)
def test_rules_cost_what_is_known_in_the_twin_and_as_much_on_true_cracks(policy: Policy, published: float) -> None:
    twin, plant = play_twin(policy, CONFIG, 4000, 11), play_plant(policy, CONFIG, 4000, 11)
    error = twin.std() / math.sqrt(len(twin))
    assert abs(twin.mean() - published) <= 3.0 * math.hypot(error, twin.std() / math.sqrt(1500))
    assert abs(plant.mean() - twin.mean()) <= 3.0 * math.hypot(error, plant.std() / math.sqrt(len(plant)))


def test_never_maintaining_is_as_dear_on_true_cracks() -> None:
    policy = NeverMaintain(PLATE)
    twin, plant = play_twin(policy, CONFIG, 2, 0), play_plant(policy, CONFIG, 8000, 1)
    assert twin[0] == twin[1]
    assert abs(plant.mean() - twin[0]) <= 3.0 * plant.std() / math.sqrt(len(plant))
