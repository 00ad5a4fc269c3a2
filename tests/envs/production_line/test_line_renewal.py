"""Renewal theory of maintenance, against published figures, special cases and each other; the twin beside it."""

import math

import numpy as np
import pytest

from twinloop.agents.controllers.line_maintenance import AgeReplacement, ConditionThreshold
from twinloop.envs.production_line import renewal
from twinloop.training.benchmarks.line_maintenance import fitted_weibull, lives, long_run_cost, one_machine

GAMMA = renewal.Inspected(
    rate=1.0, scale=1.0, level=20.0, interval=4.0, inspection=0.5, preventive=10.0, corrective=60.0
)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "corrective", "age", "cost", "at_failure"),
    [
        (2.0, 5.0, 51.066, 0.040852, 0.056419),
        (2.0, 10.0, 33.645, 0.060561, 0.112838),
        (3.0, 10.0, 38.246, 0.039494, 0.111985),
        (2.5, 20.0, 26.238, 0.063840, 0.225412),
    ],
)
def test_best_ages_and_costs_are_the_published_ones(
    shape: float, corrective: float, age: float, cost: float, at_failure: float
) -> None:
    survival, prices = renewal.weibull_survival(shape, 100.0), renewal.Prices(1.0, corrective)
    found, least = renewal.best_age(survival, prices)
    assert found == pytest.approx(age, abs=6e-4)
    assert least == pytest.approx(cost, abs=6e-7)
    assert renewal.age_cost(survival, prices, math.inf) == pytest.approx(at_failure, abs=6e-7)


@pytest.mark.parametrize("shape", [1.0, 0.7])
@pytest.mark.parametrize("prices", [renewal.Prices(1.0, 5.0), renewal.Prices(1.0, 50.0, 2.0, 20.0)])
def test_a_machine_that_does_not_age_is_never_maintained(shape: float, prices: renewal.Prices) -> None:
    age, _ = renewal.best_age(renewal.weibull_survival(shape, 100.0), prices)
    assert math.isinf(age)


def test_an_age_rule_costs_what_the_integral_of_an_exponential_life_says() -> None:
    prices = renewal.Prices(2.0, 7.0)
    found = renewal.age_cost(renewal.weibull_survival(1.0, 50.0), prices, 30.0)
    lives_on = math.exp(-30.0 / 50.0)
    assert found == pytest.approx((2.0 * lives_on + 7.0 * (1 - lives_on)) / (50.0 * (1 - lives_on)), rel=1e-9)


def test_the_gamma_process_has_its_published_costs_and_the_order_of_what_is_known() -> None:
    survival, prices = renewal.gamma_survival(1.0, 1.0, 20.0), renewal.Prices(10.0, 60.0)
    age, by_age = renewal.best_age(survival, prices)
    inspected = renewal.inspected_cost(GAMMA, 12.5)
    perfect = renewal.monitored_cost(GAMMA, 16.75)
    at_failure = renewal.age_cost(survival, prices, math.inf)
    assert age == pytest.approx(12.54, abs=5e-3)
    assert by_age == pytest.approx(0.9197, abs=1e-4)
    assert inspected == pytest.approx(0.86246, abs=5e-6)
    assert at_failure == pytest.approx(2.9268, abs=1e-4)
    assert at_failure > by_age > inspected > perfect


def test_frequent_free_inspections_cost_what_perfect_monitoring_does() -> None:
    """Two methods that share nothing: a recursion over wear at inspections, and a potential density."""
    intervals = np.array([0.02, 0.04])
    costs = [
        renewal.inspected_cost(renewal.Inspected(1.0, 1.0, 20.0, tau, 0.0, 10.0, 60.0), 16.75, 600) for tau in intervals
    ]
    limit = 2.0 * costs[0] - costs[1]
    assert limit == pytest.approx(renewal.monitored_cost(GAMMA, 16.75), rel=2e-4)


def test_the_best_threshold_is_no_worse_than_its_neighbours() -> None:
    threshold, cost = renewal.best_threshold(GAMMA)
    assert threshold == pytest.approx(12.5, abs=0.1)
    assert all(renewal.inspected_cost(GAMMA, threshold + d, 600) >= cost for d in (-0.3, 0.3))


def test_the_twin_costs_what_renewal_theory_says_by_age_and_by_condition() -> None:
    survival, prices = renewal.weibull_survival(2.5, 40.0), renewal.Prices(1.0, 20.0)
    weibull = one_machine({"kind": "weibull", "shape": 2.5, "scale_slots": 40.0}, 1.0, 20.0)
    found = long_run_cost(weibull, lambda n: AgeReplacement(n, 11.0), 60, seed=3, replicas=1024)
    assert abs(found.mean - renewal.slotted_age_cost(survival, prices, 11)) < 3.0 * found.error
    wear = {"kind": "gamma", "shape_per_slot": 0.2, "scale": 1.0, "failure_level": 20.0}
    gamma = one_machine(wear, 10.0, 60.0, 0.5)
    found = long_run_cost(gamma, lambda n: ConditionThreshold(n, 20.0, 12.5 / 20.0), 100, seed=4, replicas=1024)
    assert abs(found.mean - renewal.inspected_cost(GAMMA, 12.5) / 5.0) < 3.0 * found.error


def test_a_life_distribution_is_learnt_from_lives_in_the_twin() -> None:
    shape, scale = fitted_weibull(lives({"kind": "weibull", "shape": 2.0, "scale_slots": 30.0}, 8000, seed=1))
    assert shape == pytest.approx(2.0, rel=0.03)
    assert scale == pytest.approx(30.0, rel=0.02)
