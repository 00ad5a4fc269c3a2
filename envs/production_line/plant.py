"""The emulated line: an event-driven simulation in continuous time, on SimPy, that shares no code with the twin.

What differs from the twin, on purpose: time is continuous, and cycles and repairs vary; a machine holds the part that
it works on, and is blocked after it (not before); a change of speed or mode holds from the next cycle; a Bernoulli
machine's lost slots are repeated cycles; failures come in the midst of a cycle, those at any time also while a machine
waits, and one that is down hands nothing over. Exponential machines have exponential cycles, failures and repairs,
whatever spread the plant gives to others.
Efficiency may drift, meters are noisy, readings may be lost, machines and sensors have faults (:mod:`.scenarios`).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from ..errors import ConfigurationError, PlantError
from ..nameplate import Nameplate
from ..plant import Arrays, Quality, Telemetry
from .config import (
    BernoulliMachine,
    ExponentialMachine,
    FixedLine,
    GammaWear,
    GeometricMachine,
    LineConfig,
    Machine,
    StagedWear,
    WeibullWear,
)
from .nameplate import CREW, MACHINE, line_nameplate
from .plant_config import LinePlantConfig
from .plant_faults import Sensors, Troubles
from .plant_stages import StagedDamage

Floats = NDArray[np.float64]
Events = Generator[simpy.Event, Any, None]

EPOCH_UTC_S = 1_735_689_600.0
"""2025-01-01T00:00Z, where the plant's clock starts."""
RUNNING, BLOCKED, STARVED, DOWN, WARMING, STANDBY, OFF, SERVICE = range(8)
_MODE_OFF, _MODE_STANDBY, _MODE_ON = range(3)
_PLENTY = 1e6


class _Station:
    """One machine of the plant: what it is, and what its controller counts."""

    def __init__(self, place: int, machine: Machine, rng: np.random.Generator) -> None:
        self.place, self.machine, self.rng = place, machine, rng
        self.mode, self.speed, self.service = _MODE_ON, 1.0, 0
        self.state, self.since_s = STARVED, 0.0
        self.seconds = np.zeros(8)
        self.energy_kws = 0.0
        self.load_kw = 0.0
        self.parts = 0
        self.age_slots = self.seen_age = self.wear = self.seen_wear = 0.0
        self.failed = self.calls = False
        self.service_cost = 0.0
        self.renewals = self.failures = 0
        self.life_slots = self.next_failure_s = math.inf
        self.warm_at_s = self.called_s = self.served_at_s = 0.0
        self.mode_since_s = -math.inf
        self.troubles = Troubles((), place, rng)
        self.damage: StagedDamage | None = None

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


