"""One machine of the emulated line: its state, its power and its wear, and what its controller counts."""

from __future__ import annotations

import math

import numpy as np

from .config import GammaWear, Machine, StagedWear, WeibullWear
from .plant_faults import Troubles
from .plant_stages import StagedDamage

RUNNING, BLOCKED, STARVED, DOWN, WARMING, STANDBY, OFF, SERVICE = range(8)
MODE_OFF, MODE_STANDBY, MODE_ON = range(3)


class Station:
    """A machine at ``place``, from 0; ``rng`` is its own.

    ``efficiency``: the share of its cycles that end with a part, at the start; it loses ``drift_pu_per_day``.
    ``mode``, ``speed`` and ``service`` are what it was told; ``seconds`` ``[8]``, by state, and ``energy_kws`` count
    from where the plant last set them to zero; ``load_kw`` is drawn by the present cycle; ``next_failure_s`` is running
    time, infinite where it never fails.
    """

    def __init__(
        self, place: int, machine: Machine, rng: np.random.Generator, troubles: Troubles, efficiency: float,
        drift_pu_per_day: float,
    ) -> None:  # fmt: skip
        self.place, self.machine, self.rng, self.troubles = place, machine, rng, troubles
        self._efficiency, self._drift_pu_per_day = efficiency, drift_pu_per_day
        self.mode, self.speed, self.service = MODE_ON, 1.0, 0
        self.state, self.since_s = STARVED, 0.0
        self.seconds = np.zeros(8)
        self.energy_kws = 0.0
        self.load_kw = 0.0
        self.parts = 0
        self.calls = False
        self.service_cost = 0.0
        self.renewals = self.failures = 0
        self.life_slots = self.next_failure_s = math.inf
        self.warm_at_s = self.called_s = self.served_at_s = 0.0
        self.mode_since_s = -math.inf
        self.damage: StagedDamage | None = None
        if machine.upkeep is not None and isinstance(machine.upkeep.wear, StagedWear):
            self.damage = StagedDamage(machine.upkeep.wear, troubles.wear_factor, rng)
        self.renew()

    def efficiency(self, now_s: float) -> float:
        """Chance that a cycle ends with a part."""
        return max(0.05, self._efficiency - self._drift_pu_per_day * now_s / 86400.0)

    def power_kw(self) -> float:
        """Drawn in the present state."""
        power = self.machine.power
        if self.state == WARMING:
            return power.warm_up_kw
        if self.state == STANDBY:
            return power.standby_kw
        if self.state in (OFF, SERVICE):
            return power.off_kw
        draws = self.state == RUNNING or (power.draws == "loaded" and self.state in (BLOCKED, DOWN))
        return power.idle_kw + (self.load_kw if draws else 0.0)

    def book(self, now_s: float) -> None:
        """Count the time and the energy up to now."""
        passed = now_s - self.since_s
        self.seconds[self.state] += passed
        self.energy_kws += passed * self.power_kw()
        self.since_s = now_s

    def enter(self, state: int, now_s: float) -> None:
        """Be in another state from now on."""
        self.book(now_s)
        self.state = state

    def renew(self) -> None:
        """As new."""
        upkeep = self.machine.upkeep
        self.age_slots = self.seen_age = self.wear = self.seen_wear = 0.0
        self.failed = False
        if self.damage is not None:
            self.damage.renew()
        if upkeep is not None and isinstance(upkeep.wear, WeibullWear):
            life = upkeep.wear.scale_slots * float(self.rng.weibull(upkeep.wear.shape))
            self.life_slots = life / self.troubles.wear_factor

    def wear_out(self) -> None:
        """A part's worth of wear, of a machine with upkeep; ``failed``: that it has failed by it, and it is noticed."""
        upkeep = self.machine.upkeep
        assert upkeep is not None  # only stations with upkeep come here
        self.age_slots += 1.0
        if isinstance(upkeep.wear, GammaWear):
            shape = upkeep.wear.shape_per_slot * self.troubles.wear_factor
            self.wear += float(self.rng.gamma(shape, upkeep.wear.scale))
            self.failed = self.wear >= upkeep.wear.failure_level
        elif isinstance(upkeep.wear, StagedWear):
            assert self.damage is not None  # made with the station
            self.service_cost += upkeep.wear.unnoticed_cost * self.damage.silent
            self.failures += self.damage.work()
            self.wear = float(self.damage.stage)
            self.failed = self.damage.failed and not self.damage.silent
        else:
            self.failed = self.age_slots >= self.life_slots
        if self.failed:
            self.failures += self.damage is None

    def look(self) -> None:
        """An inspection: what it shows is seen; a failure that nobody had noticed is known."""
        self.seen_wear, self.seen_age = self.wear if self.damage is None else float(self.damage.look()), self.age_slots
        self.failed = self.damage is not None and self.damage.failed
