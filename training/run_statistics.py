"""What several seeds say: interquartile means, probability of improvement, each with a stratified-bootstrap interval.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice" (arXiv 2108.13264):
a stratum is a task, and runs are drawn anew within each task. Strata are sequences of arrays ``[runs]``, one a task;
the numbers of runs may differ. Intervals are percentiles of the bootstrap, as there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..envs.errors import TwinloopError
from .statistics import Interval

FloatArray = NDArray[np.float64]

N_RESAMPLES = 5000
FEWEST_RUNS = 3
_TRIMMED = 0.25
_PAIRS_PER_PASS = 20_000_000


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values: a quarter, rounded down, is cut at each end."""
    from scipy.stats import trim_mean

    x = np.asarray(values, dtype=np.float64).ravel()
    if len(x) == 0:
        raise TwinloopError("interquartile mean: no values")
    return float(trim_mean(x, _TRIMMED))


def interquartile_mean_interval(
    strata: Sequence[ArrayLike], *, level: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Interquartile mean over all runs of all tasks, with its interval."""
    runs = _checked(strata, "interquartile mean")
    pooled = np.concatenate(runs)
    drawn = np.concatenate([x[i] for x, i in zip(runs, _draws(runs, n_resamples, seed), strict=True)], axis=1)
    low, high = _percentiles(_trimmed_mean(drawn), level)
    return Interval(interquartile_mean(pooled), low, high, level, len(pooled), _method(n_resamples))


def interquartile_curve(
    strata: Sequence[FloatArray], *, level: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Interquartile mean ``[P]`` of curves ``[runs, P]`` a task, and the lower and upper end of its pointwise band."""
    runs = [np.asarray(x, dtype=np.float64) for x in strata]
    draws = _draws(runs, n_resamples, seed)
    ends = np.empty((2, runs[0].shape[1]))
    for point in range(runs[0].shape[1]):  # a point at a time: all at once would hold resamples x runs x points
        drawn = np.concatenate([x[i, point] for x, i in zip(runs, draws, strict=True)], axis=1)
        ends[:, point] = _percentiles(_trimmed_mean(drawn), level)
    return _trimmed_mean(np.concatenate(runs).T), ends[0], ends[1]


def probability_of_improvement(strata: Sequence[ArrayLike], reference: Sequence[ArrayLike]) -> float:
    """Chance that a run is better than a run of the reference on the same task, ties half; the mean over tasks.

    For one task this is Mann and Whitney's U over the number of pairs.
    """
    ours, theirs = _paired(strata, reference)
    return float(np.mean([_chance(x[None], y[None])[0] for x, y in zip(ours, theirs, strict=True)]))


def probability_of_improvement_interval(
    strata: Sequence[ArrayLike],
    reference: Sequence[ArrayLike],
    *,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """:func:`probability_of_improvement` with its interval; both sides are drawn anew, within each task."""
    ours, theirs = _paired(strata, reference)
    draws = _draws([*ours, *theirs], n_resamples, seed)
    chances = [
        _chance(x[i], y[j]) for x, y, i, j in zip(ours, theirs, draws[: len(ours)], draws[len(ours) :], strict=True)
    ]
    low, high = _percentiles(np.mean(chances, axis=0), level)
    n = sum(map(len, ours)) + sum(map(len, theirs))
    return Interval(probability_of_improvement(ours, theirs), low, high, level, n, _method(n_resamples))


def first_reaching(x: FloatArray, y: FloatArray, threshold: float) -> float:
    """The first ``x`` at which ``y`` is at or above a threshold, infinity where it never is; both ``[P]``."""
    reached = np.flatnonzero(y >= threshold)
    return float(x[reached[0]]) if len(reached) else float("inf")


def _draws(runs: Sequence[FloatArray], n_resamples: int, seed: int) -> list[NDArray[np.int64]]:
    """Indices of runs, ``[resamples, runs]`` a stratum."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, len(x), size=(n_resamples, len(x))) for x in runs]


def _trimmed_mean(values: FloatArray) -> FloatArray:
    """Interquartile mean of each row, ``[R, n] -> [R]``."""
    ordered = np.sort(values, axis=1)
    cut = int(_TRIMMED * ordered.shape[1])
    with np.errstate(invalid="ignore"):
        return np.asarray(ordered[:, cut : ordered.shape[1] - cut].mean(axis=1), dtype=np.float64)


def _percentiles(values: FloatArray, level: float) -> tuple[float, float]:
    """Lower and upper end that hold ``level`` of the values; where infinities are among them, values themselves."""
    ends = (0.5 - level / 2.0, 0.5 + level / 2.0)
    if np.isfinite(values).all():
        low, high = np.quantile(values, ends)
    else:  # between a number and infinity there is nothing to interpolate
        low, high = np.quantile(values, ends[0], method="lower"), np.quantile(values, ends[1], method="higher")
    return float(low), float(high)


def _chance(x: FloatArray, y: FloatArray) -> FloatArray:
    """Share of pairs with ``x > y``, ties half; ``[R, m]`` and ``[R, n]`` give ``[R]``."""
    rows = max(1, _PAIRS_PER_PASS // (x.shape[1] * y.shape[1]))
    parts = []
    for start in range(0, len(x), rows):
        a, b = x[start : start + rows, :, None], y[start : start + rows, None, :]
        parts.append(((a > b) + 0.5 * (a == b)).mean(axis=(1, 2)))
    return np.concatenate(parts)


def _checked(strata: Sequence[ArrayLike], what: str) -> list[FloatArray]:
    runs = [np.asarray(x, dtype=np.float64).ravel() for x in strata]
    if not runs or min(map(len, runs)) == 0:
        raise TwinloopError(f"{what}: a task without runs; give at least one run a task")
    if any(np.isnan(x).any() for x in runs):
        raise TwinloopError(f"{what}: a run's score is NaN; leave that run out and say so, or find out why")
    return runs


def _paired(strata: Sequence[ArrayLike], reference: Sequence[ArrayLike]) -> tuple[list[FloatArray], list[FloatArray]]:
    what = "probability of improvement"
    ours, theirs = _checked(strata, what), _checked(reference, what)
    if len(ours) != len(theirs):
        raise TwinloopError(f"{what}: {len(ours)} tasks against {len(theirs)}; both sides need the same tasks")
    return ours, theirs


def _method(n_resamples: int) -> str:
    return f"stratified bootstrap, {n_resamples} resamples, percentiles"
