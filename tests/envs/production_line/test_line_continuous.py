"""Exponential machines and blocking after service: the twin against exact chains, Hunt's values and its contract."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from twinloop.envs.conformance import check_twin
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.analysis.diagnosis import find
from twinloop.envs.production_line.analysis.settings import LineDiagnosisSettings
from twinloop.envs.production_line.config import (
    Buffer,
    ExponentialMachine,
    FixedLine,
    GeometricMachine,
    LineConfig,
    Machine,
    Power,
    RandomLine,
    Tariff,
    Upkeep,
    WeibullWear,
)
from twinloop.envs.production_line.exact_line import ExactMachine, solve_line
from twinloop.envs.production_line.exact_states import ExactBuffer, States
from twinloop.envs.production_line.flow import branching_blocked, serial_blocked
from twinloop.envs.production_line.nameplate import HIDDEN, MACHINE, MEASURED
from twinloop.envs.production_line.prototypes import LinePrototypes, built_line
from twinloop.envs.production_line.referee import exact_line
from twinloop.envs.production_line.twin import ProductionLineTwin

AT = {s.name: k for k, s in enumerate(MEASURED)}
HIDDEN_AT = {s.name: k for k, s in enumerate(HIDDEN)}
Tensor = torch.Tensor


def exponential(
    rate: float = 1.0, fails: float = 0.0, repairs: float = 0.1, failures: Literal["operation", "time"] = "operation"
) -> Machine:
    return Machine(
        model=ExponentialMachine(
            rate_per_slot=rate, fails_per_slot=fails, repairs_per_slot=repairs,
            failures=failures,
        )
    )  # fmt: skip


def line(machines: tuple[Machine, ...], capacities: tuple[int, ...], **more: object) -> LineConfig:
    fixed = FixedLine(machines=machines, capacities=capacities)
    return LineConfig.model_validate({"line": fixed, "looks_through": False, "slots_per_period": 100} | more)


def tree(machines: tuple[Machine, ...], ends: tuple[tuple[int, int, int], ...], **more: object) -> LineConfig:
    buffers = tuple(Buffer(producer=p, consumer=c, capacity=n) for p, c, n in ends)
    fixed = FixedLine(machines=machines, capacities=(), buffers=buffers)
    return LineConfig.model_validate({"line": fixed, "looks_through": False, "slots_per_period": 100} | more)


def all_on(config: LineConfig, n: int) -> dict[str, Tensor]:
    assert isinstance(config.line, FixedLine)
    return {MACHINE: torch.tensor([2.0, 1.0]).expand(n, len(config.line.machines), 2)}


def assert_is_the_chain(config: LineConfig, replicas: int, periods: int) -> None:
    """Throughput, blocked and starved shares within 3 standard errors, throughput within 0.5 % too."""
    twin = ProductionLineTwin(config, replicas, dtype=torch.float64)
    twin.reset(torch.arange(7, 7 + replicas))
    commands = all_on(config, replicas)
    for _ in range(2):
        twin.step(commands)
    told = [twin.step(commands) for _ in range(periods)]
    measured = torch.stack([r.measured[MACHINE] for r in told]).mean(0)
    finished = torch.stack([r.hidden[MACHINE][..., HIDDEN_AT["finished"]].sum(-1) for r in told]).mean(0)
    exact = exact_line(config)
    made = finished / config.slots_per_period
    error = made.std() / math.sqrt(replicas)
    assert abs(made.mean() - exact.production) <= 3.0 * error
    assert abs(made.mean() / exact.production - 1.0) <= 5e-3
    for name, expected in (("blocked_pu", exact.blocked), ("starved_pu", exact.starved)):
        seen = measured[..., AT[name]]
        room = 3.0 * seen.std(0) / math.sqrt(replicas) + 1e-12
        assert (abs(seen.mean(0) - torch.tensor(expected)) <= room).all(), name
    for name in ("parts_before", "room_behind", "blocked_pu", "starved_pu", "down_pu"):
        assert (torch.stack([r.measured[MACHINE][..., AT[name]] for r in told]) >= 0.0).all(), name


@pytest.mark.parametrize(("n_machines", "hunt"), [(2, 2 / 3), (3, 22 / 39), (5, 0.485798)])
def test_unbuffered_lines_make_hunts_rates(n_machines: int, hunt: float) -> None:
    config = line((exponential(),) * n_machines, (0,) * (n_machines - 1), blocking="after")
    assert exact_line(config).production == pytest.approx(hunt, abs=1e-6)
    assert_is_the_chain(config, 200, 10)


@pytest.mark.parametrize("failures", ["operation", "time"])
@pytest.mark.parametrize("blocking", ["before", "after"])
def test_exponential_rows_that_fail_are_their_chain(failures: Literal["operation", "time"], blocking: str) -> None:
    machines = (exponential(1.0, 0.1, 0.4, failures), exponential(0.8), exponential(0.9, 0.2, 0.3, failures))
    assert_is_the_chain(line(machines, (2, 1), blocking=blocking), 150, 10)


@pytest.mark.parametrize("blocking", ["before", "after"])
def test_exponential_trees_are_their_chain(blocking: str) -> None:
    """Two branches into an assembly, which feeds two machines behind it."""
    machines = (exponential(), exponential(0.9, 0.1, 0.5, "time"), exponential(), exponential(0.8), exponential(0.9))
    least = 1 if blocking == "before" else 0
    ends = ((1, 3, least), (2, 3, 2), (3, 4, 1), (3, 5, least))
    assert_is_the_chain(tree(machines, ends, blocking=blocking), 150, 10)


@pytest.mark.parametrize("failures", ["operation", "time"])
def test_slotted_rows_that_block_after_service_are_their_chain(failures: Literal["operation", "time"]) -> None:
    geometric = Machine(model=GeometricMachine(fails_pu=0.1, repairs_pu=0.3, failures=failures))
    machines = (Machine(), geometric, Machine.model_validate({"model": {"kind": "bernoulli", "efficiency_pu": 0.8}}))
    assert_is_the_chain(line(machines, (0, 1), blocking="after"), 300, 6)


def test_slotted_trees_that_block_after_service_are_their_chain() -> None:
    slow = Machine.model_validate({"model": {"kind": "bernoulli", "efficiency_pu": 0.7}})
    ends = ((1, 3, 0), (2, 3, 2), (3, 4, 1), (3, 5, 0))
    assert_is_the_chain(tree((Machine(), slow, Machine(), slow, Machine()), ends, blocking="after"), 300, 6)


def test_random_lines_that_block_after_service_are_each_the_chain_of_its_length() -> None:
    drawn = RandomLine(machines=(3, 5), efficiency_pu=(0.8, 0.8), capacity=(1, 1))
    config = LineConfig(line=drawn, looks_through=False, blocking="after", slots_per_period=200)
    twin = ProductionLineTwin(config, 300, dtype=torch.float64)
    lengths = twin.reset(torch.arange(300)).present[MACHINE].sum(1)
    commands = {MACHINE: torch.tensor([2.0, 1.0]).expand(300, 5, 2)}
    twin.step(commands)
    told = [twin.step(commands).hidden[MACHINE][..., HIDDEN_AT["finished"]].sum(-1) / 200 for _ in range(5)]
    made = torch.stack(told).mean(0)
    for n in (3, 4, 5):
        mine = made[lengths == n]
        exact = solve_line([ExactMachine(0.8)] * n, [1] * (n - 1), looks_through=False, blocking="after")
        assert len(mine) > 60
        assert abs(mine.mean() - exact.production) <= 3.0 * mine.std() / math.sqrt(len(mine))


def test_failures_of_geometric_machines_at_any_time_are_their_chain() -> None:
    geometric = Machine(model=GeometricMachine(fails_pu=0.1, repairs_pu=0.3, failures="time"))
    assert_is_the_chain(line((geometric,) * 3, (2, 1)), 300, 6)


AFTER = tree(
    (exponential(1.0, 0.05, 0.1, "time"), exponential(0.8, 0.02), exponential(), exponential(0.9)),
    ((1, 3, 0), (2, 3, 2), (3, 4, 1)),
    blocking="after", slots_per_period=3, speeds=(0.5, 1.0), tariff=Tariff(prices_per_kwh=(1.0, 2.0)),
)  # fmt: skip


def test_the_twin_keeps_its_contract_in_continuous_time() -> None:
    """Among it: a row of a batch is the same seed alone, bit for bit, and nothing depends on the other rows."""
    check_twin(lambda n: ProductionLineTwin(AFTER, n), steps=3, batch_sizes=(2, 33))
    before = line((exponential(0.9, 0.1, 0.2), exponential()), (2,), slots_per_period=7)
    check_twin(lambda n: ProductionLineTwin(before, n), steps=3, batch_sizes=(2, 33))


def test_the_twin_keeps_its_contract_blocked_after_service() -> None:
    geometric = Machine(model=GeometricMachine(failures="time"))
    config = line((Machine(), geometric, Machine()), (0, 2), blocking="after", slots_per_period=2)
    check_twin(lambda n: ProductionLineTwin(config, n), batch_sizes=(2, 33))
    drawn = LineConfig(line=RandomLine(), looks_through=False, blocking="after")
    check_twin(lambda n: ProductionLineTwin(drawn, n), batch_sizes=(2, 33))


def test_prototypes_of_exponential_lines_are_the_lines_that_are_built_from_them() -> None:
    config = line((exponential(0.9), exponential(0.8)), (0,), blocking="after")
    twin = LinePrototypes(config, 3, dtype=torch.float64)
    twin.set_parameters({"M1_efficiency_pu": torch.tensor([0.9, 0.5, 0.9]), "M2_efficiency_pu": torch.tensor(0.7)})
    twin.reset(torch.tensor([4, 4, 4]))
    made = twin.step(all_on(config, 3)).measured[MACHINE][:, 1, AT["parts"]]
    built = built_line(config, {"M1_efficiency_pu": 0.5, "M2_efficiency_pu": float(torch.tensor(0.7))})
    assert plainly(built) == (0.5, float(torch.tensor(0.7)), (0,))
    alone = ProductionLineTwin(built, 1, dtype=torch.float64)
    alone.reset(torch.tensor([4]))
    assert alone.step(all_on(built, 1)).measured[MACHINE][0, 1, AT["parts"]] == made[1] != made[0]


def plainly(config: LineConfig) -> tuple[float, float, tuple[int, ...]]:
    assert isinstance(config.line, FixedLine)
    first, second = (m.model for m in config.line.machines)
    assert isinstance(first, ExponentialMachine)
    assert isinstance(second, ExponentialMachine)
    return first.rate_per_slot, second.rate_per_slot, config.line.capacities


def test_the_time_of_a_period_is_spent_once() -> None:
    twin = ProductionLineTwin(AFTER, 16, dtype=torch.float64)
    twin.reset(torch.arange(16))
    for _ in range(30):
        after = twin.step(all_on(AFTER, 16)).measured[MACHINE]
        power = Power()
        busy = (after[..., AT["power_kw"]] - power.idle_kw) / power.linear_kw
        shares = busy + sum(after[..., AT[n]] for n in ("blocked_pu", "starved_pu", "down_pu"))
        torch.testing.assert_close(shares, torch.ones_like(shares), rtol=0, atol=1e-9)


def test_a_machine_warms_up_in_continuous_time_for_as_long_as_it_is_told() -> None:
    machine = Machine(model=ExponentialMachine(), warm_up_slots=5)
    config = line((machine,), (), slots_per_period=3)
    twin = ProductionLineTwin(config, 8, dtype=torch.float64)
    twin.reset(torch.arange(8))
    off = {MACHINE: torch.tensor([0.0, 1.0]).expand(8, 1, 2)}
    assert (twin.step(off).measured[MACHINE][..., AT["power_kw"]] == 1.0).all()
    first = twin.step(all_on(config, 8)).measured[MACHINE]
    assert (first[..., AT["power_kw"]] == 15.0).all()
    assert (first[..., AT["state"]] == 4.0).all()
    assert (first[..., AT["ready_in_slots"]] == 2.0).all()
    second = twin.step(all_on(config, 8)).measured[MACHINE]
    # two slots more of warming at 15 kW, then one at work
    torch.testing.assert_close(second[..., AT["power_kw"]], torch.full((8, 1), 15.0, dtype=torch.float64))
    assert (second[..., AT["state"]] == 0.0).all()


@pytest.mark.parametrize("machine", [exponential(), Machine.model_validate({"model": {"kind": "geometric"}})])
def test_behind_a_full_buffer_a_machine_that_is_off_takes_no_part(machine: Machine) -> None:
    """The first of three fills the buffer and holds one part more; the last is given nothing."""
    config = line((machine,) * 3, (2, 1), blocking="after", slots_per_period=40)
    twin = ProductionLineTwin(config, 16, dtype=torch.float64)
    twin.reset(torch.arange(16))
    commands = {MACHINE: all_on(config, 16)[MACHINE].clone()}
    commands[MACHINE][:, 1, 0] = 0.0
    made = torch.zeros(16, 3, dtype=torch.float64)
    for _ in range(8):
        after = twin.step(commands).measured[MACHINE]
        made += after[..., AT["parts"]]
    assert (made == torch.tensor([3.0, 0.0, 0.0])).all()
    assert (after[:, 0, AT["room_behind"]] == 0.0).all()
    assert (after[:, 1, AT["parts_before"]] == 2.0).all()
    assert (after[:, 0, AT["state"]] == 1.0).all()
    commands[MACHINE][:, 1, 0] = 2.0  # warm after a slot, it takes one and lets the first go on
    for _ in range(8):
        made += twin.step(commands).measured[MACHINE][..., AT["parts"]]
    assert (made[:, 0] - made[:, 1] <= 4.0).all()
    assert (made[:, 2] > 50.0).all()


def test_energy_costs_what_it_does_in_the_slot_it_is_drawn_in() -> None:
    tariff = Tariff(prices_per_kwh=tuple(float(h) for h in range(24)))
    config = line((exponential(),), (), slots_per_period=120, tariff=tariff)
    twin = ProductionLineTwin(config, 4, dtype=torch.float64)
    twin.reset(torch.arange(4))
    after = twin.step(all_on(config, 4)).hidden[MACHINE][..., 0, :]
    # a machine that never waits draws 15 kW: an hour at 0, one at 1
    torch.testing.assert_close(after[:, HIDDEN_AT["energy_kwh"]], torch.full((4,), 30.0, dtype=torch.float64))
    torch.testing.assert_close(after[:, HIDDEN_AT["energy_cost"]], torch.full((4,), 15.0, dtype=torch.float64))


def test_half_the_speed_is_half_the_rate() -> None:
    config = line((exponential(0.8), exponential()), (1,), speeds=(0.5, 1.0))
    exact = exact_line(line((exponential(0.4), exponential()), (1,))).production
    twin = ProductionLineTwin(config, 200, dtype=torch.float64)
    twin.reset(torch.arange(200))
    commands = {MACHINE: torch.tensor([[2.0, 0.5], [2.0, 1.0]]).expand(200, 2, 2)}
    twin.step(commands)
    made = sum(twin.step(commands).measured[MACHINE][:, 1, AT["parts"]] for _ in range(8)) / 800
    assert isinstance(made, Tensor)
    assert abs(made.mean() - exact) <= 3.0 * made.std() / math.sqrt(200)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=8))
def test_who_is_blocked_after_service_is_the_carry_the_rounds_and_the_referees_loop(
    places: list[tuple[int, int]],
) -> None:
    capacity = torch.tensor([c for c, _ in places])[:, None]
    level = torch.minimum(torch.tensor([v for _, v in places])[:, None], capacity + 2)
    n = len(places) + 1
    carried = serial_blocked(level, capacity)[:, 0]
    producer, consumer = torch.arange(n - 1)[:, None], torch.arange(1, n)[:, None]
    nobody = torch.zeros((n, 1), dtype=torch.bool)
    assert torch.equal(branching_blocked(level - capacity, nobody, consumer, producer, n)[:, 0], carried)
    ends = tuple(ExactBuffer(k, k + 1, c) for k, (c, _) in enumerate(places))
    states = States(n, ends, "after", (), level.T.numpy(), np.ones((1, n), dtype=np.bool_))
    assert states.held()[0].tolist() == carried.tolist()


def test_a_line_keeps_one_time_and_options_that_mean_something() -> None:
    with pytest.raises(ValidationError, match="one line keeps one time"):
        FixedLine(machines=(exponential(), Machine()), capacities=(1,))
    with pytest.raises(ValidationError, match="has no meaning with exponential machines"):
        LineConfig(line=FixedLine(machines=(exponential(),) * 2, capacities=(1,)))
    with pytest.raises(ValidationError, match="has no meaning with blocking: after"):
        LineConfig(blocking="after")
    with pytest.raises(ValidationError, match="a part needs a place to go to"):
        line((Machine(),) * 2, (0,))
    worn = exponential().model_copy(update={"upkeep": Upkeep(wear=WeibullWear())})
    with pytest.raises(ValidationError, match="wear is counted in slots"):
        FixedLine(machines=(worn,), capacities=())


def test_a_line_that_blocks_after_service_is_diagnosed_as_such_and_an_exponential_one_refused() -> None:
    config = line((Machine(),) * 3, (1, 1), blocking="after")
    found = find(config, None, LineDiagnosisSettings(replicas=64, slots=400))
    assert found.gains.method == "replicas"
    exact = exact_line(config)
    assert found.gains.production.mean[0] == pytest.approx(exact.production, abs=5e-3)
    with pytest.raises(ConfigurationError, match="the site's is after"):
        find(config, None, LineDiagnosisSettings(blocking="before"))
    with pytest.raises(ConfigurationError, match="exponential machines"):
        find(line((exponential(),) * 2, (1,)), None, LineDiagnosisSettings())
