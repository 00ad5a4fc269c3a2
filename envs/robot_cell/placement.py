"""Where arms stand: as configured, or a ring drawn from each seed. The replica is the last axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .. import noise
from .config import FixedArms, RobotCellConfig

_STREAM = 301


@dataclass(frozen=True)
class Placement:
    """``base`` ``[N, 4, R]``: x, y, z in m, yaw in rad; ``home`` ``[N, 6, R]`` rad; ``present`` ``[N, R]`` bool."""

    base: torch.Tensor
    home: torch.Tensor
    present: torch.Tensor


def draw_placement(config: RobotCellConfig, seeds: torch.Tensor, dtype: torch.dtype) -> Placement:
    """Place the arms of one episode a seed, ``seeds`` ``[R]``."""
    arms, n, rows, device = config.arms, config.n_arms, len(seeds), seeds.device
    if isinstance(arms, FixedArms):
        bases = [(p.x_m, p.y_m, p.z_m, math.radians(p.yaw_deg)) for p in arms.places]
        homes = [p.home_rad for p in arms.places]
        base = torch.tensor(bases, dtype=dtype, device=device)[..., None].repeat(1, 1, rows)
        home = torch.tensor(homes, dtype=dtype, device=device)[..., None].repeat(1, 1, rows)
        return Placement(base, home, torch.ones(n, rows, dtype=torch.bool, device=device))
    u = noise.uniform(seeds, torch.zeros_like(seeds), _STREAM, 2 + n, torch.float64).T
    low, high = arms.arms
    count = low + torch.floor(u[0] * (high - low + 1))
    spacing = arms.spacing_m[0] + u[1] * (arms.spacing_m[1] - arms.spacing_m[0])
    # A lone arm has no neighbour; it stands where one of two would.
    radius = 0.5 * spacing / torch.sin(math.pi / torch.clamp(count, min=2.0))
    index = torch.arange(n, dtype=torch.float64, device=device)[:, None]
    angle = math.pi + 2.0 * math.pi * index / count
    turned = math.radians(arms.turn_deg) * (2.0 * u[2:] - 1.0)
    present = index < count
    # At q1 = 0 an arm reaches to its -x: the base's x points away from the ring's centre.
    yaw = torch.remainder(angle + turned + math.pi, 2.0 * math.pi) - math.pi
    rows_of = (radius * torch.cos(angle), radius * torch.sin(angle), torch.zeros_like(angle), yaw)
    base = torch.stack(rows_of, 1) * present[:, None]
    home = torch.tensor(arms.home_rad, dtype=dtype, device=device)[None, :, None].repeat(n, 1, rows)
    return Placement(base.to(dtype), home, present)
