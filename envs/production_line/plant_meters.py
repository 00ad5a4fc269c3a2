"""What the emulated line's sensors tell of its machines and crews after a period: meters are noisy, sensors may lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from .config import LineConfig, WeibullWear
from .nameplate import CREW, MACHINE
from .plant_buffers import PlantBuffers
from .plant_crews import PlantCrews
from .plant_faults import Sensors
from .plant_station import BLOCKED, DOWN, SERVICE, STARVED, WARMING, Station

Floats = NDArray[np.float64]
_PLENTY = 1e6


class PlantMeters:
    """Of one line; ``rng`` draws the power meters' noise. A line that does not wear has no dispatcher, and tells
    nothing of crews."""

    def __init__(
        self, env: simpy.Environment, stations: Sequence[Station], buffers: PlantBuffers, crews: PlantCrews,
        config: LineConfig, sensors: Sensors, noise_pu: float, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._env, self._stations, self._buffers, self._crews = env, stations, buffers, crews
        self._config, self._sensors, self._noise_pu, self._rng = config, sensors, noise_pu, rng
        self._has_dispatcher = any(s.machine.upkeep is not None for s in stations)
        self._tells_held = bool(config.limits.on_slots or config.limits.rest_slots)
        self._n_beliefs = max((len(s.damage.belief) for s in stations if s.damage is not None), default=0)

    def price_per_kwh(self) -> float:
        """Of energy, now."""
        prices = self._config.tariff.prices_per_kwh
        hour = (self._config.start_hour[0] + self._env.now / 3600.0) % 24.0
        return prices[min(int(hour * len(prices) / 24.0), len(prices) - 1)]

    def read(self, made: Sequence[int]) -> dict[str, Floats]:
        """Values by group, ``[n_assets, n_measured]``, in the order of the nameplate; ``made``: parts of each machine
        in the period."""
        alike = [self.price_per_kwh()]
        if self._has_dispatcher:
            soon_s = self._env.now + self._config.slot_s  # as the tag is declared: free in the next slot
            alike += [float(self._crews.free_by(soon_s)), float(len(self._crews.queue))]
        rows = [self._row(s, made[s.place], alike) for s in self._stations]
        values = {MACHINE: self._sensors.told(np.array(rows), self._env.now)}
        if self._has_dispatcher:
            values[CREW] = np.array([self._crew_row()])
        return values

    def _row(self, s: Station, made: int, alike: Sequence[float]) -> tuple[float, ...]:
        """A machine's; ``alike``: what all are told of energy and crews."""
        dt_s, upkeep = self._config.dt_s, s.machine.upkeep
        shares = s.seconds / dt_s
        scale = upkeep.wear.failure_level if upkeep and not isinstance(upkeep.wear, WeibullWear) else 1.0
        power_kw = s.energy_kws / dt_s * (1.0 + self._noise_pu * self._rng.standard_normal())
        return (
            float(s.state), self._buffers.parts_before(s.place, _PLENTY), self._buffers.room_behind(s.place, _PLENTY),
            float(made), shares[BLOCKED], shares[STARVED], shares[DOWN] + shares[SERVICE], max(0.0, power_kw),
            self._ready_in_slots(s), s.age_slots, s.seen_wear / scale, s.age_slots - s.seen_age, float(s.calls), *alike,
            *self._beliefs(s), *self._mode_held_slots(s),
        )  # fmt: skip

    def _ready_in_slots(self, s: Station) -> float:
        if s.state != WARMING:
            return 0.0
        return float(math.ceil((s.warm_at_s - self._env.now) / self._config.slot_s - 1e-9))

    def _beliefs(self, s: Station) -> list[float]:
        """Of its stages of damage; 0 where others have more of them."""
        believed: list[float] = [] if s.damage is None else s.damage.belief.tolist()
        return believed + [0.0] * (self._n_beliefs - len(believed))

    def _mode_held_slots(self, s: Station) -> list[float]:
        return [min(1e9, (self._env.now - s.mode_since_s) / self._config.slot_s)] if self._tells_held else []

    def _crew_row(self) -> list[float]:
        """The dispatcher's: crews, calls, spares, then what each machine waits for, how long, and its age, in slots."""
        calls, waited, age = [], [], []
        for s in self._stations:
            call = self._crews.call(s)
            calls.append(float(call))
            waited.append((self._env.now - s.called_s) / self._config.slot_s if call else 0.0)
            age.append(s.age_slots)
        spares = min(self._crews.spares, _PLENTY)
        return [float(self._crews.free), float(len(self._crews.queue)), spares, *calls, *waited, *age]
