"""What a system of inspected components costs: inspections, repairs, and the risk that it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from ..configuration import Strict, validate
from ..task import Score
from ..twin import Readings, Tensors
from .config import InspectedSystemConfig
from .nameplate import COMPONENT, HIDDEN, INSPECT, PLAIN, REPAIR, YEAR_S
from .reliability import system_failure

_FAILURE = [s.name for s in PLAIN].index("failure_pu")
_EXPECTED = [s.name for s in HIDDEN].index("failure_expected_pu")
DISCOUNT = 0.95
"""A year, of the published models; a learner's gamma."""


class InspectionCostOptions(Strict):
    """Options of the task ``inspection_cost``. The campaign variant has an inspection of 0.2 and a campaign of 5."""

    horizon: PositiveInt = Field(30, description="years; the episode ends there, and nothing counts afterwards")
    inspection_cost: NonNegativeFloat = 1.0
    repair_cost: NonNegativeFloat = 20.0
    campaign_cost: NonNegativeFloat = Field(0.0, description="of a year in which anything is inspected or repaired")
    failure_cost: NonNegativeFloat = Field(1e4, description="of the system's failure")
    reward_scale: float = Field(1.0, gt=0, description="the reward is minus the cost times this")


@dataclass(frozen=True)
class InspectionCost:
    """Reward: minus the year's cost, the same for every component, since the system is everybody's.

    The risk of a year is what it added to the system's chance of having failed; where repairs have lowered that chance,
    all of what is left (Leroy et al. 2023, arXiv 2306.11551). Costs, each component's share of the year's:
    ``inspections``, ``repairs``, ``campaigns``, ``risk``.
    """

    horizon: int
    needed: int
    options: InspectionCostOptions
    name: str = "inspection_cost"

    @staticmethod
    def from_options(config: InspectedSystemConfig, options: Mapping[str, Any]) -> InspectionCost:
        chosen = validate(dict(options), InspectionCostOptions, "task.options")
        return InspectionCost(chosen.horizon, config.needed, chosen)

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        o = self.options
        action = commands[COMPONENT][..., 0].to(after.hidden[COMPONENT].dtype)
        repairs = action >= 0.5 * (INSPECT + REPAIR)
        works = action >= 0.5 * INSPECT
        then = system_failure(before.measured[COMPONENT][..., _FAILURE], self.needed)
        now = system_failure(after.hidden[COMPONENT][..., _EXPECTED], self.needed)
        risk = o.failure_cost * torch.where(now < then, now, now - then)[:, None]
        n = action.shape[1]
        costs = {
            "inspections": o.inspection_cost * (works & ~repairs).to(action.dtype),
            "repairs": o.repair_cost * repairs.to(action.dtype),
            "campaigns": (o.campaign_cost / n) * works.any(1, keepdim=True).to(action.dtype).expand_as(action),
            "risk": (risk / n).expand_as(action),
        }
        total = torch.stack(list(costs.values())).sum(0).sum(1, keepdim=True)
        reward = {COMPONENT: (-o.reward_scale * total).expand_as(action)}
        ended = after.time_s >= (self.horizon - 0.5) * YEAR_S
        return Score(reward, ended, costs)
