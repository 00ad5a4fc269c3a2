"""A batch of lines, slot by slot: machines change their status, parts move, levels are counted, power is drawn.

Arrays are ``[M, L]`` (machine, replica) and ``[K, L]`` (buffer, replica). The order within a slot is that of
:mod:`.exact_line`: status by the levels at the slot's beginning; then who processes; then parts move at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import noise
from .config import GeometricMachine, LineConfig
from .continuous import JumpChain
from .line_plan import Plan
from .passage import Passage, empty_handed
from .structure import Structure
from .upkeep import Upkeep

Tensor = torch.Tensor
State = dict[str, Tensor]

OFF, STANDBY, ON = range(3)
"""Modes that may be commanded."""
RUNNING, BLOCKED, STARVED, DOWN, WARMING, IN_STANDBY, IS_OFF, IN_SERVICE = range(8)
"""What a machine did in the last slot; ``RUNNING`` also when a Bernoulli machine spent it in vain."""

_FLOW_STREAM, _WEAR_STREAM = 41, 42
_HALF = 1 << 32
_LOW = _HALF - 1
_LONG_AGO = 1_000_000
_TOTALS = ("worked", "blocked", "starved", "down", "energy_kwh", "energy_cost")


@dataclass(frozen=True)
class Period:
    """What holds for all slots of a control period.

    ``[M, L]`` each: ``runs``, on and told to work; ``chance`` to process in a slot, in units of 2^-32; ``resting_kw``,
    ``working_kw``. ``first``: ``[L]``, the dispatcher's choice. ``warms``: whether any machine is warming up.
    """

    runs: Tensor
    chance: Tensor
    resting_kw: Tensor
    working_kw: Tensor
    first: Tensor
    warms: bool


class LinePhysics:
    """The rules of one configuration; state and structure are handed in and come back new."""

    def __init__(self, config: LineConfig, plan: Plan, device: torch.device) -> None:
        self._config, self._plan, self._device = config, plan, device
        machines = plan.machines
        self.stops = any(isinstance(m.model, GeometricMachine) for m in machines)
        """Whether any machine may go down; set it where parameters have brought stops."""
        by_time = [isinstance(m.model, GeometricMachine) and m.model.failures == "time" for m in machines]
        self._by_time = torch.tensor(by_time, device=device)[:, None]

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)[:, None]

        self._warm_up = column([m.warm_up_slots for m in machines]).to(torch.int64)
        self._wake = column([m.wake_slots for m in machines]).to(torch.int64)
        power = [m.power for m in machines]
        self._off, self._standby, self._idle, self._linear, self._cubic, self._warming = (
            column([getattr(p, f"{name}_kw") for p in power])
            for name in ("off", "standby", "idle", "linear", "cubic", "warm_up")
        )
        self._draws_loaded = torch.tensor([p.draws == "loaded" for p in power], device=device)[:, None]
        self._any_loaded = bool(self._draws_loaded.any())
        self._passage = Passage(config, plan)
        self._prices = torch.tensor(config.tariff.prices_per_kwh, dtype=torch.float64, device=device)
        self.upkeep = Upkeep(config, plan, device) if any(m.upkeep for m in machines) else None
        self._hour_per_slot = config.slot_s / 3600.0
        self._chain = JumpChain(config, plan, self._passage, device) if config.is_exponential else None

    def fresh(self, structure: Structure, start_hour: Tensor) -> State:
        """All machines on and ready, buffers at their initial levels; ``start_hour`` ``[L]``."""
        n, lanes = structure.present.shape
        zeros = torch.zeros(n, lanes, dtype=torch.float64, device=self._device)
        state = {
            "level": structure.initial.clone(),
            "up": structure.present.clone(),
            "mode": torch.full((n, lanes), ON, dtype=torch.int64, device=self._device),
            "ready_in": torch.zeros(n, lanes, dtype=torch.int64, device=self._device),
            "marks": torch.full((n, lanes), 0b11111, dtype=torch.uint8, device=self._device),
            "slot": torch.zeros(lanes, dtype=torch.int64, device=self._device),
            "start_hour": start_hour,
            "mode_since": torch.full((n, lanes), -_LONG_AGO, dtype=torch.int64, device=self._device),
        }
        state |= {name: zeros.clone() for name in _TOTALS}
        return state | (self.upkeep.fresh(n, lanes) if self.upkeep else {})

    def begin(
        self, s: State, structure: Structure, mode: Tensor, speed: Tensor, service: Tensor, first: Tensor
    ) -> tuple[State, Period]:
        """A control period begins: commands ``[M, L]`` are taken over, totals begin anew."""
        starts = (mode == ON) & (s["mode"] != ON)
        ready_in = torch.where(starts, torch.where(s["mode"] == OFF, self._warm_up, self._wake), s["ready_in"])
        ready_in = torch.where(mode == ON, ready_in, 0)
        since = torch.where(mode == s["mode"], s["mode_since"], s["slot"])
        s = (
            s
            | {"mode": mode, "mode_since": since, "ready_in": ready_in}
            | {name: torch.zeros_like(s[name]) for name in _TOTALS}
        )
        resting = torch.where(mode == OFF, self._off, torch.where(mode == STANDBY, self._standby, self._idle))
        period = Period(
            runs=structure.present & (mode == ON) & (speed > 0),
            chance=(structure.efficiency * speed * _HALF).round().to(torch.int64),
            resting_kw=resting * structure.present,
            working_kw=self._idle + self._linear * speed + self._cubic * speed**3,
            first=first,
            warms=bool((ready_in > 0).any()),
        )
        return (s if self.upkeep is None else self.upkeep.ask(s, service, s["slot"])), period

    def advance(self, s: State, structure: Structure, seeds: Tensor, period: Period, n_slots: int) -> State:
        """So many slots of a period."""
        if self._chain is None:
            for _ in range(n_slots):
                s = self.slot(s, structure, seeds, period)
            return s
        priced = len(self._prices) > 1
        for _ in range(n_slots if priced else 1):
            price = self.price(s) if priced else self._prices
            s = self._chain.stretch(s, structure, seeds, period, 1 if priced else n_slots, price)
        return s

    def slot(self, s: State, structure: Structure, seeds: Tensor, period: Period) -> State:
        """One slot."""
        on, resting = period.runs, period.resting_kw
        if period.warms:
            warming = s["ready_in"] > 0
            on, resting = on & ~warming, torch.where(warming, self._warming, resting)
            s = s | {"ready_in": (s["ready_in"] - 1).clamp(min=0)}
        if self.upkeep is not None:
            s = self.upkeep.assign(self.upkeep.work(s), period.first, s["slot"], seeds)
            on, resting = on & ~Upkeep.stops(s), torch.where(s["doing"] != 0, self._off, resting)
        level, passage = s["level"], self._passage
        fed, room = passage.fed(level, structure), s["level"] < structure.capacity
        if passage.after_service:
            held = passage.held(level, structure, empty_handed(s))
            could, fed = fed & ~held, fed | held
        else:
            roomy = passage.roomy(room, structure)
            could = fed & roomy
        random = noise.bits(seeds, s["slot"], _FLOW_STREAM, len(on)).T
        up = self._status(s["up"], on, on & could, structure, random) if self.stops else s["up"]
        active = on & up & ((random & _LOW) < period.chance)
        able = active & fed
        working = active & could if passage.after_service else passage.working(able, roomy, room, structure)
        load = torch.where(self._draws_loaded, on & fed, working) if self._any_loaded else working
        energy = torch.where(load, period.working_kw, resting) * self._hour_per_slot
        down = ~up if self.upkeep is None else ~up | Upkeep.stops(s)
        after = s | {
            "level": passage.moved(level, working, structure),
            "up": up,
            "slot": s["slot"] + 1,
            "worked": s["worked"] + working,
            "blocked": s["blocked"] + (able & ~working),
            "starved": s["starved"] + (active & ~fed),
            "energy_kwh": s["energy_kwh"] + energy,
            "marks": _marks(on, up, active, fed, working),
        }
        if self.stops or self.upkeep is not None:
            after["down"] = s["down"] + (down & structure.present)
        if len(self._prices) > 1:
            after["energy_cost"] = s["energy_cost"] + energy * self.price(s)
        else:
            after["energy_cost"] = after["energy_kwh"] * self._prices
        if self.upkeep is not None:
            count = len(on) * (2 if self.upkeep.stages else 1)  # the second half is what inspections show
            random = noise.uniform(seeds, s["slot"], _WEAR_STREAM, count, torch.float64).T
            after = self.upkeep.use(after, working, random, after["slot"])
        return after

    def price(self, s: State) -> Tensor:
        """Of a kWh in the present slot, ``[L]``."""
        hour = (s["start_hour"] + s["slot"] * self._hour_per_slot) % 24.0
        return self._prices[(hour * (len(self._prices) / 24.0)).to(torch.int64).clamp(max=len(self._prices) - 1)]

    def _status(self, up: Tensor, on: Tensor, could: Tensor, structure: Structure, random: Tensor) -> Tensor:
        draw = (random >> 32) & _LOW
        fails = up & torch.where(self._by_time, on, could) & (draw < structure.fails * _HALF)
        return (up & ~fails) | (~up & (draw < structure.repairs * _HALF))

    def doing(self, s: State) -> Tensor:
        """``[M, L]`` int64: what each machine did in the last slot."""
        on, up, active, fed, working = ((s["marks"] >> k & 1).to(torch.bool) for k in range(5))
        found = torch.where(active & fed & ~working, BLOCKED, RUNNING)
        found = torch.where(on & ~fed, STARVED, found)
        found = torch.where(~up, DOWN, found)
        found = torch.where((s["mode"] == ON) & ~on, WARMING, found)
        found = torch.where(s["mode"] == STANDBY, IN_STANDBY, found)
        found = torch.where(s["mode"] == OFF, IS_OFF, found)
        if self.upkeep is None:
            return found
        noticed = s["failed"] & ~s["silent"] if self.upkeep.stages else s["failed"]
        found = torch.where(noticed, DOWN, found)
        return torch.where(s["doing"] != 0, IN_SERVICE, found)


def _marks(*facts: Tensor) -> Tensor:
    """Bits of what a machine did, named only when somebody reads (:meth:`LinePhysics.doing`)."""
    found = facts[0].to(torch.uint8)
    for k, fact in enumerate(facts[1:], 1):
        found = found | (fact.to(torch.uint8) << k)
    return found
