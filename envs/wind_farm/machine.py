"""What a turbine's own machinery does between a command and the rotor: yaw drive, duty, lags, outages.

Arrays are ``[N, B]``, angles in degrees. Signs: the offset is FLORIS' yaw angle, wind direction minus nacelle heading.
"""

from __future__ import annotations

import math

import torch

from .. import noise
from .config import Dynamics
from .weather import wrap_deg

Tensor = torch.Tensor
State = dict[str, Tensor]

_OUTAGE_STREAM = 301
_FULL_PITCH_DEG = 23.0
"""Pitch that sheds all power; the NREL 5 MW pitches to 23.5 deg at 25 m/s (Jonkman et al. 2009, table 7-1)."""


def parked(heading_deg: Tensor, direction_deg: Tensor) -> State:
    """Machinery of turbines that stand at ``heading_deg``, neither turning nor worn."""
    zero = torch.zeros_like(heading_deg)
    return {
        "heading_deg": heading_deg,
        "filtered_direction_deg": direction_deg.expand_as(heading_deg).clone(),
        "turning": torch.zeros_like(heading_deg, dtype=torch.bool),
        "duty_used": zero,
        "travel_deg": zero,
        "outage_left_s": zero,
    }


def yaw(state: State, seen_direction_deg: Tensor, offset_deg: Tensor, settings: Dynamics, dt_s: float) -> State:
    """Turn towards the filtered wind direction minus the offset.

    The drive starts when the error leaves the deadband and runs until the error is gone, unless its duty is used
    up. The duty is a leaky bucket: turning time, forgotten over ``yaw_duty_window_s``, over the allowed share of it.
    """
    keep = math.exp(-dt_s / settings.direction_filter_s) if settings.direction_filter_s > 0 else 0.0
    step = wrap_deg(seen_direction_deg - state["filtered_direction_deg"])
    filtered = state["filtered_direction_deg"] + (1.0 - keep) * step
    error = wrap_deg(filtered - offset_deg - state["heading_deg"])
    duty = state["duty_used"] * math.exp(-dt_s / settings.yaw_duty_window_s)
    running = state["outage_left_s"] <= 0
    turning = ((torch.abs(error) > settings.yaw_deadband_deg) | (state["turning"] & (error != 0))) & running
    allowance_s = settings.yaw_duty_limit_pu * settings.yaw_duty_window_s
    reach = settings.yaw_rate_degps * torch.clamp((1.0 - duty) * allowance_s, max=dt_s)
    move = torch.where(turning, torch.maximum(torch.minimum(error, reach), -reach), torch.zeros_like(error))
    return {
        "heading_deg": state["heading_deg"] + move,
        "filtered_direction_deg": filtered,
        "turning": turning & (torch.abs(error) > reach),
        "duty_used": torch.clamp(duty + torch.abs(move) / (settings.yaw_rate_degps * allowance_s), max=1.0),
        "travel_deg": state["travel_deg"] + torch.abs(move),
    }


def outages(state: State, seeds: Tensor, steps: Tensor, settings: Dynamics, dt_s: float) -> State:
    """Fail as a Poisson process, stay out for a fixed time."""
    n = state["outage_left_s"].shape[0]
    left = torch.clamp(state["outage_left_s"] - dt_s, min=0.0)
    if settings.outage_rate_per_day > 0:
        u = noise.uniform(seeds, steps, _OUTAGE_STREAM, n, left.dtype).T
        chance = 1.0 - math.exp(-settings.outage_rate_per_day * dt_s / 86400.0)
        left = torch.where((left <= 0) & (u < chance), torch.full_like(left, settings.outage_duration_s), left)
    return {"outage_left_s": left}


def lag(value: Tensor, target: Tensor, time_s: float, dt_s: float) -> Tensor:
    """First-order lag, sampled exactly."""
    return target if time_s <= 0 else target + (value - target) * math.exp(-dt_s / time_s)


def pitch_target_deg(power_limit_pu: Tensor) -> Tensor:
    """Pitch that holds a power limit: a surrogate, quadratic power loss in pitch."""
    return _FULL_PITCH_DEG * torch.sqrt(torch.clamp(1.0 - power_limit_pu, 0.0, 1.0))


def power_limit_at(pitch_deg: Tensor) -> Tensor:
    """Inverse of :func:`pitch_target_deg`: the limit that a pitch in motion enforces."""
    share = pitch_deg / _FULL_PITCH_DEG
    return 1.0 - share * share


def loads(thrust: Tensor, speed_mps: Tensor, turbulence: Tensor, yaw_rad: Tensor) -> tuple[Tensor, Tensor]:
    """Damage-equivalent load surrogates, flapwise and tower fore-aft, over the aligned turbine's at 8 m/s, TI 0.06.

    Thrust fluctuates as dF = rho A Ct U u' for small gusts u' = TI U (linearised quasi-steady thrust, Burton et al.,
    Wind Energy Handbook, ch. 5), so both grow with Ct U^2 TI. A yawed blade adds a once-per-turn part that grows
    with the lateral wind, U^2 |sin yaw|, taken at a tenth of the mean thrust, in quadrature.
    """
    reference = 0.8 * 64.0 * 0.06
    gusts = thrust * speed_mps * speed_mps * turbulence / reference
    turn = 0.1 * thrust * speed_mps * speed_mps * torch.sin(yaw_rad) / reference
    return torch.sqrt(gusts * gusts + turn * turn), gusts
