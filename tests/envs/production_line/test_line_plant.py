"""The event-driven plant: its contract, and the exact values that it shares with the twin."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import yaml

from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    Buffer,
    ExponentialMachine,
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
from twinloop.envs.production_line.referee import exact_line

CONFIGS = Path(__file__).parents[3] / "configs" / "production_line"
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


def _plant_against_its_chain(machines: tuple[ExponentialMachine, ...], capacities: tuple[int, ...], seed: int) -> None:
    line = FixedLine(machines=tuple(Machine(model=m) for m in machines), capacities=capacities)
    config = LineConfig(line=line, blocking="after", looks_through=False, slots_per_period=500)
    plant, exact = SimPyLine(config, LinePlantConfig(seed=seed)), exact_line(config)
    plant.advance()
    told = []
    for _ in range(40):
        plant.advance()
        told.append(plant.read().values[MACHINE])
    seen = np.array(told)
    made = seen[:, -1, AT["parts"]] / 500
    assert abs(made.mean() - exact.production) <= 3.0 * made.std() / np.sqrt(40)
    assert abs(made.mean() / exact.production - 1.0) <= 0.05
    for name, expected in (("blocked_pu", exact.blocked), ("starved_pu", exact.starved)):
        share = seen[..., AT[name]]
        assert (np.abs(share.mean(0) - expected) <= 3.0 * share.std(0) / np.sqrt(40) + 1e-9).all(), name


@pytest.mark.parametrize("n_machines", [2, 3, 5])
def test_an_unbuffered_line_of_exponential_machines_makes_hunts_rate(n_machines: int) -> None:
    hunt = {2: 2 / 3, 3: 22 / 39, 5: 0.485798}
    line = FixedLine(machines=(Machine(model=ExponentialMachine()),) * n_machines, capacities=(0,) * (n_machines - 1))
    config = LineConfig(line=line, blocking="after", looks_through=False)
    assert exact_line(config).production == pytest.approx(hunt[n_machines], abs=1e-6)
    _plant_against_its_chain((ExponentialMachine(),) * n_machines, (0,) * (n_machines - 1), 1)


def test_exponential_failures_of_the_plant_are_those_of_the_chain() -> None:
    breaks = ExponentialMachine(fails_per_slot=0.1, repairs_per_slot=0.4)
    slow = ExponentialMachine(rate_per_slot=0.8)
    _plant_against_its_chain((breaks, slow, ExponentialMachine(fails_per_slot=0.05)), (2, 0), 1)


def test_a_machine_that_fails_at_any_time_fails_while_it_waits() -> None:
    """The last of two spends most of its time starved; at work alone it would be down far less."""

    def down(failures: Literal["operation", "time"]) -> float:
        slow = ExponentialMachine(rate_per_slot=0.2)
        last = ExponentialMachine(fails_per_slot=0.1, repairs_per_slot=0.4, failures=failures)
        line = FixedLine(machines=(Machine(model=slow), Machine(model=last)), capacities=(0,))
        plant = SimPyLine(
            LineConfig(line=line, blocking="after", looks_through=False, slots_per_period=20_000), LinePlantConfig()
        )
        plant.advance()
        return float(plant.read().values[MACHINE][1, AT["down_pu"]])

    assert down("time") == pytest.approx(0.2, abs=0.02)  # p / (p + r)
    assert down("operation") < 0.08


def test_parts_in_hand_are_none_before_a_machine_that_has_no_places_there() -> None:
    machines = tuple(Machine(model=ExponentialMachine(rate_per_slot=r)) for r in (1.0, 0.5, 1.0))
    buffers = (Buffer(producer=1, consumer=3, capacity=0), Buffer(producer=2, consumer=3, capacity=1))
    line = FixedLine(machines=machines, capacities=(), buffers=buffers)
    plant = SimPyLine(LineConfig(line=line, blocking="after", looks_through=False), LinePlantConfig())
    for _ in range(200):
        plant.advance()
        values = plant.read().values[MACHINE]
        assert (values[:2, AT["room_behind"]] >= 0.0).all()
        assert values[2, AT["parts_before"]] == 0.0
    assert plant.finished > 60


def test_the_unbuffered_line_that_is_shipped_is_hunts() -> None:
    settings = yaml.safe_load((CONFIGS / "plant_unbuffered.yaml").read_text(encoding="utf-8"))
    config = LineConfig.model_validate(settings["site"])
    assert exact_line(config).production == pytest.approx(0.485798, abs=1e-6)
    assert SimPyLine(config, LinePlantConfig.model_validate(settings["plant"])).nameplate.site == "production_line"
