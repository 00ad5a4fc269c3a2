"""The line's live twin: states taken over exactly, machines learnt from counts, forecasts as wide as they are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from twinloop.deploy.live_twin import LiveTwin, LiveTwinSettings, make_live_twin
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.estimation.settings import Prior
from twinloop.envs.plant import Arrays, Telemetry
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    Buffer,
    FixedLine,
    GammaWear,
    GeometricMachine,
    LineConfig,
    Machine,
    RandomLine,
    Upkeep,
    WeibullWear,
)
from twinloop.envs.production_line.line_plan import plan_of
from twinloop.envs.production_line.line_tracker import LineTracker
from twinloop.envs.production_line.nameplate import MACHINE, MEASURED
from twinloop.envs.production_line.physics import BLOCKED
from twinloop.envs.production_line.plant import SimPyLine
from twinloop.envs.production_line.plant_config import LinePlantConfig
from twinloop.envs.production_line.scenarios import FastWear, FrozenCounter, Jam
from twinloop.envs.production_line.told_state import AT, ToldState, true_wear
from twinloop.envs.production_line.tracking import track_line
from twinloop.envs.production_line.wear_beliefs import PaceBeliefs
from twinloop.envs.registry import load_site

ENERGY = LineConfig(
    line=FixedLine(
        machines=tuple(Machine(model=BernoulliMachine(efficiency_pu=p)) for p in (0.9, 0.7, 0.9)), capacities=(6, 6)
    ),
    slots_per_period=20,
)


def live_of(config: LineConfig, plant: LinePlantConfig, **settings: Any) -> LiveTwin:
    plan = track_line(config, plant)
    chosen = LiveTwinSettings(**(plan.settings.model_dump() | settings))
    return make_live_twin(load_site("production_line"), plan.config, plan.n_members, chosen, plan.tracker)


def followed(live: LiveTwin, plant: SimPyLine, n: int, commands: Arrays | None = None) -> None:
    neutral = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in plant.nameplate.groups}
    for _ in range(n):
        accepted = plant.write(commands or neutral)
        plant.advance()
        live.advance(accepted, plant.clock_s)
        live.assimilate(plant.read())


def test_members_read_what_the_plant_reads() -> None:
    """Levels, states, ages and modes are the plant's own after every reading, with a machine switched off and on."""
    config = ENERGY.model_copy(update={"slots_per_period": 1})
    plant = SimPyLine(config, LinePlantConfig(seed=3))
    live = live_of(config, LinePlantConfig())
    live.start(plant.clock_s)
    off = {MACHINE: np.array([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])}
    told = [AT[name] for name in ("state", "parts_before", "room_behind", "ready_in_slots")]
    seen = set()
    for k in range(60):
        followed(live, plant, 1, off if 20 <= k < 45 else None)
        measured = plant.read().values[MACHINE]
        with live.replicas() as (_, readings):
            members = readings.measured[MACHINE].numpy()
        assert (members[:, :, told] == measured[:, told]).all(), (k, measured[:, told], members[0][:, told])
        seen.update(measured[:, AT["state"]].astype(int).tolist())
    assert {0, 1, 2, 4, 6} <= seen


def test_efficiencies_are_found_within_their_own_intervals_and_the_gate_opens() -> None:
    """Machines 5 % spread about what is declared: six estimates of two plants, a z of three and more is a fault."""
    for seed in (1, 2):
        settings = LinePlantConfig(seed=seed, efficiency_error_pu=0.05)
        plant = SimPyLine(ENERGY, settings)
        live = live_of(ENERGY, settings)
        live.start(plant.clock_s)
        followed(live, plant, 90)
        verdict = live.verdict()
        assert verdict.open, verdict.why
        for name, true in zip(plant.nameplate.group(MACHINE).assets, plant.truth()["efficiency"], strict=True):
            mean, std = live.parameters()[f"{name}_efficiency_pu"]
            assert abs(mean - true) <= 3.5 * std, (name, mean, std, true)
            assert std < 0.02


