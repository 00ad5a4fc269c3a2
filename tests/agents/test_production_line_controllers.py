"""The line's classical controllers: their rules by hand, their contract, and the search for a hysteresis."""

from __future__ import annotations

import numpy as np
import pytest
from tests.linear_site import tank_nameplate

from twinloop.agents.conformance import check_policy
from twinloop.agents.controllers.line_optimum import ExactPolicy
from twinloop.agents.controllers.production_line import (
    AlwaysOn,
    Hysteresis,
    OneSpeed,
    Switch,
    TimeOut,
    break_even_slots,
    switches_about,
    usual_hysteresis,
)
from twinloop.envs.errors import ConfigurationError, ContractError
from twinloop.envs.production_line.config import BernoulliMachine, FixedLine, LineConfig, Machine
from twinloop.envs.production_line.exact_control import ControlledLine
from twinloop.envs.production_line.nameplate import MACHINE, line_nameplate
from twinloop.envs.twin import Observation

RATES = (0.9, 0.6, 0.9)
CONFIG = LineConfig(
    line=FixedLine(
        machines=tuple(Machine(model=BernoulliMachine(efficiency_pu=p), warm_up_slots=2) for p in RATES),
        capacities=(6, 4),
    ),
    modes=("off", "on"),
    speeds=(0.5, 1.0),
)
PLATE = line_nameplate(CONFIG)
GROUP = PLATE.group(MACHINE)
OFF = 6.0


def seen(levels: tuple[int, int], state: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Observation:
    measured = np.zeros((1, 3, len(GROUP.measured)))
    measured[0, :, GROUP.index("measured", "parts_before")] = [1e6, *levels]
    measured[0, :, GROUP.index("measured", "room_behind")] = [6 - levels[0], 4 - levels[1], 1e6]
    measured[0, :, GROUP.index("measured", "state")] = state
    statics = GROUP.statics_array()[None]
    return Observation({MACHINE: measured}, {MACHINE: statics}, {MACHINE: np.ones((1, 3), bool)}, CONFIG.dt_s)


def modes(policy: Hysteresis | TimeOut, observation: Observation) -> list[float]:
    commands, _ = policy.act(observation, policy.start(1))
    return [float(m) for m in commands[MACHINE][0, :, GROUP.index("commanded", "mode")]]


def test_every_controller_keeps_the_contract() -> None:
    line = ControlledLine.of(CONFIG, part_value=100.0, energy_weight=60.0)
    switches = switches_about(1, (6, 4), 0.5, 1.0)
    for policy in (
        AlwaysOn(PLATE), OneSpeed(PLATE, 0.5), Hysteresis(PLATE, switches), TimeOut(PLATE, 3.0, 60.0),
        ExactPolicy(PLATE, line, line.best()),
    ):  # fmt: skip
        check_policy(policy, PLATE)


def test_a_machine_before_the_bottleneck_sleeps_while_its_buffer_is_full_and_one_behind_while_it_is_empty() -> None:
    policy = Hysteresis(PLATE, (Switch("behind", 2, 6), Switch(), Switch("before", 1, 4)))
    assert modes(policy, seen((5, 1))) == [2.0, 2.0, 2.0]
    assert modes(policy, seen((6, 0))) == [0.0, 2.0, 0.0]
    assert modes(policy, seen((3, 2), (OFF, OFF, OFF))) == [0.0, 2.0, 0.0]  # between the two levels it stays as it is
    assert modes(policy, seen((2, 3), (OFF, OFF, OFF))) == [2.0, 2.0, 2.0]


def test_a_machine_that_has_been_idle_for_too_long_goes_off_until_there_is_work() -> None:
    policy, memory, column = (
        TimeOut(PLATE, 2.0, CONFIG.slot_s),
        {"idle_s": np.zeros((1, 3))},
        GROUP.index("commanded", "mode"),
    )
    found = []
    for levels in ((0, 0), (0, 0), (0, 0), (1, 0)):
        commands, memory = policy.act(seen(levels), memory)  # type: ignore[assignment]  # a Mapping, as start gives
        found.append([float(m) for m in commands[MACHINE][0, :, column]])
    assert found == [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0], [2.0, 0.0, 0.0], [2.0, 2.0, 0.0]]


def test_the_break_even_time_is_where_off_and_warm_up_cost_what_idling_costs() -> None:
    slots = break_even_slots(warm_up_slots=2, warm_up_kw=15.0, idle_kw=9.0, off_kw=1.0)
    assert 9.0 * slots == pytest.approx(1.0 * (slots - 2) + 15.0 * 2)
    assert slots == 3.5
    assert break_even_slots(2, 15.0, 9.0, 9.0) == float("inf")


def test_rules_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ContractError, match="2 switches for 3 machines"):
        Hysteresis(PLATE, (Switch(), Switch()))
    with pytest.raises(ContractError, match="below the second"):
        Hysteresis(PLATE, (Switch("behind", 3, 3), Switch(), Switch()))
    with pytest.raises(ContractError, match="this line has"):
        OneSpeed(PLATE, 0.7)


def test_the_usual_hysteresis_knows_the_slowest_machine_and_refuses_other_sites() -> None:
    policy = usual_hysteresis(PLATE)
    assert modes(policy, seen((6, 0))) == [0.0, 2.0, 0.0]
    assert modes(policy, seen((3, 1), (OFF, 0.0, OFF))) == [0.0, 2.0, 0.0]
    assert modes(policy, seen((2, 3), (OFF, 0.0, OFF))) == [2.0, 2.0, 2.0]
    with pytest.raises(ConfigurationError, match="no row of machines"):
        usual_hysteresis(tank_nameplate(3))
