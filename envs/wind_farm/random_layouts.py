"""Random farms: one layout a seed, all at once."""

from __future__ import annotations

import math

import torch

from .. import noise
from .config import RandomLayout

_LAYOUT_STREAM = 101


def draw_layouts(
    layout: RandomLayout, seeds: torch.Tensor, rotor_diameter_m: torch.Tensor | float, direction_deg: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one farm a seed: positions ``[R, n_max, 2]`` in metres, float64, and presence ``[R, n_max]``.

    A farm is the first n cells of a sheared, jittered lattice, turned by a random angle, or so that its columns or
    rows nearly face the wind from ``direction_deg`` ``[R]``. Neighbouring rows and columns are at least
    ``spacing_min_d`` apart before the jitter, and the jitter uses up only what exceeds it.
    """
    n = layout.n_max
    zero = torch.zeros_like(seeds)
    u = noise.uniform(seeds, zero, _LAYOUT_STREAM, 8, torch.float64)
    wobble = noise.uniform(seeds, zero, _LAYOUT_STREAM + 1, 2 * n, torch.float64).reshape(-1, n, 2)
    count = layout.n_min + torch.floor(u[:, 0] * (layout.n_max - layout.n_min + 1))
    aspect = torch.exp((u[:, 1] - 0.5) * 4.0)
    rows = torch.minimum(torch.clamp(torch.round(torch.sqrt(count * aspect)), min=1.0), count)
    low, high = layout.spacing_min_d * rotor_diameter_m, layout.spacing_max_d * rotor_diameter_m
    pitch_x, pitch_y = low + u[:, 2] * (high - low), low + u[:, 3] * (high - low)
    shear = torch.where(u[:, 4] < 0.5, torch.zeros_like(u[:, 4]), 2.0 * (u[:, 4] - 0.5))
    slack = torch.where(u[:, 5] < 0.5, torch.zeros_like(u[:, 5]), 2.0 * (u[:, 5] - 0.5))
    index = torch.arange(n, dtype=torch.float64, device=seeds.device)[None, :]
    column, row = torch.floor(index / rows[:, None]), torch.remainder(index, rows[:, None])
    room = (torch.minimum(pitch_x, pitch_y) - low) * slack / math.sqrt(2.0)
    x = column * pitch_x[:, None] + (wobble[..., 0] - 0.5) * room[:, None]
    y = row * pitch_y[:, None] + (wobble[..., 1] - 0.5) * room[:, None]
    x = x + torch.remainder(row, 2.0) * (0.5 * shear * pitch_x)[:, None]
    quarters = torch.floor(u[:, 6] * 4.0) * 90.0
    error = noise.normal(seeds, zero, _LAYOUT_STREAM + 2, 1, torch.float64)[:, 0] * layout.aligned_std_deg
    facing = torch.deg2rad(270.0 - direction_deg + quarters + error)
    angle = torch.where(u[:, 7] < layout.aligned_share, facing, u[:, 6] * (2.0 * math.pi))
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    present = index < count[:, None]
    position = torch.stack((x * cos - y * sin, x * sin + y * cos), dim=-1)
    return torch.where(present[..., None], position, torch.zeros_like(position)), present
