"""Effects with what is not known of them: from telemetry, which leaves parameters open, and from finite simulation."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95
_QUANTILE = NormalDist().inv_cdf(0.5 + LEVEL / 2)
_DRAWS = 8000


@dataclass(frozen=True)
class Effects:
    """Several effects at once: ``mean`` ``[K]`` and ``covariance`` ``[K, K]`` of what is not known of them."""

    mean: Floats
    covariance: Floats

    @property
    def half_width(self) -> Floats:
        """Of the two-sided 95 % interval, ``[K]``."""
        return np.asarray(_QUANTILE * np.sqrt(np.maximum(np.diag(self.covariance), 0.0)), dtype=np.float64)

    def chances(self, seed: int) -> Floats:
        """Chance ``[K]`` of each to be the greatest."""
        rng = np.random.default_rng(seed)
        values, vectors = np.linalg.eigh(self.covariance)
        roots = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn = self.mean + rng.standard_normal((_DRAWS, len(self.mean))) @ roots.T
        return np.bincount(drawn.argmax(1), minlength=len(self.mean)) / _DRAWS


def effects_of_replicas(values: Floats, lines: Floats) -> Effects:
    """Effects ``[R, K]`` of ``R`` replicas, each a line that telemetry allows, described by ``lines`` ``[R, P]``.

    What replicas have in common with their lines' parameters (linear regression) is what telemetry leaves open; the
    rest is chance of finite simulation, of which the mean over replicas has a share of 1 / R.
    """
    n_replicas = len(values)
    apart = lines - lines.mean(0)
    apart = apart[:, apart.std(0) > 0]
    mean = values.mean(0)
    centred = values - mean
    n_open = apart.shape[1]
    fitted = apart @ np.linalg.lstsq(apart, centred, rcond=None)[0] if n_open else np.zeros_like(centred)
    chance = (centred - fitted).T @ (centred - fitted) / (n_replicas - n_open - 1)
    explained = fitted.T @ fitted / (n_replicas - 1) - chance * n_open / (n_replicas - 1)
    size, vectors = np.linalg.eigh(explained)
    return Effects(mean, (vectors * np.maximum(size, 0.0)) @ vectors.T + chance / n_replicas)
