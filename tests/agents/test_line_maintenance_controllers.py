"""The classical maintenance rules: what each asks for, and what it refuses."""

import math
from typing import Any

import numpy as np
import pytest

from twinloop.agents.controllers.line_maintenance import (
    AgeReplacement,
    ConditionThreshold,
    Opportunistic,
    RunToFailure,
    usual_age,
)
from twinloop.agents.policy import Policy
from twinloop.envs.errors import ContractError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.production_line import renewal
from twinloop.envs.production_line.config import LineConfig
from twinloop.envs.production_line.nameplate import CREW, MACHINE, line_nameplate
from twinloop.envs.twin import Observation


def line(wear: Any = None, n: int = 3, **upkeep: Any) -> Nameplate:
    given = {"wear": wear or {"kind": "weibull"}, "preventive_slots": 2, "corrective_slots": 20, **upkeep}
    line = {"kind": "fixed", "parallel": True, "machines": [{"upkeep": given}] * n, "capacities": []}
    return line_nameplate(LineConfig.model_validate({"line": line}))


def asked(policy: Policy, **signals: Any) -> Any:
    """What is asked of three machines whose other signals are zero."""
    group = policy.nameplate.group(MACHINE)
    measured = np.zeros((1, group.n_assets, len(group.measured)))
    for name, values in signals.items():
        measured[0, :, group.index("measured", name)] = values
    blank = {name: np.zeros((1, policy.nameplate.group(name).n_assets, 0)) for name in (MACHINE, CREW)}
    present = {name: np.ones(b.shape[:2], dtype=bool) for name, b in blank.items()}
    commands, _ = policy.act(Observation({MACHINE: measured, CREW: blank[CREW]}, blank, present, 60.0), policy.start(1))
    assert (commands[MACHINE][0, :, 0] == 2.0).all()  # nobody is switched off
    return commands[MACHINE][0, :, 2].tolist(), commands[CREW][0, 0, 0]


def test_nobody_is_serviced_who_runs_to_failure() -> None:
    assert asked(RunToFailure(line()), age_slots=[1e6, 10, 0]) == ([0.0, 0.0, 0.0], 0.0)


def test_service_is_due_at_each_machines_age() -> None:
    policy = AgeReplacement(line(), [10.0, 20.0, math.inf])
    assert asked(policy, age_slots=[10.0, 19.0, 1e8])[0] == [1.0, 0.0, 0.0]


def test_repairs_first_names_a_failed_machine_that_waits() -> None:
    policy = AgeReplacement(line(), 5.0, corrective_first=True)
    assert asked(policy, state=[0, 3, 3], waits_for_crew=[1, 0, 1])[1] == 3.0
    assert asked(AgeReplacement(line(), 5.0), state=[0, 3, 3], waits_for_crew=[1, 0, 1])[1] == 0.0


def test_who_yields_asks_for_nothing_while_a_failed_machine_waits() -> None:
    policy = AgeReplacement(line(), 5.0, yields=True)
    assert asked(policy, age_slots=[9, 9, 2])[0] == [1.0, 1.0, 0.0]
    assert asked(policy, age_slots=[9, 9, 2], state=[0, 0, 3])[0] == [0.0, 0.0, 0.0]
    assert asked(policy, age_slots=[9, 9, 2], state=[0, 0, 7])[0] == [1.0, 1.0, 0.0]


def test_inspections_are_due_at_multiples_of_the_interval_and_what_is_worn_is_serviced() -> None:
    policy = ConditionThreshold(line({"kind": "gamma"}), 10.0, 0.6)
    assert asked(policy, age_slots=[8, 9, 19], seen_ago_slots=[8, 9, 10])[0] == [0.0, 2.0, 2.0]
    assert asked(policy, age_slots=[15, 19, 19], seen_ago_slots=[6, 0, 19], seen_wear_pu=[0.6, 0.0, 0.7])[0] == [
        1.0, 0.0, 1.0,
    ]  # fmt: skip


def test_who_is_nearly_due_goes_along_when_a_machine_is_down() -> None:
    policy = Opportunistic(line(), 100.0, 0.7)
    assert asked(policy, age_slots=[100, 75, 60])[0] == [1.0, 0.0, 0.0]
    assert asked(policy, age_slots=[100, 75, 60], state=[0, 0, 3])[0] == [1.0, 1.0, 0.0]


def test_what_is_not_known_asks_for_nothing() -> None:
    assert asked(AgeReplacement(line(), 5.0), age_slots=[math.nan, 6, 1])[0] == [0.0, 1.0, 0.0]


def test_the_usual_age_loses_the_fewest_slots_and_is_infinite_for_a_memoryless_machine() -> None:
    policy = usual_age(line({"kind": "weibull", "shape": 2.5, "scale_slots": 200.0}))
    best, _ = renewal.best_age(renewal.weibull_survival(2.5, 200.0), renewal.Prices(2.0, 20.0, 2.0, 20.0))
    assert asked(policy, age_slots=[best - 0.01, best + 0.01, 0.0])[0] == [0.0, 1.0, 0.0]
    memoryless = usual_age(line({"kind": "weibull", "shape": 1.0, "scale_slots": 200.0}))
    assert asked(memoryless, age_slots=[1e8, 1e3, 10.0])[0] == [0.0, 0.0, 0.0]


def test_rules_refuse_what_they_cannot_keep() -> None:
    bare = line_nameplate(LineConfig())
    for make in (usual_age, lambda n: AgeReplacement(n, 5.0)):
        with pytest.raises(ContractError, match="give it an upkeep"):
            make(bare)
    with pytest.raises(ContractError, match="one a machine, 3"):
        AgeReplacement(line(), [1.0, 2.0])
    with pytest.raises(ContractError, match="share 2"):
        Opportunistic(line(), 5.0, 2.0)
