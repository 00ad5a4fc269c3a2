"""How fast machines wear, of what is declared, from their ages, failures and inspections: conjugate posteriors.

A Weibull life of shape ``k`` that runs ``pace`` times as fast has ``pace^k`` times the cumulative hazard, so that
failures over the hazard that was worked through give ``pace^k`` a Gamma posterior, whatever was renewed before.
Increments of a gamma process between two looks, whose scale is ``pace`` times the declared one, give ``1 / pace`` one.

What makes one machine of a line wear faster makes the others too, and each alone fails too seldom to tell: half of the
prior's variance is common to all machines. The common pace has a posterior on a grid, by the marginal likelihood of
counts, and each machine's own is conjugate given it (Gelman et al. 2013, "Bayesian Data Analysis", section 5.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from .config import GammaWear, Machine, WeibullWear
from .told_state import AT

Floats = NDArray[np.float64]
_DOWN, _IN_SERVICE = 3, 7
_SHARED = 0.5
_GRID = np.linspace(-4.0, 4.0, 81)
"""Of the common pace's logarithm, in standard deviations of its prior."""


class PaceBeliefs:
    """Of the machines that wear by age or by a gamma process and whose prior ``std`` ``[M]`` is above 0; its mean is
    1."""

    def __init__(self, machines: Sequence[Machine], std: Floats, keep: float) -> None:
        self._wear = [m.upkeep.wear if m.upkeep else None for m in machines]
        self._std, self._keep = std, keep
        self.learns = np.array(
            [isinstance(w, WeibullWear | GammaWear) and s > 0 for w, s in zip(self._wear, std, strict=True)]
        )
        self._power = np.array([w.shape if isinstance(w, WeibullWear) else -1.0 for w in self._wear])
        self.forget()

    def forget(self, widening: float = 1.0) -> None:
        """Back to the prior, ``widening`` times as wide."""
        self._widening = widening
        self._counts = np.zeros((2, len(self._wear)))

    def take(self, told: Floats, before: Floats, asked: Floats) -> None:
        """Learn from two readings ``[M, O]`` a period apart; ``asked`` ``[M]``: the service commanded in between."""
        self._counts *= self._keep
        for i, wear in enumerate(self._wear):
            if not self.learns[i] or np.isnan([told[i], before[i]]).any():
                continue
            if isinstance(wear, WeibullWear):
                self._counts[:, i] += _lived(wear, told[i], before[i], bool(asked[i]))
            elif isinstance(wear, GammaWear):
                self._counts[:, i] += _worn(wear, told[i], before[i])

    def quantiles(self, u: Floats, shared: Floats) -> Floats:
        """Paces ``[M, B]`` at the probabilities ``u`` ``[M, B]`` of the machines' own shares and ``shared`` ``[B]`` of
        what they have in common; 1 for machines of which nothing is learnt. One machine alone shares with nobody."""
        std = self._widening * np.where(self.learns, self._std, 1.0)
        common = np.ones(len(shared))
        if self.learns.sum() > 1:
            common = self._common(np.sqrt(1.0 - _SHARED) * std, shared)
            std = np.sqrt(1.0 - _SHARED) * std
        own = 1.0 / (std * np.abs(self._power)) ** 2
        prior = own[:, None] / common ** self._power[:, None]
        rate = gammaincinv((own + self._counts[0])[:, None], u) / (prior + self._counts[1][:, None])
        pace = np.maximum(rate, 1e-9) ** (1.0 / self._power)[:, None]
        return np.where(self.learns[:, None], np.clip(pace, 0.01, 100.0), 1.0)

    def _common(self, own_std: Floats, shared: Floats) -> Floats:
        """The common pace ``[B]`` at the probabilities ``shared`` ``[B]``."""
        of = self.learns
        std = self._widening * np.sqrt(_SHARED * float((self._std[of] ** 2).mean()))
        own = (1.0 / (own_std * np.abs(self._power)) ** 2)[of, None]
        prior = own / np.exp(self._power[of, None] * std * _GRID)
        events, through = self._counts[0][of, None], self._counts[1][of, None]
        # of a Gamma(own, prior) rate, having seen so many events through so much: negative binomial
        log = -0.5 * _GRID**2 + (own * np.log(prior) - (own + events) * np.log(prior + through)).sum(0)
        weight = np.exp(log - log.max())
        below = np.cumsum(weight) - 0.5 * weight
        return np.asarray(np.exp(std * np.interp(shared, below / weight.sum(), _GRID)))

    def memory(self) -> dict[str, Floats]:
        """All of it; :meth:`recall` is the exact inverse."""
        return {"pace": self._counts.copy(), "pace_widening": np.array([self._widening])}

    def recall(self, memory: dict[str, Floats]) -> None:
        self._counts, self._widening = memory["pace"].copy(), float(memory["pace_widening"][0])


def _lived(wear: WeibullWear, told: Floats, before: Floats, asked: bool) -> Floats:
    """Failures and the declared cumulative hazard of the period."""

    def hazard(age: float) -> float:
        return float((age / wear.scale_slots) ** wear.shape)

    was, now = before[AT["age_slots"]], told[AT["age_slots"]]
    through = hazard(now) - hazard(was) if now >= was else hazard(now)
    return np.array([float(_failed(told, before, asked)), through])


def _worn(wear: GammaWear, told: Floats, before: Floats) -> Floats:
    """Declared shape and wear, in scales, between the last two looks; a failure is a look at the level."""
    age, old_age = told[AT["age_slots"]], before[AT["age_slots"]]
    seen_at, old_at = age - told[AT["seen_ago_slots"]], old_age - before[AT["seen_ago_slots"]]
    seen, old = (row[AT["seen_wear_pu"]] * wear.failure_level for row in (told, before))
    if age >= old_age and _failed(told, before, asked=False) and round(told[AT["state"]]) == _DOWN:
        return np.array([wear.shape_per_slot * (age - seen_at), (wear.failure_level - seen) / wear.scale])
    if age < old_age or seen_at <= old_at:
        return np.zeros(2)
    return np.array([wear.shape_per_slot * (seen_at - old_at), max(0.0, seen - old) / wear.scale])


def _failed(told: Floats, before: Floats, asked: bool) -> bool:
    """Whether the machine failed in the period: it stands and waits for a crew, or one came that nobody had called."""
    now, was = round(told[AT["state"]]), round(before[AT["state"]])
    waits, waited = told[AT["waits_for_crew"]] > 0.5, before[AT["waits_for_crew"]] > 0.5
    if was == _IN_SERVICE or (was == _DOWN and waited):
        return False
    return (now == _DOWN and waits) or (now == _IN_SERVICE and not asked and not waited)
