"""A line's diagnosis from telemetry of the twin and of the plant: estimates, bottleneck, shifts, stops, key figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from twinloop.envs.diagnosis import Diagnosable, History
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line import SITE
from twinloop.envs.production_line.analysis.diagnosis import EXTRA_ROOM, find
from twinloop.envs.production_line.analysis.efficiency import estimate
from twinloop.envs.production_line.analysis.gains import Model, sensitivities
from twinloop.envs.production_line.analysis.oee import key_figures
from twinloop.envs.production_line.analysis.record import LineRecord, record_of
from twinloop.envs.production_line.analysis.report import LineDiagnosis
from twinloop.envs.production_line.analysis.settings import LineDiagnosisSettings
from twinloop.envs.production_line.analysis.shift import ShiftWatch
from twinloop.envs.production_line.analysis.stops import opportunity_windows, stops_of
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    Buffer,
    FixedLine,
    GeometricMachine,
    LineConfig,
    Machine,
    RandomLine,
)
from twinloop.envs.production_line.exact_line import ExactMachine, solve_line
from twinloop.envs.production_line.nameplate import MACHINE, MEASURED
from twinloop.envs.production_line.plant import SimPyLine
from twinloop.envs.production_line.plant_config import LinePlantConfig
from twinloop.envs.production_line.twin import ProductionLineTwin

AT = {s.name: k for k, s in enumerate(MEASURED)}
FEW = LineDiagnosisSettings(replicas=32, slots=300)
ON = np.array([2.0, 1.0])


def row(efficiency: tuple[float, ...], capacities: tuple[int, ...], slots_per_period: int = 10) -> LineConfig:
    machines = tuple(Machine(model=BernoulliMachine(efficiency_pu=p)) for p in efficiency)
    return LineConfig(line=FixedLine(machines=machines, capacities=capacities), slots_per_period=slots_per_period)


def history(times: list[float], read: np.ndarray) -> History:
    obeyed = np.tile(ON, (*read.shape[:2], 1))
    return History(np.array(times), {MACHINE: read}, {MACHINE: np.isfinite(read)}, {MACHINE: obeyed})


def of_plant(config: LineConfig, n_periods: int, seed: int = 2, cycle_spread_pu: float = 0.05) -> History:
    plant = SimPyLine(config, LinePlantConfig(seed=seed, cycle_spread_pu=cycle_spread_pu))
    times, read = [], []
    for _ in range(n_periods):
        plant.advance()
        times.append(plant.clock_s)
        read.append(plant.read().values[MACHINE])
    return history(times, np.array(read))


def of_twin(twin: ProductionLineTwin, n_periods: int) -> np.ndarray:
    n = twin.nameplate.groups[0].n_assets
    commands = {MACHINE: torch.tensor(ON).expand(1, n, 2)}
    return np.array([twin.step(commands).measured[MACHINE][0].numpy().copy() for _ in range(n_periods)])


def blank(n_periods: int, n: int, slots: int = 10) -> LineRecord:
    def none() -> np.ndarray:
        return np.zeros((n_periods, n))

    full = none() + slots
    return LineRecord(
        slots, "clock", tuple(f"M{i + 1}" for i in range(n)), valid=full > 0, trials=full, made=full, parts=full.copy(),
        blocked=none(), starved=none(), down=none(), stopped=none() > 0, repaired=none() > 0,
        before=none(), room=none(),
    )  # fmt: skip


def test_estimates_from_twin_and_plant_hold_the_truth() -> None:
    truth = np.array([0.9, 0.75, 0.85])
    config = row((0.5, 0.5, 0.5), (2, 3), 20)  # what the analysis is told is not what runs
    twin = ProductionLineTwin(row((0.9, 0.75, 0.85), (2, 3), 20), 1, dtype=torch.float64)
    twin.reset(torch.tensor([3]))
    read = of_twin(twin, 100)
    on_twin = record_of(config, history([1200.0 * k for k in range(100)], read), "draws")
    on_plant = record_of(config, of_plant(row((0.9, 0.75, 0.85), (2, 3), 20), 200), "clock")
    for record in (on_twin, on_plant):
        found = estimate(config, record, np.zeros((3, 3), dtype=np.int64))
        mean, spread = found.efficiency()
        assert (np.abs(mean - truth) <= 3.5 * spread).all()
        assert (spread < 0.02).all()
        assert found.draws(2000, np.random.default_rng(0)).efficiency.mean(0) == pytest.approx(mean, abs=0.002)


def test_failures_and_repairs_are_estimated_from_stops() -> None:
    machines = tuple(Machine(model=GeometricMachine(fails_pu=f, repairs_pu=0.1)) for f in (0.01, 0.03, 0.01))
    config = LineConfig(line=FixedLine(machines=machines, capacities=(5, 5)), slots_per_period=2)
    found = find(config, of_plant(config, 2000), FEW)
    assert found.gains.method == "replicas"
    assert found.plan.names[found.bottleneck] == "M2"
    drawn = found.estimates.draws(500, np.random.default_rng(0))
    for values, truth in ((drawn.fails, (0.01, 0.03, 0.01)), (drawn.repairs, (0.1, 0.1, 0.1))):
        assert (np.abs(values.mean(0) - truth) <= 4.0 * values.std(0)).all()
    assert found.measured is not None
    assert not found.measured.shifts  # failures come in clusters, and are no change
    assert found.measured.stops[0].lost > 0
    bottleneck = [s for s in found.measured.stops if s.machine == 1]
    assert all(s.window == 0 for s in bottleneck)
    assert {t.partition(": ")[2] for t in found.gains.titles if t.startswith("M")} == {
        "stops 5 % rarer",
        "stops 5 % shorter",
    }


def test_a_plant_makes_what_the_chain_with_places_in_machines_makes() -> None:
    """With cycles that don't vary, so that slots of all machines coincide, as those of the chain do."""
    config = row((0.9, 0.8, 0.85), (1, 1), 500)
    made = of_plant(config, 100, cycle_spread_pu=0.0).measured[MACHINE][4:, -1, AT["parts"]] / 500
    machines = [ExactMachine(p) for p in (0.9, 0.8, 0.85)]
    exact = solve_line(machines, (1 + EXTRA_ROOM,) * 2, looks_through=False).production
    assert abs(made.mean() - exact) <= 3.0 * made.std(ddof=1) / np.sqrt(len(made))
    plain = solve_line(machines, (1, 1), looks_through=True).production
    assert abs(made.mean() - plain) > 10.0 * made.std(ddof=1) / np.sqrt(len(made))


