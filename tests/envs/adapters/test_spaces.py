"""Spaces follow the nameplate, and actions become the commands that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tests.linear_site import PUMP, TankTwin, tank_nameplate

from twinloop.envs.adapters.spaces import ActionMap, SignalView, empty_slot, split_by_group
from twinloop.envs.errors import NumericalError
from twinloop.envs.nameplate import Group, Signal

PLATE = tank_nameplate(2, pump=True)
TANK = PLATE.group("tank")
VALVE = Signal("valve_pu", "pu", 0.0, 1.0, levels=(0.0, 1.0))
MIXED = Group("mixed", ("M1",), measured=(VALVE,), commanded=(TANK.commanded[0], VALVE))


def test_observations_have_the_ranges_of_the_measured_signals() -> None:
    view = SignalView(PLATE)
    assert view.group_space("tank") == spaces.Box(np.array([0, 0], np.float32), np.array([100, 20], np.float32))
    assert view.space() == spaces.Box(np.zeros(5, np.float32), np.array([100, 20, 100, 20, 1], np.float32))


def test_the_joint_vector_follows_the_order_of_the_agents() -> None:
    twin = TankTwin(3, 2, pump=True, dtype=torch.float64)
    readings = twin.reset(torch.arange(3))
    joint = SignalView(twin.nameplate).joint(readings)
    tanks = readings.measured["tank"].numpy().astype(np.float32)
    assert joint.dtype == np.float32
    np.testing.assert_array_equal(joint[1], [*tanks[1, 0], *tanks[1, 1], 0.5])


def test_empty_slots_show_zero_or_the_nearest_end_of_the_range() -> None:
    signals = (Signal("a", "K", -1.0, 1.0), Signal("b", "Hz", 45.0, 55.0), Signal("c", "degC", -40.0, -10.0))
    np.testing.assert_array_equal(empty_slot(signals), [0.0, 45.0, -10.0])
    twin = TankTwin(8, 4, n_min=1)
    readings = twin.reset(torch.arange(8))
    shown, present = SignalView(twin.nameplate).groups(readings)["tank"], readings.present["tank"].numpy()
    assert not present.all()
    assert (shown[~present] == 0.0).all()
    assert (shown[present][:, 0] > 0.0).all()


def test_views_are_copies_that_later_steps_do_not_change() -> None:
    twin = TankTwin(1)
    readings = twin.reset(torch.tensor([1]))
    shown = SignalView(twin.nameplate).groups(readings)["tank"]
    assert not np.shares_memory(shown, readings.measured["tank"].numpy())


def test_a_nan_of_the_twin_is_named() -> None:
    twin = TankTwin(2)
    readings = twin.reset(torch.tensor([1, 2]))
    readings.measured["tank"][1, 2, 0] = torch.nan
    with pytest.raises(NumericalError, match=r"tank/T3/temperature_degc of replica 1 is nan"):
        SignalView(twin.nameplate).groups(readings)


def test_physical_actions_are_the_commands() -> None:
    mapping = ActionMap.of_asset(TANK)
    assert mapping.space() == spaces.Box(np.array([0], np.float32), np.array([20], np.float32))
    np.testing.assert_array_equal(mapping.commands(np.array([12.5], np.float32)), [12.5])


def test_normalised_actions_reach_both_ends_exactly_and_stop_there() -> None:
    mapping = ActionMap.of_asset(TANK, normalised=True)
    assert mapping.space() == spaces.Box(-1.0, 1.0, (1,))
    actions = np.array([[-1.0], [0.0], [1.0], [7.0], [-3.0]], np.float32)
    np.testing.assert_array_equal(mapping.commands(actions), [[0.0], [10.0], [20.0], [20.0], [0.0]])


def test_one_discrete_command_is_an_index_into_its_levels() -> None:
    mapping = ActionMap.of_asset(PUMP, normalised=True)
    assert mapping.space() == spaces.Discrete(3)
    np.testing.assert_array_equal(mapping.commands(np.array(2)), [1.0])
    np.testing.assert_array_equal(mapping.commands(np.array([[0, 1], [2, 1]])), [[[0.0], [0.5]], [[1.0], [0.5]]])


def test_several_discrete_commands_are_a_vector_of_indices() -> None:
    mapping = ActionMap((*PUMP.commanded, VALVE), ["pump/speed_pu", "pump/valve_pu"])
    assert mapping.space() == spaces.MultiDiscrete([3, 2])
    np.testing.assert_array_equal(mapping.commands(np.array([[1, 1], [2, 0]])), [[0.5, 1.0], [1.0, 0.0]])


def test_a_discrete_command_beside_continuous_ones_goes_to_the_nearest_level() -> None:
    mapping = ActionMap.of_asset(MIXED, normalised=True)
    assert mapping.space() == spaces.Box(-1.0, 1.0, (2,))
    np.testing.assert_array_equal(mapping.commands(np.array([[0.5, 0.2], [-1.0, -0.2]])), [[15.0, 1.0], [0.0, 0.0]])


def test_actions_that_are_no_numbers_are_named() -> None:
    with pytest.raises(NumericalError, match=r"action for tank/T2/heater_kw \(index \[0, 1\]\) is nan"):
        ActionMap.of_site(PLATE).commands(np.array([[1.0, np.nan, 0.5]]))


def test_the_joint_command_is_split_by_group() -> None:
    split = split_by_group(PLATE, np.array([[1.0, 2.0, 0.5], [3.0, 4.0, 1.0]]))
    np.testing.assert_array_equal(split["tank"], [[[1.0], [2.0]], [[3.0], [4.0]]])
    np.testing.assert_array_equal(split["pump"], [[[0.5]], [[1.0]]])


def test_spaces_draw_from_generators_of_their_own() -> None:
    mapping = ActionMap.of_asset(TANK)
    first, second = mapping.space(), mapping.space()
    assert first is not second
    first.seed(1)
    second.seed(1)
    assert first.sample() == second.sample()
