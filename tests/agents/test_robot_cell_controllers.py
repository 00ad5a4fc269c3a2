"""Arms without learning: who gives way, and what the cell says of arms that block each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.agents.controllers.robot_cell import CONTROLLERS, arm_of, cell_controller
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.robot_cell.arm import UR5E, Arm, with_tool
from twinloop.envs.robot_cell.config import HOME_RAD, RobotCellConfig
from twinloop.envs.robot_cell.kinematics import tool_jacobian, tool_position
from twinloop.envs.robot_cell.nameplate import ARM, MEASURED, PERSON
from twinloop.envs.robot_cell.site import SITE
from twinloop.envs.twin import Observation
from twinloop.envs.wind_farm.config import NamedLayout, WindFarmConfig
from twinloop.envs.wind_farm.farm import farm_nameplate

Floats = NDArray[np.float64]

PLATE = SITE.nameplate(RobotCellConfig())
AT = {s.name: k for k, s in enumerate(MEASURED)}
STATICS = np.array(PLATE.group(ARM).static_values)[None]
BASES = np.concatenate([STATICS[..., :3], np.deg2rad(STATICS[..., 3:4])], -1)
CLOSE = np.array([0.0, -1.2, 1.2, -1.67, -1.57, 0.0])


def seen(
    q: Floats, touches: Any = (0, 0), stall_s: Any = (0.0, 0.0), heard: Floats | None = None, arm: Arm = UR5E
) -> Observation:
    """One row of two arms at ``q`` ``[2, 6]`` with targets ahead."""
    arms = np.zeros((1, 2, len(MEASURED)))
    arms[0, :, AT["tool_x_m"] : AT["tool_x_m"] + 3] = tool_position(q, BASES[0], arm)
    arms[0, :, :6] = q
    arms[0, :, AT["heard_q1_rad"] : AT["heard_q1_rad"] + 6] = q if heard is None else heard
    arms[0, :, AT["target_x_m"] : AT["target_x_m"] + 3] = (0.1, 0.1, 0.4), (-0.1, -0.1, 0.4)
    arms[0, :, AT["touches"]], arms[0, :, AT["stall_s"]] = touches, stall_s
    return Observation({ARM: arms}, {ARM: STATICS}, {ARM: np.ones((1, 2), np.bool_)}, 0.02)


def home() -> Floats:
    return np.array([HOME_RAD, HOME_RAD])


@pytest.mark.parametrize("arm", [UR5E, with_tool(UR5E, 0.1)])
def test_without_avoidance_the_tool_goes_straight_to_its_target_however_long_it_is(arm: Arm) -> None:
    q = home()
    policy = cell_controller("no_avoidance", PLATE)
    commands, _ = policy.act(seen(q + 1e-4, arm=arm), policy.start(1))
    velocity = np.einsum("ncj,nj->nc", tool_jacobian(q, BASES[0], arm), commands[ARM][0])
    way = np.array([(0.1, 0.1, 0.4), (-0.1, -0.1, 0.4)]) - tool_position(q, BASES[0], arm)
    cosine = (velocity * way).sum(-1) / np.linalg.norm(velocity, axis=-1) / np.linalg.norm(way, axis=-1)
    assert (cosine > 0.97).all()  # damping and the ends of ranges bend it a little
    assert (np.abs(commands[ARM]) <= 1.5).all()


def test_a_tool_is_read_from_where_its_point_is_and_noise_makes_none() -> None:
    present, rng = np.ones((1, 2), np.bool_), np.random.default_rng(1)
    for length_m in (0.0, 0.1, 0.37):
        arm = with_tool(UR5E, length_m)
        for _ in range(50):
            arms = seen(home() + rng.normal(0.0, 0.3, (2, 6)), arm=arm).measured[ARM]
            arms[..., :6] += rng.normal(0.0, 2e-4, (1, 2, 6))
            assert arm_of(arms, BASES, present).tool_length_m == pytest.approx(length_m)
    arms[..., AT["tool_x_m"]] = np.nan
    assert arm_of(arms, BASES, present) == UR5E


def test_the_token_lets_one_arm_work_once_the_other_is_home_and_goes_on_after_a_touch() -> None:
    policy = cell_controller("zone_token", PLATE)
    memory = policy.start(1)
    commands, memory = policy.act(seen(home()), memory)
    assert np.abs(commands[ARM][0, 0]).max() > 0.1
    assert np.abs(commands[ARM][0, 1]).max() < 1e-9  # it is home
    away = home()
    away[0] = CLOSE
    commands, memory = policy.act(seen(away, touches=(1, 0)), memory)  # the first has touched: the second's turn
    np.testing.assert_allclose(commands[ARM][0, 0], np.clip(3.0 * (home()[0] - CLOSE), -1.5, 1.5))
    np.testing.assert_array_equal(commands[ARM][0, 1], 0.0)  # until the first is home
    commands, _ = policy.act(seen(home(), touches=(1, 0)), memory)
    assert np.abs(commands[ARM][0, 1]).max() > 0.1


def test_by_priority_the_second_of_two_near_arms_stands() -> None:
    policy = cell_controller("priority_stop", PLATE)
    far, _ = policy.act(seen(home()), policy.start(1))
    assert (np.abs(far[ARM][0]).max(-1) > 0.1).all()
    near, _ = policy.act(seen(np.array([CLOSE, CLOSE])), policy.start(1))
    assert np.abs(near[ARM][0, 0]).max() > 0.1
    np.testing.assert_array_equal(near[ARM][0, 1], 0.0)


def test_a_stall_sends_one_arm_home_for_a_while_and_each_about_as_often() -> None:
    policy = cell_controller("barrier_retreat", PLATE, 3)
    memory, gone = policy.start(1), []
    for _ in range(2000):
        _, after = policy.act(seen(home(), stall_s=(0.9, 0.1)), memory)
        if int(after["draws"][0]) > int(memory["draws"][0]):
            gone.append(int(after["until_s"][0].argmax()))
        assert (after["until_s"][0] > after["clock_s"][0]).sum() <= 1
        memory = after
    assert len(gone) == pytest.approx(40.0 / 1.5, abs=2)  # one after the other, 1.5 s each
    assert 5 < sum(gone) < len(gone) - 5
    calm, _ = policy.act(seen(home(), stall_s=(0.7, 0.7)), policy.start(1))
    straight, _ = cell_controller("barrier", PLATE).act(seen(home()), policy.start(1))
    np.testing.assert_array_equal(calm[ARM], straight[ARM])


def test_people_and_other_sites_are_told_apart() -> None:
    with_people = SITE.nameplate(RobotCellConfig.model_validate({"people": {}}))
    for name in CONTROLLERS:
        policy = cell_controller(name, with_people)
        assert policy.name == name
        told = seen(home())
        people = {PERSON: np.zeros((1, 1, 10))}, {PERSON: np.zeros((1, 1, 0))}, {PERSON: np.ones((1, 1), np.bool_)}
        whole = Observation(
            {**told.measured, **people[0]}, {**told.statics, **people[1]}, {**told.present, **people[2]}, 0.02
        )
        commands, _ = policy.act(whole, policy.start(1))
        assert commands[PERSON].shape == (1, 1, 0)
        assert np.isfinite(commands[ARM]).all()
    with pytest.raises(ConfigurationError, match=r"'barier': not known for a robot cell; .*barrier"):
        cell_controller("barier", PLATE)
    with pytest.raises(ConfigurationError, match="has no group 'arm'; it is for robot cells"):
        cell_controller("barrier", farm_nameplate(WindFarmConfig(layout=NamedLayout(name="row3_5d"))))


def test_the_cell_warns_of_arms_that_block_each_other_and_of_one_that_is_stuck() -> None:
    def warned(*stall_s: float) -> list[tuple[str, str, str]]:
        arms = np.zeros((2, len(MEASURED)))
        arms[:, AT["stall_s"]] = stall_s
        return [(w.agent, w.severity, w.text) for w in SITE.warnings(PLATE, {ARM: arms})]

    assert warned(1.9, 1.0) == []
    assert warned(np.nan, 0.0) == []
    both = warned(3.2, 2.5)
    assert [w[:2] for w in both] == [("arm/arm_1", "medium"), ("arm/arm_2", "medium")]
    assert both[0][2] == "arm_1 and arm_2 block each other, arm_1 for 3 s; one must yield"
    ((agent, severity, text),) = warned(0.0, 6.0)
    assert (agent, severity) == ("arm/arm_2", "low")
    assert text.startswith("arm_2 makes no progress for 6 s")
