"""Remaining life of a line's machines: against the twin that wears them out, and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from twinloop.envs.conformance import check_encoder
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    GammaWear,
    LineConfig,
    Machine,
    RandomLine,
    Service,
    Upkeep,
    Wear,
    WeibullWear,
)
from twinloop.envs.production_line.nameplate import CREW, HIDDEN, MACHINE, MEASURED
from twinloop.envs.production_line.remaining_life import (
    chance_within,
    of_members,
    of_replicas,
    remaining_life,
    wearing,
)
from twinloop.envs.production_line.site import SITE
from twinloop.envs.production_line.twin import ProductionLineTwin

AT = {s.name: k for k, s in enumerate(MEASURED)}
FAILURES, WEAR = ([s.name for s in HIDDEN].index(name) for name in ("failures", "wear"))
WEARS = (
    WeibullWear(shape=2.5, scale_slots=60.0),
    GammaWear(shape_per_slot=0.2, scale=1.0, failure_level=10.0),
    GammaWear(shape_per_slot=0.2, scale=2.0, failure_level=20.0),
)
Floats = NDArray[np.float64]


def line(*wears: Wear | None, name: str = "production_line") -> LineConfig:
    """Machines side by side that nobody repairs."""
    kept = [None if w is None else Upkeep(wear=w, corrective_slots=10**6, inspection_slots=0) for w in wears]
    machines = tuple(Machine(model=BernoulliMachine(efficiency_pu=0.9), upkeep=u) for u in kept)
    fixed = FixedLine(machines=machines, capacities=(), parallel=True)
    return LineConfig(name=name, line=fixed, service=Service(crews=len(wears)))


def read(n: int, **signals: list[float]) -> Floats:
    """A reading ``[n, O]``, zero but for these signals."""
    found = np.zeros((n, len(MEASURED)))
    for name, values in signals.items():
        found[:, AT[name]] = values
    return found


@pytest.fixture(scope="module")
def worn_out() -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Readings ``[B, 3, O]`` after 35 slots, slots of work that were left ``[B, 3]``, and who was not failed then; the
    second machine was inspected after 20 slots."""
    n = 2000
    twin = ProductionLineTwin(line(*WEARS), n, dtype=torch.float64)
    twin.reset(torch.arange(n))
    commands = {MACHINE: torch.tensor([2.0, 1.0, 0.0]).repeat(n, 3, 1).double(), CREW: torch.zeros(n, 1, 1).double()}
    for slot in range(240):
        commands[MACHINE][:, 1, 2] = 2.0 if slot == 20 else 0.0
        after = twin.step(commands)
        if slot == 34:
            then, failed = after.measured[MACHINE].numpy().copy(), after.hidden[MACHINE][..., FAILURES].numpy() > 0
    assert float(after.hidden[MACHINE][..., FAILURES].mean()) > 0.999
    end = after.measured[MACHINE].numpy()
    return then, end[..., AT["age_slots"]] - then[..., AT["age_slots"]], ~failed


def test_lives_that_end_in_the_twin_are_spread_as_foretold(
    worn_out: tuple[Floats, Floats, NDArray[np.bool_]],
) -> None:
    then, left, alive = worn_out
    wear = wearing(line(*WEARS))[2]
    at_most, less = (chance_within(then, wear, slots) for slots in (left, left - 1))
    spread = less + np.random.default_rng(1).random(left.shape) * (at_most - less)  # uniform where the forecast holds
    assert then[alive[:, 1], 1, AT["seen_ago_slots"]].max() <= 15  # it was inspected
    for k in range(3):
        assert stats.kstest(spread[alive[:, k], k], "uniform").pvalue > 0.003


def test_intervals_hold_as_often_as_they_say(worn_out: tuple[Floats, Floats, NDArray[np.bool_]]) -> None:
    then, left, alive = worn_out
    config = line(*WEARS)
    inside = np.zeros((300, 3), dtype=np.bool_)
    for b in range(300):
        e = remaining_life(config, then[b], 20.0)
        inside[b] = (e.low <= left[b]) & (left[b] <= e.high)
    share = inside[alive[:300]].mean()
    assert 0.9 - 3 * math.sqrt(0.09 / 700) < share < 0.95  # whole slots: a little more than 90 %


