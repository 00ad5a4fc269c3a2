"""How long work on machines takes, of what is declared, from the services that have been watched: normal posteriors.

A service is timed by readings a period apart: the share of time down says when a machine that worked came into a crew's
hands, and when it left them. Of one that had failed and waited, the beginning lies anywhere in a period, which counts
as an error of that much. What a shop takes longer for on one machine it takes longer for on all: half of the prior's
variance is common to the line (Gelman et al. 2013, "Bayesian Data Analysis", section 5.4).

A machine whose service was asked for may have failed just before it: its work is held for the kind whose declared time
is nearer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .config import Machine
from .told_state import AT

Floats = NDArray[np.float64]
_DOWN, _IN_SERVICE = 3, 7
_INSPECTION = 2
_OWN_ERROR = 0.05
"""Of one service, over what is declared, beside the reading's: no two take the same time."""
_LEAST, _MOST = 0.1, 10.0
_SHARED = 0.5


class ServiceBeliefs:
    """Of the machines with upkeep whose prior ``std`` ``[M]`` is above 0; its mean is 1. ``slots``: of a period."""

    def __init__(self, machines: Sequence[Machine], std: Floats, keep: float, slots: int) -> None:
        self._upkeep = [m.upkeep for m in machines]
        self._std, self._keep, self._slots = std, keep, float(slots)
        self.learns = np.array([u is not None and s > 0 for u, s in zip(self._upkeep, std, strict=True)])
        self.forget()

    def forget(self, widening: float = 1.0) -> None:
        """Back to the prior, ``widening`` times as wide."""
        self._widening = widening
        self._seen = np.zeros((2, len(self._upkeep)))  # precision, and precision times what was seen
        self._running = np.full((3, len(self._upkeep)), np.nan)  # slots so far, their variance, whether it had failed

    def take(self, told: Floats, before: Floats, asked: Floats) -> None:
        """Learn from two readings ``[M, O]`` a period apart; ``asked`` ``[M]``: the service commanded in between."""
        self._seen *= self._keep
        idle = not (before[:, AT["state"]] == _IN_SERVICE).any()
        for i in np.flatnonzero(self.learns):
            if np.isnan(told[i]).any() or np.isnan(before[i]).any():
                self._running[:, i] = np.nan
                continue
            self._watch(int(i), told[i], before[i], round(asked[i]), idle)

    def quantiles(self, u: Floats, shared: Floats) -> Floats:
        """Factors ``[M, B]`` at the probabilities ``u`` ``[M, B]`` of the machines' own shares and ``shared`` ``[B]``
        of what they have in common; 1 for machines of which nothing is learnt."""
        learns = self.learns
        variance = np.where(learns, (self._widening * self._std) ** 2, 1.0)
        common, own = _SHARED * float(variance[learns].mean()) if learns.any() else 1.0, (1.0 - _SHARED) * variance
        heard = np.where(learns & (self._seen[0] > 0), self._seen[0], 0.0)
        mean = self._seen[1] / np.where(heard > 0, heard, 1.0)
        weight = np.where(heard > 0, 1.0 / (own + 1.0 / np.where(heard > 0, heard, 1.0)), 0.0)
        precision = 1.0 / common + weight.sum()
        centre = (1.0 / common + float(weight @ mean)) / precision + ndtri(shared) / math.sqrt(precision)
        tight = 1.0 / own + heard
        factor = ((centre[None] / own[:, None]) + self._seen[1][:, None]) / tight[:, None]
        factor = factor + ndtri(u) / np.sqrt(tight)[:, None]
        return np.where(learns[:, None], np.clip(factor, _LEAST, _MOST), 1.0)

    def memory(self) -> dict[str, Floats]:
        """All of it; :meth:`recall` is the exact inverse."""
        return {
            "service": self._seen.copy(),
            "service_running": self._running.copy(),
            "service_widening": np.array([self._widening]),
        }

    def recall(self, memory: dict[str, Floats]) -> None:
        self._seen, self._running = memory["service"].copy(), memory["service_running"].copy()
        self._widening = float(memory["service_widening"][0])

    def _watch(self, i: int, told: Floats, before: Floats, asked: int, idle: bool) -> None:
        now, was = round(told[AT["state"]]), round(before[AT["state"]])
        down = self._slots * told[AT["down_pu"]]
        waited = before[AT["waits_for_crew"]] > 0.5
        upkeep = self._upkeep[i]
        assert upkeep is not None  # only such machines learn
        # in a short period who has been called for works until the crew comes; in a long one it may have failed before
        called = (asked or waited) and self._slots <= upkeep.preventive_slots
        if now == _IN_SERVICE:
            if was == _IN_SERVICE and told[AT["age_slots"]] >= before[AT["age_slots"]]:
                self._running[0, i] += down  # stays unknown where its beginning is
            elif was == _DOWN and waited:
                self._running[:, i] = 0.5 * down, down**2 / 12.0, 1.0
            elif was in (_DOWN, _IN_SERVICE) or asked == _INSPECTION or not (called or idle):
                # nobody tells when one thing gave way to another, or how long who failed has waited for a crew
                self._running[:, i] = np.nan
            else:
                self._running[:, i] = down, 0.0, 0.5 if asked or waited else 1.0
            return
        if was == _IN_SERVICE and now != _DOWN and not np.isnan(self._running[0, i]):
            self._count(i, self._running[0, i] + down, *self._running[1:, i])
        self._running[:, i] = np.nan

    def _count(self, i: int, slots: float, variance: float, failed: float) -> None:
        """A service has ended; ``failed``: 1 for a repair, 0.5 for who knows."""
        upkeep = self._upkeep[i]
        assert upkeep is not None  # only such machines learn
        kinds = [upkeep.corrective_slots] if failed == 1.0 else [upkeep.preventive_slots, upkeep.corrective_slots]
        declared = min(kinds, key=lambda k: abs(math.log(max(slots, 1e-3) / k)))
        precision = 1.0 / (_OWN_ERROR**2 + variance / declared**2)
        self._seen[:, i] += precision, precision * slots / declared
