"""True cracks in many systems at once, in numpy: what the twin's beliefs are about. Shares no code with them.

A component is a crack with constants of its own; the world grows it by Paris' law from year to year, and inspections
find it or do not. The integrity record, which is all that a policy sees, is kept beside it: Bayes' rule over bins of
crack size with a table of growth counted from paths that the world drew itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import CrackPlantConfig, InspectedSystemConfig
from .nameplate import CRACK, NO_CRACK, NOT_INSPECTED
from .reliability import system_failure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FAILED = 1.05
"""A failed crack's size over the critical one: it is replaced or watched, and grows no more."""


@dataclass(frozen=True)
class Year:
    """What happened in a year, ``[systems]`` each: inspections, repairs, and ``failures``.

    ``failures`` realises what the task charges in expectation: 1 where the system failed in the year, -1 where it works
    again; but where the record says that repairs lowered its chance of having failed, 1 if it is failed at all.
    """

    inspections: Ints
    repairs: Ints
    failures: Ints


class CrackWorld:
    """``n_systems`` systems of one configuration, each with true cracks and a record of what is known of them."""

    def __init__(self, config: InspectedSystemConfig, plant_config: CrackPlantConfig, n_systems: int) -> None:
        self._config = config
        self._is_redrawn = plant_config.constants == "redrawn"
        for_record, for_life = np.random.SeedSequence(plant_config.seed).spawn(2)
        self._rng = np.random.default_rng(for_life)
        belief = config.belief
        sizes = np.geomspace(belief.smallest_mm, config.growth.critical_mm, belief.bins - 1)
        self._edges_mm = np.concatenate([sizes[:-1], [config.growth.critical_mm]])
        self._record_paths(np.random.default_rng(for_record), plant_config.record_paths)
        seen_mm = np.concatenate([[0.5 * sizes[0]], 0.5 * (sizes[:-1] + sizes[1:]), [_FAILED * sizes[-1]]])
        self._found_pu = 1.0 - np.exp(-seen_mm / config.inspection.detectable_mm)
        shape = (n_systems, config.components)
        self.crack_mm, self._rate = self._draw(self._rng, shape)
        self.age_years = np.zeros(shape, np.int64)
        self.finding = np.full(shape, NOT_INSPECTED)
        self.belief = np.broadcast_to(self._new, (*shape, belief.bins)).copy()
        self.year = 0

    @property
    def has_failed(self) -> NDArray[np.bool_]:
        """Whether a system has lost more components than it can bear, ``[systems]``."""
        lost = (self.crack_mm > self._config.growth.critical_mm).sum(1)
        failed: NDArray[np.bool_] = lost > self._config.components - self._config.needed
        return failed

    def measured(self) -> Floats:
        """What the record says, ``[systems, N, O]`` in the nameplate's order."""
        left_alone = np.empty(self.age_years.shape)
        for age in np.unique(self.age_years):
            at = self.age_years == age
            left_alone[at] = self.belief[at] @ self._table[self._row(age)][:, -1]
        year = np.full(self.age_years.shape, float(self.year))
        plain = (year, self.age_years.astype(np.float64), self.finding, self.belief[..., -1], left_alone)
        return np.concatenate([np.stack(plain, -1), self.belief], -1)

    def advance(self, action: Ints) -> Year:
        """A year with ``action`` ``[systems, N]``: 0 nothing, 1 inspect, 2 repair."""
        n_needed = self._config.needed
        failed, chance = self.has_failed, system_failure(self.belief[..., -1], n_needed)
        repaired, inspected = action == 2, action == 1
        self._grow(~repaired)
        fresh_mm, fresh_rate = self._draw(self._rng, action.shape)
        self.crack_mm = np.where(repaired, fresh_mm, self.crack_mm)
        self._rate = np.where(repaired, fresh_rate, self._rate)
        self.belief[repaired] = self._new
        self.age_years = np.where(repaired, 0, self.age_years + 1)
        is_lowered = system_failure(self.belief[..., -1], n_needed) < chance
        self._inspect(inspected)
        self.year += 1
        failures = self.has_failed.astype(np.int64) - np.where(is_lowered, 0, failed)
        return Year(inspected.sum(1), repaired.sum(1), failures)

    def _row(self, age: int) -> int:
        return min(int(age), self._config.years)

    def _grow(self, grows: NDArray[np.bool_]) -> None:
        """A year of growth of cracks and record, where ``grows``."""
        later = self._redrawn() if self._is_redrawn else self._year_later(self.crack_mm, self._rate)
        self.crack_mm = np.where(grows, later, self.crack_mm)
        for age in np.unique(self.age_years):
            at = (self.age_years == age) & grows
            self.belief[at] = self.belief[at] @ self._table[self._row(age)]

    def _redrawn(self) -> Floats:
        """Cracks that go on as a random one of the recorded paths does that was as large at that age."""
        later = self.crack_mm.copy()
        bins = np.searchsorted(self._edges_mm, self.crack_mm)
        for age in np.unique(self.age_years):
            row = self._row(age)
            at = np.nonzero((self.age_years == age) & (bins < self._config.belief.bins - 1))
            first, last = self._bounds[row][bins[at]], self._bounds[row][bins[at] + 1]
            is_known = last > first
            picked = first + (self._rng.random(len(first)) * (last - first)).astype(np.int64)
            members = self._members[row][np.minimum(picked, self._members.shape[1] - 1)]
            later[at] = np.where(is_known, self._paths[row + 1][members], self.crack_mm[at])
        return later

    def _inspect(self, inspected: NDArray[np.bool_]) -> None:
        chance = 1.0 - np.exp(-self.crack_mm / self._config.inspection.detectable_mm)
        is_found = inspected & (self._rng.random(chance.shape) < chance)
        self.finding = np.where(inspected, np.where(is_found, CRACK, NO_CRACK), NOT_INSPECTED)
        likelihood = np.where(is_found[..., None], self._found_pu, 1.0 - self._found_pu)
        weighed = self.belief * likelihood
        weighed /= weighed.sum(-1, keepdims=True)
        self.belief = np.where(inspected[..., None], weighed, self.belief)

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """New cracks in mm, and the rates at which they will grow."""
        g = self._config.growth
        crack_mm = rng.exponential(g.initial_mean_mm, shape)
        constant = rng.lognormal(g.log_constant_mean, g.log_constant_deviation, shape)
        stress = np.maximum(rng.normal(g.stress_mean_mpa, g.stress_deviation_mpa, shape), 0.0)
        rate = (g.exponent - 2.0) / 2.0 * constant * (np.sqrt(np.pi) * stress) ** g.exponent * g.cycles_per_year
        return np.where(crack_mm > g.critical_mm, _FAILED * g.critical_mm, crack_mm), rate

    def _year_later(self, crack_mm: Floats, rate: Floats) -> Floats:
        """Paris' law over one year, integrated from the present size; failed ones stay as they are."""
        g = self._config.growth
        power = (2.0 - g.exponent) / 2.0
        left = crack_mm**power - rate
        later = np.maximum(left, 1e-12) ** (1.0 / power)
        is_failed = (later > g.critical_mm) | (crack_mm > g.critical_mm)
        return np.where(is_failed, _FAILED * g.critical_mm, later)

    def _record_paths(self, rng: np.random.Generator, n_paths: int) -> None:
        """Draw paths of cracks that nobody repairs, and count how they move between bins."""
        n_bins, years = self._config.belief.bins, self._config.years
        crack_mm, rate = self._draw(rng, (n_paths,))
        at = np.searchsorted(self._edges_mm, crack_mm)
        self._new = np.bincount(at, minlength=n_bins) / n_paths
        self._table = np.zeros((years + 1, n_bins, n_bins))
        kept = years + 2 if self._is_redrawn else 0
        self._paths = np.zeros((kept, n_paths), np.float32)
        self._members = np.zeros((max(0, kept - 1), n_paths), np.int32)
        self._bounds = np.zeros((max(0, kept - 1), n_bins + 1), np.int64)
        for year in range(years + 1):
            later_mm = self._year_later(crack_mm, rate)
            later = np.searchsorted(self._edges_mm, later_mm)
            counts = np.bincount(at * n_bins + later, minlength=n_bins * n_bins).reshape(n_bins, n_bins)
            total = counts.sum(1, keepdims=True)
            self._table[year] = np.where(total > 0, counts / np.maximum(total, 1), np.eye(n_bins))
            if self._is_redrawn:
                self._paths[year], self._paths[year + 1] = crack_mm, later_mm
                self._members[year] = np.argsort(at, kind="stable")
                self._bounds[year] = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=n_bins))])
            crack_mm, at = later_mm, later
