"""What a line's controllers tell of its state, taken over into the members of a live twin.

Levels: the twin that is blocked after service counts in a buffer the parts that its producer has finished and its
consumer has not (:mod:`.flow`); a plant's sensor counts those in the buffer's places. Between them lie the part that
the consumer works on and the one that the producer holds, which states tell. A buffer whose level no sensor tells alone
(one of several before a machine and behind one) stays as each member has it.

True wear between inspections is told by nobody. Given what was seen, the work since, and that the machine has not
failed, the wear that was added is gamma distributed below what is left: members are drawn from just that.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from .config import FixedLine, GammaWear, LineConfig, StagedWear, WeibullWear
from .line_plan import Plan
from .nameplate import CREW_MEASURED, MEASURED
from .physics import BLOCKED, DOWN, IN_SERVICE, IN_STANDBY, IS_OFF, ON, RUNNING, STARVED, WARMING
from .remaining_life import BELIEFS_AT
from .upkeep import CORRECTIVE, INSPECTION, NOTHING, PREVENTIVE

Tensor = torch.Tensor
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
State = dict[str, Tensor]

AT = {signal.name: k for k, signal in enumerate(MEASURED)}
_CREW_AT = {signal.name: k for k, signal in enumerate(CREW_MEASURED)}
_ENDLESS = 1e5
_MARKS = {RUNNING: 0b11111, BLOCKED: 0b01111, STARVED: 0b00111, DOWN: 0b00001, WARMING: 0b00010}
"""Bits of :func:`.physics._marks` that name a state: on, up, active, fed, working."""


class ToldState:
    """Reads states of one line; ``told`` below is ``[M, O]`` of its machines, NaN where nothing is known."""

    def __init__(self, config: LineConfig, plan: Plan) -> None:
        assert isinstance(config.line, FixedLine)  # only such lines are tracked
        self._plan, self._service = plan, config.service
        n = len(plan.names)
        self._before = [[k for k, to in enumerate(plan.consumer) if to == i] for i in range(n)]
        self._behind = [[k for k, of in enumerate(plan.producer) if of == i] for i in range(n)]

    def levels(self, told: Floats) -> Floats:
        """``[K]``: parts in each buffer as the twin counts them, NaN where nobody tells."""
        state, found = told[:, AT["state"]], np.full(len(self._plan.capacities), np.nan)
        for k, (producer, consumer, capacity) in enumerate(
            zip(self._plan.producer, self._plan.consumer, self._plan.capacities, strict=True)
        ):
            if np.isnan(state[producer]) or np.isnan(state[consumer]):
                continue
            parts = np.nan
            if len(self._before[consumer]) == 1:
                parts = told[consumer, AT["parts_before"]]
            if np.isnan(parts) and len(self._behind[producer]) == 1:
                parts = capacity - told[producer, AT["room_behind"]]
            found[k] = parts + float(holds_part(told)[consumer]) + float(state[producer] == BLOCKED)
        return found

    def take(self, state: State, told: Floats, asked: Floats, u: Floats) -> None:
        """Put what is told into ``state`` ``[M, L]``; ``asked`` ``[M]``: the service that was commanded; ``u``
        ``[M, L]``: uniform, for true wear."""
        level = self.levels(told)
        for k, parts in enumerate(level):
            if not np.isnan(parts):
                state["level"][k] = round(parts)
        for i, row in enumerate(told):
            if np.isnan(row[AT["state"]]):
                continue
            now = round(row[AT["state"]])
            mode = {IS_OFF: 0, IN_STANDBY: 1}.get(now, ON)
            state["mode_since"][i] = torch.where(state["mode"][i] == mode, state["mode_since"][i], state["slot"])
            state["mode"][i] = mode
            if not np.isnan(row[AT["ready_in_slots"]]):
                state["ready_in"][i] = round(row[AT["ready_in_slots"]])
            state["up"][i] = bool(now != DOWN or row[AT["waits_for_crew"]] > 0.5)
            state["marks"][i] = _MARKS.get(now, _MARKS[DOWN] | 0b10)
            if "age" in state and self._plan.machines[i].upkeep is not None:
                self._take_upkeep(state, i, row, float(asked[i]), u[i])

    def take_spares(self, state: State, told: Floats) -> None:
        """The store, ``told`` ``[1, O]`` of the dispatcher: who has a spare more or less than it thought, has it now or
        after a lead time."""
        stock = told[0, _CREW_AT["spares"]]
        if "due" not in state or np.isnan(stock) or stock > _ENDLESS or not len(state["due"]):
            return
        due, now = state["due"].sort(0).values, state["slot"]
        there = torch.arange(len(due), device=due.device)[:, None] < round(stock)
        later = torch.where(due > now, due, now + self._service.spare_lead_slots)
        state["due"] = torch.where(there, torch.minimum(due, now), later)

    def _take_upkeep(self, state: State, i: int, row: Floats, asked: float, u: Floats) -> None:
        upkeep = self._plan.machines[i].upkeep
        assert upkeep is not None  # whoever calls has looked
        now, waits = round(row[AT["state"]]), row[AT["waits_for_crew"]] > 0.5
        wear = upkeep.wear
        age, ago = row[AT["age_slots"]], row[AT["seen_ago_slots"]]
        seen = row[AT["seen_wear_pu"]] * (1.0 if isinstance(wear, WeibullWear) else wear.failure_level)
        wanted = INSPECTION if asked > 1.5 else PREVENTIVE
        if now == IN_SERVICE:
            was = state["doing"][i]
            begun = torch.where(state["wants"][i] != NOTHING, state["wants"][i], wanted)
            kind = torch.where(was != NOTHING, was, begun)
            slots = {PREVENTIVE: upkeep.preventive_slots, CORRECTIVE: upkeep.corrective_slots}
            full = torch.full_like(kind, upkeep.inspection_slots)
            for what, lasts in slots.items():
                full = torch.where(kind == what, lasts, full)
            full = (full * state["lasts"][i]).round().clamp(min=1).to(torch.int64)
            state["left"][i] = torch.where(was != NOTHING, state["left"][i].clamp(min=1), full)
            state["doing"][i], state["wants"][i] = kind, kind
        else:
            failed = bool(now == DOWN and waits)
            want = CORRECTIVE if failed else wanted if waits else NOTHING
            state["since"][i] = torch.where(state["wants"][i] == want, state["since"][i], state["slot"])
            state["doing"][i], state["wants"][i], state["failed"][i] = NOTHING, want, failed
        if np.isnan([age, ago, seen]).any():
            return
        state["age"][i], state["seen_wear"][i], state["seen_age"][i] = age, seen, age - ago
        if isinstance(wear, GammaWear) and not bool(state["failed"][i].any()):
            state["wear"][i] = torch.from_numpy(true_wear(wear, seen, ago, u, state["pace"][i].numpy()))
        if isinstance(wear, StagedWear):
            self._take_stages(state, i, wear, row[BELIEFS_AT : BELIEFS_AT + len(wear.advance_pu) + 1], u)

    @staticmethod
    def _take_stages(state: State, i: int, wear: StagedWear, belief: Floats, u: Floats) -> None:
        """True stages are drawn from what the controller believes; an unannounced failure may be among them."""
        last = len(wear.advance_pu)
        known = state["failed"][i] & (state["wants"][i] == CORRECTIVE)
        drawn = torch.from_numpy(np.minimum(np.searchsorted(np.cumsum(belief), u), last).astype(np.float64))
        state["wear"][i] = torch.where(known, float(last), drawn)
        state["belief"][: last + 1, i] = torch.from_numpy(belief)[:, None]
        state["silent"][i] = ~known & (state["wear"][i] >= last)
        state["failed"][i] = known | state["silent"][i]


def holds_part(told: Floats) -> Bools:
    """``[M]``: whose part is not finished; one that waits for a crew has finished it."""
    state, waits = told[:, AT["state"]], told[:, AT["waits_for_crew"]] > 0.5
    return np.asarray((state == RUNNING) | ((state == DOWN) & ~waits))


def true_wear(wear: GammaWear, seen: float, ago_slots: float, u: Floats, pace: Floats) -> Floats:
    """Wear ``[L]`` at the probabilities ``u`` ``[L]``, ``ago_slots`` of work after ``seen``, of a machine that has not
    failed and wears ``pace`` ``[L]`` times as fast as is declared."""
    room = wear.failure_level - seen
    shape = wear.shape_per_slot * ago_slots
    if room <= 0 or shape <= 0:
        return np.full(u.shape, min(seen, wear.failure_level))
    scale = wear.scale * pace
    return np.asarray(seen + scale * gammaincinv(shape, u * gammainc(shape, room / scale)), dtype=np.float64)
