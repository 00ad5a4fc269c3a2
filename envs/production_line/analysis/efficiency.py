"""What telemetry leaves open about each machine: efficiency, failures and repairs as posterior distributions.

Efficiency is the chance to process in a slot while up, of which the trials are counted (Beta with Jeffreys' prior);
failures come with slots of work and repairs with slots down (Gamma with Jeffreys' prior for both rates).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import BernoulliMachine, GeometricMachine, LineConfig
from ..line_plan import plan_of
from .record import LineRecord

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_LEAST = 1e-3


@dataclass(frozen=True)
class Machines:
    """Draws ``[D, M]`` of what the machines may be: ``efficiency`` while up, chance to ``fail`` and to be repaired
    (``repair``) in a slot."""

    efficiency: Floats
    fails: Floats
    repairs: Floats

    @property
    def up(self) -> Floats:
        """Share of slots up, where nothing but the machine itself stops it."""
        return self.repairs / (self.repairs + self.fails)

    @property
    def table(self) -> Floats:
        """All of a draw in one row, ``[D, 3 M]``."""
        return np.hstack((self.efficiency, self.fails, self.repairs))


@dataclass(frozen=True)
class Estimates:
    """Counts ``[M]``, each since its last change: ``trials`` and ``made``; ``stops`` in slots of ``work``; ``repairs``
    in slots ``down``. ``breaks`` ``[M]``: whether it was ever seen to stop. No trials: it is as configured,
    ``nominal``."""

    nominal: Machines
    trials: Floats
    made: Floats
    work: Floats
    stops: Floats
    down: Floats
    repairs: Floats
    breaks: Bools

    @property
    def measured(self) -> bool:
        return bool((self.trials > 0).any())

    def efficiency(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation ``[M]`` of the efficiency while up; of zero width where nothing was measured."""
        a, b = self._beta()
        mean, n = a / (a + b), a + b
        seen = self.trials > 0
        nominal = self.nominal.efficiency[0]
        return np.where(seen, mean, nominal), np.where(seen, np.sqrt(mean * (1 - mean) / (n + 1)), 0.0)

    def draws(self, n: int, rng: np.random.Generator) -> Machines:
        """``n`` draws of the machines. Failures and repairs of one that was never seen to stop are as configured."""
        a, b = self._beta()
        shape = (n, len(self.trials))
        seen = self.trials > 0
        efficiency = np.where(seen, rng.beta(a, b, shape), self.nominal.efficiency)
        fails = rng.gamma(self.stops + 0.5, 1.0 / np.maximum(self.work, 1.0), shape)
        repairs = rng.gamma(self.repairs + 0.5, 1.0 / np.maximum(self.down, 1.0), shape)
        return Machines(
            np.clip(efficiency, _LEAST, 1.0),
            np.where(self.breaks, np.clip(fails, 0.0, 0.9), self.nominal.fails),
            np.where(self.breaks, np.clip(repairs, _LEAST, 1.0), self.nominal.repairs),
        )

    def _beta(self) -> tuple[Floats, Floats]:
        return self.made + 0.5, np.maximum(self.trials - self.made, 0.0) + 0.5


def nominal_machines(config: LineConfig) -> Machines:
    """The machines as a configuration has them, one draw."""
    efficiency, fails, repairs = [], [], []
    for machine in plan_of(config).machines:
        model = machine.model
        if isinstance(model, GeometricMachine):
            efficiency.append(1.0)
            fails.append(model.fails_pu)
            repairs.append(model.repairs_pu)
        else:
            assert isinstance(model, BernoulliMachine)  # lines of exponential machines are not analysed
            efficiency.append(model.efficiency_pu)
            fails.append(0.0)
            repairs.append(1.0)
    return Machines(*(np.array([v]) for v in (efficiency, fails, repairs)))


def as_configured(config: LineConfig) -> Estimates:
    """No telemetry."""
    nominal = nominal_machines(config)
    none = np.zeros(nominal.efficiency.shape[1])
    return Estimates(nominal, none, none, none, none, none, none, none > 0)


def estimate(config: LineConfig, record: LineRecord, since: NDArray[np.int64]) -> Estimates:
    """From a record; ``since`` ``[3, M]``, the periods from which on efficiency, failures and repairs count."""
    period = np.arange(record.n_periods)[:, None]

    def total(values: NDArray[Any], k: int) -> Floats:
        return np.asarray((values * (period >= since[k])).sum(0), dtype=np.float64)

    return Estimates(
        nominal_machines(config), total(record.trials, 0), total(record.made, 0), total(record.trials, 1),
        total(record.stopped, 1), total(record.down, 2), total(record.repaired, 2), np.asarray(record.stopped.any(0)),
    )  # fmt: skip
