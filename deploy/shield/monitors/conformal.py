"""Split-conformal p-values: how odd a score is among scores of times when all was well.

For a score exchangeable with the ``n`` calibration scores, ``p = (1 + number of them >= score) / (n + 1)`` is at most
``alpha`` with probability at most ``alpha``, and at least ``alpha - 1 / (n + 1)`` where scores do not tie, whatever
their distribution (Vovk, Gammerman & Shafer 2005; Papadopoulos et al. 2002). That is said of one reading: readings that
follow each other are alike, so alarms come in clusters, and the rate is a mean over calibrations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....envs.errors import ConfigurationError

Floats = NDArray[np.float64]


def p_values(scores: Any, calibration: Floats) -> Floats:
    """One a score ``[...]``, against sorted ``calibration`` ``[n]``; a score that is no number is the oddest."""
    odd = np.where(np.isnan(scores), np.inf, scores)
    n = len(calibration)
    n_below = np.searchsorted(calibration, odd, side="left").astype(np.float64)
    found: Floats = (1.0 + n - n_below) / (n + 1.0)
    return found


def threshold(calibration: Floats, alpha: Any) -> Floats:
    """The score from above which ``p <= alpha``, of sorted ``calibration`` ``[n]``, elementwise in ``alpha``.

    Infinite where no score can be that odd (``alpha < 1 / (n + 1)``), minus infinite where all are (``alpha >= 1``).
    """
    n = len(calibration)
    rank = np.ceil((n + 1.0) * (1.0 - np.asarray(alpha, dtype=np.float64)) - 1e-9)
    ends = np.concatenate([[-np.inf], calibration, [np.inf]])
    found: Floats = ends[np.clip(rank, 0, n + 1).astype(np.int64)]
    return found


def check_enough(n: int, alpha: float, what: str) -> None:
    """Raise ConfigurationError where ``alpha`` is no rate, or so small that ``n`` scores could never raise an alarm."""
    if not 0.0 < alpha < 1.0:
        raise ConfigurationError(f"{what}: false-alarm rate {alpha:g}; give a share between 0 and 1")
    least = math.ceil(1.0 / alpha - 1e-9) - 1
    if n < least:
        raise ConfigurationError(
            f"{what}: {n} calibration scores can't tell a false-alarm rate of {alpha:g}, which needs {least}; "
            "calibrate on more data, or allow more false alarms"
        )
