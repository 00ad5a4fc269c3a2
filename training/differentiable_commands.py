"""From actions to commands with a gradient, for learners that differentiate the twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..agents.action_layout import ActionLayout
from ..envs.errors import ConfigurationError
from ..envs.nameplate import Nameplate
from ..envs.twin import Readings
from .problem import Problem


def check_continuous(problem: Problem, kind: str) -> None:
    """Raise ConfigurationError where a group that learns has discrete commands, which ``kind`` cannot drive."""
    nameplate = problem.nameplate()
    for name, layout in problem.layouts(nameplate).items():
        if layout.discrete:
            commands = ", ".join(nameplate.group(name).commanded[c].name for c in layout.discrete)
            raise ConfigurationError(
                f"learner.kind {kind} drives continuous commands alone, and {name} has discrete ones: {commands}; "
                "take kind ppo, mappo or happo, or leave them out of learner.controlled"
            )


def differentiable_commands(
    nameplate: Nameplate, layouts: Mapping[str, ActionLayout], actions: Mapping[str, torch.Tensor], readings: Readings
) -> dict[str, torch.Tensor]:
    """Commands ``[B, N, A]`` of all groups in physical units, of actions ``[B, N, K]`` that are cut to [-1, 1]; neutral
    where nothing is controlled."""
    commands = {}
    for group in nameplate.groups:
        like = readings.measured[group.name]
        full = torch.as_tensor(group.neutral(), dtype=like.dtype, device=like.device)
        full = full.expand(*like.shape[:2], -1).clone()
        if group.name in actions:
            layout = layouts[group.name]
            middle, half = (torch.from_numpy(a).to(like) for a in (layout.middle, layout.half))
            full[..., list(layout.columns)] = actions[group.name].to(like).clamp(-1.0, 1.0) * half + middle
        commands[group.name] = full
    return commands


class _Stop(torch.autograd.Function):
    """``clip(clip(mean) + noise)``; beyond a stop only a slope that leads back counts."""

    @staticmethod
    def forward(ctx: Any, mean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(mean)
        return (mean.clamp(-1.0, 1.0) + noise).clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None]:
        (mean,), (slope,) = ctx.saved_tensors, slopes
        return slope * ((mean.abs() < 1.0) | (mean * slope < 0)), None


def shaken(mean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Means with noise, inside [-1, 1]. The gradient, of something to be raised, is the action's; where the mean lies
    beyond a stop and the gradient leads further out, it is zero."""
    found: torch.Tensor = _Stop.apply(mean, noise)  # type: ignore[no-untyped-call]  # torch publishes no type for it
    return found
