"""Wear and service on the event-driven plant: renewal theory for machines alone, the twin where they share a crew."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from twinloop.agents.controllers.line_maintenance import AgeReplacement, RunToFailure
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    GammaWear,
    LineConfig,
    Machine,
    Service,
    StagedWear,
    Upkeep,
    Wear,
    WeibullWear,
)
from twinloop.envs.production_line.nameplate import CREW, HIDDEN, MACHINE, MEASURED, line_nameplate
from twinloop.envs.production_line.plant import SimPyLine
from twinloop.envs.production_line.plant_config import LinePlantConfig
from twinloop.envs.production_line.renewal import Prices, slotted_age_cost, survival_of
from twinloop.envs.production_line.twin import ProductionLineTwin
from twinloop.envs.twin import Observation

AT = {s.name: k for k, s in enumerate(MEASURED)}
COST = [s.name for s in HIDDEN].index("service_cost")
WEARS: dict[str, Wear] = {
    "weibull": WeibullWear(shape=2.5, scale_slots=50.0),
    "gamma": GammaWear(shape_per_slot=0.25, scale=1.0, failure_level=10.0),
    "staged": StagedWear(advance_pu=(0.05, 0.08, 0.1)),
}


def fleet(wear: Wear, n: int, crews: int, **upkeep: float) -> LineConfig:
    """Machines side by side, a slot a period."""
    chosen = {"preventive_slots": 3, "corrective_slots": 9, "preventive_cost": 2.0, "corrective_cost": 6.0} | upkeep
    machine = Machine(model=BernoulliMachine(efficiency_pu=1.0), upkeep=Upkeep.model_validate({"wear": wear, **chosen}))
    line = FixedLine(parallel=True, capacities=(), machines=(machine,) * n)
    return LineConfig(line=line, modes=("on",), service=Service(crews=crews))


def on_the_plant(config: LineConfig, policy: AgeReplacement | RunToFailure, slots: int, seed: int) -> np.ndarray:
    """What each machine earns a slot: a part is worth 1."""
    plant = SimPyLine(config, LinePlantConfig(seed=seed, meter_noise_pu=0.0))
    groups = plant.nameplate.groups
    present = {g.name: np.ones((1, g.n_assets), dtype=np.bool_) for g in groups}
    statics = {g.name: g.statics_array()[None] for g in groups}
    for _ in range(slots):
        values = {name: v[None] for name, v in plant.read().values.items()}
        commands, _ = policy.act(Observation(values, statics, present, 1.0), {})
        plant.write({name: c[0] for name, c in commands.items()})
        plant.advance()
    true = plant.truth()
    return np.asarray((np.array(true["parts"]) - np.array(true["service_cost"])) / slots)


@torch.inference_mode()
def in_the_twin(config: LineConfig, policy: AgeReplacement, slots: int, n: int) -> np.ndarray:
    """What each of ``n`` fleets earns a slot."""
    twin = ProductionLineTwin(config, n, dtype=torch.float64)
    readings, made = twin.reset(torch.arange(n)), np.zeros(n)
    for _ in range(slots):
        commands, _ = policy.act(readings.observation(twin.dt_s), {})
        readings = twin.step({name: torch.from_numpy(np.array(c)) for name, c in commands.items()})
        made += readings.measured[MACHINE][..., AT["parts"]].sum(1).numpy()
    return np.asarray((made - readings.hidden[MACHINE][..., COST].sum(1).numpy()) / slots)


@pytest.mark.parametrize("kind", list(WEARS))
def test_a_machine_alone_earns_what_renewal_theory_says(kind: str) -> None:
    """As many crews as machines. A machine is replaced at its age or one or two parts later: a reading may be a part
    behind, and the part in hand is finished first."""
    wear, slots, n = WEARS[kind], 1500, 60
    survival, prices = survival_of(wear), Prices(2.0, 6.0, 3.0, 9.0)
    for age in (25, None):
        config = fleet(wear, n, n)
        plate = line_nameplate(config)
        policy = RunToFailure(plate) if age is None else AgeReplacement(plate, age)
        earned = on_the_plant(config, policy, slots, seed=3)
        error = float(earned.std(ddof=1)) / math.sqrt(n)
        exact = []
        for slots_old in (1000,) if age is None else range(age, age + 3):
            lives = survival(np.arange(slots_old + 1.0))
            fails = 1.0 - lives[-1]
            length = lives[:-1].sum() + 3.0 * lives[-1] + 9.0 * fails
            exact.append(float(lives[:-1].sum() / length) - slotted_age_cost(survival, prices, slots_old))
        # who is in the midst of a life when the count ends has cost nothing for it yet
        ends = 8.0 / slots
        assert min(exact) - 4.0 * error <= earned.mean() <= max(exact) + 4.0 * error + ends, (age, exact, error)


def test_machines_that_share_a_crew_earn_in_the_plant_what_the_twin_says() -> None:
    """No faults and a crew that is busy most of the time. The plant's crew waits until the part in hand is finished,
    half a slot a service on average, which costs up to 2 %."""
    config = fleet(WEARS["weibull"], 8, 1, preventive_slots=2, corrective_slots=6)
    policy = AgeReplacement(line_nameplate(config), 30.0)
    plant = np.array([on_the_plant(config, policy, 800, seed).sum() for seed in range(10)])
    twin = in_the_twin(config, policy, 800, 64)
    error = math.hypot(plant.std(ddof=1) / math.sqrt(len(plant)), twin.std(ddof=1) / math.sqrt(len(twin)))
    assert error < 0.02 * twin.mean()
    assert -0.02 * twin.mean() - 4.0 * error <= plant.mean() - twin.mean() <= 4.0 * error


def test_a_failure_is_a_call_of_its_own_in_plant_and_twin() -> None:
    """M1 is called before M2 and fails before the crew comes: M2 is served first, for M1's failure was called later."""
    soon, late = (WeibullWear(shape=80.0, scale_slots=s) for s in (12.0, 400.0))
    machines = tuple(
        Machine(
            model=BernoulliMachine(efficiency_pu=1.0), upkeep=Upkeep(wear=w, preventive_slots=20, corrective_slots=5)
        )
        for w in (soon, late, late)
    )
    config = LineConfig(line=FixedLine(parallel=True, capacities=(), machines=machines), modes=("on",))
    plant = SimPyLine(config, LinePlantConfig(seed=1, cycle_spread_pu=0.01))
    twin = ProductionLineTwin(config, 1, dtype=torch.float64)
    readings = twin.reset(torch.tensor([1]))
    order: list[list[int]] = [[], []]
    for slot in range(80):
        asked = np.array([float(4 <= slot < 20), float(6 <= slot < 40), float(1 <= slot < 15)])
        machine = np.stack([np.full(3, 2.0), np.ones(3), asked], axis=1)
        plant.write({MACHINE: machine, CREW: np.zeros((1, 1))})
        plant.advance()
        readings = twin.step({MACHINE: torch.tensor(machine)[None], CREW: torch.zeros(1, 1, 1)})
        states = plant.read().values[MACHINE][:, AT["state"]], readings.measured[MACHINE][0, :, AT["state"]].numpy()
        for seen, state in zip(order, states, strict=True):
            seen += [int(i) for i in np.flatnonzero(state == 7.0) if int(i) not in seen]
    assert order == [[2, 1, 0], [2, 1, 0]]