def test_the_formulas_at_hand() -> None:
    told = read(3, age_slots=[40.0, 40.0, 40.0], seen_wear_pu=[0.0, 0.3, 0.5], seen_ago_slots=[40.0, 0.0, 12.0])
    found = chance_within(told, wearing(line(*WEARS))[2], 15.0)
    weibull = stats.weibull_min(2.5, scale=60.0)
    expected = [
        1 - weibull.sf(55) / weibull.sf(40),
        stats.gamma(0.2 * 15).sf(7.0),
        1 - stats.gamma(0.2 * 27, scale=2.0).cdf(10.0) / stats.gamma(0.2 * 12, scale=2.0).cdf(10.0),
    ]
    assert found == pytest.approx(expected, rel=1e-10)


def test_numpy_and_torch_say_the_same(worn_out: tuple[Floats, Floats, NDArray[np.bool_]]) -> None:
    wear, then = wearing(line(*WEARS))[2], worn_out[0]
    here = chance_within(then, wear, 20.0)
    there = chance_within(torch.from_numpy(then), torch.from_numpy(wear), 20.0)
    assert np.abs(here - there.numpy()).max() < 1e-12
    single = chance_within(torch.from_numpy(then).float(), torch.from_numpy(wear).float(), 20.0)
    assert np.abs(here - single.numpy()).max() < 1e-5


def test_members_of_a_live_twin_tell_what_the_closed_form_tells() -> None:
    config, level = line(None, WEARS[2]), 20.0
    told = read(2, age_slots=[0.0, 30.0], seen_wear_pu=[0.0, 0.4], seen_ago_slots=[0.0, 12.0])
    rng, n = np.random.default_rng(2), 20_000
    grown = 0.4 * level + rng.gamma(0.2 * 12, 2.0, 4 * n)
    wear = np.zeros((n, 2))
    wear[:, 1] = grown[grown < level][:n]  # it has not failed
    ours = of_members(config, np.broadcast_to(told, (n, *told.shape)), wear, 15.0)
    exact = remaining_life(config, told, 15.0)
    assert ours.names == exact.names == ("M2",)
    p = exact.chance[0]
    assert abs(ours.chance[0] - p) < 3 * math.sqrt(p * (1 - p) / n)
    assert abs(ours.median[0] - exact.median[0]) <= 1
    assert abs(ours.high[0] - exact.high[0]) <= 2


def test_replicas_fail_as_often_as_they_say_of_themselves_whatever_their_pace() -> None:
    n = 3000
    config = line(*WEARS[:2])
    twin = ProductionLineTwin(config, n, dtype=torch.float64)
    twin.reset(torch.arange(n))
    pace = torch.linspace(0.5, 1.5, n, dtype=torch.float64)
    twin.set_parameters({"M1_wear_pace": pace, "M2_wear_pace": pace})
    commands = {MACHINE: torch.tensor([2.0, 1.0, 0.0]).repeat(n, 2, 1).double(), CREW: torch.zeros(n, 1, 1).double()}
    for _ in range(25):
        now = twin.step(commands)
    began = now.measured[MACHINE][..., AT["age_slots"]].clone()
    told, wear = now.measured[MACHINE].numpy().copy(), now.hidden[MACHINE][..., WEAR].numpy().copy()
    alive = (now.hidden[MACHINE][..., FAILURES] == 0).all(1).numpy()
    paces = pace[:, None].expand(n, 2).numpy()
    everyone = of_replicas(config, twin, now, 15.0)
    assert np.array_equal(everyone.chance, of_members(config, told, wear, 15.0, pace=paces).chance)
    foretold = of_members(config, told[alive], wear[alive], 15.0, pace=paces[alive])
    fails = torch.zeros(n, 2, dtype=torch.bool)
    for _ in range(40):
        now = twin.step(commands)
        within = now.measured[MACHINE][..., AT["age_slots"]] - began <= 15
        fails |= (now.hidden[MACHINE][..., FAILURES] > 0) & within
    share = fails[alive].double().mean(0).numpy()
    assert (np.abs(foretold.chance - share) < 3 * np.sqrt(share * (1 - share) / alive.sum())).all()