def test_a_counter_that_stands_still_is_left_out() -> None:
    """Levels on both sides of M2 say that parts pass: its efficiency stays, and the reading is called an outlier."""
    settings = LinePlantConfig(seed=2, faults=(FrozenCounter(machine=2),))
    plant = SimPyLine(ENERGY, settings)
    live = live_of(ENERGY, settings)
    live.start(plant.clock_s)
    neutral = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in plant.nameplate.groups}
    outliers: list[str] = []
    for _ in range(30):
        accepted = plant.write(neutral)
        plant.advance()
        live.advance(accepted, plant.clock_s)
        outliers += live.assimilate(plant.read()).outliers
    assert outliers.count("machine/M2/parts") >= 25
    assert set(outliers) == {"machine/M2/parts"}
    assert live.parameters()["M2_efficiency_pu"][0] == pytest.approx(0.7, abs=0.02)
    assert live.parameters()["M1_efficiency_pu"][0] == pytest.approx(0.9, abs=0.06)


def test_a_changed_machine_is_found_again_within_a_thousand_slots() -> None:
    def row_of(efficiency: float) -> LineConfig:
        machines = (Machine(), Machine(model=BernoulliMachine(efficiency_pu=efficiency)), Machine())
        return LineConfig(line=FixedLine(machines=machines, capacities=(6, 6)), slots_per_period=10)

    declared, changed = row_of(0.7), row_of(0.5)
    before, after = SimPyLine(declared, LinePlantConfig(seed=1)), SimPyLine(changed, LinePlantConfig(seed=2))
    live = live_of(declared, LinePlantConfig())
    live.start(before.clock_s)
    followed(live, before, 200)
    assert live.parameters()["M2_efficiency_pu"][0] == pytest.approx(0.7, abs=0.05)
    before_s = live.time_s
    neutral = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in after.nameplate.groups}
    for k in range(100):
        after.advance()
        telemetry = after.read()
        shift = before_s + (k + 1) * declared.dt_s - after.clock_s
        times = {name: at + shift for name, at in telemetry.source_time_s.items()}
        live.advance(neutral, after.clock_s + shift)
        live.assimilate(Telemetry(telemetry.values, times, telemetry.quality, after.clock_s + shift, k))
    assert live.parameters()["M2_efficiency_pu"][0] == pytest.approx(0.5, abs=0.06)


def test_stops_and_repairs_are_learnt_only_once_they_are_seen() -> None:
    jammed = LinePlantConfig(seed=1, faults=(Jam(machine=1, at_h=5, lasts_s=7200),))
    plant = SimPyLine(ENERGY, jammed)
    live = live_of(ENERGY, jammed)
    live.start(plant.clock_s)
    followed(live, plant, 10)
    assert live.parameters()["M1_fails_pu"] == (0.0, 0.0)
    followed(live, plant, 20)
    assert live.parameters()["M1_fails_pu"][0] > 0.0
    assert live.parameters()["M2_fails_pu"] == (0.0, 0.0)
    assert live.parameters()["M1_efficiency_pu"][0] == pytest.approx(0.9, abs=0.05)  # while up


