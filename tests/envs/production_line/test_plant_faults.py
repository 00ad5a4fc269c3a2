"""Faults of the event-driven line: each does what it says, and what it does not name stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twinloop.envs.configuration import load_mapping
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.plant_file import load_plant_file
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    GammaWear,
    LineConfig,
    Machine,
    Power,
    Upkeep,
    WeibullWear,
)
from twinloop.envs.production_line.nameplate import MACHINE, MEASURED
from twinloop.envs.production_line.plant import SimPyLine
from twinloop.envs.production_line.plant_config import LinePlantConfig
from twinloop.envs.production_line.scenarios import (
    FastWear,
    Fault,
    FrozenCounter,
    FrozenLevel,
    Jam,
    LostCounts,
    MicroStops,
    SlowRepairs,
)

CONFIGS = Path(__file__).parents[3] / "configs" / "production_line"
AT = {s.name: k for k, s in enumerate(MEASURED)}
ROW = LineConfig(line=FixedLine(machines=(Machine(),) * 3, capacities=(4, 4)), slots_per_period=60)


def told(config: LineConfig, *faults: Fault, hours: int, seed: int = 1) -> tuple[np.ndarray, SimPyLine]:
    """Readings ``[T, M, O]``, an hour each."""
    plant = SimPyLine(config, LinePlantConfig(seed=seed, meter_noise_pu=0.0, faults=faults))
    rows = []
    for _ in range(hours):
        plant.advance()
        rows.append(plant.read().values[MACHINE])
    return np.array(rows), plant


def test_sensor_faults_change_what_is_told_and_not_what_happens() -> None:
    healthy, line = told(ROW, hours=30)
    faults = (FrozenCounter(machine=2, from_h=10, to_h=20), FrozenLevel(machine=3, from_h=5, to_h=25))
    lying, same = told(ROW, *faults, hours=30)
    assert same.truth() == line.truth()
    changed = {(i, k) for i, k in zip(*np.nonzero((healthy != lying).any(0)), strict=True)}
    assert changed == {(1, AT["parts"]), (1, AT["room_behind"]), (2, AT["parts_before"])}
    assert (lying[10:19, 1, AT["parts"]] == 0.0).all()
    assert (lying[:9] == healthy[:9])[:, :, AT["parts"]].all()
    assert len(np.unique(lying[5:24, 2, AT["parts_before"]])) == 1


def test_a_lossy_counter_loses_its_share() -> None:
    lossy, plant = told(ROW, LostCounts(machine=1, lost_pu=0.2), hours=60)
    counted, true = lossy[:, 0, AT["parts"]].sum(), plant.truth()["parts"][0]
    assert abs(counted - 0.8 * true) <= 4.0 * np.sqrt(true * 0.2 * 0.8)


def test_a_jam_stops_its_machine_once_and_as_long_as_it_says() -> None:
    rows, _ = told(ROW, Jam(machine=2, at_h=5, lasts_s=5400), hours=12)
    down_s = rows[:, :, AT["down_pu"]] * 3600.0
    assert down_s[:, 1].sum() == pytest.approx(5400.0, abs=1e-6)
    assert (down_s[:5, 1] == 0.0).all()
    assert (down_s[:, [0, 2]] == 0.0).all()


def test_micro_stops_come_with_running_time() -> None:
    """Alone, a machine stops ``per_hour`` times in an hour of running: 1 / 90 of it for stops of 40 s."""
    alone = LineConfig(line=FixedLine(machines=(Machine(),), capacities=()), slots_per_period=60)
    rows, _ = told(alone, MicroStops(machine=1, per_hour=1.0, mean_s=40.0), hours=1500)
    down_h = rows[:, 0, AT["down_pu"]].sum()
    expected_h = (1500.0 - down_h) / 90.0
    assert abs(down_h - expected_h) <= 4.0 * expected_h * np.sqrt(2.0 / 1500.0)


def test_fast_wear_shortens_lives_and_slow_repairs_lengthen_services() -> None:
    machine = Machine(
        model=BernoulliMachine(efficiency_pu=1.0),
        upkeep=Upkeep(wear=WeibullWear(shape=3.0, scale_slots=100.0), corrective_slots=10),
    )
    alone = LineConfig(line=FixedLine(machines=(machine,), capacities=()), slots_per_period=60)
    (usual, a), (fast, b) = told(alone, hours=800), told(alone, FastWear(factor=2.0), hours=800)
    lives = [plant.truth()["parts"][0] / plant.truth()["failures"][0] for plant in (a, b)]
    assert lives[0] == pytest.approx(89.3, rel=0.04)  # Weibull's mean, 100 Gamma(4 / 3)
    assert lives[1] == pytest.approx(lives[0] / 2.0, rel=0.06)
    slow, c = told(alone, SlowRepairs(factor=3.0), hours=800)
    longs = [
        rows[:, 0, AT["down_pu"]].sum() * 60.0 / plant.truth()["renewals"][0]
        for rows, plant in ((usual, a), (fast, b), (slow, c))
    ]
    assert longs == pytest.approx([10.0, 10.0, 30.0], rel=0.02)


def test_a_gamma_process_wears_as_fast_as_it_is_told_to() -> None:
    machine = Machine(
        model=BernoulliMachine(efficiency_pu=1.0),
        upkeep=Upkeep(wear=GammaWear(shape_per_slot=0.1, scale=1.0, failure_level=1e9)),
    )
    alone = LineConfig(line=FixedLine(machines=(machine,), capacities=()), slots_per_period=60)
    for factor in (1.0, 1.5):
        _, plant = told(alone, FastWear(factor=factor), hours=300)
        true = plant.truth()
        expected = 0.1 * factor * true["parts"][0]
        assert abs(true["wear"][0] - expected) <= 4.0 * np.sqrt(expected)


def test_cycles_in_vain_draw_what_the_power_law_says() -> None:
    """A machine alone that makes a part in 60 % of slots: 9 + 6 kW times that share, or all the time."""
    for draws, mean_kw in (("produced", 9.0 + 6.0 * 0.6), ("loaded", 15.0)):
        machine = Machine(model=BernoulliMachine(efficiency_pu=0.6), power=Power.model_validate({"draws": draws}))
        rows, plant = told(
            LineConfig(line=FixedLine(machines=(machine,), capacities=()), slots_per_period=60), hours=500
        )
        made = plant.truth()["parts"][0] / (500 * 60.0)
        assert made == pytest.approx(0.6, abs=0.012)
        assert rows[:, 0, AT["power_kw"]].mean() == pytest.approx(mean_kw, abs=0.09)
        assert plant.energy_kwh == pytest.approx(rows[:, 0, AT["power_kw"]].sum(), rel=1e-9)


def test_a_warm_up_is_counted_down() -> None:
    config = LineConfig(line=FixedLine(machines=(Machine(warm_up_slots=3),), capacities=()))
    plant = SimPyLine(config, LinePlantConfig())
    plant.write({MACHINE: np.array([[0.0, 1.0]])})
    for _ in range(5):
        plant.advance()
    plant.write({MACHINE: np.array([[2.0, 1.0]])})
    left = []
    for _ in range(4):
        plant.advance()
        left.append(plant.read().values[MACHINE][0, AT["ready_in_slots"]])
    assert left == [2.0, 1.0, 0.0, 0.0]


def test_the_shipped_plants_are_of_the_lines_that_policies_are_trained_on() -> None:
    """An artifact of the training file is taken by the plant's: their nameplates are one."""
    for plant, train in (("plant_energy", "train_energy"), ("plant_drift", "train_energy")):
        site, config, _ = load_plant_file(CONFIGS / f"{plant}.yaml")
        trained = LineConfig.model_validate(load_mapping(CONFIGS / f"{train}.yaml")["site"])
        assert site.nameplate(config).hash == site.nameplate(trained).hash, plant


def test_a_fault_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigurationError, match="faults"):
        load_plant_file(CONFIGS / "plant_energy.yaml", ["plant.faults=[{kind: jamm}]"])
    with pytest.raises(ConfigurationError, match="from_h"):
        load_plant_file(CONFIGS / "plant_energy.yaml",
                        ["plant.faults=[{kind: frozen_counter, from_h: 3, to_h: 2}]"])  # fmt: skip
