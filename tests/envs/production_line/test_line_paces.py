"""How fast machines wear and how long work on them takes: what a live twin learns of a line as a whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from twinloop.deploy.live_twin import LiveTwinSettings, make_live_twin
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    LineConfig,
    Machine,
    Upkeep,
    WeibullWear,
)
from twinloop.envs.production_line.nameplate import CREW, MACHINE, MEASURED, UPKEEP_MEASURED
from twinloop.envs.production_line.plant import SimPyLine
from twinloop.envs.production_line.plant_config import LinePlantConfig
from twinloop.envs.production_line.scenarios import FastWear, SlowRepairs
from twinloop.envs.production_line.service_beliefs import ServiceBeliefs
from twinloop.envs.production_line.told_state import AT
from twinloop.envs.production_line.tracking import track_line
from twinloop.envs.production_line.twin import ProductionLineTwin
from twinloop.envs.production_line.wear_beliefs import PaceBeliefs
from twinloop.envs.registry import load_site

N_SIGNALS = len(MEASURED + UPKEEP_MEASURED)
WORN = Machine(
    model=BernoulliMachine(efficiency_pu=1.0),
    upkeep=Upkeep(wear=WeibullWear(shape=2.5, scale_slots=40.0), preventive_slots=3, corrective_slots=9),
)


def reading(state: float, down: float, age: float, waits: float = 0.0) -> np.ndarray:
    row = np.zeros(N_SIGNALS)
    for name, value in (("state", state), ("down_pu", down), ("age_slots", age), ("waits_for_crew", waits)):
        row[AT[name]] = value
    return row


def told(beliefs: ServiceBeliefs | PaceBeliefs, rows: list[np.ndarray], n: int, machine: int, asked: float) -> None:
    """``machine`` gives these readings, of the others nothing is known."""
    before = np.full((n, N_SIGNALS), np.nan)
    before[machine] = rows[0]
    for row in rows[1:]:
        now = np.full_like(before, np.nan)
        now[machine] = row
        beliefs.take(now, before, np.full(n, asked))
        before = now


def test_a_service_is_timed_by_what_was_down_and_the_rest_follows_from_normal_theory() -> None:
    """Two machines timed, a third not: against the joint normal posterior of all three, solved as one."""
    std, slots = 0.3, 3
    beliefs = ServiceBeliefs([WORN] * 3, np.full(3, std), keep=1.0, slots=slots)
    # asked for, begun a third of a period before a reading: 1 + 3 + 0.5 slots of preventive service
    told(beliefs, [reading(0, 0, 30), reading(7, 1 / 3, 32), reading(7, 1, 32), reading(0, 0.5 / 3, 2)], 3, 0, 1.0)
    # failed, waited, begun somewhere in a period: 1.5 +- of it, 9, and 1 more of a repair
    rows = [reading(3, 0.4, 20, 1), reading(7, 1, 20), *[reading(7, 1, 20)] * 3, reading(0, 1 / 3, 2)]
    told(beliefs, rows, 3, 1, 0.0)
    seen = np.array([4.5 / 3, 11.5 / 9])
    error = np.array([0.05**2, 0.05**2 + slots**2 / 12 / 81])
    prior = np.full((3, 3), 0.5 * std**2) + 0.5 * std**2 * np.eye(3)
    gain = prior[:, :2] @ np.linalg.inv(prior[:2, :2] + np.diag(error))
    mean, cov = 1.0 + gain @ (seen - 1.0), prior - gain @ prior[:2]
    rng = np.random.default_rng(1)
    found = beliefs.quantiles(rng.random((3, 200_000)), rng.random(200_000))
    assert found.mean(1) == pytest.approx(mean, abs=0.003)
    assert np.cov(found) == pytest.approx(cov, abs=0.0015)


def test_who_waits_or_stops_besides_is_not_timed() -> None:
    """A service after whose end the machine stands again, one that follows another at once, and a repair for which the
    machine had to wait while the crew was elsewhere."""
    beliefs = ServiceBeliefs([WORN], np.full(1, 0.3), keep=1.0, slots=3)
    told(beliefs, [reading(0, 0, 30), reading(7, 0.5, 31), reading(3, 1, 0, 1)], 1, 0, 1.0)
    told(beliefs, [reading(7, 1, 30), reading(7, 1, 0), reading(0, 0.3, 1)], 1, 0, 1.0)
    pair, elsewhere = ServiceBeliefs([WORN] * 2, np.full(2, 0.3), keep=1.0, slots=3), np.full(N_SIGNALS, np.nan)
    elsewhere[AT["state"]] = 7.0
    row = [reading(0, 0, 30), reading(7, 1, 31), reading(0, 0.3, 1)]
    for before, now in pairwise(row):
        pair.take(np.stack([now, elsewhere]), np.stack([before, elsewhere]), np.zeros(2))
    twice = np.array([[0.2, 0.5, 0.8]] * 2)
    new = ServiceBeliefs([WORN] * 2, np.full(2, 0.3), keep=1.0, slots=3)
    assert pair.quantiles(twice, twice[0]) == pytest.approx(new.quantiles(twice, twice[0]))
    u = np.array([[0.2, 0.5, 0.8]])
    fresh = ServiceBeliefs([WORN], np.full(1, 0.3), keep=1.0, slots=3)
    assert beliefs.quantiles(u, u[0]) == pytest.approx(fresh.quantiles(u, u[0]))


def test_the_common_pace_is_that_of_bayes_by_brute_force() -> None:
    """Three machines, two of which have failed often: the posterior by weighted draws from the prior."""
    beliefs = PaceBeliefs([WORN] * 3, np.full(3, 0.3), keep=1.0)
    for machine, lives in ((0, (20.0, 22.0, 25.0)), (1, (18.0, 28.0))):
        for life in lives:
            told(beliefs, [reading(0, 0, 0), reading(0, 0, life), reading(3, 1, life, 1)], 3, machine, 0.0)
    rng = np.random.default_rng(2)
    n, shape, std = 400_000, 2.5, 0.3 * np.sqrt(0.5)
    common = np.exp(std * rng.standard_normal(n))
    own = 1.0 / (shape * std) ** 2
    rate = rng.gamma(own, 1.0 / own, (3, n)) * common**shape
    weight = np.ones(n)
    for machine, lives in ((0, (20.0, 22.0, 25.0)), (1, (18.0, 28.0))):
        through = sum((life / 40.0) ** shape for life in lives)
        weight *= rate[machine] ** len(lives) * np.exp(-rate[machine] * through)
    expected = (weight * rate ** (1.0 / shape)).sum(1) / weight.sum()
    found = beliefs.quantiles(rng.random((3, n)), rng.random(n)).mean(1)
    assert found == pytest.approx(expected, rel=0.01)
    assert 1.1 < found[2] < found[:2].min()  # of which nothing is known but that it is one of them


def test_services_of_the_twin_last_as_long_as_they_are_set_to_on_average() -> None:
    """3 slots times 1.2 are 3 or 4, drawn: 3.6 on average; a factor of 1 leaves 3."""
    config = LineConfig(line=FixedLine(parallel=True, capacities=(), machines=(WORN,) * 2), modes=("on",))
    twin = ProductionLineTwin(config, 2000, dtype=torch.float64)
    plain = ProductionLineTwin(config, 2000, dtype=torch.float64)
    twin.set_parameters({"M1_service_factor": torch.tensor(1.2)})
    ask = torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 0.0]], dtype=torch.float64).expand(2000, 2, 3)
    commands = {MACHINE: ask, CREW: torch.zeros(2000, 1, 1, dtype=torch.float64)}
    served = usual = torch.zeros(2000)
    for t in (twin, plain):
        t.reset(torch.arange(2000))
    for k in range(5):
        if k:
            commands = {**commands, MACHINE: ask * torch.tensor([1.0, 1.0, 0.0])}
        longer, declared = (t.step(commands).measured[MACHINE][:, 0, AT["state"]] == 7.0 for t in (twin, plain))
        served, usual = served + longer, usual + declared
    assert set(served.tolist()) == {3.0, 4.0}
    assert set(usual.tolist()) == {3.0}
    assert abs(float(served.mean()) - 3.6) <= 4.0 * np.sqrt(0.24 / 2000)


def test_a_live_twin_learns_fast_wear_and_slow_crews_together() -> None:
    """Five days of eight machines: each fails too seldom to tell, all together do."""
    upkeep = Upkeep(wear=WeibullWear(shape=2.5, scale_slots=100.0), preventive_slots=3, corrective_slots=9)
    machine = WORN.model_copy(update={"upkeep": upkeep})
    config = LineConfig(
        line=FixedLine(parallel=True, capacities=(), machines=(machine,) * 8), modes=("on",), slot_s=1200,
        slots_per_period=3,
    )  # fmt: skip
    settings = LinePlantConfig(seed=5, faults=(FastWear(factor=1.3), SlowRepairs(factor=1.4)))
    plant, plan = SimPyLine(config, settings), track_line(config, settings)
    live = make_live_twin(
        load_site("production_line"), plan.config, plan.n_members, LiveTwinSettings(**plan.settings.model_dump()),
        plan.tracker,
    )  # fmt: skip
    live.start(plant.clock_s)
    neutral = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in plant.nameplate.groups}
    for _ in range(120):
        plant.advance()
        live.advance(plant.write(neutral), plant.clock_s)
        live.assimilate(plant.read())
    # of 28 failures the pace is known by 0.08, of as many repairs the factor by 0.02: four of each
    for kind, true, off in (("_wear_pace", 1.3, 0.32), ("_service_factor", 1.4, 0.08)):
        found = np.array([v for k, v in live.parameters().items() if k.endswith(kind)])
        assert (np.abs(found[:, 0] - true) <= 4.0 * found[:, 1]).all(), (kind, found)
        assert found[:, 0].mean() == pytest.approx(true, abs=off), (kind, found)
    assert stats.norm.cdf(1.0, *np.mean(found, axis=0)) < 0.01  # by now it is no longer held for declared