class SimPyLine:
    """A running line. ``advance`` simulates one period; nothing waits.

    Raises :class:`ConfigurationError` for lines that differ from episode to episode.
    """

    def __init__(self, config: LineConfig, plant_config: LinePlantConfig) -> None:
        if not isinstance(config.line, FixedLine):
            raise ConfigurationError("line: kind 'random' is many lines, a plant is one: give kind 'fixed'")
        self._config, self._settings = config, plant_config
        self._nameplate = line_nameplate(config)
        line = config.line
        n = len(line.machines)
        if line.buffers:
            self._ends = [(b.producer - 1, b.consumer - 1) for b in line.buffers]
            self._capacity = [b.capacity for b in line.buffers]
            self._level = [b.initial for b in line.buffers]
        else:
            self._ends = [] if line.parallel else [(k, k + 1) for k in range(n - 1)]
            self._capacity, self._level = list(line.capacities), [0] * len(self._ends)
        self._before = [[k for k, (_, to) in enumerate(self._ends) if to == i] for i in range(n)]
        self._behind = [[k for k, (of, _) in enumerate(self._ends) if of == i] for i in range(n)]
        seeds = np.random.SeedSequence(plant_config.seed).spawn(n + 1)
        self._rng = np.random.default_rng(seeds[n])
        self._stations = [_Station(i, m, np.random.default_rng(seeds[i])) for i, m in enumerate(line.machines)]
        spread = plant_config.efficiency_error_pu
        self._efficiency = [self._true_efficiency(m, spread) for m in line.machines]
        self._env = simpy.Environment()
        self._changed = self._env.event()
        self._free, self._queue, self._first = config.service.crews, list[int](), 0
        self._spares = math.inf if config.service.spares is None else float(config.service.spares)
        self._sequence = 0
        self._energy_kwh = self._energy_cost = 0.0
        self._commands = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in self._nameplate.groups}
        self._values: dict[str, Floats] = {}
        troubled = seeds[n].spawn(n + 1)  # chance of their own: without faults the same line runs
        self._sensors = Sensors(plant_config.faults, np.random.default_rng(troubled[n]))
        for station in self._stations:
            own = np.random.default_rng(troubled[station.place])
            station.troubles = Troubles(plant_config.faults, station.place, own)
            upkeep = station.machine.upkeep
            if upkeep is not None and isinstance(upkeep.wear, StagedWear):
                station.damage = StagedDamage(upkeep.wear, station.troubles.wear_factor, station.rng)
            self._renew(station)
            station.next_failure_s = self._failure_gap_s(station)
            self._env.process(self._run(station))
        beliefs = [len(s.damage.belief) for s in self._stations if s.damage is not None]
        self._n_beliefs = max(beliefs, default=0)
        self._apply()
        self._measure()

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
        return sum(s.parts for s in self._stations if not self._behind[s.place])

    @property
    def levels(self) -> tuple[int, ...]:
        """Parts in each buffer."""
        return tuple(self._level)

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
            "efficiency": [self._present_efficiency(s) for s in stations],
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
        price = self._price()
        self._env.run(until=self._env.now + self._config.dt_s)
        for s in self._stations:
            s.book(self._env.now)
        drawn_kwh = sum(s.energy_kws for s in self._stations) / 3600.0
        self._energy_kwh += drawn_kwh
        self._energy_cost += drawn_kwh * price
        self._measure([s.parts - before for s, before in zip(self._stations, made, strict=True)])

    def close(self) -> None:
        """Nothing is held."""

    def _apply(self) -> None:
        for s, row in zip(self._stations, self._commands[MACHINE], strict=True):
            if int(row[0]) != s.mode:
                s.mode_since_s = self._env.now
            s.mode, s.speed = int(row[0]), float(row[1])
            s.service = int(row[2]) if len(row) > 2 and s.machine.upkeep is not None else 0
        if CREW in self._commands:
            self._first = int(self._commands[CREW][0, 0])
        self._tell()

    def _tell(self) -> None:
        """Wake everybody who waits for something to change."""
        changed, self._changed = self._changed, self._env.event()
        changed.succeed()

    def _enter(self, s: _Station, state: int) -> None:
        s.book(self._env.now)
        s.state = state

    def _run(self, s: _Station) -> Events:
        slot_s = self._config.slot_s
        while True:
            if s.mode != _MODE_ON:
                yield from self._rest(s)
            if self._takes_service(s):
                yield from self._serviced(s)
                continue
            if any(self._level[k] == 0 for k in self._before[s.place]):
                yield from self._starved(s)
                continue
            for k in self._before[s.place]:
                self._level[k] -= 1
            self._tell()
            done = False
            while not done:
                done = s.rng.random() < self._present_efficiency(s)
                yield from self._cycle(s, slot_s / s.speed, done)
            while not all(self._has_room(k) for k in self._behind[s.place]):
                yield from self._wait(s, BLOCKED)
            for k in self._behind[s.place]:
                self._level[k] += 1
            s.parts += 1
            self._tell()
            if s.machine.upkeep is not None:
                yield from self._wear(s)

    def _starved(self, s: _Station) -> Events:
        """Without parts; a machine without places before it says that its hands are free."""
        asks = s.state != STARVED and any(self._capacity[k] == 0 for k in self._before[s.place])
        self._enter(s, STARVED)
        if asks:
            self._tell()
        yield from self._wait(s, STARVED)

    def _has_room(self, k: int) -> bool:
        """A place in the buffer; where it has none, free hands of the machine behind it."""
        if self._capacity[k] > 0:
            return self._level[k] < self._capacity[k]
        return self._level[k] == 0 and self._stations[self._ends[k][1]].state == STARVED

    def _wait(self, s: _Station, state: int) -> Events:
        """Until something changes; who may fail at any time may do so meanwhile, and is repaired."""
        self._enter(s, state)
        model = s.machine.model
        if isinstance(model, BernoulliMachine) or model.failures != "time" or math.isinf(s.next_failure_s):
            yield self._changed
            return
        since_s, failure = self._env.now, self._env.timeout(s.next_failure_s)
        yield self._changed | failure
        s.next_failure_s = max(0.0, s.next_failure_s - (self._env.now - since_s))
        if failure.processed:
            yield from self._repaired(s)

    def _rest(self, s: _Station) -> Events:
        """Off or in stand-by until it is told to be on, then warm."""
        deepest = s.mode
        while s.mode != _MODE_ON:
            deepest = min(deepest, s.mode)
            self._enter(s, OFF if s.mode == _MODE_OFF else STANDBY)
            yield self._changed
        slots = s.machine.warm_up_slots if deepest == _MODE_OFF else s.machine.wake_slots
        if slots:
            self._enter(s, WARMING)
            s.warm_at_s = self._env.now + slots * self._config.slot_s
            yield self._env.timeout(slots * self._config.slot_s)

    def _cycle(self, s: _Station, mean_s: float, done: bool) -> Events:
        """One cycle at the present speed, with whatever stops fall into it; ``done``: it ends with a part, and where
        only those draw working power, others draw none."""
        power = s.machine.power
        draws = done or power.draws == "loaded"
        s.book(self._env.now)  # what passed was drawn at the load before
        s.load_kw = power.linear_kw * s.speed + power.cubic_kw * s.speed**3 if draws else 0.0
        model = s.machine.model
        if isinstance(model, ExponentialMachine):
            left_s = float(s.rng.exponential(mean_s / model.rate_per_slot))
        else:
            left_s = mean_s * _spread(s.rng, self._settings.cycle_spread_pu)
        while left_s > 0:
            self._enter(s, RUNNING)
            run_s = min(left_s, s.next_failure_s, s.troubles.due_s(self._env.now))
            yield self._env.timeout(run_s)
            left_s -= run_s
            s.next_failure_s -= run_s
            s.troubles.ran(run_s)
            stop_s = s.troubles.stop_s(self._env.now)
            if stop_s > 0:
                self._enter(s, DOWN)
                yield self._env.timeout(stop_s)
            if s.next_failure_s <= 0:
                yield from self._repaired(s)

    def _repaired(self, s: _Station) -> Events:
        """Down until it is repaired."""
        model = s.machine.model
        self._enter(s, DOWN)
        if isinstance(model, ExponentialMachine):
            repair_s = float(s.rng.exponential(self._config.slot_s / model.repairs_per_slot))
        else:
            assert isinstance(model, GeometricMachine)  # nobody else has a next failure
            repair_s = self._config.slot_s / model.repairs_pu * _spread(s.rng, self._settings.repair_spread_pu)
        yield self._env.timeout(repair_s * s.troubles.repair_factor)
        s.next_failure_s = self._failure_gap_s(s)

    def _failure_gap_s(self, s: _Station) -> float:
        model = s.machine.model
        fails = 0.0
        if isinstance(model, GeometricMachine):
            fails = model.fails_pu
        elif isinstance(model, ExponentialMachine):
            fails = model.fails_per_slot
        return float(s.rng.exponential(self._config.slot_s / fails)) if fails > 0 else math.inf

    def _true_efficiency(self, machine: Machine, spread: float) -> float:
        model = machine.model
        nominal = model.efficiency_pu if isinstance(model, BernoulliMachine) else 1.0
        return float(np.clip(nominal * (1.0 + spread * self._rng.standard_normal()), 0.05, 1.0)) if spread else nominal

    def _present_efficiency(self, s: _Station) -> float:
        lost = 0.0
        if self._settings.drifting_machine == s.place + 1:
            lost = self._settings.drift_pu_per_day * self._env.now / 86400.0
        return max(0.05, self._efficiency[s.place] - lost)

    def _renew(self, s: _Station) -> None:
        upkeep = s.machine.upkeep
        s.age_slots = s.seen_age = s.wear = s.seen_wear = 0.0
        s.failed = False
        if s.damage is not None:
            s.damage.renew()
        if upkeep is not None and isinstance(upkeep.wear, WeibullWear):
            life = upkeep.wear.scale_slots * float(s.rng.weibull(upkeep.wear.shape))
            s.life_slots = life / s.troubles.wear_factor

    def _wear(self, s: _Station) -> Events:
        """A part's worth of wear; a failure is served before anything else."""
        upkeep = s.machine.upkeep
        assert upkeep is not None  # only stations with upkeep come here
        s.age_slots += 1.0
        if isinstance(upkeep.wear, GammaWear):
            shape = upkeep.wear.shape_per_slot * s.troubles.wear_factor
            s.wear += float(s.rng.gamma(shape, upkeep.wear.scale))
            s.failed = s.wear >= upkeep.wear.failure_level
        elif isinstance(upkeep.wear, StagedWear):
            assert s.damage is not None  # made with the station
            s.service_cost += upkeep.wear.unnoticed_cost * s.damage.silent
            s.failures += s.damage.work()
            s.wear = float(s.damage.stage)
            s.failed = s.damage.failed and not s.damage.silent
        else:
            s.failed = s.age_slots >= s.life_slots
        if s.failed:
            s.failures += s.damage is None
            yield from self._serviced(s)

    def _takes_service(self, s: _Station) -> bool:
        """Whether a crew is there for what is asked of a machine that works; it queues, and works on, while none is."""
        if bool(s.service) != s.calls:
            s.calls, s.called_s = bool(s.service), self._env.now
            (self._queue.append if s.calls else self._queue.remove)(s.place)
        return s.calls and self._may_begin(s)

    def _serviced(self, s: _Station) -> Events:
        """Wait for a crew, and for a spare where the work uses one up; then the work."""
        upkeep = s.machine.upkeep
        assert upkeep is not None  # only stations with upkeep come here
        if s.failed and s.calls:  # a failure is a call of its own: it comes after those that stand
            s.calls = False
            self._queue.remove(s.place)
            self._tell()
        if not s.calls:
            s.calls, s.called_s = True, self._env.now
            self._queue.append(s.place)
        while not self._may_begin(s):
            self._enter(s, DOWN)
            yield self._changed
        self._queue.remove(s.place)
        self._free -= 1
        s.calls = False
        looks = self._only_looks(s)
        if s.failed or (s.damage is not None and s.damage.failed and not looks):  # it may be found in a service
            slots, cost = upkeep.corrective_slots, upkeep.corrective_cost
        elif looks:
            slots, cost = upkeep.inspection_slots, upkeep.inspection_cost
        else:
            slots, cost = upkeep.preventive_slots, upkeep.preventive_cost
        s.service_cost += cost
        s.renewals += not looks
        self._enter(s, SERVICE)
        if not looks and math.isfinite(self._spares):
            self._spares -= 1
            self._env.process(self._restock())
        lasts_s = slots * self._config.slot_s * s.troubles.repair_factor
        s.served_at_s = self._env.now + lasts_s
        yield self._env.timeout(lasts_s)
        self._free += 1
        if looks:
            s.seen_wear, s.seen_age = s.wear if s.damage is None else float(s.damage.look()), s.age_slots
            s.failed = s.damage is not None and s.damage.failed
        else:
            self._renew(s)
        s.service = 0  # once asked, once done
        self._tell()
        if s.failed:  # an inspection has found it
            yield from self._serviced(s)

    def _only_looks(self, s: _Station) -> bool:
        return s.service == 2 and not s.failed

    def _may_begin(self, s: _Station) -> bool:
        """Whether the next free crew is for this machine: who waits for a spare lets others pass."""
        wanted = [p for p in self._queue if self._spares >= 1 or self._only_looks(self._stations[p])]
        if self._free < 1 or s.place not in wanted:
            return False
        return s.place == (self._first - 1 if self._first - 1 in wanted else wanted[0])

    def _ready_in_slots(self, s: _Station) -> float:
        if s.state != WARMING:
            return 0.0
        return float(math.ceil((s.warm_at_s - self._env.now) / self._config.slot_s - 1e-9))

    def _restock(self) -> Events:
        yield self._env.timeout(self._config.service.spare_lead_slots * self._config.slot_s)
        self._spares += 1
        self._tell()

    def _price(self) -> float:
        """Of a kWh, now."""
        prices = self._config.tariff.prices_per_kwh
        hour = (self._config.start_hour[0] + self._env.now / 3600.0) % 24.0
        return prices[min(int(hour * len(prices) / 24.0), len(prices) - 1)]

    def _measure(self, made: list[int] | None = None) -> None:
        dt_s, noise = self._config.dt_s, self._settings.meter_noise_pu
        price = self._price()
        rows = []
        for s in self._stations:
            level = [min(self._level[k], self._capacity[k]) for k in self._before[s.place]]  # not what is in its hands
            room = [max(0, self._capacity[k] - self._level[k]) for k in self._behind[s.place]]
            shares = s.seconds / dt_s
            upkeep = s.machine.upkeep
            scale = upkeep.wear.failure_level if upkeep and not isinstance(upkeep.wear, WeibullWear) else 1.0
            power = s.energy_kws / dt_s * (1.0 + noise * self._rng.standard_normal())
            rows.append((
                float(s.state), float(min(level, default=_PLENTY)), float(min(room, default=_PLENTY)),
                float(made[s.place] if made else 0), shares[BLOCKED], shares[STARVED], shares[DOWN] + shares[SERVICE],
                max(0.0, power), self._ready_in_slots(s), s.age_slots, s.seen_wear / scale, s.age_slots - s.seen_age,
                float(s.calls), price, *self._crew_tags(s),
            ))  # fmt: skip
        self._values = {MACHINE: self._sensors.told(np.array(rows), self._env.now)}
        if CREW in self._commands:
            spares = min(self._spares, _PLENTY)
            crews = (float(self._free), float(len(self._queue)), spares)
            self._values[CREW] = np.array([[*crews, *(float(v) for row in self._board() for v in row)]])

    def _crew_tags(self, s: _Station) -> list[float]:
        """What a machine is told of the crews, and how long it has had its mode."""
        limits = self._config.limits
        soon_s = self._env.now + self._config.slot_s  # as the tag is declared: free in the next slot
        soon = sum(of.state == SERVICE and of.served_at_s <= soon_s for of in self._stations)
        tags = [float(self._free + soon), float(len(self._queue))] if CREW in self._commands else []
        believed = [] if s.damage is None else s.damage.belief.tolist()
        tags += believed + [0.0] * (self._n_beliefs - len(believed))
        if limits.on_slots or limits.rest_slots:
            tags.append(min(1e9, (self._env.now - s.mode_since_s) / self._config.slot_s))
        return tags

    def _board(self) -> tuple[list[float], list[float], list[float]]:
        """The dispatcher's: what each machine waits for, how long, and its age, in slots."""
        calls, waited, age = [], [], []
        for s in self._stations:
            kind = 0 if s.place not in self._queue else 2 if s.failed else 3 if self._only_looks(s) else 1
            calls.append(float(kind))
            waited.append((self._env.now - s.called_s) / self._config.slot_s if kind else 0.0)
            age.append(s.age_slots)
        return calls, waited, age


def _spread(rng: np.random.Generator, spread: float) -> float:
    """A factor of mean 1 and this standard deviation, lognormal."""
    if not spread:
        return 1.0
    sigma = math.sqrt(math.log1p(spread * spread))
    return float(rng.lognormal(-0.5 * sigma * sigma, sigma))