def test_who_calls_while_a_crew_is_told_to_be_free_keeps_it_at_work() -> None:
    """Services as long as a period, and always somebody due: told a slot ahead, a crew begins two in three periods at
    least; told only once it stands idle, it begins one in two."""
    config = fleet(WeibullWear(shape=80.0, scale_slots=1000.0), 8, 1).model_copy(update={"slots_per_period": 3})
    plant = SimPyLine(config, LinePlantConfig(seed=1))
    asked = np.zeros(8)
    for _ in range(250):
        plant.write({MACHINE: np.stack([np.full(8, 2.0), np.ones(8), asked], axis=1), CREW: np.zeros((1, 1))})
        plant.advance()
        told = plant.read().values[MACHINE]
        age = np.where(told[:, AT["state"]] == 0.0, told[:, AT["age_slots"]], -1.0)
        free, calls = told[0, len(MEASURED)], told[0, len(MEASURED) + 1]
        asked = ((age == age.max()) & (free > calls)).astype(float)
    assert sum(plant.truth()["renewals"]) >= 0.65 * 250


def test_a_crew_is_told_free_in_the_slot_before_it_is() -> None:
    config = fleet(WeibullWear(shape=80.0, scale_slots=500.0), 1, 1, preventive_slots=5)
    plant = SimPyLine(config, LinePlantConfig(seed=1, cycle_spread_pu=0.01))
    free, serves = [], []
    for slot in range(12):
        plant.write({MACHINE: np.array([[2.0, 1.0, float(slot == 2)]]), CREW: np.zeros((1, 1))})
        plant.advance()
        told = plant.read().values
        free.append(told[MACHINE][0, len(MEASURED)])
        serves.append(told[MACHINE][0, AT["state"]] == 7.0)
        assert told[CREW][0, 0] == 1.0 - serves[-1]  # the dispatcher's is of now
    last = max(k for k, s in enumerate(serves) if s)
    assert [f for f, s in zip(free, serves, strict=True) if s] == [0.0] * (sum(serves) - 1) + [1.0]
    assert free[last + 1] == 1.0
