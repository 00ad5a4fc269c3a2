"""Crack model, reliability, twin, task and encoder of the inspected system against exact values and published ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from twinloop.envs.conformance import check_encoder, check_twin
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.inspected_system import SITE
from twinloop.envs.inspected_system.config import Belief, CrackGrowth, InspectedSystemConfig
from twinloop.envs.inspected_system.crack_model import crack_model
from twinloop.envs.inspected_system.nameplate import COMPONENT, PLAIN
from twinloop.envs.inspected_system.reliability import importance, system_failure
from twinloop.envs.inspected_system.task import InspectionCost
from twinloop.envs.inspected_system.twin import InspectedSystemTwin
from twinloop.envs.registry import load_site

AT = {s.name: k for k, s in enumerate(PLAIN)}
CONFIG = InspectedSystemConfig()
# Belief in a new component as imp_marl's struct_env.py documents it, from 1e7 draws; bins 18 to 28.
PUBLISHED_NEW = (
    0.0508703, 0.0732432, 0.1008326, 0.1309823, 0.1539425, 0.1567708, 0.1275575, 0.0740166, 0.0258339, 0.0042301,
    0.0002268,
)  # fmt: skip


def enumerated(failure: list[float], needed: int) -> float:
    """The chance that fewer than ``needed`` work, over all outcomes."""
    total = 0.0
    for outcome in itertools.product((False, True), repeat=len(failure)):
        if len(failure) - sum(outcome) < needed:
            total += math.prod(p if failed else 1.0 - p for p, failed in zip(failure, outcome, strict=True))
    return total


def test_a_new_component_is_believed_as_published() -> None:
    new = crack_model(CONFIG).initial
    np.testing.assert_allclose(new.sum(), 1.0, rtol=1e-12)
    published = np.array(PUBLISHED_NEW)
    assert (np.abs(new[17:28] - published) <= 4.0 * np.sqrt(published / 1e7)).all()


def test_growth_is_what_paris_law_makes_of_drawn_cracks() -> None:
    """Rows of the table, and the chance of having failed, against a million cracks."""
    model, rng, n = crack_model(CONFIG), np.random.default_rng(3), 1_000_000
    first = rng.exponential(1.0, n)
    stress = np.sqrt(np.pi) * rng.normal(70.0, 10.0, n)
    rate = 0.75 * rng.lognormal(-35.2, 0.5, n) * stress**3.5 * 1e6
    belief = model.initial
    for year in range(30):
        if year in (0, 9, 25):
            now, later = (np.maximum(first**-0.75 - t * rate, 1e-9) ** (-4 / 3) for t in (year, year + 1))
            at, then = (np.digitize(d, model.edges_mm) - 1 for d in (now, later))
            for row in (20, 24, 26):
                members = then[at == row]
                found = np.bincount(members, minlength=30) / len(members)
                error = np.sqrt(model.growth[year, row] * (1 - model.growth[year, row]) / len(members))
                assert (np.abs(found - model.growth[year, row]) <= 4.5 * error + 5.0 / len(members)).all()
        belief = belief @ model.growth[year]
        failed = np.mean(first**-0.75 - (year + 1) * rate < 20.0**-0.75)
        assert abs(belief[-1] - failed) <= 4.0 * math.sqrt(failed / n) + 2e-6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), st.integers(1, 6))
def test_system_failure_is_the_sum_over_all_outcomes(failure: list[float], needed: int) -> None:
    needed = min(needed, len(failure))
    found = system_failure(np.array(failure), needed)
    assert found == pytest.approx(enumerated(failure, needed), abs=1e-12)
    for i, value in enumerate(importance(np.array(failure), needed)):
        broken, sound = ([*failure[:i], p, *failure[i + 1 :]] for p in (1.0, 0.0))
        assert value == pytest.approx(enumerated(broken, needed) - enumerated(sound, needed), abs=1e-12)


def test_small_chances_keep_their_digits_in_single_precision() -> None:
    failure = torch.full((1, 10), 1e-6, dtype=torch.float32)
    assert system_failure(failure, 9).item() == pytest.approx(45e-12, rel=1e-4)


@pytest.mark.parametrize("config", [CONFIG, InspectedSystemConfig(components=6, needed=4, years=4)])
def test_the_twin_and_its_encoder_keep_their_contracts(config: InspectedSystemConfig) -> None:
    check_twin(lambda n: InspectedSystemTwin(config, n))
    plate = SITE.nameplate(config)
    for settings_ in ({}, {"sees_others": False}):
        check_encoder(SITE.encoder("integrity", plate, settings_), plate)


def test_the_site_is_announced() -> None:
    assert load_site("inspected_system").config_model is InspectedSystemConfig


def test_without_action_the_belief_is_the_table_applied_year_by_year() -> None:
    twin = InspectedSystemTwin(CONFIG, 2, dtype=torch.float64)
    model = crack_model(CONFIG)
    after = twin.reset(torch.arange(2))
    belief = model.initial
    for year in range(30):
        seen = after.measured[COMPONENT]
        expected = (belief @ model.growth[year])[-1]
        np.testing.assert_allclose(seen[..., len(PLAIN) :].numpy(), np.tile(belief, (2, 3, 1)), atol=1e-11)
        np.testing.assert_allclose(seen[..., AT["failure_next_pu"]].numpy(), expected, rtol=1e-6)
        belief = belief @ model.growth[year]
        after = twin.step({COMPONENT: torch.zeros(2, 3, 1)})


def test_inspections_keep_the_belief_true_on_average() -> None:
    """The mean over findings of what is believed afterwards is what was believed before, to 3 standard errors."""
    n = 40_000
    twin = InspectedSystemTwin(InspectedSystemConfig(components=1, needed=1), n, dtype=torch.float64)
    twin.reset(torch.arange(n))
    for _ in range(9):
        twin.step({COMPONENT: torch.zeros(n, 1, 1)})
    after = twin.step({COMPONENT: torch.ones(n, 1, 1)})
    seen, prior = after.measured[COMPONENT][:, 0, len(PLAIN) :], crack_model(CONFIG).initial
    for year in range(10):
        prior = prior @ crack_model(CONFIG).growth[year]
    error = seen.std(0) / math.sqrt(n)
    assert (abs(seen.mean(0) - torch.from_numpy(prior)) <= 4.0 * error + 1e-9).all()
    finding = after.measured[COMPONENT][:, 0, AT["finding"]]
    found_pu = float(prior @ crack_model(CONFIG).found)
    assert abs((finding == 2.0).double().mean() - found_pu) <= 4.0 * math.sqrt(found_pu / n)
    assert set(finding.tolist()) == {1.0, 2.0}


def test_a_repaired_component_is_new_and_the_others_are_not() -> None:
    twin = InspectedSystemTwin(CONFIG, 1, dtype=torch.float64)
    twin.reset(torch.arange(1))
    for _ in range(5):
        twin.step({COMPONENT: torch.zeros(1, 3, 1)})
    after = twin.step({COMPONENT: torch.tensor([[[0.0], [2.0], [0.0]]])}).measured[COMPONENT][0]
    np.testing.assert_allclose(after[1, len(PLAIN) :].numpy(), crack_model(CONFIG).initial)
    assert after[:, AT["age_years"]].tolist() == [6.0, 0.0, 6.0]
    assert after[0, AT["failure_pu"]] > after[1, AT["failure_pu"]]


def test_a_year_costs_what_was_done_and_the_risk_that_was_added() -> None:
    twin = InspectedSystemTwin(CONFIG, 1, dtype=torch.float64)
    task = InspectionCost.from_options(CONFIG, {"campaign_cost": 5.0, "inspection_cost": 0.2})
    before = twin.reset(torch.arange(1))
    for year in range(30):
        action = torch.zeros(1, 3, 1)
        if year == 20:
            action[0, :, 0] = torch.tensor([1.0, 2.0, 0.0])
        after = twin.step({COMPONENT: action})
        score = task.score(before, {COMPONENT: action}, after)
        then = enumerated(before.measured[COMPONENT][0, :, AT["failure_pu"]].tolist(), 2)
        now = enumerated(after.hidden[COMPONENT][0, :, 0].tolist(), 2)
        work = 0.2 + 20.0 + 5.0 if year == 20 else 0.0
        assert (now < then) == (year == 20)
        cost = work + 1e4 * (now if now < then else now - then)
        np.testing.assert_allclose(score.reward[COMPONENT].numpy(), -cost, rtol=1e-9)
        np.testing.assert_allclose(sum(c.sum() for c in score.costs.values()), cost, rtol=1e-9)
        assert bool(score.terminated[0]) == (year == 29)
        before = after


def test_never_maintaining_costs_what_the_table_says() -> None:
    """Without inspections nothing is drawn: the cost is one number, 1e4 times the discounted growth of the risk."""
    model, belief, expected = crack_model(CONFIG), crack_model(CONFIG).initial, 0.0
    for year in range(30):
        later = belief @ model.growth[year]
        expected += 0.95**year * 1e4 * (enumerated([later[-1]] * 3, 2) - enumerated([belief[-1]] * 3, 2))
        belief = later
    twin, task = InspectedSystemTwin(CONFIG, 3), InspectionCost.from_options(CONFIG, {})
    before, found = twin.reset(torch.arange(3)), torch.zeros(3, dtype=torch.float64)
    for year in range(30):
        nothing = {COMPONENT: torch.zeros(3, 3, 1)}
        after = twin.step(nothing)
        found -= 0.95**year * task.score(before, nothing, after).reward[COMPONENT][:, 0].double()
        before = after
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    assert 35.0 < expected < 35.4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: InspectedSystemConfig(components=2, needed=3), "at most as many as there are"),
        (lambda: InspectedSystemConfig(belief=Belief(smallest_mm=30.0)), "give a smaller one"),
        (lambda: CrackGrowth(initial_mean_mm=21.0), "swap them"),
    ],
)
def test_systems_that_cannot_be_are_refused(make: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make()  # type: ignore[operator]  # one of the three above


def test_an_unknown_task_or_encoder_names_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="inspection_cost"):
        SITE.task("inspection", CONFIG, {})
    with pytest.raises(ConfigurationError, match="integrity"):
        SITE.encoder("integrty", SITE.nameplate(CONFIG), {})