def test_a_twin_restored_goes_on_to_the_same_bits() -> None:
    config = LineConfig(
        line=FixedLine(
            machines=(
                Machine(upkeep=Upkeep(wear=WeibullWear(shape=2.0, scale_slots=60.0))),
                Machine(model=GeometricMachine()),
                Machine(upkeep=Upkeep(wear=GammaWear(shape_per_slot=0.2, failure_level=10.0), inspection_slots=1)),
            )
        ),
        slots_per_period=4,
    )
    plant = SimPyLine(config, LinePlantConfig(seed=5))
    live, other = (live_of(config, LinePlantConfig()) for _ in range(2))
    live.start(plant.clock_s)
    followed(live, plant, 40)
    other.restore(live.snapshot())
    for _ in range(10):
        plant.advance()
        telemetry = plant.read()
        neutral = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in plant.nameplate.groups}
        for twin in (live, other):
            twin.advance(neutral, plant.clock_s)
            twin.assimilate(telemetry)
    a, b = live.snapshot(), other.snapshot()
    assert set(a) == set(b)
    assert all(np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") for k in a)


def test_the_pace_of_wear_is_the_posterior_of_its_counts() -> None:
    """Lives that end at known ages: the Gamma posterior in closed form, quantile by quantile."""
    wear = WeibullWear(shape=2.0, scale_slots=100.0)
    beliefs = PaceBeliefs([Machine(upkeep=Upkeep(wear=wear))], np.array([0.3]), keep=1.0)
    row = np.zeros((1, len(MEASURED)))
    lives = (40.0, 75.0, 90.0)
    for life in lives:
        fresh, old, failed = row.copy(), row.copy(), row.copy()
        old[0, AT["age_slots"]] = failed[0, AT["age_slots"]] = life
        failed[0, AT["state"]], failed[0, AT["waits_for_crew"]] = 3.0, 1.0
        beliefs.take(old, fresh, np.zeros(1))
        beliefs.take(failed, old, np.zeros(1))
        beliefs.take(fresh, failed, np.zeros(1))
    own = 1.0 / (0.3 * wear.shape) ** 2
    u = np.array([[0.1, 0.5, 0.9]])
    expected = stats.gamma(own + 3, scale=1.0 / (own + sum((life / 100.0) ** 2 for life in lives))).ppf(u) ** 0.5
    assert beliefs.quantiles(u, u[0]) == pytest.approx(expected, rel=1e-9)


def test_a_fleet_that_wears_fast_is_seen_to() -> None:
    config = LineConfig(
        line=FixedLine(
            machines=(Machine(model=BernoulliMachine(efficiency_pu=1.0),
                              upkeep=Upkeep(wear=WeibullWear(shape=3.0, scale_slots=100.0))),) * 3,
            capacities=(), parallel=True,
        ),
        slots_per_period=5,
    )  # fmt: skip
    settings = LinePlantConfig(seed=1, faults=(FastWear(factor=1.6),))
    plant = SimPyLine(config, settings)
    live = live_of(config, settings)
    live.start(plant.clock_s)
    followed(live, plant, 250)
    paces = [mean for name, (mean, _) in live.parameters().items() if name.endswith("_wear_pace")]
    assert np.mean(paces) == pytest.approx(1.6, abs=0.3)


def test_true_wear_between_looks_is_gamma_below_what_is_left() -> None:
    """Against paths of a gamma process, of which those that fail are thrown away."""
    wear = GammaWear(shape_per_slot=0.1, scale=1.0, failure_level=8.0)
    rng = np.random.default_rng(1)
    paths = 3.0 + rng.gamma(0.1, 1.0, (200_000, 30)).sum(1)
    alive = paths[paths < wear.failure_level]
    u = (np.arange(4000) + 0.5) / 4000
    drawn = true_wear(wear, 3.0, 30.0, u, np.ones(4000))
    assert drawn.max() < wear.failure_level
    assert stats.ks_2samp(drawn, alive).pvalue > 0.01


def test_levels_are_told_with_the_parts_in_hands() -> None:
    """Producer blocked with one, consumer at work on one: the twin's level is the sensor's and two."""
    told = np.zeros((2, len(MEASURED)))
    told[0, AT["state"]], told[1, AT["parts_before"]] = BLOCKED, 6.0
    config = LineConfig(line=FixedLine(machines=(Machine(),) * 2, capacities=(6,)))
    assert ToldState(config, plan_of(config)).levels(told).tolist() == [8.0]
    tree = LineConfig(
        line=FixedLine(
            machines=(Machine(),) * 3,
            buffers=(Buffer(producer=1, consumer=3), Buffer(producer=1, consumer=2), Buffer(producer=2, consumer=3)),
        )
    )
    found = ToldState(tree, plan_of(tree)).levels(np.zeros((3, len(MEASURED))))
    assert np.isnan(found[0])  # neither sensor is of this buffer alone
    assert not np.isnan(found[1:]).any()


def test_what_cannot_be_tracked_is_refused_in_words() -> None:
    with pytest.raises(ConfigurationError, match="random lines are not tracked"):
        track_line(LineConfig(line=RandomLine()), LinePlantConfig())
    with pytest.raises(ConfigurationError, match="inflation"):
        live_of(ENERGY, LinePlantConfig(), inflation=1.1)
    with pytest.raises(ConfigurationError, match="M4_efficiency_pu"):
        live_of(ENERGY, LinePlantConfig(), parameters={"M4_efficiency_pu": Prior(std=0.1).model_dump()})


def test_ranks_of_a_right_forecast_are_uniform() -> None:
    """Readings that a member could have given: the NIS of the tracker's scores is one a degree of freedom."""
    live = live_of(ENERGY, LinePlantConfig())
    tracker = live._filter
    assert isinstance(tracker, LineTracker)
    rng = np.random.default_rng(0)
    z = []
    for k in range(400):
        tracker._step = k
        members = rng.binomial(3, 0.4, (3, 64)).astype(float)
        z.append(
            tracker._scores(
                members, rng.binomial(3, 0.4, 3).astype(float), np.full(3, 1e-4), True, (MACHINE, AT["parts"])
            )
        )
    assert stats.kstest(np.concatenate(z), "norm").pvalue > 0.01
    assert torch.get_default_dtype() == torch.float32  # nothing global was changed
