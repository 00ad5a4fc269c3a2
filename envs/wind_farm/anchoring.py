"""Where a live twin of a farm begins: in the wind that the turbines report, and some way around it."""

from __future__ import annotations

import torch

from .config import Inflow
from .nameplate import MEASURED

Tensor = torch.Tensor

_NAMES = [s.name for s in MEASURED]
_DIRECTION_DEG = 8.0
_LEAST_SPEED_MPS, _MOST_SPEED_MPS = 2.0, 30.0


def anchored(inflow: Inflow, measured: Tensor) -> Inflow:
    """Ranges around the vanes' circular mean, the faster anemometers and the calmer turbulence meters of ``measured``
    ``[N, O]``, NaN where there is none; a range that nothing tells of stays. The drift's start is left out of it."""
    update: dict[str, object] = {}
    direction = _known(measured, "wind_direction_deg")
    if len(direction):
        radians = torch.deg2rad(direction)
        mean = float(torch.rad2deg(torch.atan2(radians.sin().mean(), radians.cos().mean()))) % 360.0
        update |= {"wind_direction_deg": (mean - _DIRECTION_DEG, mean + _DIRECTION_DEG), "direction_drift_std_deg": 0.0}
    speed = _known(measured, "wind_speed_mps")
    if len(speed):  # wakes slow some of them: the faster ones see the free wind
        free = float(speed.quantile(0.8))
        low, high = (min(max(share * free, _LEAST_SPEED_MPS), _MOST_SPEED_MPS) for share in (0.85, 1.2))
        update |= {"wind_speed_mps": (low, high), "speed_drift_std_mps": 0.0}
    turbulence = _known(measured, "turbulence_pu")
    if len(turbulence):
        least = min(max(float(turbulence.min()), 0.02), 0.4)
        update["turbulence_pu"] = (0.6 * least, 1.2 * least)
    return inflow.model_copy(update=update)


def _known(measured: Tensor, name: str) -> Tensor:
    column = measured[:, _NAMES.index(name)].to(torch.float64)
    return column[~column.isnan()]
