"""How a turbine answers the wind that reaches it: thrust, induction, power, and what it sheds.

Yaw: FLORIS' cosine-loss model. Derating: its simple-derating model, thrust in proportion to power; with both at
once the two corrections multiply (FLORIS' "mixed" model forbids that case). The replica is the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .rotor import Rotor
from .turbine import Turbine, joint_table
from .wake import Emission, circulation

Tensor = torch.Tensor
_TINY = 1e-20


@dataclass(frozen=True)
class Curves:
    """Power and thrust curves of one type a replica: ``knots`` ``[K]``; values and slopes flat ``[T * K]``;
    ``first``, ``last``, ``row``, ``density_factor``, ``yaw_exponent``: ``[B]``."""

    knots: Tensor
    power_kw: Tensor
    power_slope: Tensor
    thrust: Tensor
    thrust_slope: Tensor
    first_mps: Tensor
    last_mps: Tensor
    row: Tensor
    density_factor: Tensor
    yaw_exponent: Tensor

    def _look_up(self, speed_mps: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
        index = torch.searchsorted(self.knots, speed_mps.detach().contiguous(), right=True) - 1
        index = torch.clamp(index, 0, self.knots.shape[0] - 2)
        flat = index + self.row
        return values[flat] + slopes[flat] * (speed_mps - self.knots[index])

    def _inside(self, speed_mps: Tensor) -> Tensor:
        return (speed_mps >= self.first_mps) & (speed_mps <= self.last_mps)

    def power(self, speed_mps: Tensor) -> Tensor:
        """Electrical power, kW, at an effective wind speed ``[..., B]``; 0 outside the table."""
        return torch.where(
            self._inside(speed_mps),
            self._look_up(speed_mps, self.power_kw, self.power_slope),
            torch.zeros_like(speed_mps),
        )

    def thrust_coefficient(self, speed_mps: Tensor) -> Tensor:
        """Thrust coefficient of the aligned rotor ``[..., B]``; 1e-4 outside the table."""
        inside = torch.clamp(self._look_up(speed_mps, self.thrust, self.thrust_slope), 1e-4, 0.9999)
        return torch.where(self._inside(speed_mps), inside, torch.full_like(speed_mps, 1e-4))


def make_curves(turbines: Sequence[Turbine], kinds: Tensor, air_density_kgpm3: float, dtype: torch.dtype) -> Curves:
    """Curves of ``turbines`` for replicas of the types ``kinds`` ``[B]`` (indices into ``turbines``)."""
    device = kinds.device
    grid, power, thrust = (torch.as_tensor(a, dtype=torch.float64, device=device) for a in joint_table(turbines))

    def slopes(values: Tensor) -> Tensor:
        steps = torch.diff(values, dim=1) / torch.diff(grid)
        return torch.cat((steps, torch.zeros_like(steps[:, :1])), dim=1).reshape(-1).to(dtype)

    def per_row(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)[kinds].to(dtype)

    return Curves(
        knots=grid.to(dtype),
        power_kw=power.reshape(-1).to(dtype),
        power_slope=slopes(power),
        thrust=thrust.reshape(-1).to(dtype),
        thrust_slope=slopes(thrust),
        first_mps=per_row([float(t.wind_speed_mps[0]) for t in turbines]),
        last_mps=per_row([float(t.wind_speed_mps[-1]) for t in turbines]),
        row=kinds * grid.shape[0],
        density_factor=per_row([(air_density_kgpm3 / t.reference_density_kgpm3) ** (1.0 / 3.0) for t in turbines]),
        yaw_exponent=per_row([t.yaw_loss_exponent / 3.0 for t in turbines]),
    )


@dataclass(frozen=True)
class Arrival:
    """What reaches turbines, summed over sources: ``deficit_squared`` ``[P, 2, I, B]``, ``lateral`` and ``vertical``
    ``[I, B]`` in m/s, ``turbulence_squared`` ``[P, I, B]`` (the strongest single wake's, above ambient)."""

    deficit_squared: Tensor
    lateral: Tensor
    vertical: Tensor
    turbulence_squared: Tensor


@dataclass(frozen=True)
class Operation:
    """A turbine's state of operation, each ``[I, B]``: ``power_kw``, ``speed_mps`` (rotor mean), ``turbulence``
    (rotor mean, mixing included), and the emission."""

    power_kw: Tensor
    speed_mps: Tensor
    turbulence: Tensor
    emission: Emission


def operate(
    arrival: Arrival,
    yaw_rad: Tensor,
    power_limit_kw: Tensor,
    free_speed_mps: Tensor,
    ambient_turbulence: Tensor,
    running: Tensor,
    own_curl: Tensor,
    rotor: Rotor,
    curves: Curves,
) -> Operation:
    """Operation of turbines ``[I, B]`` in what arrives; ``running`` and ``own_curl`` are 1 or 0.

    ``own_curl`` 0 leaves out the mixing by a rotor's own vortices, which FLORIS loses where its rounding puts a
    turbine behind itself.
    """
    left = 1.0 - torch.sqrt(arrival.deficit_squared + _TINY)
    cubes = left * left * left
    low, mid, high = (s * s * s for s in rotor.shear_factor)
    mean_cube = (mid * cubes[:, 0] + (low + high) * cubes[:, 1]).sum(0) * (1.0 / 9.0)
    speed = free_speed_mps * torch.clamp(mean_cube, min=_TINY) ** (1.0 / 3.0)

    cos = torch.cos(yaw_rad)
    effective = speed * curves.density_factor * cos**curves.yaw_exponent
    unlimited_kw = curves.power(effective)
    power_kw = torch.minimum(unlimited_kw, power_limit_kw) * running
    share = torch.clamp(power_limit_kw / torch.clamp(unlimited_kw, min=_TINY), max=1.0)
    thrust = curves.thrust_coefficient(speed) * cos * share
    thrust = torch.where(running > 0, torch.clamp(thrust, min=1e-6), torch.full_like(thrust, 1e-6))
    induction = 0.5 / cos * (1.0 - torch.sqrt(1.0 - thrust * cos))

    tip, spin = circulation(thrust, induction, speed, free_speed_mps, rotor)
    sine = 2.0 * (arrival.lateral - spin * rotor.steering_spin) / (tip * rotor.steering_tip)
    steering = yaw_rad + 0.5 * torch.asin(torch.clamp(sine, -1.0, 1.0))

    turbulence = torch.sqrt(arrival.turbulence_squared + ambient_turbulence * ambient_turbulence)
    crosswise = arrival.lateral + own_curl * (
        tip * torch.sin(yaw_rad) * cos * rotor.own_tip_lateral + spin * rotor.own_spin_lateral
    )
    upward = arrival.vertical + own_curl * _own_upwash(tip * torch.sin(yaw_rad) * cos, spin, rotor)
    first = turbulence[0]
    total = torch.sqrt(first * first + (crosswise * crosswise + upward * upward) / (3.0 * speed * speed))
    mixed = turbulence + 2.0 * (total - first)
    emission = Emission(thrust, induction, yaw_rad, steering, turbulence, mixed, speed)
    return Operation(power_kw, speed, mixed.mean(0), emission)


def _own_upwash(tip: Tensor, spin: Tensor, rotor: Rotor) -> Tensor:
    """Rotor mean of the upward speed that a rotor's own vortices induce at itself; FLORIS drops downward parts."""
    upwash = tip * rotor.own_tip_upwash[:, None] + spin * rotor.own_spin_upwash[:, None]
    return torch.clamp(upwash, min=0.0).mean(0)
