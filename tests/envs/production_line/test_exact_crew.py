"""The exact process of a few machines and one crew: renewal theory where one is alone, the twin where they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.agents.controllers.line_maintenance import AgeReplacement
from twinloop.agents.controllers.reference import neutral_commands
from twinloop.agents.policy import Commands, Memory
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.production_line import renewal
from twinloop.envs.production_line.config import LineConfig
from twinloop.envs.production_line.exact_crew import SharedCrew
from twinloop.envs.production_line.nameplate import CREW, MACHINE
from twinloop.envs.twin import Observation
from twinloop.training.benchmarks.line_fleet import play

Integers = NDArray[np.int64]
PART_VALUE = 1.0


def site(*lives: tuple[float, float], preventive: int = 3, corrective: int = 9, **more: Any) -> LineConfig:
    """Machines side by side of these Weibull shapes and scales."""
    machines = [
        {
            "model": {"kind": "bernoulli", "efficiency_pu": 1.0},
            "upkeep": {
                "wear": {"kind": "weibull", "shape": shape, "scale_slots": scale}, "preventive_slots": preventive,
                "corrective_slots": corrective, "preventive_cost": 2.0, "corrective_cost": 6.0,
            },
        }
        for shape, scale in lives
    ]  # fmt: skip
    line = {"kind": "fixed", "parallel": True, "capacities": [], "machines": machines}
    return LineConfig.model_validate({"line": line, "modes": ["on"], **more})


def at_ages(limits: list[float], failed: int) -> Callable[[Integers], Integers]:
    """Service from these ages on; of several that wait the first in the line."""

    def rule(states: Integers) -> Integers:
        waits = (states >= np.array(limits)) | (states == failed)
        return np.where(waits.any(1), waits.argmax(1) + 1, 0).astype(np.int64)

    return rule


class Table:
    """Whom a crew is sent to by the exact process, for the twin: nobody calls while the crew is away."""

    name = "exact"

    def __init__(self, nameplate: Nameplate, choice: Integers) -> None:
        self.nameplate, self._choice = nameplate, choice
        group = nameplate.group(MACHINE)
        self._state, self._age, self._free = (
            group.index("measured", name) for name in ("state", "age_slots", "crews_free")
        )

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        seen = observation.measured[MACHINE]
        state, failed = seen[..., self._state].round(), len(self._choice) - 1
        age = np.minimum(seen[..., self._age].round().astype(np.int64), failed - 1)
        now = np.where(state == 3, failed, np.where(state == 7, 0, age))
        chosen = np.where(seen[:, 0, self._free] > 0.5, self._choice[tuple(now.T)], 0)
        commands = neutral_commands(self.nameplate, len(seen))
        service = self.nameplate.group(MACHINE).index("commanded", "service")
        commands[MACHINE][:, :, service] = chosen[:, None] == np.arange(1, now.shape[1] + 1)
        commands[CREW][:, 0, 0] = chosen
        return commands, memory


@pytest.mark.parametrize(("shape", "scale"), [(2.5, 20.0), (1.5, 30.0)])
def test_a_machine_alone_costs_at_best_what_renewal_theory_says(shape: float, scale: float) -> None:
    process = SharedCrew.of(site((shape, scale), preventive=1, corrective=3), PART_VALUE, 90)
    survival, prices = renewal.weibull_survival(shape, scale), renewal.Prices(3.0, 9.0, 1.0, 3.0)
    costs = {age: renewal.slotted_age_cost(survival, prices, age) for age in range(1, 90)}
    age = min(costs, key=lambda k: costs[k])
    best = process.best(1e-10)
    assert best.cost == pytest.approx(costs[age], abs=1e-9)
    assert int(np.flatnonzero(best.choice[:-1])[0]) == age
    for other in (3, age + 4):
        found = process.worth_of(at_ages([other], process.failed), 1e-10).cost
        assert found == pytest.approx(costs[other], abs=1e-9)


def test_a_machine_that_does_not_age_is_never_serviced_before_it_fails() -> None:
    process = SharedCrew.of(site((1.0, 12.0), (1.0, 20.0)), PART_VALUE, 40)
    choice = process.best().choice
    assert not choice[:-1, :-1].any()


def test_no_age_rule_is_cheaper_than_the_optimum() -> None:
    process = SharedCrew.of(site((2.5, 15.0), (3.0, 22.0)), PART_VALUE, 40)
    best = process.best().cost
    rules = [process.worth_of(at_ages([a, b], process.failed)).cost for a in (5, 8, 11) for b in (8, 13, 18)]
    assert min(rules) >= best
    assert min(rules) < best * 1.02  # a good age rule is near it, so that the bound says something


@pytest.mark.parametrize("ages", [[9.0, 14.0], [6.0, 9.0]])
def test_the_twin_costs_what_the_process_says_at_fixed_ages(ages: list[float]) -> None:
    config = site((2.5, 15.0), (3.0, 22.0))
    process = SharedCrew.of(config, PART_VALUE, 40)
    exact = process.worth_of(at_ages(ages, process.failed)).cost
    found = play(config, lambda plate: AgeReplacement(plate, ages), PART_VALUE, seed=5)
    assert abs(found.cost - exact) < 3.0 * found.error
    assert found.over == 0


def test_the_twin_costs_what_the_process_says_of_the_optimum() -> None:
    config = site((2.5, 15.0), (3.0, 22.0), (2.0, 25.0))
    best = SharedCrew.of(config, PART_VALUE, 40).best(1e-5)
    found = play(config, lambda plate: Table(plate, best.choice), PART_VALUE, seed=6)
    assert abs(found.cost - best.cost) < 3.0 * found.error
    assert found.over == 0


@pytest.mark.parametrize(
    ("config", "most_age", "names"),
    [
        (site((2.0, 20.0), slots_per_period=3), 40, "slots_per_period 3"),
        (site((2.0, 20.0), service={"crews": 2}), 40, "2 crews"),
        (site(*[(2.0, 20.0)] * 6), 40, "states"),
    ],
)
def test_lines_that_it_can_not_tell_of_are_refused(config: LineConfig, most_age: int, names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        SharedCrew.of(config, PART_VALUE, most_age)


def test_a_rule_that_leaves_failed_machines_alone_is_refused() -> None:
    process = SharedCrew.of(site((2.0, 20.0)), PART_VALUE, 40)
    with pytest.raises(ConfigurationError, match="nobody has failed"):
        process.worth_of(lambda states: np.zeros(len(states), dtype=np.int64))
