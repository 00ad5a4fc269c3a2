"""The exact chains of trees, of time-dependent failures and of exponential machines, against closed forms and numbers
that others have published."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.closed_form import two_bernoulli, two_exponential, two_geometric
from twinloop.envs.production_line.config import (
    Buffer,
    ExponentialMachine,
    FixedLine,
    GeometricMachine,
    LineConfig,
    Machine,
    Upkeep,
    WeibullWear,
)
from twinloop.envs.production_line.continuous_chain import ExponentialRates, solve_continuous, solve_continuous_line
from twinloop.envs.production_line.exact_line import ExactBuffer, ExactMachine, solve_line, solve_network
from twinloop.envs.production_line.exact_states import Blocking
from twinloop.envs.production_line.referee import exact_line

HUNT = ((2, 2 / 3), (3, 22 / 39), (4, 0.514775), (5, 0.485798), (6, 0.466713))
MERGE = (ExactBuffer(0, 2, 2), ExactBuffer(1, 2, 3))


@pytest.mark.parametrize(("n_machines", "published"), HUNT)
def test_unbuffered_exponential_lines_are_hunts(n_machines: int, published: float) -> None:
    found = solve_continuous_line([ExponentialRates(1.0)] * n_machines, [0] * (n_machines - 1), blocking="after")
    assert found.production == pytest.approx(published, abs=6e-7)
    assert found.level.tolist() == [0.0] * (n_machines - 1)


def test_as_many_states_are_visited_as_hunt_has() -> None:
    """3, 8, 21, 55: every other Fibonacci number."""
    counts = [solve_continuous_line([ExponentialRates(1.0)] * k, [0] * (k - 1), blocking="after").n_states
              for k in (2, 3, 4, 5)]  # fmt: skip
    assert counts == [3, 8, 21, 55]


@pytest.mark.parametrize("capacity", [4, 5, 10, 20, 50])
@pytest.mark.parametrize(
    ("fails", "repairs"), [((0.01, 0.01), (0.1, 0.1)), ((0.01, 0.02), (0.1, 0.1)), ((0.03, 0.013), (0.2, 0.08))]
)
def test_two_geometric_machines_are_gershwins_closed_form(
    fails: tuple[float, float], repairs: tuple[float, float], capacity: int
) -> None:
    machines = [ExactMachine(1.0, p, r) for p, r in zip(fails, repairs, strict=True)]
    solved = solve_line(machines, [capacity], looks_through=False).production
    assert two_geometric(fails, repairs, capacity) == pytest.approx(solved, abs=1e-12)


@pytest.mark.parametrize(
    ("fails", "published"),
    [((0.01, 0.01), (0.84094, 0.85617, 0.87054, 0.88784)), ((0.01, 0.02), (0.77840, 0.79613, 0.81205, 0.82808))],
)
def test_gershwins_closed_form_has_the_published_values(
    fails: tuple[float, float], published: tuple[float, ...]
) -> None:
    for capacity, production in zip((4, 10, 20, 50), published, strict=True):
        assert two_geometric(fails, (0.1, 0.1), capacity) == pytest.approx(production, abs=6e-6)


def test_the_closed_form_of_geometric_machines_needs_an_interior() -> None:
    with pytest.raises(ConfigurationError, match="begins at 4"):
        two_geometric((0.01, 0.01), (0.1, 0.1), 3)


@pytest.mark.parametrize("blocking", ["before", "after"])
@pytest.mark.parametrize(("first", "second", "capacity"), [(1.0, 1.0, 1), (1.0, 0.8, 3), (0.6, 0.9, 7)])
def test_two_exponential_machines_are_a_birth_death_chain(
    first: float, second: float, capacity: int, blocking: Blocking
) -> None:
    found = solve_continuous_line([ExponentialRates(first), ExponentialRates(second)], [capacity], blocking=blocking)
    assert found.production == pytest.approx(two_exponential(first, second, capacity, blocking=blocking), abs=1e-12)


def test_one_machine_makes_its_availability() -> None:
    assert solve_continuous_line([ExponentialRates(0.8, 0.02, 0.1)], [], blocking="before").production == (
        pytest.approx(0.8 * 0.1 / 0.12, abs=1e-12)
    )


def test_machines_that_fail_at_any_time_and_never_wait_are_independent() -> None:
    """The first of two machines with room for all is up a share r / (p + r) of the slots, however it fails."""
    alone = solve_line([ExactMachine(1.0, 0.05, 0.2, "time")], [], looks_through=False)
    assert alone.production == pytest.approx(0.8, abs=1e-12)
    both = [ExactMachine(1.0, 0.05, 0.2, "time")] * 2
    # without room a time-dependent pair is up together a share e^2 of the slots: no more can it make
    assert solve_line(both, [1], looks_through=True).production >= 0.64


def test_failures_at_any_time_cost_more_than_those_at_work() -> None:
    def production(failures: str, capacity: int) -> float:
        machines = [ExactMachine(1.0, 0.02, 0.1, failures)] * 2  # type: ignore[arg-type]  # both words are allowed
        return solve_line(machines, [capacity], looks_through=False).production

    assert production("operation", 4) - production("time", 4) > 0.01
    for capacity in (4, 40):  # with room enough, neither waits and both are the same
        assert production("time", capacity) < production("operation", capacity)
    gaps = [production("operation", c) - production("time", c) for c in (4, 40)]
    assert gaps[1] < 0.4 * gaps[0]


@pytest.mark.parametrize("blocking", ["before", "after"])
def test_a_tree_that_does_not_branch_is_a_row(blocking: Blocking) -> None:
    slotted = [ExactMachine(0.9), ExactMachine(1.0, 0.1, 0.3, "time"), ExactMachine(0.8)]
    ends = [ExactBuffer(0, 1, 2), ExactBuffer(1, 2, 1)]
    through = blocking == "before"
    a = solve_network(slotted, ends, looks_through=through, blocking=blocking)
    b = solve_line(slotted, [2, 1], looks_through=through, blocking=blocking)
    assert a.production == b.production


def test_an_assembly_of_three_machines_is_the_chain_of_its_two_buffers() -> None:
    """Reliable sources: a buffer full of parts is never empty, so the assembly waits for the other branch alone."""
    found = solve_network([ExactMachine(1.0), ExactMachine(0.7), ExactMachine(0.9)], MERGE, looks_through=True)
    assert found.production == pytest.approx(two_bernoulli(0.7, 0.9, 3), abs=1e-12)
    rates = [ExponentialRates(1.0, 0.0), ExponentialRates(1.0), ExponentialRates(0.9)]
    both = solve_continuous(rates, MERGE, blocking="after")
    assert both.production < two_exponential(1.0, 0.9, 2, blocking="after")


def test_assembly_and_disassembly_mirror_each_other() -> None:
    """Reversibility of lines blocked before service (Gershwin 1994, section 5.2: equivalence of A/D networks)."""
    machines = [ExactMachine(0.8), ExactMachine(0.7), ExactMachine(0.9)]
    assembly = solve_network(machines, MERGE, looks_through=True)
    split = [ExactBuffer(0, 1, 3), ExactBuffer(0, 2, 2)]
    disassembly = solve_network(machines[::-1], split, looks_through=True)
    # parts leave a disassembly by two machines
    assert disassembly.production == pytest.approx(2.0 * assembly.production, abs=1e-12)


def test_parts_are_kept_in_every_machine_of_a_tree() -> None:
    efficiency = np.array([0.8, 0.7, 0.9])
    found = solve_network([ExactMachine(p) for p in efficiency], MERGE, looks_through=False, blocking="after")
    np.testing.assert_allclose(efficiency - found.blocked - found.starved, found.production, atol=1e-10)
    rate = np.array([0.8, 0.7, 0.9])
    flow = solve_continuous([ExponentialRates(v) for v in rate], MERGE, blocking="after")
    np.testing.assert_allclose(rate * (1.0 - flow.blocked - flow.starved), flow.production, atol=1e-10)
    assert (flow.level <= [2.0, 3.0]).all()


def test_two_places_more_before_service_are_none_after_it_between_two_machines() -> None:
    machines = [ExactMachine(0.9), ExactMachine(0.8)]
    after = solve_line(machines, [1], looks_through=False, blocking="after")
    assert after.production == pytest.approx(solve_line(machines, [3], looks_through=False).production, abs=1e-12)


def test_a_configuration_is_answered_by_its_chain() -> None:
    exponential = Machine(model=ExponentialMachine())
    line = FixedLine(machines=(exponential,) * 3, capacities=(0, 0))
    config = LineConfig(line=line, blocking="after", looks_through=False)
    assert exact_line(config).production == pytest.approx(22 / 39, abs=1e-12)
    geometric = Machine(model=GeometricMachine(failures="time"))
    buffers = (Buffer(producer=1, consumer=3, capacity=2), Buffer(producer=2, consumer=3, capacity=3))
    tree = LineConfig(line=FixedLine(machines=(Machine(), Machine(), geometric), buffers=buffers))
    machines = [ExactMachine(0.9), ExactMachine(0.9), ExactMachine(1.0, 0.01, 0.1, "time")]
    assert exact_line(tree).production == solve_network(machines, MERGE, looks_through=True).production


def test_what_no_chain_answers_to_is_refused() -> None:
    worn = Machine(upkeep=Upkeep(wear=WeibullWear()))
    with pytest.raises(ConfigurationError, match="no wear"):
        exact_line(LineConfig(line=FixedLine(machines=(worn,), capacities=())))
    with pytest.raises(ConfigurationError, match="no meaning"):
        solve_line([ExactMachine(0.9)], [], looks_through=True, blocking="after")
    with pytest.raises(ConfigurationError, match="rates are positive"):
        solve_continuous_line([ExponentialRates(0.0)], [], blocking="after")
