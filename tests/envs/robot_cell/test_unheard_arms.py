"""An arm that others don't hear is told of, by the age of the last message that was news."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.envs.robot_cell.config import RobotCellConfig
from twinloop.envs.robot_cell.nameplate import ARM, cell_nameplate
from twinloop.envs.robot_cell.plant import MuJoCoCell
from twinloop.envs.robot_cell.plant_config import RobotCellPlantConfig
from twinloop.envs.robot_cell.site import SITE


@pytest.mark.parametrize("frozen", [False, True])
def test_arms_whose_messages_are_lost_or_frozen_are_warned_of_and_others_not(frozen: bool) -> None:
    config = RobotCellConfig()
    plate = cell_nameplate(config)
    for losses_per_min, agents in ((0.0, []), (1e6, ["arm/arm_1", "arm/arm_2"])):
        settings = RobotCellPlantConfig(peer_losses_per_min=losses_per_min, peer_loss_s=1e3, peer_frozen=frozen)
        plant = MuJoCoCell(config, settings)
        for _ in range(15):
            plant.advance()
        found = SITE.warnings(plate, plant.read().values)
        assert [w.agent for w in found if w.key == "unheard"] == agents
    assert SITE.warnings(plate, {ARM: np.full_like(plant.read().values[ARM], np.nan)}) == ()
