"""Statistics over seeds against SciPy, number for number, and against what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import bootstrap, mannwhitneyu, trim_mean

from twinloop.envs.errors import TwinloopError
from twinloop.training.run_statistics import (
    first_reaching,
    interquartile_curve,
    interquartile_mean,
    interquartile_mean_interval,
    probability_of_improvement,
    probability_of_improvement_interval,
)

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=9)


def scores(n: int, centre: float = 0.0, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(centre, 1.0, n)


@given(SCORES)
def test_the_interquartile_mean_is_scipys_trimmed_mean(values: list[float]) -> None:
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25), abs=1e-12)


@pytest.mark.parametrize("n", [3, 5, 8, 10, 21])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_on_one_task_the_interval_is_that_of_scipys_bootstrap_from_the_same_generator(n: int, level: float) -> None:
    x = scores(n)
    peer = bootstrap(
        (x,), lambda a, axis: trim_mean(a, 0.25, axis=axis), n_resamples=999, confidence_level=level,
        method="percentile", vectorized=True, rng=np.random.default_rng(7),
    )  # fmt: skip
    ours = interquartile_mean_interval([x], level=level, n_resamples=999, seed=7)
    assert (ours.low, ours.high) == pytest.approx(tuple(peer.confidence_interval), abs=1e-12)
    assert ours.estimate == pytest.approx(trim_mean(x, 0.25))


def test_runs_are_drawn_within_their_task() -> None:
    """Two tasks of constant scores leave nothing to chance, while runs drawn over both would."""
    interval = interquartile_mean_interval([np.zeros(4), np.ones(4)])
    assert (interval.low, interval.estimate, interval.high) == (0.5, 0.5, 0.5)


def test_several_tasks_agree_with_scipy_where_strata_are_its_paired_rows() -> None:
    """SciPy's bootstrap of two samples draws each anew: the strata of a statistic over both."""
    x, y = scores(6), scores(6, 2.0, seed=2)
    peer = bootstrap(
        (x, y), lambda a, b, axis: trim_mean(np.concatenate([a, b], axis=axis), 0.25, axis=axis), n_resamples=500,
        method="percentile", vectorized=True, rng=np.random.default_rng(3),
    )  # fmt: skip
    ours = interquartile_mean_interval([x, y], n_resamples=500, seed=3)
    assert (ours.low, ours.high) == pytest.approx(tuple(peer.confidence_interval), abs=1e-12)


@given(SCORES, SCORES)
def test_the_probability_of_improvement_is_mann_and_whitneys_u_over_all_pairs_ties_included(
    x: list[float], y: list[float]
) -> None:
    peer = mannwhitneyu(x, y, method="asymptotic" if len(set(x + y)) > 1 else "exact").statistic / (len(x) * len(y))
    assert probability_of_improvement([x], [y]) == pytest.approx(peer, abs=1e-12)


@settings(max_examples=30)
@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=3))
def test_improving_and_being_improved_upon_sum_to_one(pairs: list[tuple[list[float], list[float]]]) -> None:
    ours, theirs = [x for x, _ in pairs], [y for _, y in pairs]
    assert probability_of_improvement(ours, theirs) == pytest.approx(1.0 - probability_of_improvement(theirs, ours))


def test_the_interval_of_the_probability_is_that_of_scipys_bootstrap() -> None:
    x, y = scores(7, 0.5), scores(5, seed=2)

    def chance(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        a, b = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
        return np.asarray((a[..., :, None] > b[..., None, :]).mean(axis=(-2, -1)))

    peer = bootstrap(
        (x, y), chance, n_resamples=800, method="percentile", vectorized=True, rng=np.random.default_rng(5)
    )
    ours = probability_of_improvement_interval([x], [y], n_resamples=800, seed=5)
    assert (ours.low, ours.high) == pytest.approx(tuple(peer.confidence_interval), abs=1e-12)


def test_sides_that_do_not_overlap_improve_with_certainty() -> None:
    sure = probability_of_improvement_interval([scores(5, 100.0)], [scores(5)])
    assert (sure.low, sure.estimate, sure.high) == (1.0, 1.0, 1.0)


def test_a_curve_is_the_interval_of_each_of_its_points() -> None:
    curves = np.random.default_rng(4).normal(size=(6, 3))
    middle, low, high = interquartile_curve([curves], n_resamples=400, seed=2)
    for point in range(3):
        at = interquartile_mean_interval([curves[:, point]], n_resamples=400, seed=2)
        assert (middle[point], low[point], high[point]) == pytest.approx((at.estimate, at.low, at.high))


def test_seeds_that_never_reach_a_mark_push_the_interval_to_infinity_and_not_to_nan() -> None:
    x, y = np.array([10.0, 20.0, 30.0]), np.array([0.0, 1.0, 0.5])
    assert first_reaching(x, y, 1.0) == 20.0
    assert first_reaching(x, y, 2.0) == np.inf
    interval = interquartile_mean_interval([[10.0, 20.0, 20.0, 30.0, np.inf]])
    assert interval.estimate == pytest.approx((20.0 + 20.0 + 30.0) / 3)
    assert interval.low < interval.estimate
    assert interval.high == np.inf


@pytest.mark.parametrize(
    ("strata", "says"), [([], "without runs"), ([[1.0], []], "without runs"), ([[1.0, np.nan]], "NaN")]
)
def test_scores_that_are_not_there_are_refused(strata: list[list[float]], says: str) -> None:
    with pytest.raises(TwinloopError, match=says):
        interquartile_mean_interval(strata)


def test_sides_with_unlike_tasks_have_no_probability() -> None:
    with pytest.raises(TwinloopError, match="2 tasks against 1"):
        probability_of_improvement([[1.0], [2.0]], [[1.0]])
