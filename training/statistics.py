"""Intervals for results on a plant: paired energy ratios over time, mean differences over seeds.

Energy of one period depends on the energy of the periods before it, because wind does. So the interval of an energy
ratio comes from a bootstrap that draws blocks of consecutive periods, long enough to carry that dependence.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..envs.errors import TwinloopError

FloatArray = NDArray[np.float64]

_RESAMPLES_PER_PASS = 200
_BLOCKS_LONGER = 3


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval at ``level``; ``block`` is the length of the blocks drawn, in periods (0: none)."""

    estimate: float
    low: float
    high: float
    level: float
    n: int
    method: str
    block: int = 0

    def excludes(self, value: float) -> bool:
        """True when ``value`` lies outside the interval."""
        return value < self.low or value > self.high

    def shifted(self, by: float) -> Interval:
        """The same interval about another origin: a ratio of 1.03 shifted by -1 is a gain of 0.03."""
        return Interval(self.estimate + by, self.low + by, self.high + by, self.level, self.n, self.method, self.block)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def block_length(series: ArrayLike) -> int:
    """Block length for a circular block bootstrap of a mean, from the data's own autocorrelation.

    Politis & White 2004, "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23, with
    the correction of Patton, Politis & White 2009. At most three times the root of the length, or a third of it.
    """
    x = np.asarray(series, dtype=np.float64)
    n = len(x)
    if n < 8 or np.ptp(x) == 0.0:
        return 1
    most = max(1, math.ceil(min(3.0 * math.sqrt(n), n / 3.0)))
    quiet_run = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(math.ceil(math.sqrt(n)) + quiet_run, n - 1)
    covariance = _autocovariance(x, longest)
    loud = np.abs(covariance[1:] / covariance[0]) >= 2.0 * math.sqrt(math.log10(n) / n)
    last_loud = _last_before_quiet(loud, quiet_run)
    reach = min(2 * max(last_loud, 1), longest)
    lags = np.arange(-reach, reach + 1)
    flat_top = np.minimum(1.0, 2.0 * (1.0 - np.abs(lags) / reach))
    weighted = flat_top * covariance[np.abs(lags)]
    spectrum = float(weighted.sum())
    slope = float((np.abs(lags) * weighted).sum())
    if spectrum <= 0.0:
        return most
    best = (2.0 * slope**2 / (4.0 / 3.0 * spectrum**2)) ** (1.0 / 3.0) * n ** (1.0 / 3.0)
    return int(np.clip(math.ceil(best), 1, most))


def _autocovariance(x: FloatArray, longest: int) -> FloatArray:
    centred = x - x.mean()
    n = len(x)
    return np.array([float(centred[: n - k] @ centred[k:]) / n for k in range(longest + 1)])


def _last_before_quiet(loud: NDArray[np.bool_], run: int) -> int:
    """Lag after which ``run`` autocorrelations in a row are insignificant; the last loud lag when none is."""
    for lag in range(len(loud) - run + 1):
        if not loud[lag : lag + run].any():
            return lag
    return int(np.flatnonzero(loud)[-1]) + 1 if loud.any() else 0


def energy_ratio_interval(
    energy: ArrayLike,
    reference: ArrayLike,
    *,
    level: float = 0.95,
    block: int | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of ``sum(energy) / sum(reference)`` for paired series, ``[T]`` or ``[seeds, T]``.

    Both series come from the same wind, so periods are drawn in pairs, in blocks that may wrap around the end
    (circular block bootstrap, Politis & Romano 1992). With several seeds, the seeds of a period are added first: they
    share that period's wind, so only time is a sample.

    ``block`` is three times :func:`block_length` of the ratio's influence series ``energy - ratio * reference`` when
    not given: the automatic length suits the variance's mean square error, while coverage wants less bias. The
    interval is ratio +- Student's t (number of blocks less one) times the bootstrap's standard error times
    sqrt(n / (n - block)), which undoes what centring on the sample's own mean takes away. On AR(1) series with
    coefficients 0 to 0.95 and 400 to 1440 periods, 94.3 to 95.4 of 100 intervals hold the truth (plain percentiles
    of blocks of automatic length: 89 to 93).
    """
    from scipy.stats import t as student

    a, b = _paired(energy, reference)
    n = len(a)
    total = float(b.sum())
    if total <= 0:
        raise TwinloopError(f"energy ratio: the reference's energy is {total}, which cannot be a denominator")
    ratio = float(a.sum()) / total
    influence = a - ratio * b
    chosen = block if block is not None else min(_BLOCKS_LONGER * block_length(influence), max(1, n // 3))
    if not 1 <= chosen <= n:
        raise TwinloopError(f"energy ratio: block {chosen} must lie between 1 and the {n} periods there are")
    n_blocks = math.ceil(n / chosen)
    rng = np.random.default_rng(seed)
    ratios = np.concatenate(
        [
            _resampled_ratios(a, b, chosen, n_blocks, min(_RESAMPLES_PER_PASS, n_resamples - done), rng)
            for done in range(0, n_resamples, _RESAMPLES_PER_PASS)
        ]
    )
    error = float(ratios.std(ddof=1)) * math.sqrt(n / max(n - chosen, 1))
    half = float(student.ppf(0.5 + level / 2.0, max(n_blocks - 1, 1))) * error
    method = f"circular block bootstrap, {n_resamples} resamples, Student's t"
    return Interval(ratio, ratio - half, ratio + half, level, n, method, chosen)


def _paired(energy: ArrayLike, reference: ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(energy, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if a.shape != b.shape or a.ndim not in (1, 2) or a.shape[-1] < 2:
        raise TwinloopError(
            f"energy ratio: series of shapes {a.shape} and {b.shape}; need two alike, [T] or [seeds, T], "
            "of 2 periods or more"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise TwinloopError("energy ratio: a series holds NaN or infinity; drop those periods from both series")
    return (a.sum(axis=0), b.sum(axis=0)) if a.ndim == 2 else (a, b)


def _resampled_ratios(
    a: FloatArray, b: FloatArray, block: int, n_blocks: int, n_resamples: int, rng: np.random.Generator
) -> FloatArray:
    n = len(a)
    starts = rng.integers(0, n, size=(n_resamples, n_blocks))
    index = (starts[:, :, None] + np.arange(block)) % n
    index = index.reshape(n_resamples, -1)[:, :n]
    return np.asarray(a[index].sum(axis=1) / b[index].sum(axis=1), dtype=np.float64)


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's interval of the mean of independent values, ``[n]``."""
    from scipy.stats import t as student

    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise TwinloopError(f"mean interval: {x.size} values; needs two or more, in one row")
    half = float(student.ppf(0.5 + level / 2.0, len(x) - 1)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    centre = float(x.mean())
    return Interval(centre, centre - half, centre + half, level, len(x), "Student's t")


def mean_difference_interval(values: ArrayLike, reference: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's interval of the mean of ``values - reference``, paired, ``[n]`` each."""
    x, y = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if x.shape != y.shape:
        raise TwinloopError(f"mean difference: {x.shape} values against {y.shape}; pairs need equal numbers")
    return mean_interval(x - y, level=level)
