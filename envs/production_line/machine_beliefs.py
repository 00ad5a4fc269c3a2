"""What telemetry has told so far about each machine: conjugate posteriors that forget.

A cycle makes a part or not, so that an efficiency has a Beta posterior; stops come with slots of work and repairs with
slots down, so that both rates have Gamma posteriors (Gelman et al. 2013, "Bayesian Data Analysis", chapter 2). Counts
fade with ``memory_s``, and are dropped altogether up to the moment after which a machine is found changed
(:mod:`.analysis.shift`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv

from .analysis.shift import ShiftWatch

Floats = NDArray[np.float64]
_ALARM_NATS = 12.0
"""As the diagnosis has it: a change that is none once in years (``twinloop bench line_bottleneck``)."""
_LEAST = 1e-3
_MOST = 1.0 - 1e-6


@dataclass(frozen=True)
class Counted:
    """Of one period, ``[M]`` each, in slots and parts; zero where nothing is known: ``trials``, the cycles that a
    machine had time for while up; ``made`` of them; ``stops``; slots ``down``; ``repairs``."""

    trials: Floats
    made: Floats
    stops: Floats
    down: Floats
    repairs: Floats


@dataclass(frozen=True)
class Rates:
    """A prior for ``[M]`` machines by mean and standard deviation; a standard deviation of 0 fixes it at its mean."""

    mean: Floats
    std: Floats

    def widened(self, by: float) -> Rates:
        return Rates(self.mean, self.std * by)


class Beliefs:
    """Efficiency while up, and the chances to stop and to come up again in a slot, of ``M`` machines.

    A machine whose prior says that it never stops (mean 0) is believed until it has been seen to.
    """

    def __init__(self, efficiency: Rates, fails: Rates, repairs: Rates, keep: float) -> None:
        self._efficiency, self._fails, self._repairs = efficiency, fails, repairs
        self._keep = keep
        self._n = len(efficiency.mean)
        self._widening = 1.0
        self.forget()

    def forget(self, widening: float = 1.0) -> None:
        """Back to the prior, ``widening`` times as wide."""
        self._widening = widening
        self._trials, self._made = np.zeros((2, 3, self._n))
        self._watch = ShiftWatch(3 * self._n, _ALARM_NATS)
        self._seen_to_stop = self._fails.mean > 0

    def take(self, found: Counted) -> list[str]:
        """Learn from a period; says in words what has changed."""
        trials = np.stack((found.trials, found.trials, found.down))
        made = np.stack((found.made, found.stops, found.repairs))
        self._trials = self._keep * self._trials + trials
        self._made = self._keep * self._made + made
        self._seen_to_stop = self._seen_to_stop | (found.stops > 0)
        changed = self._watch.take(trials.ravel(), made.ravel())
        if changed:
            since_trials, since_made = (c.reshape(3, self._n) for c in self._watch.counts())
            for i, *_ in changed:
                what, machine = divmod(i, self._n)
                self._trials[what, machine] = since_trials[what, machine]
                self._made[what, machine] = since_made[what, machine]
        return [f"{_WHAT[i // self._n]} of machine {i % self._n + 1}" for i, *_ in changed]

    def means(self) -> tuple[Floats, Floats, Floats]:
        """Posterior means ``[M]`` of efficiency, stops and repairs."""
        (a, b), (k, n), (r, d) = self._beta(), self._gamma(1), self._gamma(2)
        return (
            np.where(self._efficiency.std > 0, a / (a + b), self._efficiency.mean),
            np.where(self._seen_to_stop & (self._fails.std > 0), k / n, self._fails.mean),
            np.where(self._repairs.std > 0, r / d, self._repairs.mean),
        )

    def quantiles(self, u: Floats) -> tuple[Floats, Floats, Floats]:
        """Efficiency, stops and repairs ``[M, B]`` at the probabilities ``u`` ``[3, M, B]``."""
        (a, b), (k, n), (r, d) = self._beta(), self._gamma(1), self._gamma(2)
        efficiency = np.clip(betaincinv(a[:, None], b[:, None], u[0]), _LEAST, 1.0)
        fails = np.clip(gammaincinv(k[:, None], u[1]) / n[:, None], 0.0, 0.9)
        repairs = np.clip(gammaincinv(r[:, None], u[2]) / d[:, None], _LEAST, 1.0)
        learns = (self._efficiency.std > 0)[:, None]
        stops = (self._seen_to_stop & (self._fails.std > 0))[:, None]
        comes_up = (self._repairs.std > 0)[:, None]
        return (
            np.where(learns, efficiency, self._efficiency.mean[:, None]),
            np.where(stops, fails, self._fails.mean[:, None]),
            np.where(comes_up, repairs, self._repairs.mean[:, None]),
        )

    def memory(self) -> dict[str, Floats]:
        """All of it as arrays; :meth:`recall` is the exact inverse."""
        return {
            "trials": self._trials.copy(),
            "made": self._made.copy(),
            "stops": self._seen_to_stop.astype(np.float64),
            "widening": np.array([self._widening]),
            "watch": self._watch.memory(),
        }

    def recall(self, memory: dict[str, Floats]) -> None:
        self._trials, self._made = memory["trials"].copy(), memory["made"].copy()
        self._seen_to_stop = memory["stops"] > 0
        self._widening = float(memory["widening"][0])
        self._watch.recall(memory["watch"])

    def _beta(self) -> tuple[Floats, Floats]:
        """Of the efficiency: parts and cycles in vain, the prior's own among them (matched by its two moments)."""
        mean = np.clip(self._efficiency.mean, 0.02, 0.98)
        std = np.maximum(self._widening * self._efficiency.std, 1e-6)
        n = np.maximum(mean * (1.0 - mean) / std**2 - 1.0, 2.0)
        made = np.minimum(self._made[0], self._trials[0])
        return n * mean + made, n * (1.0 - mean) + self._trials[0] - made

    def _gamma(self, what: int) -> tuple[Floats, Floats]:
        """Shape and slots of a rate, the prior's own among them."""
        prior = self._fails if what == 1 else self._repairs
        mean, std = np.maximum(prior.mean, 0.0), np.maximum(self._widening * prior.std, 1e-9)
        never = mean <= 0
        shape = np.where(never, 0.5, (mean / std) ** 2)
        slots = np.where(never, 0.5 / std, mean / std**2)
        return shape + self._made[what], slots + self._trials[what]


_WHAT = ("efficiency", "stops", "repairs")
