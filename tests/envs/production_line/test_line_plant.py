"""The event-driven plant: its contract, and the exact values that it shares with the twin."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    GammaWear,
    GeometricMachine,
    LineConfig,
    Machine,
    RandomLine,
    Service,
    Upkeep,
    WeibullWear,
)
from twinloop.envs.production_line.nameplate import CREW, MACHINE, MEASURED
from twinloop.envs.production_line.plant import SimPyLine
from twinloop.envs.production_line.plant_config import LinePlantConfig

AT = {s.name: k for k, s in enumerate(MEASURED)}
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
)


@pytest.mark.parametrize("config", [LineConfig(), WEARING], ids=["plain", "wear"])
def test_the_plant_keeps_its_contract(config: LineConfig) -> None:
    check_plant(lambda: SimPyLine(config, LinePlantConfig()))


def test_machines_in_isolation_make_their_efficiency() -> None:
    """With nothing to wait for, a Bernoulli machine makes p parts a slot, a geometric one r / (p + r)."""
    for model, expected in ((BernoulliMachine(efficiency_pu=0.8), 0.8), (GeometricMachine(), 10.0 / 11.0)):
        config = LineConfig(line=FixedLine(machines=(Machine(model=model),), capacities=()), slots_per_period=1000)
        plant = SimPyLine(config, LinePlantConfig(seed=4))
        counts = []
        for _ in range(60):
            before = plant.finished
            plant.advance()
            counts.append(plant.finished - before)
        mean, error = np.mean(counts) / 1000, np.std(counts) / 1000 / np.sqrt(60)
        assert abs(mean - expected) <= 3.0 * error + 1e-4


def test_a_machine_that_is_off_makes_nothing_and_warms_up_before_it_works() -> None:
    machines = (Machine(warm_up_slots=5),) * 2
    plant = SimPyLine(LineConfig(line=FixedLine(machines=machines, capacities=(3,))), LinePlantConfig())
    off = {MACHINE: np.array([[0.0, 1.0], [2.0, 1.0]])}
    for _ in range(10):
        plant.write(off)
        plant.advance()
    values = plant.read().values[MACHINE]
    assert values[0, AT["state"]] == 6.0
    assert values[:, AT["parts"]].tolist() == [0.0, 0.0]
    assert values[1, AT["starved_pu"]] == 1.0
    plant.write({MACHINE: np.array([[2.0, 1.0], [2.0, 1.0]])})
    plant.advance()
    assert plant.read().values[MACHINE][0, AT["state"]] == 4.0


def test_crews_are_never_in_two_places() -> None:
    plant = SimPyLine(WEARING, LinePlantConfig(seed=2))
    served = 0
    for _ in range(400):
        plant.advance()
        values = plant.read().values
        in_service = int((values[MACHINE][:, AT["state"]] == 7.0).sum())
        assert in_service <= 1
        assert values[CREW][0, 0] == 1.0 - in_service
        assert values[CREW][0, 2] >= 0.0
        served += in_service
    assert served > 0


def test_a_drifting_machine_slows_the_line() -> None:
    config = LineConfig(slots_per_period=1440)
    steady, drifting = (
        SimPyLine(config, LinePlantConfig(seed=1, drifting_machine=k, drift_pu_per_day=0.05)) for k in (0, 2)
    )
    for plant in (steady, drifting):
        for _ in range(8):
            plant.advance()
    assert drifting.finished < 0.9 * steady.finished


def test_a_plant_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="a plant is one"):
        SimPyLine(LineConfig(line=RandomLine()), LinePlantConfig())
