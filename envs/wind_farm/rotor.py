"""Constants of a rotor above ground that the wake model needs, one value a replica.

FLORIS samples a rotor at 3 x 3 points, at lateral and vertical offsets of -D/4, 0 and D/4. Everything here
depends on the turbine type, the shear and the air density only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

Tensor = torch.Tensor

_EPSILON_M = 0.001
"""FLORIS' ``NUM_EPS``: keeps vortices off the grid points."""
_CORE_GAIN = 0.2
_VON_KARMAN = 0.41


@dataclass(frozen=True)
class Vortices:
    """Vortices of one kind as seen from the three heights ``Z`` of the grid, each ``[Z, V, B]``.

    ``strength`` carries its sign and the shear at the blade tip; ``strength_height`` is that times the height
    above the vortex; ``gauss`` is exp(-(height / core)^2).
    """

    strength: Tensor
    strength_height: Tensor
    squared_m2: Tensor
    gauss: Tensor


@dataclass(frozen=True)
class Rotor:
    """Constants of a rotor, each ``[B]`` unless said otherwise."""

    diameter_m: Tensor
    tip_speed_ratio: Tensor
    epsilon_m: float
    column_offset_m: Tensor
    """``[P, B]``: lateral offsets of the grid columns."""
    height_offset_m: Tensor
    """A quarter diameter."""
    shear_factor: tuple[Tensor, Tensor, Tensor]
    """Free speed below, at and above hub height over that at hub height."""
    mean_shear_factor: Tensor
    inverse_core_squared: Tensor
    mixing: Tensor
    """``[Z, B]``, 1/m: vortices fade as 1 / (1 + mixing * distance)."""
    tip: Vortices
    """Two tip vortices and their mirrors below the ground; they scale with sin(yaw) cos(yaw)."""
    spin: Vortices
    """The wake's rotation and its mirror."""
    own_tip_lateral: Tensor
    """Rotor-mean lateral speed that a rotor's own tip vortices induce at itself, per unit tip circulation."""
    own_spin_lateral: Tensor
    own_tip_upwash: Tensor
    """``[9, B]``: upward speed at each grid point of the rotor itself, per unit tip circulation."""
    own_spin_upwash: Tensor
    steering_tip: Tensor
    """Lateral speed without ground mirrors: the divisor of the secondary steering."""
    steering_spin: Tensor


def make_rotor(diameter_m: Tensor, hub_height_m: Tensor, tip_speed_ratio: Tensor, shear_exponent: float) -> Rotor:
    """Compute the constants for ``[B]`` rotors; evaluate in float64, then :func:`cast`."""
    radius, hub = 0.5 * diameter_m, hub_height_m
    quarter = 0.25 * diameter_m
    columns = torch.stack((-quarter, torch.zeros_like(quarter), quarter))
    core = _CORE_GAIN * diameter_m
    top, bottom = ((hub + radius) / hub) ** shear_exponent, ((hub - radius) / hub) ** shear_exponent
    offsets = (-quarter, torch.zeros_like(quarter), quarter)
    shear = tuple(((hub + dz) / hub) ** shear_exponent for dz in offsets)
    mean_shear = (shear[0] + shear[1] + shear[2]) / 3.0
    one = torch.ones_like(top)
    tips = ((top, hub + radius), (-bottom, hub - radius), (-top, -(hub + radius)), (bottom, radius - hub))
    tip = _vortices(hub, offsets, core, tips)
    spin = _vortices(hub, offsets, core, ((one, hub), (-one, -hub)))
    mixing = []
    for dz in offsets:
        z = hub + dz
        length = _VON_KARMAN * z / (1.0 + _VON_KARMAN * z / (diameter_m / 8.0))
        slope = shear_exponent * z ** (shear_exponent - 1.0) / hub**shear_exponent
        mixing.append(4.0 * length * length * torch.abs(slope) / mean_shear / (core * core))
    y = columns + _EPSILON_M
    return Rotor(
        diameter_m=diameter_m,
        tip_speed_ratio=tip_speed_ratio,
        epsilon_m=_EPSILON_M,
        column_offset_m=columns,
        height_offset_m=quarter,
        shear_factor=(shear[0], shear[1], shear[2]),
        mean_shear_factor=mean_shear,
        inverse_core_squared=1.0 / (core * core),
        mixing=torch.stack(mixing),
        tip=tip,
        spin=spin,
        own_tip_lateral=_own(tip, y, core, 4, tip.strength_height).mean(0),
        own_spin_lateral=_own(spin, y, core, 2, spin.strength_height).mean(0),
        own_tip_upwash=_own(tip, y, core, 4, tip.strength) * -y.repeat(3, 1),
        own_spin_upwash=_own(spin, y, core, 2, spin.strength) * -y.repeat(3, 1),
        steering_tip=_own(tip, y, core, 2, tip.strength_height).mean(0),
        steering_spin=_own(spin, y, core, 1, spin.strength_height).mean(0),
    )


def _vortices(
    hub: Tensor, offsets: tuple[Tensor, ...], core: Tensor, places: tuple[tuple[Tensor, Tensor], ...]
) -> Vortices:
    """Vortices of the given strengths at the given heights above ground."""
    above = torch.stack([torch.stack([hub + dz - centre + _EPSILON_M for _, centre in places]) for dz in offsets])
    strength = torch.stack([value for value, _ in places]).expand_as(above)
    squared = above * above
    return Vortices(strength, strength * above, squared, torch.exp(-squared / (core * core)))


def _own(vortices: Vortices, y: Tensor, core: Tensor, count: int, weight: Tensor) -> Tensor:
    """Sum of weighted kernels of the first ``count`` vortices at the nine points of the rotor itself, ``[9, B]``."""
    squared = (y * y)[None, None]
    kernel = 1.0 - torch.exp(-squared / (core * core)) * vortices.gauss[:, :count, None]
    kernel = kernel / (squared + vortices.squared_m2[:, :count, None])
    return (weight[:, :count, None] * kernel).sum(1).reshape(9, -1)


def cast(rotor: Rotor, dtype: torch.dtype) -> Rotor:
    """The same constants in another type."""

    def of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(dtype)
        if isinstance(value, tuple):
            return tuple(of(v) for v in value)
        if isinstance(value, Vortices):
            return Vortices(**{k: of(v) for k, v in vars(value).items()})
        return value

    return Rotor(**{name: of(value) for name, value in vars(rotor).items()})
