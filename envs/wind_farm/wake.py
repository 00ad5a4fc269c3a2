"""What one turbine's wake does to another: the Gauss-curl-hybrid model, batched and differentiable.

Referee: FLORIS 4.7 with its ``defaults`` (Gaussian deficit and deflection, Bastankhah & Porte-Agel 2016,
doi 10.1017/jfm.2016.595; curl and secondary steering, King et al. 2021, doi 10.5194/wes-6-701-2021; wake-added
turbulence, Crespo & Hernandez 1996; freestream sum of squares). Without veer and with one hub height a farm, most
of that model does not depend on the point of the rotor grid, and the Gaussians separate in y and z: this
module evaluates three columns of two heights instead of FLORIS' nine points, with the same result.

Layout of arrays: **the replica is the last axis here**, ``[..., B]``, so that every kernel runs along
contiguous replicas. ``P`` = 3 rotor columns (lateral offsets -D/4, 0, D/4); sources ``I``, targets ``J``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .rotor import Rotor, Vortices

Tensor = torch.Tensor
_TINY = 1e-20
"""Keeps the gradient of a square root finite at zero; far below any digit that is kept."""


@dataclass(frozen=True)
class WakeParameters:
    """Coefficients of the wake model, each ``[B]`` (FLORIS' names in brackets)."""

    near_wake_turbulence: Tensor  # alpha
    near_wake_thrust: Tensor  # beta
    expansion_turbulence: Tensor  # ka
    expansion_offset: Tensor  # kb
    deflection_gain: Tensor  # dm
    added_turbulence_gain: Tensor  # crespo_hernandez.constant


@dataclass(frozen=True)
class Emission:
    """What a turbine sheds, ``[I, B]`` or, with the rotor column, ``[P, I, B]``."""

    thrust: Tensor
    induction: Tensor
    yaw_rad: Tensor
    steering_rad: Tensor
    """Yaw plus the secondary steering of the wakes that the turbine itself stands in."""
    turbulence: Tensor
    """``[P, I, B]`` before yaw-added mixing; bends the wake."""
    mixed_turbulence: Tensor
    """``[P, I, B]`` after it; widens the wake."""
    speed_mps: Tensor

    def map(self, function: object) -> Emission:
        """Apply ``function`` to every tensor."""
        assert callable(function)
        return Emission(**{name: function(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Effect:
    """What arrives at targets, before it is summed over sources.

    ``deficit_squared``: ``[P, 2, I, J, B]``, (deficit over free speed) squared at hub height and at a quarter
    diameter above and below; ``lateral``, ``vertical``: ``[I, J, B]``, m/s, rotor means; ``turbulence_squared``:
    ``[P, I, J, B]``.
    """

    deficit_squared: Tensor
    lateral: Tensor
    vertical: Tensor
    turbulence_squared: Tensor


def effect(
    emission: Emission,
    downstream_m: Tensor,
    crosswind_m: Tensor,
    feels: Tensor,
    curls: Tensor,
    ambient_turbulence: Tensor,
    free_speed_mps: Tensor,
    rotor: Rotor,
    parameters: WakeParameters,
) -> Effect:
    """Effect of sources ``[I, B]`` on targets at ``downstream_m``, ``crosswind_m`` ``[I, J, B]``.

    ``feels`` ``[I, J, B]`` is 1 where both turbines exist and the target is computed after the source, else 0;
    ``curls`` is True where the target stands in or behind the plane of the source's vortices.
    """
    e = emission.map(lambda t: t.unsqueeze(-2))
    d = rotor.diameter_m
    behind = feels * (downstream_m > 0.1)
    lateral_m = crosswind_m + rotor.column_offset_m[:, None, None]
    deflection_m = _deflection(e, downstream_m, rotor, parameters)
    deficit = _deficit(e, downstream_m, lateral_m - deflection_m, rotor, parameters)
    centre, edge = deficit[0] * behind, deficit[1] * behind

    threshold = 0.05 / free_speed_mps
    low, mid, high = (threshold / s for s in rotor.shear_factor)
    covered = (centre > mid).to(d.dtype) + (edge > low) + (edge > high)
    overlap = covered.sum(0) * (1.0 / 9.0)
    reach = behind * (downstream_m <= 15.0 * d)
    decay = torch.exp(-0.32 * torch.log(torch.clamp(downstream_m, min=0.1) / d) + 0.1 * torch.log(ambient_turbulence))
    added = overlap * reach * parameters.added_turbulence_gain * e.induction**0.8 * decay
    near = (torch.abs(lateral_m) < 2.0 * d).to(d.dtype)
    lateral_mps, vertical_mps = _curl(e, downstream_m, crosswind_m, feels * curls, free_speed_mps, rotor)
    return Effect(
        torch.stack((centre * centre, edge * edge), dim=1),
        lateral_mps,
        vertical_mps,
        (added * added) * near,
    )


def _deflection(e: Emission, downstream_m: Tensor, rotor: Rotor, p: WakeParameters) -> Tensor:
    """Lateral displacement of the wake's centre, ``[P, I, J, B]``; FLORIS' sign (positive yaw, negative y)."""
    cos = torch.cos(e.steering_rad)
    root = torch.sqrt(1.0 - e.thrust * cos)
    root_aligned = torch.sqrt(1.0 - e.thrust)
    near_m = _near_wake_length(rotor.diameter_m * cos * (1.0 + root), e.turbulence, root_aligned, p)
    growth = p.expansion_turbulence * e.turbulence + p.expansion_offset
    width_z = rotor.diameter_m * 0.5 * torch.sqrt(e.thrust * cos / (2.0 * (1.0 - root)) / (1.0 + root_aligned))
    width_y = width_z * cos
    angle = p.deflection_gain * 0.3 * (-e.steering_rad) / cos * (1.0 - root)
    start_m = torch.tan(angle) * near_m
    deficit = 1.0 - root_aligned
    shape = deficit * deficit - 3.0 * math.exp(1.0 / 12.0) * deficit + 3.0 * math.exp(1.0 / 3.0)
    momentum = deficit * (2.0 - deficit)
    root_momentum = torch.sqrt(momentum)
    gain = angle * shape / 5.2 * torch.sqrt(width_y * width_z / (growth * growth * momentum))
    beyond = growth * torch.clamp(downstream_m - near_m, min=0.0)
    spread = 1.6 * torch.sqrt((beyond + width_y) * (beyond + width_z) / (width_y * width_z))
    ratio = (1.6 + root_momentum) * (spread - root_momentum) / ((1.6 - root_momentum) * (spread + root_momentum))
    return start_m * torch.clamp(downstream_m / near_m, max=1.0) + gain * torch.log(ratio)


def _deficit(
    e: Emission, downstream_m: Tensor, from_centre_m: Tensor, rotor: Rotor, p: WakeParameters
) -> tuple[Tensor, Tensor]:
    """Velocity deficit over free speed at hub height and a quarter diameter off it, each ``[P, I, J, B]``."""
    d = rotor.diameter_m
    cos = torch.cos(e.yaw_rad)
    root = torch.sqrt(1.0 - e.thrust)
    near_m = _near_wake_length(d * cos * (1.0 + root), e.mixed_turbulence, root, p)
    growth = p.expansion_turbulence * e.mixed_turbulence + p.expansion_offset
    width_z0 = d * math.sqrt(0.125)
    width_start = 0.501 * d * torch.sqrt(e.thrust * 0.5)
    ramp = torch.clamp(downstream_m / near_m, min=0.0, max=1.0)
    beyond = growth * torch.clamp(downstream_m - near_m, min=0.0) + width_start
    width_y = beyond + ramp * (width_z0 * cos - width_start)
    width_z = beyond + ramp * (width_z0 - width_start)
    loss = e.thrust * cos * (0.125 * d * d) / (width_y * width_z)
    peak = 1.0 - torch.sqrt(torch.clamp(1.0 - loss, min=_TINY))
    y, z = from_centre_m / width_y, rotor.height_offset_m / width_z
    centre = peak * torch.exp(-0.5 * y * y)
    return centre, centre * torch.exp(-0.5 * z * z)


def _near_wake_length(swept_m: Tensor, turbulence: Tensor, root: Tensor, p: WakeParameters) -> Tensor:
    mixing = 4.0 * p.near_wake_turbulence * turbulence + 2.0 * p.near_wake_thrust * (1.0 - root)
    return swept_m / (math.sqrt(2.0) * mixing)


def circulation(
    thrust: Tensor, induction: Tensor, speed_mps: Tensor, free_speed_mps: Tensor, rotor: Rotor
) -> tuple[Tensor, Tensor]:
    """Circulation of the tip vortices of a rotor per sin(yaw) cos(yaw), and of the wake's rotation, over 2 pi."""
    mean_mps = free_speed_mps * rotor.mean_shear_factor
    tip = (1.0 / 16.0) * rotor.diameter_m * mean_mps * thrust
    spin = 0.25 * rotor.diameter_m * (induction - induction * induction) * speed_mps / rotor.tip_speed_ratio
    return tip, spin


def _curl(
    e: Emission, downstream_m: Tensor, crosswind_m: Tensor, feels: Tensor, free_speed_mps: Tensor, rotor: Rotor
) -> tuple[Tensor, Tensor]:
    """Rotor-mean lateral and vertical speed, ``[I, J, B]``, that the sources' vortices and their mirrors induce."""
    tip, spin = circulation(e.thrust, e.induction, e.speed_mps, free_speed_mps, rotor)
    tip = tip * torch.sin(e.yaw_rad) * torch.cos(e.yaw_rad)
    columns_m = crosswind_m + (rotor.column_offset_m + rotor.epsilon_m)[:, None, None]
    squared = columns_m * columns_m
    gauss = torch.exp(-squared * rotor.inverse_core_squared)
    fade = 1.0 / (rotor.mixing[:, None, None] * torch.clamp(downstream_m, min=0.0) + 1.0)
    tip_y, tip_z = _induced(rotor.tip, squared, gauss)
    spin_y, spin_z = _induced(rotor.spin, squared, gauss)
    lateral = (fade * (tip * tip_y + spin * spin_y).sum(1)).sum(0)
    upwash = torch.clamp((tip * tip_z + spin * spin_z) * -columns_m, min=0.0).sum(1)
    vertical = (fade * upwash).sum(0)
    share = feels * (1.0 / 9.0)
    return lateral * share, vertical * share


def _induced(vortices: Vortices, squared: Tensor, gauss: Tensor) -> tuple[Tensor, Tensor]:
    """Lateral and (over the lateral distance) downward speed per unit circulation, ``[Z, P, I, J, B]``."""

    def per_vortex(t: Tensor) -> Tensor:
        return t[:, :, None, None, None]

    kernel = (1.0 - gauss * per_vortex(vortices.gauss)) / (squared + per_vortex(vortices.squared_m2))
    lateral = (per_vortex(vortices.strength_height) * kernel).sum(1)
    return lateral, (per_vortex(vortices.strength) * kernel).sum(1)
