"""What arms reach for: one target after another, drawn from (seed, arm, how many it has had)."""

from __future__ import annotations

import torch

from .. import noise
from .arm import Arm
from .config import Box, ReachWork, RobotCellConfig

Tensor = torch.Tensor

_STREAM = 320  # and one more for each arm
_TRIES = 12
_LEAST_M = 0.2  # from the axis of joint 1: nearer, an arm gets at little
_BEYOND_M = 0.02  # a crossing target lies so far beyond the box's middle


def draw_targets(config: RobotCellConfig, arm: Arm, number: int, seeds: Tensor, count: Tensor, base: Tensor) -> Tensor:
    """Next targets of arm ``number``, ``[3, R]`` m, float64; ``seeds`` ``[R]``, ``count`` ``[R]`` targets had before,
    ``base`` ``[4, R]``.

    The first of twelve uniform draws in the box that the arm can reach; where it can reach none, the last, brought
    as near as its reach.
    """
    u = noise.uniform(seeds, count, _STREAM + number, 3 * _TRIES, torch.float64).reshape(-1, _TRIES, 3).permute(2, 1, 0)
    work = config.work
    box = work.box if isinstance(work, ReachWork) else work.pick
    low, high = _ends(box, u)
    if not isinstance(work, ReachWork):
        places = count % 2 == 1
        other_low, other_high = _ends(work.place, u)
        low, high = torch.where(places, other_low, low), torch.where(places, other_high, high)
    points = low + u * (high - low)
    foot = base[:, None].to(torch.float64)
    shoulder_z = foot[2] + arm.d_m[0]
    beside = (points[0] - foot[0]) ** 2 + (points[1] - foot[1]) ** 2
    fits = (beside + (points[2] - shoulder_z) ** 2 <= arm.reach_m**2) & (beside >= _LEAST_M**2)
    if isinstance(work, ReachWork) and work.crossing:
        middle = [0.5 * (a + b) for a, b in (box.x_m, box.y_m)]
        way_x, way_y = middle[0] - foot[0], middle[1] - foot[1]
        beyond = (points[0] - middle[0]) * way_x + (points[1] - middle[1]) * way_y
        crosses = beyond >= _BEYOND_M * (way_x * way_x + way_y * way_y).sqrt()
        fits &= crosses if work.crossing is True else crosses | (count % 2 == 0)
    # argmax of the first that fits; the last where none does
    last = torch.arange(_TRIES, device=u.device)[:, None]
    chosen = torch.where(fits, last, _TRIES - 1).amin(0)
    found = points.gather(1, chosen.expand(3, 1, -1))[:, 0]
    return _within_reach(found, foot[:, 0], shoulder_z[0], arm.reach_m)


def _ends(box: Box, like: Tensor) -> tuple[Tensor, Tensor]:
    ends = torch.tensor((box.x_m, box.y_m, box.z_m), dtype=like.dtype, device=like.device)
    return ends[:, 0, None, None], ends[:, 1, None, None]


def _within_reach(point: Tensor, foot: Tensor, shoulder_z: Tensor, reach_m: float) -> Tensor:
    """The point, or where the way to it from the shoulder leaves the arm's reach."""
    shoulder = torch.stack((foot[0], foot[1], shoulder_z))
    way = point - shoulder
    length = (way[0] * way[0] + way[1] * way[1] + way[2] * way[2]).sqrt()
    return shoulder + way * torch.clamp(reach_m / length.clamp(min=1e-9), max=1.0)