def test_a_bottleneck_that_moved_is_found_again_within_1000_slots() -> None:
    efficiency = (0.9, 0.9, 0.7, 0.9, 0.9)
    config = row(efficiency, (3, 3, 3, 3))
    twin = ProductionLineTwin(config, 1, dtype=torch.float64)
    twin.reset(torch.tensor([5]))
    before = of_twin(twin, 150)
    moved = {"M3_efficiency_pu": torch.tensor(0.9), "M5_efficiency_pu": torch.tensor(0.7)}
    twin.set_parameters(moved)
    read = np.concatenate((before, of_twin(twin, 100)))
    earlier = record_of(config, history([600.0 * k for k in range(150)], before), "draws")
    estimates = estimate(config, earlier, np.zeros((3, 5), dtype=np.int64))
    assert int(sensitivities(Model(config, estimates, 0, True), FEW).mean.argmax()) == 2
    found = find(config, history([600.0 * k for k in range(250)], read), FEW, "draws")
    assert found.bottleneck == 4
    assert found.measured is not None
    assert {s.machine for s in found.measured.shifts} == {2, 4}
    assert all(abs(s.period - 150) <= 10 and s.seen - s.period <= 60 for s in found.measured.shifts)
    assert any(line.startswith("M5 changed after slot 1,") for line in LineDiagnosis(found).headline)


def test_what_does_not_change_raises_few_alarms() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(10):
        watch = ShiftWatch(1, LineDiagnosisSettings().alarm_nats)
        for made in rng.binomial(10, 0.85, 200):
            alarms += len(watch.take(np.array([10.0]), np.array([float(made)])))
    assert alarms <= 1


def test_free_stops_are_what_lies_between_a_machine_and_the_bottleneck() -> None:
    before, room = np.array([1e6, 2.0, 3.0, 1.0]), np.array([2.0, 1.0, 4.0, 1e6])
    found = opportunity_windows(before, room, 2, 0.5)
    np.testing.assert_allclose(found, [(2 + 3) / 0.5, 3 / 0.5, 0.0, 4 / 0.5])


