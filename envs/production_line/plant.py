"""The emulated line: an event-driven simulation in continuous time, on SimPy, that shares no code with the twin.

What differs from the twin, on purpose: time is continuous, and cycles and repairs vary; a machine holds the part that
it works on, and is blocked after it (not before); a change of speed or mode holds from the next cycle; a Bernoulli
machine's lost slots are repeated cycles; failures come in the midst of a cycle, those at any time also while a machine
waits, and one that is down hands nothing over. Exponential machines have exponential cycles, failures and repairs,
whatever spread the plant gives to others.
Efficiency may drift, meters are noisy, readings may be lost, machines and sensors have faults (:mod:`.scenarios`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from ..errors import ConfigurationError, PlantError
from ..nameplate import Nameplate
from ..plant import Arrays, Quality, Telemetry
from .config import BernoulliMachine, FixedLine, LineConfig, Machine
from .nameplate import CREW, MACHINE, line_nameplate
from .plant_buffers import PlantBuffers
from .plant_changes import Changes
from .plant_config import LinePlantConfig
from .plant_crews import PlantCrews
from .plant_faults import Sensors, Troubles
from .plant_meters import PlantMeters
from .plant_station import Station
from .plant_work import PlantWork

Floats = NDArray[np.float64]

EPOCH_UTC_S = 1_735_689_600.0
"""2025-01-01T00:00Z, where the plant's clock starts."""


class SimPyLine:
    """A running line. ``advance`` simulates one period; nothing waits.

    Raises :class:`ConfigurationError` for lines that differ from episode to episode.
    """

    def __init__(self, config: LineConfig, plant_config: LinePlantConfig) -> None:
        if not isinstance(config.line, FixedLine):
            raise ConfigurationError("line: kind 'random' is many lines, a plant is one: give kind 'fixed'")
        self._settings, self._dt_s = plant_config, config.dt_s
        self._nameplate = line_nameplate(config)
        machines = config.line.machines
        n = len(machines)
        seeds = np.random.SeedSequence(plant_config.seed).spawn(n + 1)
        self._rng = np.random.default_rng(seeds[n])
        *troubled, lying = seeds[n].spawn(n + 1)  # chance of their own: without faults the same line runs
        self._stations: list[Station] = []
        for i, machine in enumerate(machines):
            troubles = Troubles(plant_config.faults, i, np.random.default_rng(troubled[i]))
            efficiency = _true_efficiency(machine, plant_config.efficiency_error_pu, self._rng)
            drift_pu_per_day = plant_config.drift_pu_per_day if plant_config.drifting_machine == i + 1 else 0.0
            own = np.random.default_rng(seeds[i])
            self._stations.append(Station(i, machine, own, troubles, efficiency, drift_pu_per_day))
        self._env = simpy.Environment()
        self._changes = Changes(self._env)
        self._buffers = PlantBuffers(config.line, self._stations)
        self._crews = PlantCrews(self._env, self._changes, self._stations, config.service, config.slot_s)
        work = PlantWork(self._env, self._changes, self._buffers, self._crews, plant_config, config.slot_s)
        for station in self._stations:
            work.start(station)
        self._commands = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in self._nameplate.groups}
        self._meters = PlantMeters(
            self._env, self._stations, self._buffers, self._crews, config,
            Sensors(plant_config.faults, np.random.default_rng(lying)), plant_config.meter_noise_pu, self._rng,
        )  # fmt: skip
        self._sequence = 0
        self._energy_kwh = self._energy_cost = 0.0
        self._apply()
        self._values = self._meters.read([0] * n)

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def clock_s(self) -> float:
        """Emulated UTC, seconds."""
        return EPOCH_UTC_S + float(self._env.now)

    @property
    def finished(self) -> int:
        """Parts that have left the line."""
        return sum(s.parts for s in self._stations if self._buffers.is_last(s.place))

    @property
    def levels(self) -> tuple[int, ...]:
        """Parts in each buffer."""
        return tuple(self._buffers.level)

    @property
    def energy_kwh(self) -> float:
        """Drawn since the start, without the meters' noise."""
        return self._energy_kwh

    def truth(self) -> dict[str, Any]:
        """What no sensor tells, since the start: ``parts``, ``wear``, ``service_cost``, ``renewals`` and ``failures``
        of the machines, ``energy_kwh`` and ``energy_cost``, and ``efficiency`` now."""
        stations = self._stations
        return {
            "parts": [s.parts for s in stations],
            "wear": [s.wear for s in stations],
            "service_cost": [s.service_cost for s in stations],
            "renewals": [s.renewals for s in stations],
            "failures": [s.failures for s in stations],
            "efficiency": [s.efficiency(self._env.now) for s in stations],
            "energy_kwh": self._energy_kwh,
            "energy_cost": self._energy_cost,
        }

    def read(self) -> Telemetry:
        self._sequence += 1
        quality = {n: np.zeros(v.shape, dtype=np.int8) for n, v in self._values.items()}
        if self._settings.lost_reading_pu > 0:
            lost = self._rng.random(len(self._stations)) < self._settings.lost_reading_pu
            quality[MACHINE][lost] = Quality.BAD
        return Telemetry(
            values={n: v.copy() for n, v in self._values.items()},
            source_time_s={n: np.full(v.shape, self.clock_s) for n, v in self._values.items()},
            quality=quality,
            received_time_s=self.clock_s,
            sequence=self._sequence,
        )

    def write(self, commands: Arrays) -> Arrays:
        for name, given in commands.items():
            group = self._nameplate.group(name)
            values = np.asarray(given, dtype=np.float64)
            if values.shape != self._commands[name].shape or not np.isfinite(values).all():
                raise PlantError(
                    f"commands of {name!r}: {values.shape}, expected finite numbers {self._commands[name].shape}; the "
                    "commands before stand"
                )
            taken = self._commands[name].copy()
            for k, signal in enumerate(group.commanded):
                levels = np.array(signal.levels)
                taken[:, k] = levels[np.abs(values[:, k, None] - levels).argmin(1)]
            self._commands[name] = taken
        self._apply()
        return {name: values.copy() for name, values in self._commands.items()}

    def advance(self) -> None:
        for s in self._stations:
            s.book(self._env.now)
            s.seconds[:], s.energy_kws = 0.0, 0.0
        made = [s.parts for s in self._stations]
        price = self._meters.price_per_kwh()
        self._env.run(until=self._env.now + self._dt_s)
        for s in self._stations:
            s.book(self._env.now)
        drawn_kwh = sum(s.energy_kws for s in self._stations) / 3600.0
        self._energy_kwh += drawn_kwh
        self._energy_cost += drawn_kwh * price
        self._values = self._meters.read([s.parts - before for s, before in zip(self._stations, made, strict=True)])

    def close(self) -> None:
        """Nothing is held."""

    def _apply(self) -> None:
        for s, row in zip(self._stations, self._commands[MACHINE], strict=True):
            if int(row[0]) != s.mode:
                s.mode_since_s = self._env.now
            s.mode, s.speed = int(row[0]), float(row[1])
            s.service = int(row[2]) if len(row) > 2 and s.machine.upkeep is not None else 0
        if CREW in self._commands:
            self._crews.first = int(self._commands[CREW][0, 0])
        self._changes.tell()


def _true_efficiency(machine: Machine, spread: float, rng: np.random.Generator) -> float:
    model = machine.model
    nominal = model.efficiency_pu if isinstance(model, BernoulliMachine) else 1.0
    return float(np.clip(nominal * (1.0 + spread * rng.standard_normal()), 0.05, 1.0)) if spread else nominal
