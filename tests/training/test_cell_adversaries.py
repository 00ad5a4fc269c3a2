"""Arms that mean harm: they touch without a shield, with one they do not, and they are functions of their memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twinloop.__main__ import main
from twinloop.agents.policy import Policy
from twinloop.envs.robot_cell.config import RobotCellConfig
from twinloop.envs.robot_cell.nameplate import cell_nameplate
from twinloop.envs.twin import Observation
from twinloop.training.benchmarks.cell_adversaries import CASES, tabulated
from twinloop.training.benchmarks.cell_hostile import HostileArms
from twinloop.training.benchmarks.cell_play import HOSTILE, CellJob, play

pytest.importorskip("mujoco", reason="the cell's plant is MuJoCo's")


@pytest.mark.parametrize("aim", ["arm", "floor"])
def test_who_dives_touches_without_a_shield_and_not_with_one(aim: str) -> None:
    bare = CellJob("two arms", f"{HOSTILE}dive at {aim}", 12.0, 0, shielded=False)
    alone = play(bare)
    kept = play(replace(bare, shielded=True, seats=True))
    assert alone.contacts["arm" if aim == "arm" else "fixture"] > 0
    assert kept.n_contacts == 0 < kept.gap_m
    table, met = tabulated([kept, alone])
    assert met
    assert [row[3] for row in table.rows] == [0, alone.n_contacts]
    assert not tabulated([kept])[1]  # whoever never touches proves nothing
    assert not tabulated([replace(alone, job=kept.job)])[1]


@pytest.mark.parametrize("name", ["noise", "bang", "dart at anything", "slide at itself", "duel at things"])
def test_the_same_memory_gives_the_same_speeds_within_their_range(name: str) -> None:
    config = RobotCellConfig()
    plate = cell_nameplate(config)
    hostile: Policy = HostileArms(name, plate, config, seed=3)
    group = plate.group("arm")
    measured = np.tile(np.linspace(-1.0, 1.0, len(group.measured)), (2, 2, 1))
    seen = Observation({"arm": measured}, {"arm": group.statics_array()[None]}, {"arm": np.ones((2, 2), bool)}, 0.02)
    memory = hostile.start(2)
    first, after = hostile.act(seen, memory)
    again, _ = hostile.act(seen, memory)
    np.testing.assert_array_equal(first["arm"], again["arm"])
    assert np.isfinite(first["arm"]).all()
    assert 0.1 < np.abs(first["arm"]).max() <= config.joint_speed_radps
    assert after["step"].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["dive", "noise at arm", "dive at heaven", "stab at arm"])
def test_a_name_that_is_none_says_which_there_are(name: str) -> None:
    config = RobotCellConfig()
    with pytest.raises(ValueError, match="noise or bang, or one of dive, dart, slide, duel with ' at ' and one of arm"):
        HostileArms(name, cell_nameplate(config), config, seed=0)


@pytest.mark.parametrize("wrong", ["--seeds 3..1", "--seeds none", "--seconds 0", "--seconds -1", "--processes 0"])
def test_what_plays_nothing_says_what_to_give(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "cell_adversaries", *wrong.split()]) == 2
    assert wrong.split(maxsplit=1)[0] in (said := capsys.readouterr().err)
    assert "give" in said


def test_every_case_is_a_cell() -> None:
    for case in CASES:
        assert RobotCellConfig.model_validate(case.site).n_arms >= 2