@settings(deadline=None, max_examples=60)
@example(shape=1.0, scale=2.0, age=0.0, seen=0.875, ago=2.2250738585e-313)
@given(
    shape=st.floats(0.5, 6.0),
    scale=st.floats(2.0, 1e6),
    age=st.floats(0.0, 3.0),
    seen=st.floats(0.0, 0.99),
    ago=st.floats(0.0, 1.0),
)
def test_the_median_is_the_first_slot_with_an_even_chance_and_intervals_hold_it(
    shape: float, scale: float, age: float, seen: float, ago: float
) -> None:
    gamma = GammaWear(shape_per_slot=shape / scale, failure_level=5.0)
    config = line(WeibullWear(shape=shape, scale_slots=scale), gamma)
    told = read(2, age_slots=[age * scale] * 2, seen_wear_pu=[0.0, seen], seen_ago_slots=[0.0, ago * scale])
    e, wear = remaining_life(config, told, 10.0), wearing(config)[2]
    at_most, less = chance_within(told, wear, e.median), chance_within(told, wear, e.median - 1)
    assert (at_most >= 0.5).all()
    assert (less < 0.5 + 1e-9).all()
    assert (e.low <= e.median).all()
    assert (e.median <= e.high).all()


def test_a_memoryless_machine_lasts_as_long_at_any_age() -> None:
    config = line(WeibullWear(shape=1.0, scale_slots=500.0))
    found = [remaining_life(config, read(1, age_slots=[age]), 50.0) for age in (0.0, 100.0, 5000.0)]
    assert {e.median[0] for e in found} == {math.ceil(500 * math.log(2))}
    assert [e.chance[0] for e in found] == pytest.approx([-math.expm1(-0.1)] * 3)


def test_a_failed_machine_has_nothing_left() -> None:
    e = remaining_life(line(WEARS[0]), read(1, age_slots=[10.0], state=[3.0], waits_for_crew=[1.0]), 5.0)
    assert (e.low[0], e.median[0], e.high[0], e.chance[0]) == (0, 0, 0, 1)


def test_the_planning_horizon_is_a_tenth_of_the_shortest_mean_life() -> None:
    assert remaining_life(line(*WEARS), read(3)).horizon == 5.0  # of 50 slots


@pytest.mark.parametrize(
    ("config", "horizon", "remedy"),
    [
        (line(None), 5.0, "give one an upkeep"),
        (LineConfig(line=RandomLine()), 5.0, "give kind 'fixed'"),
        (line(WEARS[0]), 0.0, "give a positive one"),
    ],
)
def test_what_has_no_remaining_life_is_refused_with_the_remedy(config: LineConfig, horizon: float, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        remaining_life(config, read(1), horizon)


def test_machines_see_their_chance_to_fail_where_it_is_asked_for(
    worn_out: tuple[Floats, Floats, NDArray[np.bool_]],
) -> None:
    config = line(*WEARS)
    plate = SITE.nameplate(config)
    plain = SITE.encoder("neighbours", plate, {})
    seeing = SITE.encoder("neighbours", plate, {"failure_horizon_slots": 20.0})
    check_encoder(seeing, plate)
    assert seeing.n_features == plain.n_features + 1
    then = np.concatenate((worn_out[0][:5], np.zeros((5, 3, len(plate.group(MACHINE).measured) - len(MEASURED)))), -1)
    then = then[..., : len(plate.group(MACHINE).measured)]
    statics = np.broadcast_to(plate.group(MACHINE).statics_array(), (5, 3, len(plate.group(MACHINE).statics)))
    present = np.ones((5, 3), dtype=np.bool_)
    seen, _ = seeing.encode(then, statics, present, {}, 60.0)
    before, _ = plain.encode(then, statics, present, {}, 60.0)
    assert np.array_equal(seen[..., :-1], before)
    assert seen[..., -1] == pytest.approx(chance_within(then, wearing(config)[2], 20.0))
    with pytest.raises(ConfigurationError, match="no machine of this line wears"):
        SITE.encoder("neighbours", SITE.nameplate(line(None)), {"failure_horizon_slots": 20.0})