def test_a_stop_costs_what_it_lasts_beyond_its_window() -> None:
    record = blank(8, 2)
    record.down[3:5, 0], record.stopped[3, 0], record.before[:, 1] = [10.0, 4.0], True, 3.0
    (stop,) = stops_of(record, bottleneck=1, rate=0.5)
    assert (stop.machine, stop.period, stop.lasted, stop.window) == (0, 3, 14.0, 6.0)
    assert stop.lost == pytest.approx(4.0)


def test_key_figures_are_iso_22400s() -> None:
    record = blank(10, 1)
    record.blocked[:] = 2.0
    record.down[4], record.stopped[4] = 5.0, True
    record.parts[:] = 6.0
    found = key_figures(record, np.array([0.9]))
    # of 100 slots planned: 20 blocked, 5 down, 75 of production, 60 parts of one slot each
    assert found.availability[0] == pytest.approx(0.75)
    assert found.effectiveness[0] == pytest.approx(60 / 75)
    assert found.oee[0] == pytest.approx(0.6)
    assert (found.repair_slots[0], found.between_slots[0]) == (5.0, 75.0)


def test_periods_off_and_bad_readings_are_left_out() -> None:
    config = row((0.9, 0.9), (3,), 10)
    taken = of_plant(config, 30)
    obeyed, good = taken.obeyed[MACHINE].copy(), taken.good[MACHINE].copy()
    obeyed[10:12, 0, 0] = 0.0
    good[20, 1, AT["parts"]] = False
    record = record_of(config, History(taken.time_s, taken.measured, {MACHINE: good}, {MACHINE: obeyed}), "clock")
    assert np.flatnonzero(~record.valid[:, 0]).tolist() == [10, 11, 12]  # and the one in which it came back
    assert np.flatnonzero(~record.valid[:, 1]).tolist() == [20]
    assert record.trials[10:13, 0].sum() == 0
    obeyed[:, :, 0] = 0.0
    assert all(record.valid[-5:].sum(0) == 5)
    with pytest.raises(ConfigurationError, match="with machines on"):
        record_of(config, History(taken.time_s, taken.measured, taken.good, {MACHINE: obeyed}), "clock")


def test_a_configuration_alone_is_diagnosed_and_drawn(tmp_path: Path) -> None:
    assert isinstance(SITE, Diagnosable)
    found = SITE.diagnose(row((0.9, 0.9, 0.7), (2, 2)), None, FEW)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (told["bottleneck"], told["method"], told["arrow_rule"]["primary"]) == ("M3", "chain", "M3")
    assert "measured" not in told
    assert found.headline[0].startswith("bottleneck: M3")
    assert (
        max(told["changes_parts_per_slot"], key=lambda t: told["changes_parts_per_slot"][t]["mean"])
        == "M3: rate 5 % higher"
    )
    found.draw(tmp_path / "line.png")
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")


def test_a_line_that_branches_is_diagnosed_by_replicas() -> None:
    machines = tuple(Machine(model=BernoulliMachine(efficiency_pu=p)) for p in (0.95, 0.7, 0.9))
    buffers = (Buffer(producer=1, consumer=3), Buffer(producer=2, consumer=3))
    found = find(LineConfig(line=FixedLine(machines=machines, capacities=(), buffers=buffers)), None, FEW)
    assert (found.gains.method, found.bottleneck, found.arrows.primary) == ("replicas", 1, 1)


@pytest.mark.parametrize("efficiency", [0.8, 1.0])
def test_a_single_machine_holds_its_line(efficiency: float) -> None:
    for method in ("chain", "replicas"):
        settings = LineDiagnosisSettings(method=method, replicas=16, slots=200)
        found = SITE.diagnose(row((efficiency,), ()), None, settings)
        assert found.headline[0].startswith("bottleneck: M1 (chance > 0.99)")
        assert ("nothing to try" in found.headline[2]) == (efficiency == 1.0)
        assert found.sheets


def test_many_lines_at_once_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="kind 'fixed'"):
        find(LineConfig(line=RandomLine()), None, FEW)
