"""Intervals against closed forms: coverage on AR(1) series, block length, Student's t."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import ttest_rel

from twinloop.envs.errors import TwinloopError
from twinloop.training.statistics import (
    block_length,
    energy_ratio_interval,
    mean_difference_interval,
    mean_interval,
)

N_SIMULATIONS = 300
THREE_ERRORS = 3.0 * math.sqrt(0.95 * 0.05 / N_SIMULATIONS)


def autoregression(rho: float, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Stationary AR(1) series with unit innovations."""
    draws = rng.normal(size=n)
    draws[0] /= math.sqrt(1.0 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], draws))


@pytest.mark.parametrize(("rho", "n"), [(0.0, 400), (0.6, 600), (0.8, 1000)])
def test_energy_ratio_interval_covers_the_true_ratio_in_95_of_100_series(rho: float, n: int) -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for seed in range(N_SIMULATIONS):
        reference = 20.0 + 0.5 * autoregression(0.9, n, rng)
        energy = 1.03 * reference + autoregression(rho, n, rng)
        interval = energy_ratio_interval(energy, reference, n_resamples=400, seed=seed)
        covered += interval.low <= 1.03 <= interval.high
    assert abs(covered / N_SIMULATIONS - 0.95) < THREE_ERRORS


def test_blocks_of_one_period_miss_the_truth_far_too_often_on_correlated_series() -> None:
    rng = np.random.default_rng(12)
    covered = 0
    for seed in range(N_SIMULATIONS):
        reference = np.full(600, 20.0)
        energy = 1.03 * reference + autoregression(0.8, 600, rng)
        interval = energy_ratio_interval(energy, reference, n_resamples=200, seed=seed, block=1)
        covered += interval.low <= 1.03 <= interval.high
    assert covered / N_SIMULATIONS < 0.8


@pytest.mark.parametrize("rho", [0.5, 0.7, 0.9])
def test_block_length_of_an_autoregression_is_the_closed_form(rho: float) -> None:
    """Politis & White 2004, section 3.2: (6 rho^2 / (1 - rho^2)^2)^(1/3) n^(1/3) for the circular bootstrap."""
    n = 2000
    rng = np.random.default_rng(13)
    found = np.median([block_length(autoregression(rho, n, rng)) for _ in range(60)])
    expected = (6.0 * rho**2 / (1.0 - rho**2) ** 2) ** (1.0 / 3.0) * n ** (1.0 / 3.0)
    assert found == pytest.approx(expected, rel=0.25)


def test_block_length_of_white_noise_is_short_and_of_a_constant_one() -> None:
    rng = np.random.default_rng(14)
    assert np.median([block_length(rng.normal(size=1000)) for _ in range(30)]) <= 3
    assert block_length(np.ones(100)) == 1


def test_pairing_removes_what_both_series_share() -> None:
    rng = np.random.default_rng(15)
    wind = 10.0 + autoregression(0.95, 500, rng)
    paired = energy_ratio_interval(1.02 * wind + 0.01 * rng.normal(size=500), wind)
    assert paired.high - paired.low < 0.001
    assert paired.excludes(1.0)
    assert paired.shifted(-1.0).estimate == pytest.approx(paired.estimate - 1.0)


def test_series_of_several_seeds_add_up_before_time_is_drawn() -> None:
    rng = np.random.default_rng(16)
    energy, reference = 5.0 + rng.random((3, 200)), 5.0 + rng.random((3, 200))
    together = energy_ratio_interval(energy, reference, block=4)
    assert together == energy_ratio_interval(energy.sum(axis=0), reference.sum(axis=0), block=4)


@pytest.mark.parametrize(
    ("energy", "reference", "says"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], "shapes"),
        ([1.0, float("nan")], [1.0, 2.0], "NaN"),
        ([1.0, 2.0], [0.0, 0.0], "denominator"),
    ],
)
def test_series_that_make_no_ratio_are_refused(energy: list[float], reference: list[float], says: str) -> None:
    with pytest.raises(TwinloopError, match=says):
        energy_ratio_interval(energy, reference)


def test_mean_difference_is_the_paired_t_test_of_scipy() -> None:
    rng = np.random.default_rng(17)
    x, y = rng.normal(1.0, 1.0, 12), rng.normal(0.0, 1.0, 12)
    peer = ttest_rel(x, y).confidence_interval(0.9)
    ours = mean_difference_interval(x, y, level=0.9)
    assert (ours.low, ours.high) == pytest.approx((peer.low, peer.high))


def test_mean_interval_needs_two_values() -> None:
    with pytest.raises(TwinloopError, match="two or more"):
        mean_interval([1.0])
