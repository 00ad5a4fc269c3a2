"""What a line's controllers report, and what only its twin knows."""

from __future__ import annotations

import torch

from ..nameplate import Nameplate
from .config import FixedLine, LineConfig, WeibullWear
from .line_plan import Plan
from .nameplate import MACHINE, upkeep_statics
from .passage import Passage, empty_handed
from .structure import Structure
from .upkeep import NOTHING

Tensor = torch.Tensor
State = dict[str, Tensor]
ENDLESS = 1e6
"""Spares that are never short."""


def machine_readings(
    config: LineConfig, plan: Plan, s: State, structure: Structure, price: Tensor, doing: Tensor
) -> tuple[Tensor, Tensor]:
    """Measured ``[B, N, O]`` and hidden ``[B, N, H]`` of the machines, in the nameplate's order; zero where absent."""
    slots = float(config.slots_per_period)
    hours = slots * config.slot_s / 3600.0
    stored = Passage(config, plan).stored(s["level"], structure, empty_handed(s))
    used = structure.capacity >= (0 if isinstance(config.line, FixedLine) else 1)
    before, behind, held = _neighbours(stored, used, structure)
    zeros = torch.zeros_like(s["worked"])
    age, seen, ago, waits, cost, renewals, failures, wear = (zeros,) * 8
    if plan.wears:
        level = torch.tensor(
            [m.upkeep.wear.failure_level if m.upkeep and not isinstance(m.upkeep.wear, WeibullWear) else 1.0
             for m in plan.machines], dtype=torch.float64, device=zeros.device,
        )[:, None]  # fmt: skip
        age, seen, ago = s["age"], s["seen_wear"] / level, s["age"] - s["seen_age"]
        waits = ((s["wants"] != NOTHING) & (s["doing"] == NOTHING)).to(zeros.dtype)
        cost, renewals, failures, wear = s["service_cost"], s["renewals"], s["failures"], s["wear"]
    sinks = torch.tensor([i not in plan.producer for i in range(len(plan.names))], device=zeros.device)[:, None]
    if not isinstance(config.line, FixedLine):
        sinks = structure.present & ~torch.cat((structure.present[1:], torch.zeros_like(structure.present[:1])))
    measured = (
        doing.to(zeros.dtype), before, behind, s["worked"], s["blocked"] / slots, s["starved"] / slots,
        s["down"] / slots, s["energy_kwh"] / hours, s["ready_in"].to(zeros.dtype), age, seen, ago, waits,
        price.expand_as(zeros), *_crew_tags(config, plan, s, zeros),
    )  # fmt: skip
    finished = torch.where(sinks, s["worked"], 0.0)
    hidden = (finished, s["energy_kwh"], s["energy_cost"], cost, renewals, failures, wear, held)
    return _outer(measured, structure.present), _outer(hidden, structure.present)


def _crew_tags(config: LineConfig, plan: Plan, s: State, zeros: Tensor) -> list[Tensor]:
    """What machines are told of the crews, and how long each has had its mode."""
    found = []
    if plan.wears:
        free = s["crews"] - ((s["doing"] != NOTHING) & (s["left"] > 1)).sum(0)
        waiting = ((s["wants"] != NOTHING) & (s["doing"] == NOTHING)).sum(0)
        found = [free.to(zeros.dtype).expand_as(zeros), waiting.to(zeros.dtype).expand_as(zeros)]
    if "belief" in s:
        found += list(s["belief"])
    if config.limits.on_slots or config.limits.rest_slots:
        found.append((s["slot"] - s["mode_since"]).to(zeros.dtype))
    return found


def crew_readings(config: LineConfig, s: State) -> tuple[Tensor, Tensor]:
    """Measured ``[B, 1, 3 + 3 M]`` and hidden ``[B, 1, 1]`` of the dispatcher."""
    busy = (s["doing"] != NOTHING).sum(0).to(torch.float64)
    waiting = ((s["wants"] != NOTHING) & (s["doing"] == NOTHING)).sum(0).to(torch.float64)
    stock = (s["due"] <= s["slot"]).sum(0).to(torch.float64)
    spares = stock if config.service.spares is not None else torch.full_like(busy, ENDLESS)
    waits = (s["wants"] != NOTHING) & (s["doing"] == NOTHING)
    waited = torch.where(waits, s["slot"] - s["since"], 0)
    board = (torch.where(waits, s["wants"], 0), waited, s["age"])
    measured = torch.cat((torch.stack((s["crews"] - busy, waiting, spares)), *(b.to(torch.float64) for b in board)))
    return measured.T[:, None].contiguous(), busy[:, None, None]


def random_statics(config: LineConfig, plan: Plan, structure: Structure, nameplate: Nameplate) -> Tensor:
    """``[B, N, S]``: the nameplate's, or those of lines that differ from episode to episode."""
    lanes = structure.present.shape[1]
    group = nameplate.group(MACHINE)
    if isinstance(config.line, FixedLine):
        fixed = torch.from_numpy(group.statics_array()).to(structure.present.device)
        return fixed.expand(lanes, -1, -1)
    present = structure.present
    capacity = structure.capacity.to(torch.float64)
    edge = torch.zeros(1, lanes, dtype=torch.float64, device=present.device)
    machine = plan.machines[0]
    power = machine.power
    ones = torch.ones_like(structure.efficiency)
    place = torch.arange(len(present), device=present.device)[:, None] / (present.sum(0) - 1).clamp(min=1)
    rows = (
        torch.cat((edge, capacity)), torch.cat((capacity, edge)), structure.efficiency, ones * power.idle_kw,
        ones * (power.idle_kw + power.linear_kw + power.cubic_kw), ones * power.off_kw,
        ones * machine.warm_up_slots, place, *(ones * v for v in (upkeep_statics(machine) if plan.wears else ())),
    )  # fmt: skip
    return _outer(rows, present)


def _neighbours(level: Tensor, used: Tensor, structure: Structure) -> tuple[Tensor, Tensor, Tensor]:
    """``[M, L]``: parts in the emptiest buffer before, room in the fullest behind, and all parts before.
    ``level`` and which buffers a line has, ``used``: ``[K, L]``."""
    shape = structure.present.shape
    parts = level.to(torch.float64)
    room = (structure.capacity - level).clamp(min=0).to(torch.float64)
    much = torch.full(shape, ENDLESS, dtype=torch.float64, device=level.device)
    to, of = structure.consumer[:, None].expand_as(level), structure.producer[:, None].expand_as(level)
    before = much.scatter_reduce(0, to, torch.where(used, parts, ENDLESS), "amin")
    behind = much.scatter_reduce(0, of, torch.where(used, room, ENDLESS), "amin")
    held = torch.zeros_like(much).scatter_reduce(0, to, torch.where(used, parts, 0.0), "sum")
    return before, behind, held


def _outer(rows: tuple[Tensor, ...], present: Tensor) -> Tensor:
    """Rows ``[M, L]`` as ``[L, M, rows]``, zero where a line has no such machine."""
    return (torch.stack([r.to(torch.float64) for r in rows]) * present).permute(2, 1, 0).contiguous()
