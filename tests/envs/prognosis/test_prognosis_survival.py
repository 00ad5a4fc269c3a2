"""Weibull lives from records: RTE's transformers and insulators, truncation, censoring, and when replacing pays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from twinloop.envs.errors import ConfigurationError
from twinloop.envs.prognosis.survival import Lifetimes, WeibullLife, fit_weibull


def shipped(name: str) -> Lifetimes:
    from relife import datasets

    rows = getattr(datasets, f"load_{name}")()
    return Lifetimes(rows["time"], rows["event"], rows["entry"])


@pytest.mark.parametrize(
    ("name", "shape", "scale", "age"),
    [("power_transformer", 3.466, 81.443, 33.35), ("insulator_string", 1.678, 107.445, 37.24)],
)
def test_lives_that_the_grid_operator_ships_have_the_known_shape_scale_and_best_age(
    name: str, shape: float, scale: float, age: float
) -> None:
    life = fit_weibull(shipped(name))
    assert [life.shape, life.scale] == pytest.approx([shape, scale], abs=6e-4)
    assert life.best_age(1.0, 10.0) == pytest.approx(age, abs=0.006)


@pytest.mark.parametrize(
    ("shape", "cf", "age"), [(2.0, 5.0, 51.066), (2.0, 10.0, 33.645), (3.0, 10.0, 38.246), (2.5, 20.0, 26.238)]
)
def test_best_ages_are_those_of_renewal_theory(shape: float, cf: float, age: float) -> None:
    assert WeibullLife(shape, 100.0).best_age(1.0, cf) == pytest.approx(age, rel=2e-4)


def test_a_memoryless_machine_is_never_replaced() -> None:
    assert WeibullLife(1.0, 100.0).best_age(1.0, 50.0) == math.inf
    assert WeibullLife(0.8, 100.0).best_age(1.0, 50.0) == math.inf
    with pytest.raises(ConfigurationError, match="costs more"):
        WeibullLife(2.0, 100.0).best_age(1.0, 1.0)


def watched(n: int, seed: int) -> tuple[Lifetimes, NDArray[np.bool_]]:
    """Machines of a Weibull life (3, 50) that were seen from some age on, for 15 years; who had failed before is not
    there."""
    rng = np.random.default_rng(seed)
    life, begin = 50.0 * rng.weibull(3.0, n), rng.uniform(0.0, 60.0, n)
    there = life > begin
    life, begin = life[there], begin[there]
    end = np.minimum(life, begin + 15.0)
    return Lifetimes(end, life <= begin + 15.0, begin), there


def test_what_was_not_seen_is_counted() -> None:
    seen, _ = watched(6000, 1)
    life = fit_weibull(seen)
    assert [life.shape, life.scale] == pytest.approx([3.0, 50.0], rel=0.05)
    blind = fit_weibull(Lifetimes(seen.age, seen.failed, np.zeros_like(seen.age)))
    assert blind.scale > 1.08 * life.scale  # machines that failed before they could be seen are missing
    short = fit_weibull(Lifetimes(seen.age, np.ones_like(seen.failed), seen.watched))
    assert short.scale < 0.9 * life.scale  # those that still run are taken for failed


def test_remaining_lives_are_those_of_the_conditional_distribution() -> None:
    life, ages = WeibullLife(2.5, 60.0), np.array([0.0, 30.0, 90.0])
    e = life.estimate(("a", "b", "c"), ages, 10.0)
    weibull = stats.weibull_min(2.5, scale=60.0)
    for found, share in ((e.low, 0.05), (e.median, 0.5), (e.high, 0.95)):
        assert found + ages == pytest.approx(weibull.isf(weibull.sf(ages) * (1 - share)))
    assert e.chance == pytest.approx(1 - weibull.sf(ages + 10) / weibull.sf(ages))
    assert e.text(0) == "51.8 (18.3 to 93.1) years"


@pytest.mark.parametrize(
    ("age", "failed", "begin", "said"),
    [
        ([5.0, 4.0, 3.0], [True, True, False], [0.0, 4.0, 0.0], "row 1: watched from 4 to 4"),
        ([5.0, 4.0, 3.0], [True, False, False], [0.0, 0.0, 0.0], "1 failures; give two"),
        ([5.0, 4.0], [True, True], [0.0, 0.0, 0.0], "differ in length"),
    ],
)
def test_records_that_cannot_be_are_refused(
    age: list[float], failed: list[bool], begin: list[float], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Lifetimes(np.array(age), np.array(failed), np.array(begin))
