"""How cracks grow from year to year, as chances between bins of size; deterministic, no draws.

Paris' law with a stress intensity of ``S sqrt(pi d)`` integrates to (Leroy et al. 2023, arXiv 2306.11551)

    d(t) = (d0^(1 - m/2) - t K)^(1 / (1 - m/2)),   K = (m/2 - 1) C (sqrt(pi) S)^m cycles a year,

so that a path is a function of its beginning ``d0`` and of one number ``K``, and grows with ``d0``: given K, cracks
that are in bin i after t years and in bin j a year later began in one interval of ``d0``, whose chance is known. What
is left is an average over K, taken on cells of ln K.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from .config import CrackGrowth, InspectedSystemConfig

Floats = NDArray[np.float64]
_STRESS_NODES, _RATE_CELLS = 401, 800
_REACH = 8.0
"""Standard deviations, of the stress range and of ln C."""
_FAILED_MM = 1.05
"""The size of a failed crack, over the critical one, where an inspection needs one."""


@dataclass(frozen=True)
class CrackModel:
    """``edges_mm`` ``[bins + 1]``; ``initial`` ``[bins]``, the belief in a new component; ``growth``
    ``[years + 1, bins, bins]``, from bin to bin in the year that follows an age; ``found`` ``[bins]``, the chance that
    an inspection finds a crack of that bin."""

    edges_mm: Floats
    initial: Floats
    growth: Floats
    found: Floats


@lru_cache(maxsize=8)
def crack_model(config: InspectedSystemConfig) -> CrackModel:
    """The model of a configuration; a second at most, kept in memory."""
    growth, belief = config.growth, config.belief
    inner = np.geomspace(belief.smallest_mm, growth.critical_mm, belief.bins - 1)
    edges = np.concatenate([[0.0], inner, [np.inf]])
    power = 1.0 - growth.exponent / 2.0
    rates, weights = _growth_rates(growth)
    age = np.arange(config.years + 2, dtype=np.float64)
    # [years + 2, rates, edges]: where a crack began that reaches an edge at an age
    began = np.zeros((len(age), len(rates), len(edges)))
    began[:, :, 1:-1] = (inner**power + age[:, None, None] * rates[:, None]) ** (1.0 / power)
    began[:, :, -1] = np.inf
    chance = -np.expm1(-began / growth.initial_mean_mm)
    initial = np.diff(chance[0, 0])
    table = np.zeros((config.years + 1, belief.bins, belief.bins))
    for year in range(config.years + 1):
        low, high = chance[year, :, :-1, None], chance[year, :, 1:, None]
        then_low, then_high = chance[year + 1, :, None, :-1], chance[year + 1, :, None, 1:]
        both = np.clip(np.minimum(high, then_high) - np.maximum(low, then_low), 0.0, None)
        table[year] = np.tensordot(weights, both, 1)
    table = _as_chances(table)
    middle = 0.5 * (edges[:-1] + edges[1:])
    middle[-1] = _FAILED_MM * growth.critical_mm
    return CrackModel(edges, initial, table, -np.expm1(-middle / config.inspection.detectable_mm))


def _growth_rates(growth: CrackGrowth) -> tuple[Floats, Floats]:
    """Values of K and their weights: cells of ln K, of which ln C's part is integrated exactly and the stress range's
    by the trapezoidal rule. A stress range below zero does nothing."""
    nodes = np.linspace(-_REACH, _REACH, _STRESS_NODES)
    weights = np.exp(-0.5 * nodes**2)
    weights /= weights.sum()
    stress = np.clip(growth.stress_mean_mpa + growth.stress_deviation_mpa * nodes, 1e-6 * growth.stress_mean_mpa, None)
    factor = (growth.exponent / 2.0 - 1.0) * growth.cycles_per_year
    centre = np.log(factor) + growth.log_constant_mean + growth.exponent * np.log(np.sqrt(np.pi) * stress)
    seen = weights > 1e-12
    reach = _REACH * growth.log_constant_deviation
    cells = np.linspace(centre[seen].min() - reach, centre[seen].max() + reach, _RATE_CELLS + 1)
    below = special.ndtr((cells - centre[:, None]) / growth.log_constant_deviation)
    chance = weights @ np.diff(below, axis=1)
    kept = chance > 1e-16
    return np.exp(0.5 * (cells[1:] + cells[:-1]))[kept], chance[kept] / chance[kept].sum()


def _as_chances(table: Floats) -> Floats:
    """Rows that sum to 1; a bin that no crack is ever in keeps what is in it."""
    total = table.sum(-1, keepdims=True)
    still = np.broadcast_to(np.eye(table.shape[-1]), table.shape)
    found = np.where(total > 1e-250, table / np.where(total > 1e-250, total, 1.0), still)
    found[:, -1] = still[:, -1]  # who has failed stays failed until repaired
    return found
