"""What a machine of the emulated line does all day: parts in cycles, with waits, rests, stops and repairs between."""

from __future__ import annotations

import math

import numpy as np
import simpy

from .config import BernoulliMachine, ExponentialMachine, GeometricMachine
from .plant_buffers import PlantBuffers
from .plant_changes import Changes, Events
from .plant_config import LinePlantConfig
from .plant_crews import PlantCrews
from .plant_station import BLOCKED, DOWN, MODE_OFF, MODE_ON, OFF, RUNNING, STANDBY, STARVED, WARMING, Station


class PlantWork:
    """Of all machines; each is a process of SimPy from its :meth:`start`."""

    def __init__(
        self, env: simpy.Environment, changes: Changes, buffers: PlantBuffers, crews: PlantCrews,
        settings: LinePlantConfig, slot_s: float,
    ) -> None:  # fmt: skip
        self._env, self._changes, self._buffers, self._crews, self._slot_s = env, changes, buffers, crews, slot_s
        self._cycle_spread_pu, self._repair_spread_pu = settings.cycle_spread_pu, settings.repair_spread_pu

    def start(self, s: Station) -> None:
        """Begin the day of a machine."""
        s.next_failure_s = self._failure_gap_s(s)
        self._env.process(self._run(s))

    def _run(self, s: Station) -> Events:
        env, changes, buffers = self._env, self._changes, self._buffers
        while True:
            if s.mode != MODE_ON:
                yield from self._rest(s)
            if self._crews.begins(s):
                yield from self._crews.serve(s)
                continue
            if buffers.lacks_parts(s.place):
                yield from self._starved(s)
                continue
            buffers.take(s.place)
            changes.tell()
            done = False
            while not done:
                done = s.rng.random() < s.efficiency(env.now)
                yield from self._cycle(s, self._slot_s / s.speed, done)
            while not buffers.has_room(s.place):
                yield from self._wait(s, BLOCKED)
            buffers.put(s.place)
            s.parts += 1
            changes.tell()
            if s.machine.upkeep is not None:
                s.wear_out()
                if s.failed:  # served before anything else
                    yield from self._crews.serve(s)

    def _starved(self, s: Station) -> Events:
        """Without parts; a machine without places before it says that its hands are free."""
        asks = s.state != STARVED and self._buffers.is_handed_parts(s.place)
        s.enter(STARVED, self._env.now)
        if asks:
            self._changes.tell()
        yield from self._wait(s, STARVED)

    def _wait(self, s: Station, state: int) -> Events:
        """Until something changes; who may fail at any time may do so meanwhile, and is repaired."""
        env, model = self._env, s.machine.model
        s.enter(state, env.now)
        if isinstance(model, BernoulliMachine) or model.failures != "time" or math.isinf(s.next_failure_s):
            yield self._changes.next
            return
        since_s, failure = env.now, env.timeout(s.next_failure_s)
        yield self._changes.next | failure
        s.next_failure_s = max(0.0, s.next_failure_s - (env.now - since_s))
        if failure.processed:
            yield from self._repaired(s)

    def _rest(self, s: Station) -> Events:
        """Off or in stand-by until it is told to be on, then warm."""
        deepest = s.mode
        while s.mode != MODE_ON:
            deepest = min(deepest, s.mode)
            s.enter(OFF if s.mode == MODE_OFF else STANDBY, self._env.now)
            yield self._changes.next
        slots = s.machine.warm_up_slots if deepest == MODE_OFF else s.machine.wake_slots
        if slots:
            s.enter(WARMING, self._env.now)
            s.warm_at_s = self._env.now + slots * self._slot_s
            yield self._env.timeout(slots * self._slot_s)

    def _cycle(self, s: Station, mean_s: float, done: bool) -> Events:
        """One cycle at the present speed, with whatever stops fall into it; ``done``: it ends with a part, and where
        only those draw working power, others draw none."""
        env, power, model = self._env, s.machine.power, s.machine.model
        draws = done or power.draws == "loaded"
        s.book(env.now)  # what passed was drawn at the load before
        s.load_kw = power.linear_kw * s.speed + power.cubic_kw * s.speed**3 if draws else 0.0
        if isinstance(model, ExponentialMachine):
            left_s = float(s.rng.exponential(mean_s / model.rate_per_slot))
        else:
            left_s = mean_s * _spread(s.rng, self._cycle_spread_pu)
        while left_s > 0:
            s.enter(RUNNING, env.now)
            run_s = min(left_s, s.next_failure_s, s.troubles.due_s(env.now))
            yield env.timeout(run_s)
            left_s -= run_s
            s.next_failure_s -= run_s
            s.troubles.ran(run_s)
            stop_s = s.troubles.stop_s(env.now)
            if stop_s > 0:
                s.enter(DOWN, env.now)
                yield env.timeout(stop_s)
            if s.next_failure_s <= 0:
                yield from self._repaired(s)

    def _repaired(self, s: Station) -> Events:
        """Down until it is repaired."""
        model = s.machine.model
        s.enter(DOWN, self._env.now)
        if isinstance(model, ExponentialMachine):
            repair_s = float(s.rng.exponential(self._slot_s / model.repairs_per_slot))
        else:
            assert isinstance(model, GeometricMachine)  # nobody else has a next failure
            repair_s = self._slot_s / model.repairs_pu * _spread(s.rng, self._repair_spread_pu)
        yield self._env.timeout(repair_s * s.troubles.repair_factor)
        s.next_failure_s = self._failure_gap_s(s)

    def _failure_gap_s(self, s: Station) -> float:
        model = s.machine.model
        fails = 0.0
        if isinstance(model, GeometricMachine):
            fails = model.fails_pu
        elif isinstance(model, ExponentialMachine):
            fails = model.fails_per_slot
        return float(s.rng.exponential(self._slot_s / fails)) if fails > 0 else math.inf


def _spread(rng: np.random.Generator, spread: float) -> float:
    """A factor of mean 1 and this standard deviation, lognormal."""
    if not spread:
        return 1.0
    sigma = math.sqrt(math.log1p(spread * spread))
    return float(rng.lognormal(-0.5 * sigma * sigma, sigma))
