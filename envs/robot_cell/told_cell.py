"""What a cell's controllers and scanners tell of its state, taken over into the members of a live twin. Replica last.

Encoders are believed: joints and their speeds are where they were read. What nobody tells stays with each member: where
people go next, which target comes after this one, how an arm follows its commands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..estimation.mixable import mixed
from .arm import N_JOINTS
from .config import Obstacle, RobotCellConfig
from .motion import JointLimits
from .nameplate import ARM, BODY_MEASURED, MEASURED, OBSTACLE, PERSON

Tensor = torch.Tensor
State = dict[str, Tensor]

_AT = {signal.name: k for k, signal in enumerate(MEASURED)}
_BODY_AT = {signal.name: k for k, signal in enumerate(BODY_MEASURED)}
_NEW_TARGET_M = 1e-6
SPEEDS = slice(_AT["dq1_radps"], _AT["dq1_radps"] + N_JOINTS)
"""Columns of an arm's measured joint speeds."""


def told_state(state: Mapping[str, Tensor], measured: Mapping[str, Tensor], config: RobotCellConfig) -> State:
    """The state with what ``measured`` ``[N, O]`` a group tells, NaN where nothing is known.

    Hidden gaps are those of the last step until the next.
    """
    found = dict(state)
    arms = measured[ARM]
    for name, first, width in (
        ("q", "q1_rad", N_JOINTS), ("dq", "dq1_radps", N_JOINTS), ("tool", "tool_x_m", 3),
        ("heard", "heard_q1_rad", 2 * N_JOINTS + 4),
    ):  # fmt: skip
        found[name] = _taken(state[name], arms[:, _AT[first] : _AT[first] + width, None])
    for name, column in (
        ("holds", "holds"), ("touches", "touches"), ("stall_s", "stall_s"), ("seen_gap", "gap_m"),
        ("heard_age_s", "heard_age_s"),
    ):  # fmt: skip
        found[name] = _taken(state[name], arms[:, _AT[column], None])
    target = _taken(state["target"], arms[:, _AT["target_x_m"] : _AT["target_x_m"] + 3, None])
    is_new = ((target - state["target"]).abs() > _NEW_TARGET_M).any(1)
    away = (target - found["tool"]).square().sum(1).sqrt()
    found |= {"target": target, "best_m": torch.where(is_new, away, state["best_m"])}
    if PERSON in measured:
        x, y = (measured[PERSON][:, _BODY_AT[f"start_{c}_m"], None] for c in "xy")
        found["person_distance"] = _taken(state["person_distance"], torch.hypot(x, y))
        found["person_angle"] = _taken(state["person_angle"], torch.atan2(y, x))
    if OBSTACLE in measured:
        time_s = state["step"] * config.control_period_s
        rows = [_phase(o, row) for o, row in zip(config.obstacles, measured[OBSTACLE], strict=True)]
        rates = [2.0 * math.pi / o.period_s for o in config.obstacles]
        phases = torch.stack([row - rate * time_s for row, rate in zip(rows, rates, strict=True)])
        found["obstacle_phase"] = _taken(state["obstacle_phase"], phases)
    return found


def mixed_state(state: Mapping[str, Tensor], transform: Tensor, limits: JointLimits) -> State:
    """The state after ``transform`` ``[B, B]``: joints and speeds are mixed, inside the joints' ranges; what was drawn
    for a replica, its targets and people, stays with it."""
    q, dq = (_mixed_lanes(state[name], transform) for name in ("q", "dq"))
    return {**state, "q": torch.minimum(torch.maximum(q, limits.low), limits.high), "dq": dq}


def mixed_lag(lag: Tensor, transform: Tensor) -> Tensor:
    """Time constants ``[R]`` likewise, inside the bounds of their spec."""
    return _mixed_lanes(lag, transform).clamp(0.0, 1.0)


def _mixed_lanes(value: Tensor, transform: Tensor) -> Tensor:
    """Lanes beyond ``B``, which nobody reads, stay."""
    n = len(transform)
    return torch.cat((mixed(value[..., :n], transform), value[..., n:]), -1)


def _taken(value: Tensor, told: Tensor) -> Tensor:
    told = told.to(value)
    return torch.where(told.isnan(), value, told)


def _phase(obstacle: Obstacle, told: Tensor) -> Tensor:
    """Where an obstacle is on its way, from its place and velocity ``[O]``; NaN for one that has no way to go."""
    begin, end, axis = (told.new_tensor(p) for p in (obstacle.from_m, obstacle.to_m, obstacle.axis_m))
    way = end - begin
    start, velocity = (told[_BODY_AT[name] : _BODY_AT[name] + 3] for name in ("start_x_m", "vx_mps"))
    share = (start + axis - begin) @ way / (way @ way)
    pace = velocity @ way / (way @ way)
    return torch.atan2(pace * obstacle.period_s / math.pi, 1.0 - 2.0 * share)
