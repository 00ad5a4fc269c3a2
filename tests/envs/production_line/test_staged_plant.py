"""Damage in stages on the event-driven plant and in remaining life: closed forms, simulation, calibrated beliefs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from twinloop.deploy.live_twin import LiveTwinSettings, make_live_twin
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    LineConfig,
    Machine,
    Service,
    StagedWear,
    Upkeep,
)
from twinloop.envs.production_line.nameplate import CREW, HIDDEN, MACHINE, MEASURED, UPKEEP_MEASURED
from twinloop.envs.production_line.plant import SimPyLine
from twinloop.envs.production_line.plant_config import LinePlantConfig
from twinloop.envs.production_line.remaining_life import remaining_life, staged_chance
from twinloop.envs.production_line.scenarios import FastWear
from twinloop.envs.production_line.tracking import track_line
from twinloop.envs.registry import load_site

AT = {s.name: k for k, s in enumerate(MEASURED)}
BELIEFS = slice(len(MEASURED + UPKEEP_MEASURED), None)
ADVANCE = (0.05, 0.08, 0.1)
SEES = ((0.8, 0.2, 0.0), (0.1, 0.7, 0.2), (0.0, 0.3, 0.7))
SILENT = StagedWear(advance_pu=ADVANCE, sees=SEES, announces=False, unnoticed_cost=2.0)


def fleet(wear: StagedWear, n: int, **upkeep: float) -> LineConfig:
    given = {"wear": wear, "preventive_slots": 2, "corrective_slots": 4, "inspection_slots": 1} | upkeep
    machine = Machine(model=BernoulliMachine(efficiency_pu=1.0), upkeep=Upkeep.model_validate(given))
    line = FixedLine(parallel=True, capacities=(), machines=(machine,) * n)
    return LineConfig(line=line, modes=("on",), service=Service(crews=n))


def played(plant: SimPyLine, asked: np.ndarray) -> np.ndarray:
    n = len(asked)
    plant.write({MACHINE: np.stack([np.full(n, 2.0), np.ones(n), asked], axis=1), CREW: np.zeros((1, 1))})
    plant.advance()
    return np.asarray(plant.read().values[MACHINE])


def test_first_passage_through_equal_stages_is_negative_binomial_and_nearly_erlang() -> None:
    p, k = 0.002, 4
    wear = StagedWear(advance_pu=(p,) * k)
    new, middle = np.eye(k + 1)[0], np.array([0.2, 0.3, 0.1, 0.4, 0.0])
    for h in (0, 3, 4, 500, 2000, 9000):
        assert staged_chance(wear, new, h) == pytest.approx(stats.nbinom.cdf(h - k, k, p), abs=1e-12)
        mixed = sum(b * stats.nbinom.cdf(h - (k - i), k - i, p) for i, b in enumerate(middle[:-1]))
        assert staged_chance(wear, middle, h) == pytest.approx(mixed, abs=1e-12)
        assert staged_chance(wear, new, h) == pytest.approx(stats.erlang.cdf(p * h, k), abs=2e-3)


def test_remaining_life_of_stages_is_that_of_lives_that_are_played_out() -> None:
    """From a belief: median, interval and the chance within a horizon, of 100,000 lives, some of them over."""
    config = fleet(SILENT, 2)
    row = np.zeros((2, len(MEASURED + UPKEEP_MEASURED) + 4))
    belief = np.array([0.3, 0.4, 0.2, 0.1])
    row[:, BELIEFS] = belief
    row[1, AT["state"]], row[1, AT["waits_for_crew"]] = 3.0, 1.0
    found = remaining_life(config, row, horizon_slots=10)
    rng = np.random.default_rng(1)
    stage = rng.choice(4, 100_000, p=belief)
    lives = np.sum([np.where(stage <= k, rng.geometric(p, len(stage)), 0) for k, p in enumerate(ADVANCE)], axis=0)
    assert found.chance[0] == pytest.approx((lives <= 10).mean(), abs=4 * 0.5 / np.sqrt(1e5))
    for told, share in ((found.low, 0.05), (found.median, 0.5), (found.high, 0.95)):
        assert (lives <= told[0]).mean() >= share - 0.003
        assert (lives <= told[0] - 1).mean() <= share + 0.003
    assert found.chance[1] == 1.0
    assert found.median[1] == 0.0


def test_what_the_plants_controller_believes_is_as_often_so() -> None:
    """Inspected every eighth slot, by errors; serviced at random; failures that nobody notices."""
    n, slots = 50, 240
    plant = SimPyLine(fleet(SILENT, n), LinePlantConfig(seed=2))
    rng, gap = np.random.default_rng(3), []
    for slot in range(slots):
        asked = np.where(slot % 8 == 7, 2.0, np.where(rng.random(n) < 0.01, 1.0, 0.0)) * np.ones(n)
        told = played(plant, asked)
        working = told[:, AT["state"]] == 0.0
        true = np.eye(4)[np.array(plant.truth()["wear"]).astype(int)]
        gap.append(np.where(working[:, None], told[:, BELIEFS] - true, np.nan))
    each = np.nanmean(np.array(gap), axis=0)
    assert (np.abs(each.mean(0)) <= 4.0 * each.std(0, ddof=1) / np.sqrt(n)).all(), each.mean(0)
    assert (np.nanstd(np.array(gap), axis=(0, 1)) > 0.1).all()  # and it was not simply told


def test_a_failure_that_nobody_notices_costs_until_an_inspection_finds_it() -> None:
    surely = StagedWear(advance_pu=(1.0, 1.0), announces=False, unnoticed_cost=3.0)
    plant = SimPyLine(fleet(surely, 1, inspection_cost=0.5, corrective_cost=10.0), LinePlantConfig(cycle_spread_pu=0.0))
    states = [played(plant, np.array([2.0 if 6 <= slot < 8 else 0.0]))[0, AT["state"]] for slot in range(11)]
    parts, cost = plant.truth()["parts"][0], plant.truth()["service_cost"][0]
    assert plant.truth()["failures"] == [1]
    assert 7.0 in states
    assert 3.0 not in states  # a crew is there: from the look to the repair at once
    assert plant.truth()["renewals"] == [1]  # begun
    assert cost == pytest.approx(3.0 * (parts - 2) + 0.5 + 10.0)  # two parts wear it out, the others cost


def test_fast_wear_makes_stages_pass_faster() -> None:
    wear = StagedWear(advance_pu=ADVANCE)
    lives = []
    for factor in (1.0, 2.0):
        plant = SimPyLine(fleet(wear, 40), LinePlantConfig(seed=1, faults=(FastWear(factor=factor),)))
        for _ in range(400):
            plant.advance()
        true = plant.truth()
        lives.append(sum(true["parts"]) / sum(true["failures"]))
    mean = sum(1.0 / p for p in ADVANCE)
    assert lives == pytest.approx([mean, mean / 2.0], rel=0.12)


def test_members_of_the_live_twin_stand_where_the_controller_believes_a_machine_to_be() -> None:
    config, settings = fleet(SILENT, 3), LinePlantConfig(seed=4)
    plant, plan = SimPyLine(config, settings), track_line(config, settings)
    live = make_live_twin(
        load_site("production_line"), plan.config, plan.n_members, LiveTwinSettings(**plan.settings.model_dump()),
        plan.tracker,
    )  # fmt: skip
    live.start(plant.clock_s)
    wear = [s.name for s in HIDDEN].index("wear")
    for slot in range(30):
        asked = np.full(3, 2.0 if slot in (12, 20) else 0.0)
        told = played(plant, asked)
        commands = {MACHINE: np.stack([np.full(3, 2.0), np.ones(3), asked], axis=1), CREW: np.zeros((1, 1))}
        live.advance(commands, plant.clock_s)
        live.assimilate(plant.read())
        with live.replicas() as (twin, readings):
            stage = readings.hidden[MACHINE][..., wear].numpy()
            members = readings.measured[MACHINE][..., BELIEFS].numpy()
        assert members == pytest.approx(np.broadcast_to(told[:, BELIEFS], members.shape), abs=1e-6)
        working = told[:, AT["state"]] == 0.0
        share = np.stack([(stage == k).mean(0) for k in range(4)], axis=-1)
        # uniforms of members are spread at random: within four errors of a share of so many
        assert (np.abs(share - told[:, BELIEFS])[working] <= 4.0 * 0.5 / np.sqrt(twin.n_replicas)).all()
