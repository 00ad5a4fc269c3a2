"""Remaining life from lifetimes alone: who failed at what age, who still runs, and since what age each was watched.

A Weibull life, fitted by maximum likelihood with relife (RTE). Two things that bias a fit when they are passed over are
counted: machines that still run (right censoring), and machines that were old when watching began, which would not be
in the record had they failed before (left truncation).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from .estimate import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lifetimes:
    """``[n]`` each: the ``age`` at which a machine failed or was last seen, whether it ``failed``, and the age from
    which it was ``watched``; ages in ``unit``. Raises :class:`ConfigurationError`."""

    age: Floats
    failed: NDArray[np.bool_]
    watched: Floats
    unit: str = "years"

    def __post_init__(self) -> None:
        if not self.age.shape == self.failed.shape == self.watched.shape or self.age.ndim != 1:
            raise ConfigurationError("lifetimes: age, failed and watched differ in length; give one of each a machine")
        wrong = ~(np.isfinite(self.age) & (self.watched >= 0) & (self.age > self.watched))
        if wrong.any():
            k = int(wrong.argmax())
            raise ConfigurationError(
                f"lifetimes: row {k}: watched from {self.watched[k]:g} to {self.age[k]:g}; give ages with "
                "0 <= watched < age"
            )
        if self.failed.sum() < 2:
            raise ConfigurationError(f"lifetimes: {self.failed.sum()} failures; give two or more")


@dataclass(frozen=True)
class WeibullLife:
    """Survival ``exp(-(age / scale)^shape)``, ages in ``unit``."""

    shape: float
    scale: float
    unit: str = "years"

    def remaining(self, ages: Floats, share: float) -> Floats:
        """Further time ``[n]`` within which a machine of each age fails with the chance ``share``."""
        used = np.asarray(ages, dtype=np.float64) / self.scale
        return np.asarray(self.scale * ((used**self.shape - math.log1p(-share)) ** (1.0 / self.shape) - used))

    def chance(self, ages: Floats, horizon: float) -> Floats:
        """To fail within ``horizon``, of machines that have reached the ages, ``[n]``."""
        used = np.asarray(ages, dtype=np.float64) / self.scale
        return np.asarray(-np.expm1(used**self.shape - (used + horizon / self.scale) ** self.shape))

    def estimate(self, names: tuple[str, ...], ages: Floats, horizon: float, level: float = 0.9) -> Estimate:
        """Of machines that have reached the ages ``[n]``. Intervals are of the life, with shape and scale as fitted."""
        tail = (1.0 - level) / 2.0
        low, median, high = (self.remaining(ages, share) for share in (tail, 0.5, 1.0 - tail))
        return Estimate(names, median, low, high, level, self.chance(ages, horizon), horizon, self.unit)

    def best_age(self, preventive: float, corrective: float) -> float:
        """The age at which replacing costs least in the long run (Barlow & Hunter 1960), by relife; infinity where the
        chance to fail does not grow with age, so that replacing never pays. Raises :class:`ConfigurationError`."""
        if not 0 < preventive < corrective:
            raise ConfigurationError(
                f"costs: replacement {preventive:g}, failure {corrective:g}; give a failure that costs more"
            )
        if self.shape <= 1.0:
            return math.inf
        from relife.lifetime_models import Weibull
        from relife.policies import AgeReplacementPolicy

        # in units of the scale, from which relife's search begins at a sound place
        policy = AgeReplacementPolicy(Weibull(self.shape, 1.0))
        found = float(np.asarray(policy.compute_optimal_ar(cp=preventive, cf=corrective)).ravel()[0])
        return found * self.scale


def fit_weibull(seen: Lifetimes) -> WeibullLife:
    """Maximum likelihood; raises :class:`ConfigurationError` where the search finds none."""
    from relife.lifetime_models import Weibull

    size = float(seen.age.mean())  # the search is at home among numbers near one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # steps of the search that leave the range; its end is checked
        model = Weibull().fit(seen.age / size, event=seen.failed, entry=seen.watched / size)
    shape, rate = (float(v) for v in model.get_params())
    if not (math.isfinite(shape) and math.isfinite(rate) and shape > 0 and rate > 0):
        raise ConfigurationError("lifetimes: no Weibull life fits them; look at ages and failures")
    return WeibullLife(shape, size / rate, seen.unit)
