"""How good predictions are: errors of a point, proper scores of an interval and of a chance, coverage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rmse(predicted: Floats, truth: Floats) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.mean((predicted - truth) ** 2)))


def phm08(predicted: Floats, truth: Floats) -> float:
    """Score of the PHM08 challenge, a sum, the less the better: late by d costs exp(d/10) - 1, early exp(d/13) - 1
    (Saxena et al. 2008)."""
    late = predicted - truth
    return float(np.where(late < 0, np.expm1(-late / 13.0), np.expm1(late / 10.0)).sum())


def pinball(predicted: Floats, truth: Floats, quantile: float) -> float:
    """Mean pinball loss, proper for a quantile (Koenker & Bassett 1978)."""
    short = truth - predicted
    return float(np.mean(np.maximum(quantile * short, (quantile - 1.0) * short)))


def interval_score(low: Floats, high: Floats, truth: Floats, level: float) -> float:
    """Mean width and penalty for misses, proper for a central interval (Gneiting & Raftery 2007, eq. 43)."""
    penalty = 2.0 / (1.0 - level)
    missed = np.maximum(low - truth, 0.0) + np.maximum(truth - high, 0.0)
    return float(np.mean(high - low + penalty * missed))


def coverage(low: Floats, high: Floats, truth: Floats, weights: Floats | None = None) -> float:
    """Share of truths in their intervals, by weight."""
    return float(np.average((low <= truth) & (truth <= high), weights=weights))


def brier(chance: Floats, happened: NDArray[np.bool_]) -> float:
    """Mean squared error of a chance, proper (Brier 1950)."""
    return float(np.mean((chance - happened) ** 2))
