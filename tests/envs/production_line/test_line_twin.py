"""The line's twin against the exact chain, closed forms and its contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from twinloop.envs.conformance import check_encoder, check_twin
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    Buffer,
    FixedLine,
    GammaWear,
    GeometricMachine,
    LineConfig,
    Machine,
    Power,
    RandomLine,
    Service,
    Tariff,
    Upkeep,
    WeibullWear,
)
from twinloop.envs.production_line.exact_line import ExactMachine, solve_line
from twinloop.envs.production_line.gamma_table import GammaTable
from twinloop.envs.production_line.nameplate import CREW, HIDDEN, MACHINE, MEASURED
from twinloop.envs.production_line.site import SITE
from twinloop.envs.production_line.twin import ProductionLineTwin

MEASURED_AT = {s.name: k for k, s in enumerate(MEASURED)}
HIDDEN_AT = {s.name: k for k, s in enumerate(HIDDEN)}
Tensor = torch.Tensor


def row(efficiencies: tuple[float, ...], capacity: int, **more: Any) -> LineConfig:
    machines = tuple(Machine(model=BernoulliMachine(efficiency_pu=p)) for p in efficiencies)
    return LineConfig(
        line=FixedLine(machines=machines, capacities=(capacity,) * (len(machines) - 1)),
        **more,
    )


def flat_out(twin: ProductionLineTwin, speed: float = 1.0) -> dict[str, Tensor]:
    found = {}
    for group in twin.nameplate.groups:
        command = torch.tensor(group.neutral()).repeat(twin.n_replicas, group.n_assets, 1)
        if group.name == MACHINE:
            command[..., 1] = speed
        found[group.name] = command
    return found


def in_the_long_run(config: LineConfig, replicas: int, warm: int, periods: int) -> dict[str, Tensor]:
    """Means a slot of the whole stretch, ``[B, N]`` by name."""
    twin = ProductionLineTwin(config, replicas, dtype=torch.float64)
    twin.reset(torch.arange(replicas))
    commands = flat_out(twin)
    for _ in range(warm):
        twin.step(commands)
    total: dict[str, Tensor] = {}
    for _ in range(periods):
        after = twin.step(commands)
        told = {n: after.measured[MACHINE][..., k] for n, k in MEASURED_AT.items()}
        told |= {n: after.hidden[MACHINE][..., k] for n, k in HIDDEN_AT.items()}
        total = {n: v + total.get(n, 0.0) for n, v in told.items()}
    return {n: v / periods for n, v in total.items()}


@pytest.mark.parametrize(
    ("efficiencies", "capacity"),
    [((0.9,) * 5, 3), ((0.9, 0.9, 0.7, 0.9, 0.9), 3), ((0.7, 0.75, 0.8, 0.85, 0.9), 3), ((0.8, 0.85), 3)],
)
def test_bernoulli_lines_are_the_exact_chain(efficiencies: tuple[float, ...], capacity: int) -> None:
    config = row(efficiencies, capacity, slots_per_period=100)
    found = in_the_long_run(config, 400, 3, 15)
    exact = solve_line([ExactMachine(p) for p in efficiencies], config.line.capacities, looks_through=True)  # type: ignore[union-attr]  # a fixed line
    made = found["finished"].sum(-1) / 100
    error = made.std() / math.sqrt(len(made))
    assert abs(made.mean() - exact.production) <= 3.0 * error
    assert abs(made.mean() / exact.production - 1.0) <= 1e-3
    for name, expected in (("blocked_pu", exact.blocked), ("starved_pu", exact.starved)):
        seen, spread = found[name].mean(0), found[name].std(0) / math.sqrt(len(made))
        assert (abs(seen - torch.tensor(expected)) <= 3.0 * spread + 1e-12).all(), name


@pytest.mark.parametrize("capacity", [4, 10])
def test_geometric_lines_are_gershwins(capacity: int) -> None:
    model = GeometricMachine(fails_pu=0.01, repairs_pu=0.1)
    config = LineConfig(
        line=FixedLine(machines=(Machine(model=model),) * 2, capacities=(capacity,)),
        looks_through=False,
        slots_per_period=200,
    )
    made = in_the_long_run(config, 300, 3, 12)["finished"].sum(-1) / 200
    exact = solve_line([ExactMachine(1.0, 0.01, 0.1)] * 2, [capacity], looks_through=False).production
    assert abs(made.mean() - exact) <= 3.0 * made.std() / math.sqrt(len(made))
    assert abs(made.mean() / exact - 1.0) <= 2e-3


@pytest.mark.parametrize(
    ("efficiencies", "capacity", "power_kw"), [((0.95, 0.6, 0.95), 10, 37.800), ((0.9, 0.75, 0.9), 5, 40.482)]
)
def test_a_line_that_is_always_on_draws_the_known_power(
    efficiencies: tuple[float, ...], capacity: int, power_kw: float
) -> None:
    found = in_the_long_run(row(efficiencies, capacity, slots_per_period=100), 300, 4, 20)
    power = found["power_kw"].sum(-1)
    assert abs(power.mean() - power_kw) <= 3.0 * power.std() / math.sqrt(len(power)) + 5e-4


@pytest.mark.parametrize(("speed", "cubic", "gain"), [(1.0, True, 7.0346), (0.8, True, 10.0651), (1.0, False, 6.6108)])
def test_speed_and_the_power_law_decide_what_is_earned(speed: float, cubic: bool, gain: float) -> None:
    power = Power(idle_kw=5.0, linear_kw=0.0, cubic_kw=10.0, draws="loaded") if cubic else Power(draws="loaded")
    machines = tuple(Machine(model=BernoulliMachine(efficiency_pu=p), power=power) for p in (0.95, 0.85, 0.95))
    config = LineConfig(
        line=FixedLine(machines=machines, capacities=(5, 5)), slots_per_period=100, speeds=(0.6, 0.8, 1.0)
    )
    twin = ProductionLineTwin(config, 400, dtype=torch.float64)
    twin.reset(torch.arange(400))
    for _ in range(3):
        twin.step(flat_out(twin, speed))
    earned = torch.zeros(400, dtype=torch.float64)
    for _ in range(20):
        after = twin.step(flat_out(twin, speed))
        earned += 60.0 * after.hidden[MACHINE][..., HIDDEN_AT["finished"]].sum(-1) / 100
        earned -= after.measured[MACHINE][..., MEASURED_AT["power_kw"]].sum(-1)
    earned /= 20
    assert abs(earned.mean() - gain) <= 3.0 * earned.std() / math.sqrt(400)


@pytest.mark.parametrize(("shape", "cost", "age"), [(2.0, 5.0, 51.066), (2.5, 20.0, 26.238)])
def test_replacement_by_age_costs_what_renewal_theory_says(shape: float, cost: float, age: float) -> None:
    """C(T) = (c_p R(T) + c_f F(T)) / int_0^T R of a Weibull life; work is a part a slot, 40 slots a unit of time."""
    fine = 40
    life = stats.weibull_min(shape, scale=100.0)
    expected = (life.sf(age) + cost * life.cdf(age)) / integrate.quad(life.sf, 0.0, age)[0]
    wear = WeibullWear(shape=shape, scale_slots=100.0 * fine)
    upkeep = Upkeep(wear=wear, preventive_slots=1, corrective_slots=1, preventive_cost=1.0, corrective_cost=cost)
    config = LineConfig(
        line=FixedLine(machines=(Machine(model=BernoulliMachine(efficiency_pu=1.0), upkeep=upkeep),), capacities=()),
        slots_per_period=10,
    )
    n = 6000
    twin = ProductionLineTwin(config, n, dtype=torch.float64)
    after = twin.reset(torch.arange(n))
    commands = flat_out(twin)
    worked = torch.zeros(n, dtype=torch.float64)
    paid = torch.zeros(n, dtype=torch.float64)
    for _ in range(int(age * fine / 10) + 3):  # each replica to its first renewal: a cycle of renewal theory
        told, kept = after.measured[MACHINE][:, 0], after.hidden[MACHINE][:, 0]
        open_still = kept[:, HIDDEN_AT["renewals"]] == 0
        commands[MACHINE][:, 0, 2] = (told[:, MEASURED_AT["age_slots"]] >= age * fine - 5).to(torch.float64)
        after = twin.step(commands)
        worked += open_still * after.measured[MACHINE][:, 0, MEASURED_AT["parts"]] / fine
        paid = torch.where(open_still, after.hidden[MACHINE][:, 0, HIDDEN_AT["service_cost"]], paid)
    assert (after.hidden[MACHINE][:, 0, HIDDEN_AT["renewals"]] >= 1).all()
    ratio = float(paid.sum() / worked.sum())
    error = float((paid - ratio * worked).std()) / math.sqrt(n) / float(worked.mean())
    # a part that is made after the renewal in the same period counts for the cycle before: at most 8 of some 1,000
    assert abs(ratio - expected) <= 3.0 * error + 0.005 * expected


def test_gamma_variates_have_their_distribution() -> None:
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for shape in (0.3, 1.0, 5.0):
        found = GammaTable(shape, 2.0, torch.device("cpu")).draw(u).numpy()
        np.testing.assert_allclose(found, stats.gamma.ppf(u.numpy(), shape, scale=2.0), rtol=1e-5)


WEARING = LineConfig(
    line=FixedLine(
        machines=(
            Machine(upkeep=Upkeep(wear=WeibullWear(shape=2.5, scale_slots=50))),
            Machine(model=GeometricMachine()),
            Machine(upkeep=Upkeep(wear=GammaWear(failure_level=5.0, shape_per_slot=0.1))),
        ),
        capacities=(3, 4),
    ),
    service=Service(crews=1, spares=2, spare_lead_slots=30),
    slots_per_period=3,
    speeds=(0.6, 0.8, 1.0),
    tariff=Tariff(prices_per_kwh=(1.0, 2.0)),
)
ASSEMBLY = LineConfig(
    line=FixedLine(
        machines=(Machine(),) * 4,
        buffers=(
            Buffer(producer=1, consumer=3),
            Buffer(producer=2, consumer=3, capacity=2),
            Buffer(producer=3, consumer=4),
        ),
    )
)


@pytest.mark.parametrize("config", [WEARING, ASSEMBLY, LineConfig(line=RandomLine())], ids=["wear", "tree", "random"])
def test_the_twin_and_its_encoder_keep_their_contracts(config: LineConfig) -> None:
    check_twin(lambda n: ProductionLineTwin(config, n))
    plate = SITE.nameplate(config)
    check_encoder(SITE.encoder("neighbours", plate, {}), plate)


def test_no_more_machines_are_in_service_than_there_are_crews_and_all_are_served() -> None:
    twin = ProductionLineTwin(WEARING, 64, dtype=torch.float64)
    twin.reset(torch.arange(64))
    for _ in range(150):
        after = twin.step(flat_out(twin))
        assert (after.hidden[CREW][..., 0] <= 1.0).all()
        assert (after.measured[CREW][..., 2] >= 0.0).all()
    failures, renewals = (after.hidden[MACHINE][..., HIDDEN_AT[n]].sum(-1) for n in ("failures", "renewals"))
    assert (failures > 0).all()
    assert ((failures - renewals) <= 2.0).all()
    assert (after.hidden[MACHINE][:, 1, HIDDEN_AT["failures"]] == 0).all()


def test_parts_are_neither_made_nor_lost() -> None:
    """Little's accounting: what a machine made and its successor has not taken stands between them."""
    twin = ProductionLineTwin(row((0.9, 0.7, 0.8), 3), 32, dtype=torch.float64)
    twin.reset(torch.arange(32))
    made = torch.zeros(32, 3, dtype=torch.float64)
    for _ in range(200):
        after = twin.step(flat_out(twin))
        made += after.measured[MACHINE][..., MEASURED_AT["parts"]]
        between = after.measured[MACHINE][:, 1:, MEASURED_AT["parts_before"]]
        assert torch.equal(made[:, :-1] - made[:, 1:], between)
        assert ((between >= 0) & (between <= 3)).all()
