"""Features of a machine's past at each cycle: windows of its signals, how far they went since it was new, its age.

Nothing of the future enters, so that features of a machine that runs are those it would have had.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def n_features(n_signals: int) -> int:
    """Columns of :func:`features`."""
    return 7 * n_signals + 1


def features(signals: Floats, window: int, short: int) -> Floats:
    """``[T, 7 S + 1]`` of signals ``[T, S]``.

    Over the last ``window`` cycles, fewer at first: mean, standard deviation and least-squares trend a cycle; over the
    last ``short`` ones mean and trend. How far both means are from that of the first ``window`` cycles, which says what
    this machine has lost, whatever it was like when new. The age in cycles.
    """
    n_cycles = len(signals)
    first = signals[:1]
    x = signals - first  # sums of squares lose fewer digits
    mean, std, trend = _moments(x, window)
    short_mean, _, short_trend = _moments(x, short)
    age = np.arange(1, n_cycles + 1, dtype=np.float64)[:, None]
    new = x.cumsum(0) / age
    new[window:] = new[min(window, n_cycles) - 1]
    changes = (mean - new, short_mean - new)
    return np.hstack((mean + first, std, trend, short_mean + first, short_trend, *changes, age))


def _moments(x: Floats, window: int) -> tuple[Floats, Floats, Floats]:
    """Mean, standard deviation and trend ``[T, S]`` of the last cycles."""
    end = np.arange(1, len(x) + 1)
    begin = np.maximum(0, end - window)
    n = (end - begin)[:, None].astype(np.float64)
    time = np.arange(len(x), dtype=np.float64)[:, None]

    def summed(values: Floats) -> Floats:
        total = np.vstack((np.zeros((1, values.shape[1])), values.cumsum(0)))
        return np.asarray(total[end] - total[begin])

    mean = summed(x) / n
    std = np.sqrt(np.maximum(summed(x * x) / n - mean**2, 0.0))
    middle, spread = (begin[:, None] + end[:, None] - 1) / 2.0, (n * n - 1.0) / 12.0
    trend = np.where(n > 1, (summed(x * time) / n - middle * mean) / np.maximum(spread, 1e-9), 0.0)
    return mean, std, trend
