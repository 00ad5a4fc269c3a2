"""Exponential machines: a line in continuous time, as a uniformised jump chain for a batch of replicas.

A replica jumps at the times of a Poisson process whose rate is the sum of what its machines could do: finish a part or
fail while up, be repaired while down (Jensen 1953; Gross & Miller 1984, "The randomization technique"). A jump picks a
machine by its share of that rate and asks whether it can do now what was drawn, else nothing happens. What a machine
did in a period is the integral over the times between jumps that were drawn, not their expectation, so that shares of
the period add up to one and agree with the state that is read at its end.

Draws are a hash of (seed, slot at which a stretch begins, number of the jump): replicas that have come to the end wait
for the others and change no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .. import noise
from .config import ExponentialMachine, LineConfig
from .line_plan import Plan
from .passage import ON, Passage, empty_handed
from .structure import Structure

if TYPE_CHECKING:
    from .physics import Period

Tensor = torch.Tensor
State = dict[str, Tensor]
_JUMP_STREAM = 44
_JUMPS = 16
"""Drawn at a time."""
_MOST_BLOCKS_BITS = 20
"""A stretch has at most 2^20 of them: 16 million jumps."""
_HALF = 1 << 32
_LOW = _HALF - 1


class JumpChain:
    """The rules of one configuration of exponential machines; state and structure are handed in and come back new."""

    def __init__(self, config: LineConfig, plan: Plan, passage: Passage, device: torch.device) -> None:
        models = [m.model for m in plan.machines]
        self._passage, self._device = passage, device
        self._fails = any(isinstance(m, ExponentialMachine) and m.fails_per_slot > 0 for m in models)
        by_time = [isinstance(m, ExponentialMachine) and m.failures == "time" for m in models]
        self._by_time = torch.tensor(by_time, device=device)[:, None]
        self._draws_loaded = torch.tensor([m.power.draws == "loaded" for m in plan.machines], device=device)[:, None]
        warming = [m.power.warm_up_kw for m in plan.machines]
        self._warming_kw = torch.tensor(warming, dtype=torch.float64, device=device)[:, None]
        self._hour_per_slot = config.slot_s / 3600.0

    def stretch(
        self, s: State, structure: Structure, seeds: Tensor, period: Period, n_slots: int, price: Tensor
    ) -> State:
        """``n_slots`` at one ``price`` of a kWh, ``[L]`` or ``[1]``."""
        service = period.runs * period.chance.to(torch.float64) / _HALF
        repairs = torch.where(structure.fails > 0, structure.repairs, 0.0) * structure.present
        might = torch.maximum(service + structure.fails * structure.present, repairs)
        begins = torch.zeros_like(might)
        torch.cumsum(might[:-1], 0, out=begins[1:])  # each lane's own sum, in the order of its machines
        total = begins[-1] + might[-1]
        walk = _Walk(s, n_slots)
        block = 0
        while bool((walk.clock < n_slots).any()):
            words = noise.bits(seeds, (s["slot"] << _MOST_BLOCKS_BITS) + block, _JUMP_STREAM, _JUMPS).T
            gaps = -torch.log(((words >> 32 & _LOW).to(torch.float64) + 0.5) / _HALF) / total
            picks = ((words & _LOW).to(torch.float64) + 0.5) / _HALF * total
            for gap, pick in zip(gaps, picks, strict=True):
                self._jump(walk, structure, period, gap, pick - begins, (service, repairs, might))
            block += 1
        return self._ended(walk, s, structure, period, price)

    def _jump(
        self, w: _Walk, structure: Structure, period: Period, gap: Tensor, offset: Tensor, rates: tuple[Tensor, ...]
    ) -> None:
        """Time passes, then one machine has its chance; ``offset`` ``[M, L]``: where in its rates the draw lies.

        Where a machine is warm before, time passes until then and no one has it: what is left of an exponential time
        may be drawn anew.
        """
        service, repairs, might = rates
        on, empty, ends = period.runs, w.rests, w.ends
        if period.warms:
            cold = w.ready_at > w.clock
            ends = torch.where(cold, torch.minimum(w.ready_at, w.ends), w.ends).amin(0)
            on, empty = on & ~cold, cold if empty is None else empty | cold
        can, blocked = self._passage.standing(w.level, structure, empty)
        until = w.clock + gap
        happens = until < ends
        until = torch.where(happens, until, ends)
        passed = until - w.clock
        if period.warms:
            w.warming += (period.runs & cold) * passed
        runs = on & w.up if self._fails else on
        busy = runs & can
        w.busy += busy * passed
        w.blocked += (runs & blocked) * passed
        w.starved += (runs & ~(can | blocked)) * passed
        w.loaded += (on & (can | blocked)) * passed
        hit = happens & (offset >= 0) & (offset < might)
        done = hit & busy & (offset < service)
        if self._fails:
            w.down += (~w.up & structure.present) * passed
            can_fail = on & w.up & (self._by_time | can)
            fails = hit & can_fail & (offset >= service) & (offset < service + structure.fails)
            w.up = (w.up & ~fails) | (hit & ~w.up & (offset < repairs))
        w.level = self._passage.moved(w.level, done, structure)
        w.worked += done
        w.clock = until

    def _ended(self, w: _Walk, s: State, structure: Structure, period: Period, price: Tensor) -> State:
        ready_in = (s["ready_in"] - w.n_slots).clamp(min=0)
        can, blocked = self._passage.standing(w.level, structure, empty_handed(s | {"ready_in": ready_in}))
        on = period.runs & (ready_in == 0)
        active = on & w.up
        load = torch.where(self._draws_loaded, w.loaded, w.busy)
        kw_slots = period.resting_kw * w.n_slots + load * (period.working_kw - period.resting_kw)
        kw_slots = kw_slots + w.warming * (self._warming_kw - period.resting_kw)
        energy = kw_slots * self._hour_per_slot
        facts = (on, w.up, active, can | blocked, active & can)
        marks = sum((fact.to(torch.uint8) << k for k, fact in enumerate(facts)), torch.zeros_like(s["marks"]))
        return s | {
            "level": w.level,
            "up": w.up,
            "ready_in": ready_in,
            "slot": s["slot"] + w.n_slots,
            "worked": s["worked"] + w.worked,
            "blocked": s["blocked"] + w.blocked,
            "starved": s["starved"] + w.starved,
            "down": s["down"] + w.down,
            "energy_kwh": s["energy_kwh"] + energy,
            "energy_cost": s["energy_cost"] + energy * price,
            "marks": marks,
        }


class _Walk:
    """Where replicas are within a stretch of ``n_slots``: ``clock`` ``[L]``, in slots; slots spent in each state, parts
    ``worked``, ``level`` and ``up``, ``[M, L]`` or ``[K, L]``; ``rests`` ``[M, L]``: who is off or in stand-by, None
    where nobody is; ``ends`` ``[1]``."""

    def __init__(self, s: State, n_slots: int) -> None:
        self.n_slots = n_slots
        self.level, self.up = s["level"], s["up"]
        rests = s["mode"] != ON
        self.rests = rests if bool(rests.any()) else None
        self.ends = torch.full((1,), float(n_slots), dtype=torch.float64, device=self.up.device)
        self.ready_at = s["ready_in"].to(torch.float64)
        self.clock = torch.zeros(self.up.shape[1], dtype=torch.float64, device=self.up.device)
        spent = torch.zeros((7, *self.up.shape), dtype=torch.float64, device=self.up.device)
        self.busy, self.blocked, self.starved, self.loaded, self.down, self.warming, self.worked = spent
