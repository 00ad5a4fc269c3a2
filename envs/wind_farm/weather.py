"""The undisturbed wind over a farm: drawn at reset, then drifting.

Speed and direction follow Ornstein-Uhlenbeck processes, sampled exactly (Gillespie 1996, doi 10.1103/PhysRevE.54.2084,
eq. 3.1). The free wind is uniform over the farm and changes everywhere at once; wakes carry its history.
"""

from __future__ import annotations

import math

import torch

from .. import noise
from .config import Inflow

Tensor = torch.Tensor

_DRAW_STREAM, _DRIFT_STREAM = 201, 202
_LEAST_SPEED_MPS = 0.5

State = dict[str, Tensor]


def draw_weather(inflow: Inflow, seeds: Tensor) -> State:
    """Weather of new episodes: means and deviations ``[B]``, float64."""
    u = noise.uniform(seeds, torch.zeros_like(seeds), _DRAW_STREAM, 3, torch.float64)
    bounds = (inflow.wind_speed_mps, inflow.wind_direction_deg, inflow.turbulence_pu)
    mean = [low + (high - low) * u[:, k] for k, (low, high) in enumerate(bounds)]
    z = noise.normal(seeds, torch.zeros_like(seeds), _DRIFT_STREAM, 2, torch.float64)
    return {
        "mean_speed_mps": mean[0],
        "mean_direction_deg": mean[1],
        "turbulence": mean[2],
        "speed_drift_mps": z[:, 0] * inflow.speed_drift_std_mps,
        "direction_drift_deg": z[:, 1] * inflow.direction_drift_std_deg,
    }


def drift(inflow: Inflow, state: State, seeds: Tensor, steps: Tensor, dt_s: float) -> State:
    """The two deviations after ``dt_s``; the rest of the weather stays."""
    z = noise.normal(seeds, steps, _DRIFT_STREAM, 2, torch.float64)
    keep_speed = math.exp(-dt_s / inflow.speed_drift_time_s)
    keep_direction = math.exp(-dt_s / inflow.direction_drift_time_s)
    fresh_speed = inflow.speed_drift_std_mps * math.sqrt(1.0 - keep_speed**2)
    fresh_direction = inflow.direction_drift_std_deg * math.sqrt(1.0 - keep_direction**2)
    return {
        "speed_drift_mps": state["speed_drift_mps"] * keep_speed + z[:, 0] * fresh_speed,
        "direction_drift_deg": state["direction_drift_deg"] * keep_direction + z[:, 1] * fresh_direction,
    }


def is_drifting(inflow: Inflow) -> bool:
    """Does the free wind change within an episode?"""
    return inflow.speed_drift_std_mps > 0 or inflow.direction_drift_std_deg > 0


def free_wind(state: State) -> tuple[Tensor, Tensor]:
    """Speed (m/s) and direction (degrees, not wrapped) of the undisturbed wind, ``[B]``, float64."""
    speed = torch.clamp(state["mean_speed_mps"] + state["speed_drift_mps"], min=_LEAST_SPEED_MPS)
    return speed, state["mean_direction_deg"] + state["direction_drift_deg"]


def wrap_deg(angle_deg: Tensor) -> Tensor:
    """Angle in [-180, 180)."""
    return torch.remainder(angle_deg + 180.0, 360.0) - 180.0
