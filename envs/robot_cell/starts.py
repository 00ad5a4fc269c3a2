"""Where joints begin an episode: at home, or off it by as much as the configuration says."""

from __future__ import annotations

import torch

from .. import noise
from .arm import N_JOINTS
from .config import RobotCellConfig
from .motion import JointLimits

_STREAM = 391  # and one more for each arm


def draw_starts(config: RobotCellConfig, limits: JointLimits, home: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Joint angles ``[N, 6, R]`` around ``home`` ``[N, 6, R]``, inside the joints' ranges."""
    if config.home_spread_rad == 0.0:
        return home.clone()
    zero = torch.zeros_like(seeds)
    drawn = [noise.uniform(seeds, zero, _STREAM + k, N_JOINTS, torch.float64).T for k in range(len(home))]
    off = ((2.0 * torch.stack(drawn) - 1.0) * config.home_spread_rad).to(home.dtype)
    return torch.minimum(torch.maximum(home + off, limits.low), limits.high)
