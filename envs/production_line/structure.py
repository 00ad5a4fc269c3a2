"""How a batch of lines hangs together: machines, buffers and who stands where, ``[M, L]`` and ``[K, L]``.

Lines of different shape share a batch: the machines and buffers that a line lacks are there and never work. Inside the
site's code the replica is the last axis, ``L``; outside it is the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import noise
from .config import BernoulliMachine, GeometricMachine, LineConfig, Machine, RandomLine
from .line_plan import Plan

Tensor = torch.Tensor
_STREAM = 40


@dataclass(frozen=True)
class Structure:
    """``present`` ``[M, L]``; ``efficiency`` ``[M, L]``, chance to process in a slot at full speed, while up;
    ``fails``, ``repairs`` ``[M, L]``; rates per slot of exponential machines; ``capacity`` ``[K, L]``,
    0 where a line of random shape has no such buffer; ``producer``, ``consumer`` ``[K]``."""

    present: Tensor
    efficiency: Tensor
    fails: Tensor
    repairs: Tensor
    capacity: Tensor
    initial: Tensor
    producer: Tensor
    consumer: Tensor


def draw_structure(config: LineConfig, plan: Plan, seeds: Tensor) -> Structure:
    """Lines for ``seeds`` ``[L]``: the one that is fixed, or each its own."""
    n, lanes, device = len(plan.machines), len(seeds), seeds.device
    ends = {
        "producer": torch.tensor(plan.producer, dtype=torch.int64, device=device),
        "consumer": torch.tensor(plan.consumer, dtype=torch.int64, device=device),
    }
    if isinstance(config.line, RandomLine):
        return _random(config.line, n, seeds, ends)
    line = config.line
    capacities = [b.capacity for b in line.buffers] if line.buffers else list(line.capacities)
    initial = [b.initial for b in line.buffers] if line.buffers else [0] * len(capacities)

    def spread(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)[:, None].repeat(1, lanes)

    rates = [_rates(m) for m in plan.machines]
    efficiency, fails, repairs = (spread([r[k] for r in rates]) for k in range(3))
    return Structure(
        torch.ones(n, lanes, dtype=torch.bool, device=device), efficiency, fails, repairs,
        spread([float(c) for c in capacities]).to(torch.int64),
        spread([float(i) for i in initial]).to(torch.int64), **ends,
    )  # fmt: skip


def _rates(machine: Machine) -> tuple[float, float, float]:
    model = machine.model
    if isinstance(model, GeometricMachine):
        return 1.0, model.fails_pu, model.repairs_pu
    if isinstance(model, BernoulliMachine):
        return model.efficiency_pu, 0.0, 1.0
    return model.rate_per_slot, model.fails_per_slot, model.repairs_per_slot


def _random(line: RandomLine, n: int, seeds: Tensor, ends: dict[str, Tensor]) -> Structure:
    lanes, device = len(seeds), seeds.device
    drawn = noise.uniform(seeds, torch.zeros_like(seeds), _STREAM, 2 * n, torch.float64).T
    fewest, most = line.machines
    count = fewest + (drawn[-1] * (most - fewest + 1)).to(torch.int64)
    place = torch.arange(n, device=device)[:, None]
    low, high = line.efficiency_pu
    least, largest = line.capacity
    capacity = least + (drawn[n : 2 * n - 1] * (largest - least + 1)).to(torch.int64)
    present = place < count
    return Structure(
        present, low + (high - low) * drawn[:n],
        torch.zeros(n, lanes, dtype=torch.float64, device=device),
        torch.ones(n, lanes, dtype=torch.float64, device=device),
        torch.where(present[1:], capacity, 0),
        torch.zeros(n - 1, lanes, dtype=torch.int64, device=device), **ends,
    )  # fmt: skip
