"""What is wanted of a cell: targets touched, without contact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from ..configuration import Strict, validate
from ..errors import ConfigurationError
from ..task import Score
from ..twin import Readings, Tensors
from .config import RobotCellConfig
from .nameplate import ARM, HIDDEN, MEASURED

Tensor = torch.Tensor

WORK_OF_TASK = {"reach_stream": "reach", "pick_place": "pick_place"}
"""Which kind of work a task scores."""

_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_HIDDEN = {signal.name: k for k, signal in enumerate(HIDDEN)}
_GAPS = ("arm_gap_m", "self_gap_m", "person_gap_m", "fixture_gap_m")


class TouchOptions(Strict):
    """Options of both tasks."""

    horizon: PositiveInt = Field(1000, description="control periods of an episode")
    progress_reward_per_m: NonNegativeFloat = Field(1.0, description="for coming nearer to the target")
    touch_reward: NonNegativeFloat = Field(1.0, description="of a target touched")
    contact_penalty: NonNegativeFloat = Field(10.0, description="of a contact, which ends the episode")
    time_penalty_per_s: NonNegativeFloat = Field(0.1, description="of every second")
    near_m: NonNegativeFloat = Field(0.1, description="gaps below this are penalised, and counted as shortfall")
    near_penalty_per_s: NonNegativeFloat = Field(0.0, description="of a second at no gap at all, in proportion")
    guard_penalty: NonNegativeFloat = Field(0.0, description="of a second in which the guard changed all of a command")
    team_share: float = Field(0.0, ge=0, le=1, description="of an arm's reward that is the mean of all arms'")
    end_at_contact: bool = True


@dataclass(frozen=True)
class TouchStream:
    """Reward of an arm: progress, touches, less contacts, time and nearness.

    Costs of a period, each at its arm: ``touches``; ``contacts`` (1 where a gap is not above nothing); ``gap_m``, the
    smallest gap as it is; ``shortfall_m``, by how much it is below ``near_m``; ``stalled_s``, the period where the arm
    makes no progress for a second or more; ``guarded_pu``, by how much a guard inside the twin changed the command.
    """

    name: str
    horizon: int
    options: TouchOptions
    period_s: float

    @staticmethod
    def from_options(name: str, config: RobotCellConfig, options: Mapping[str, Any]) -> TouchStream:
        """Raises :class:`ConfigurationError` where the cell's work is of another kind than the task scores."""
        if config.work.kind != WORK_OF_TASK[name]:
            raise ConfigurationError(
                f"task {name!r}: the site's work is {config.work.kind!r}; set site.work.kind to {WORK_OF_TASK[name]!r}"
            )
        chosen = validate(dict(options), TouchOptions, "task.options")
        return TouchStream(name, chosen.horizon, chosen, config.control_period_s)

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        del commands
        o, dt_s = self.options, self.period_s
        then, now, told = before.measured[ARM], after.measured[ARM], after.hidden[ARM]
        present = after.present[ARM]
        here = present.to(now.dtype)
        touches = now[..., _MEASURED["touches"]] - then[..., _MEASURED["touches"]]
        progress = _distance(then) - told[..., _HIDDEN["distance_m"]]
        gap = torch.stack([told[..., _HIDDEN[name]] for name in _GAPS]).amin(0)
        contact = ((gap <= 0.0) & present).to(now.dtype)
        shortfall = (o.near_m - gap).clamp(min=0.0)
        nearness = shortfall / max(o.near_m, 1e-9)
        reward = o.progress_reward_per_m * progress + o.touch_reward * touches - o.contact_penalty * contact
        reward = (reward - dt_s * (o.time_penalty_per_s + o.near_penalty_per_s * nearness)) * here
        guarded = told[..., _HIDDEN["guarded_pu"]]
        reward = reward - dt_s * o.guard_penalty * guarded * here
        mean = reward.sum(-1, keepdim=True) / here.sum(-1, keepdim=True).clamp(min=1.0)
        reward = ((1.0 - o.team_share) * reward + o.team_share * mean) * here
        stalled = (now[..., _MEASURED["stall_s"]] >= 1.0).to(now.dtype) * dt_s
        costs = {"touches": touches, "contacts": contact, "gap_m": gap, "shortfall_m": shortfall, "stalled_s": stalled}
        costs["guarded_pu"] = guarded
        ended = (contact > 0.0).any(-1) if o.end_at_contact else torch.zeros_like(present[:, 0])
        return Score(_for_all_groups(reward, after), ended, {name: cost * here for name, cost in costs.items()})


def _distance(measured: Tensor) -> Tensor:
    """Of the tool point to its target, ``[B, N]`` m."""
    tool, target = _MEASURED["tool_x_m"], _MEASURED["target_x_m"]
    away = measured[..., target : target + 3] - measured[..., tool : tool + 3]
    return (away * away).sum(-1).clamp(min=1e-18).sqrt()


def _for_all_groups(reward: Tensor, after: Readings) -> dict[str, Tensor]:
    """People and obstacles are paid nothing."""
    nothing = {name: torch.zeros_like(p, dtype=reward.dtype) for name, p in after.present.items() if name != ARM}
    return {ARM: reward, **nothing}
