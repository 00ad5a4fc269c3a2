"""A process that commands some assets only: the others' commands are not touched, and stay in shadow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from twinloop.__main__ import main
from twinloop.agents.controllers.reference import RandomPolicy
from twinloop.deploy.commands.run import histogram_text
from twinloop.deploy.drivers.local_client import LocalPlant
from twinloop.deploy.drivers.local_server import LocalPlantServer
from twinloop.deploy.journal import Journal
from twinloop.deploy.loop import Period
from twinloop.deploy.own_assets import named_assets
from twinloop.deploy.replay import replay
from twinloop.deploy.runtime import Runtime, RuntimeSettings
from twinloop.deploy.shield import Mode, Shield, ShieldSettings
from twinloop.envs.constraint import declare
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.robot_cell.config import RobotCellConfig
from twinloop.envs.robot_cell.nameplate import ARM
from twinloop.envs.robot_cell.plant import MuJoCoCell
from twinloop.envs.robot_cell.plant_config import RobotCellPlantConfig
from twinloop.envs.robot_cell.site import SITE

OTHERS = np.array([[np.nan] * 6, [0.05] * 6])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[LocalPlantServer]:
    """A tenth of real time, and patient with a client that a busy machine keeps waiting."""
    plant = MuJoCoCell(RobotCellConfig(), RobotCellPlantConfig(command_timeout_s=1e3))
    with LocalPlantServer(plant, f"unix:{tmp_path}/cell.sock", speed=0.1, watchdog_periods=1000) as server:
        yield server


def test_an_arms_process_moves_its_own_arm_and_leaves_the_others_command_as_it_is(
    served: LocalPlantServer, tmp_path: Path
) -> None:
    config = RobotCellConfig(seat=1)
    declaration = declare(SITE.nameplate(config), SITE.constraints(config), SITE.safe_states(config))
    shield = Shield(declaration, settings=ShieldSettings(advises=False))
    other, own = LocalPlant(served.endpoint), LocalPlant(served.endpoint)
    other.write({ARM: OTHERS})
    sent, modes = [], list[Mapping[str, Mode]]()

    def watch(period: Period) -> None:
        sent.append(period.decision.commands[ARM][0].copy())
        modes.append(period.decision.mode)
        assert period.decision.advised is period.decision.commands

    with Journal(tmp_path / "arm_1.sqlite") as journal:
        policy = RandomPolicy(own.nameplate, seed=1)
        settings = RuntimeSettings(hand_back_periods=0, deadline_pu=0.5, decision_pu=0.9)
        Runtime(
            own, policy, shield, journal, settings, wall_period_s=own.wall_period_s, assets={"arm/arm_1"}
        ).run(8, watch)  # fmt: skip
    standing = other.write({ARM: np.full((2, 6), np.nan)})[ARM]
    np.testing.assert_array_equal(standing[1], OTHERS[1])
    assert any(np.abs(row).max() > 0.0 for row in sent)
    assert {m["arm/arm_2"] for m in modes} == {Mode.SHADOW}
    assert Mode.AUTONOMOUS in {m["arm/arm_1"] for m in modes}
    again = replay(tmp_path / "arm_1.sqlite", lambda _: shield)
    assert (again.runs, again.differences) == (1, ())
    assert again.decisions + again.missed == 8
    own.close()
    other.close()


def test_an_asset_that_is_not_there_and_a_plant_of_one_client_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    plate = SITE.nameplate(RobotCellConfig())
    with pytest.raises(ConfigurationError, match=r"'arm/arm_3' is not on the nameplate.*arm/arm_1, arm/arm_2"):
        named_assets("arm/arm_1, arm/arm_3", plate)
    assert named_assets("arm/arm_2,arm/arm_1", plate) == {"arm/arm_1", "arm/arm_2"}
    status = main(["run", "--policy", "greedy", "--endpoint", "opc.tcp://127.0.0.1:1/x", "--assets", "arm/arm_1"])
    assert status == 2
    assert "needs a plant at unix:FILE" in capsys.readouterr().err


def test_the_summary_tells_how_long_decisions_took() -> None:
    assert histogram_text((3, 0, 0, 12_000, 0, 0, 0, 0, 0, 1)) == "to 0.5 ms 3, to 5 ms 12,000, longer 1"
    assert histogram_text((0,) * 10) == "none"
