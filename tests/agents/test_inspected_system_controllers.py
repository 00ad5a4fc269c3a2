"""Rules for inspected components: their contract, and what they choose."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.agents.conformance import check_policy
from twinloop.agents.controllers.inspected_system import (
    BeliefThreshold,
    NeverMaintain,
    PeriodicInspection,
    RunToFailure,
)
from twinloop.agents.policy import Policy
from twinloop.envs.errors import ContractError
from twinloop.envs.inspected_system.config import InspectedSystemConfig
from twinloop.envs.inspected_system.nameplate import COMPONENT, YEAR_S, system_nameplate
from twinloop.envs.twin import Observation

PLATE = system_nameplate(InspectedSystemConfig())
GROUP = PLATE.group(COMPONENT)


def chosen(policy: Policy, **signals: list[float]) -> list[float]:
    """Actions of one system of three components of which some signals are given, the rest 0."""
    measured = np.zeros((1, 3, len(GROUP.measured)))
    for name, values in signals.items():
        measured[0, :, GROUP.index("measured", name)] = values
    statics, present = GROUP.statics_array()[None], np.ones((1, 3), np.bool_)
    observation = Observation({COMPONENT: measured}, {COMPONENT: statics}, {COMPONENT: present}, YEAR_S)
    commands, _ = policy.act(observation, policy.start(1))
    return list(commands[COMPONENT][0, :, 0].tolist())


@pytest.mark.parametrize(
    "policy",
    [NeverMaintain(PLATE), RunToFailure(PLATE), PeriodicInspection(PLATE, 5, 2), BeliefThreshold(PLATE, 0.01, 0.1)],
    ids=lambda policy: policy.name,
)
def test_rules_keep_the_contract(policy: Policy) -> None:
    check_policy(policy, PLATE)


def test_the_worst_are_inspected_when_their_year_comes_and_what_was_found_is_repaired() -> None:
    policy = PeriodicInspection(PLATE, 5, 2)
    failure = [0.02, 0.01, 0.03]
    assert chosen(policy, year=[0.0] * 3, failure_pu=failure) == [0.0, 0.0, 0.0]
    assert chosen(policy, year=[4.0] * 3, failure_pu=failure) == [0.0, 0.0, 0.0]
    assert chosen(policy, year=[5.0] * 3, failure_pu=failure) == [1.0, 0.0, 1.0]
    assert chosen(policy, year=[6.0] * 3, failure_pu=failure, finding=[2.0, 0.0, 1.0]) == [2.0, 0.0, 0.0]
    assert chosen(policy, year=[10.0] * 3, failure_pu=failure, finding=[2.0, 0.0, 1.0]) == [2.0, 0.0, 1.0]


def test_thresholds_and_failures_decide() -> None:
    assert chosen(BeliefThreshold(PLATE, 0.01, 0.1), failure_next_pu=[0.005, 0.05, 0.2]) == [0.0, 1.0, 2.0]
    assert chosen(RunToFailure(PLATE), failure_pu=[0.4, 0.6, 0.0]) == [0.0, 2.0, 0.0]


def test_rules_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ContractError, match="swap them"):
        BeliefThreshold(PLATE, 0.1, 0.01)
    with pytest.raises(ContractError, match="whole numbers from 1"):
        PeriodicInspection(PLATE, 0, 2)
