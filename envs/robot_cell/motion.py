"""From commanded joint speeds to joint angles: what an arm's own controller does with a command. Replica last."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .arm import N_JOINTS, Arm
from .config import RobotCellConfig
from .kinematics import Pose, point_rates, pose, tool_point

Tensor = torch.Tensor


@dataclass(frozen=True)
class JointLimits:
    """Limits of each joint, ``[6, 1]``: command, rad/s; deceleration, rad/s2; ends of its range, rad."""

    speed: Tensor
    braking: Tensor
    low: Tensor
    high: Tensor

    @staticmethod
    def of(config: RobotCellConfig, arm: Arm, dtype: torch.dtype, device: torch.device) -> JointLimits:
        """Those of an arm in a cell."""

        def column(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        speed = tuple(min(config.joint_speed_radps, fastest) for fastest in arm.speed_radps)
        return JointLimits(column(speed), column(arm.braking_radps2), column(arm.q_min_rad), column(arm.q_max_rad))


def tool_speed(p: Pose, dq: Tensor, arm: Arm) -> Tensor:
    """Speed of the tool point, ``[N, R]`` m/s, in a pose of components ``[N, R]`` at speeds ``dq`` ``[N, 6, R]``."""
    rates = point_rates(p, tool_point(p, arm))
    total = [rates[0][c] * dq[:, 0] for c in range(2)] + [0.0]
    for joint in range(1, N_JOINTS):
        total = [s + r * dq[:, joint] for s, r in zip(total, rates[joint], strict=True)]
    r, t, u = total
    speed: Tensor = (r * r + t * t + u * u).sqrt()
    return speed


def _stopping(room: Tensor, braking: Tensor, step: Tensor) -> Tensor:
    """Speed that uses up ``room`` in half a period at it and full brakes from it: v dt / 2 + v^2 / (2 braking)."""
    return (2.0 * braking * room.clamp(min=0.0) + 0.25 * step * step).sqrt() - 0.5 * step


def move(
    q: Tensor, dq: Tensor, command: Tensor, lag: Tensor, limits: JointLimits, config: RobotCellConfig, arm: Arm
) -> tuple[Tensor, Tensor]:
    """Joint angles and speeds ``[N, 6, R]`` a control period later.

    The command is limited a joint, then scaled as a whole to the tool's speed; near the end of its range a joint is as
    slow as lets it stop there. Speed follows with the time constant ``lag`` ``[R]`` s, exactly for a command that is
    held, and changes no faster than the brakes make it.
    """
    dt_s = config.control_period_s
    wanted = torch.minimum(torch.maximum(command, -limits.speed), limits.speed)
    nowhere = (0.0, 0.0, 0.0, 0.0)  # speed does not depend on where the base is
    fast = tool_speed(pose(q.unbind(1), nowhere, arm), wanted, arm)
    wanted = wanted * (config.tool_speed_mps / fast.clamp(min=config.tool_speed_mps))[:, None]
    step = limits.braking * dt_s
    share = 1.0 - torch.exp(-dt_s / lag.clamp(min=1e-6))
    after = dq + (wanted - dq) * share
    # Where a period of (dq + v) / 2 and then full brakes end just at the end of the range.
    up = _stopping(limits.high - q - (0.5 * dt_s) * dq, limits.braking, step)
    down = _stopping(q - limits.low + (0.5 * dt_s) * dq, limits.braking, step)
    after = torch.maximum(torch.minimum(after, up), -down)
    after = dq + torch.minimum(torch.maximum(after - dq, -step), step)
    ahead = q + (0.5 * dt_s) * (dq + after)
    reached = torch.maximum(torch.minimum(ahead, limits.high), limits.low)
    return reached, after * (reached == ahead)
