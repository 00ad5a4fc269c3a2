"""Whether something grows: the slope that several lives of a process have in common, or that of one long series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Slope(NamedTuple):
    """Per unit of ``x``, with a 95 % interval; infinite ends where there is too little to tell."""

    value: float
    low: float
    high: float


def over_lives(lives: Iterable[Sequence[tuple[float, float]]]) -> Slope:
    """The slope that processes of one kind have in common, each with a level of its own.

    Least squares with a constant a life; the interval is between lives (cluster-robust, Cameron and Miller 2015, A
    Practitioner's Guide to Cluster-Robust Inference, eq. 11, with the L / (L - 1) correction and L - 1 degrees of
    freedom), so that samples of one life may depend on each other. ``lives``: points ``(x, y)`` of each.
    """
    xx, xy = list[float](), list[float]()
    for life in lives:
        x, y = np.array(life, dtype=np.float64).reshape(-1, 2).T
        if len(x) >= 3 and np.ptp(x) > 0.0:
            xx.append(float(((x - x.mean()) ** 2).sum()))
            xy.append(float(((x - x.mean()) * y).sum()))
    if not xx:
        return Slope(0.0, -np.inf, np.inf)
    weight, score = np.array(xx), np.array(xy)
    slope, n = float(score.sum() / weight.sum()), len(weight)
    if n < 2:
        return Slope(slope, -np.inf, np.inf)
    spread = n / (n - 1) * float(((score - slope * weight) ** 2).sum()) / float(weight.sum()) ** 2
    half = float(stats.t.ppf(0.975, n - 1)) * spread**0.5
    return Slope(slope, slope - half, slope + half)


def over_series(points: Sequence[tuple[float, float]]) -> Slope:
    """The slope of one series by least squares; the points are taken as independent, so thin them to be so."""
    if len(points) < 3:
        return Slope(0.0, -np.inf, np.inf)
    x, y = np.array(points, dtype=np.float64).T
    found = stats.linregress(x, y)
    half = float(stats.t.ppf(0.975, len(x) - 2)) * float(found.stderr)
    return Slope(float(found.slope), float(found.slope) - half, float(found.slope) + half)
