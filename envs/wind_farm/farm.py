"""From a configuration to turbines on the ground: layouts, their checks, and the nameplate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from .. import noise
from ..errors import LayoutError
from ..nameplate import Nameplate
from .config import NamedLayout, RandomLayout, WindFarmConfig
from .layouts import named_layout
from .nameplate import make_nameplate
from .turbine import Turbine, load_turbine

_LAYOUT_STREAM = 101


def check_layout(x_m: Sequence[float], y_m: Sequence[float], rotor_diameter_m: float) -> None:
    """Raise :class:`LayoutError` for coordinates that no farm could have, naming the turbines."""
    if len(x_m) != len(y_m) or not len(x_m):
        raise LayoutError(f"layout: {len(x_m)} x_m and {len(y_m)} y_m; give one of each a turbine, at least one")
    for k, (x, y) in enumerate(zip(x_m, y_m, strict=True)):
        if not (math.isfinite(x) and math.isfinite(y)):
            raise LayoutError(f"layout: turbine WT{k + 1:02d} is at ({x}, {y}); coordinates are finite metres")
    x, y = np.asarray(x_m, dtype=np.float64), np.asarray(y_m, dtype=np.float64)
    distance = np.hypot(x[:, None] - x[None, :], y[:, None] - y[None, :])
    distance[np.diag_indices(len(x))] = np.inf
    i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
    if distance[i, j] < rotor_diameter_m:
        raise LayoutError(
            f"layout: WT{min(i, j) + 1:02d} and WT{max(i, j) + 1:02d} are {distance[i, j]:.1f} m apart, "
            f"less than one rotor diameter ({rotor_diameter_m:.1f} m); check units (metres) and duplicates"
        )


def fixed_layout(config: WindFarmConfig) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Coordinates of a named or given layout, checked; None where every episode draws its own."""
    layout = config.layout
    if isinstance(layout, RandomLayout):
        return None
    x, y = named_layout(layout.name) if isinstance(layout, NamedLayout) else (layout.x_m, layout.y_m)
    check_layout(x, y, load_turbine(config.turbine).rotor_diameter_m)
    return x, y


def farm_nameplate(config: WindFarmConfig) -> Nameplate:
    """Nameplate of the configured farm; statics are left out where they differ per replica."""
    turbine = load_turbine(config.turbine)
    coordinates = fixed_layout(config)
    layout = config.layout
    if coordinates is None:
        assert isinstance(layout, RandomLayout)  # narrows the type; fixed_layout is None for nothing else
        return make_nameplate(config.name, config.dt_s, layout.n_max, (), f"random farms of {turbine.name}")
    rows = tuple((float(x), float(y), *turbine_statics(turbine)) for x, y in zip(*coordinates, strict=True))
    what = layout.name if isinstance(layout, NamedLayout) else "given coordinates"
    return make_nameplate(config.name, config.dt_s, len(rows), rows, f"{what}, {turbine.name}")


def turbine_statics(turbine: Turbine) -> tuple[float, float, float]:
    """The last three statics: rotor diameter, hub height, rated power."""
    return turbine.rotor_diameter_m, turbine.hub_height_m, turbine.rated_power_kw


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


