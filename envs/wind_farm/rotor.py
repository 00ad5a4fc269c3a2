"""Constants of a rotor above ground that the wake model needs, one value a replica.

FLORIS samples a rotor at 3 x 3 points, at lateral and vertical offsets of -D/4, 0 and D/4. Everything here
depends on the turbine type, the shear and the air density only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

Tensor = torch.Tensor

_EPSILON_M = 0.001
"""FLORIS' ``NUM_EPS``: keeps vortices off the grid points."""
_CORE_GAIN = 0.2
_VON_KARMAN = 0.41


@dataclass(frozen=True)
class Vortex:
    """One vortex as seen from one height: tip vortices scale with sin(yaw) cos(yaw), the spin does not.

    ``strength`` carries its sign and the shear at the blade tip; ``strength_height`` is that times the height
    above the vortex; ``gauss`` is exp(-(height / core)^2).
    """

    is_tip: bool
    strength: Tensor
    strength_height: Tensor
    squared_m2: Tensor
    gauss: Tensor


@dataclass(frozen=True)
class Height:
    """One row of grid points. ``mixing``, 1/m: the vortices fade as 1 / (1 + mixing * distance)."""

    mixing: Tensor
    vortices: tuple[Vortex, ...]


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
    heights: tuple[Height, Height, Height]
    own_tip_lateral: Tensor
    """Rotor-mean lateral speed that a rotor's own tip vortices induce at itself, per unit tip circulation."""
    own_spin_lateral: Tensor
    steering_tip: Tensor
    """The same without ground mirrors: the divisor of the secondary steering."""
    steering_spin: Tensor


def make_rotor(
    diameter_m: Tensor, hub_height_m: Tensor, tip_speed_ratio: Tensor, shear_exponent: float
) -> Rotor:
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
    places = (
        (True, top, hub + radius),
        (True, -bottom, hub - radius),
        (False, one, hub),
        (True, -top, -(hub + radius)),
        (True, bottom, -(hub - radius)),
        (False, -one, -hub),
    )
    heights = []
    for dz in offsets:
        z = hub + dz
        length = _VON_KARMAN * z / (1.0 + _VON_KARMAN * z / (diameter_m / 8.0))
        slope = shear_exponent * z ** (shear_exponent - 1.0) / hub**shear_exponent
        mixing = 4.0 * length * length * torch.abs(slope) / mean_shear / (core * core)
        vortices = []
        for is_tip, strength, centre in places:
            above = z - centre + _EPSILON_M
            vortices.append(
                Vortex(is_tip, strength, strength * above, above * above, torch.exp(-(above * above) / (core * core)))
            )
        heights.append(Height(mixing, tuple(vortices)))
    own = [_own_lateral(heights, columns, core, tip, mirrored) for mirrored in (True, False) for tip in (True, False)]
    return Rotor(
        diameter_m=diameter_m,
        tip_speed_ratio=tip_speed_ratio,
        epsilon_m=_EPSILON_M,
        column_offset_m=columns,
        height_offset_m=quarter,
        shear_factor=(shear[0], shear[1], shear[2]),
        mean_shear_factor=mean_shear,
        inverse_core_squared=1.0 / (core * core),
        heights=(heights[0], heights[1], heights[2]),
        own_tip_lateral=own[0],
        own_spin_lateral=own[1],
        steering_tip=own[2],
        steering_spin=own[3],
    )


def _own_lateral(heights: list[Height], columns: Tensor, core: Tensor, tip: bool, mirrored: bool) -> Tensor:
    """Mean over the nine points of the lateral speed per unit circulation over 2 pi, at the rotor itself."""
    y = columns + _EPSILON_M
    total = torch.zeros_like(core)
    for height in heights:
        for v in height.vortices if mirrored else height.vortices[:3]:
            if v.is_tip == tip:
                kernel = (1.0 - torch.exp(-y * y / (core * core)) * v.gauss) / (y * y + v.squared_m2)
                total = total + (v.strength_height * kernel).sum(0)
    return total / 9.0


def cast(rotor: Rotor, dtype: torch.dtype, rows: slice | None = None) -> Rotor:
    """The same constants in another type, and of ``rows`` of the replicas only."""

    def of(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return (value if rows is None else value[..., rows]).to(dtype)
        if isinstance(value, tuple):
            return tuple(of(v) for v in value)
        if isinstance(value, Height | Vortex):
            return type(value)(**{k: of(v) for k, v in vars(value).items()})
        return value

    fields = {name: of(value) for name, value in vars(rotor).items()}
    return Rotor(**fields)  # type: ignore[arg-type]  # the fields keep their own types through ``of``
