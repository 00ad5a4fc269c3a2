"""What a line earns: parts sold, less energy, parts held and service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from ..configuration import Strict, validate
from ..task import Score
from ..twin import Readings, Tensors
from .config import LineConfig
from .nameplate import HIDDEN, MACHINE

_HIDDEN = {signal.name: k for k, signal in enumerate(HIDDEN)}


class LineProfitOptions(Strict):
    """Options of the task ``line_profit``, in one currency; energy costs what the site's tariff says."""

    horizon: PositiveInt = Field(200, description="control periods of an episode")
    part_value: NonNegativeFloat = Field(1.0, description="of a finished part")
    energy_weight: NonNegativeFloat = Field(1.0, description="on the cost of energy")
    holding_cost: NonNegativeFloat = Field(0.0, description="of a part in a buffer for a period")
    reward_scale: float = Field(1.0, gt=0, description="the reward is the profit times this")


@dataclass(frozen=True)
class LineProfit:
    """Reward: the line's profit of the period, the same for every machine and the dispatcher, since a part is
    everybody's.

    Costs, each at its machine, of the period: ``energy_kwh``, ``service_cost``, ``failures``.
    """

    horizon: int
    options: LineProfitOptions
    name: str = "line_profit"

    @staticmethod
    def from_options(config: LineConfig, options: Mapping[str, Any]) -> LineProfit:
        del config  # nothing of the site's configuration is needed
        chosen = validate(dict(options), LineProfitOptions, "task.options")
        return LineProfit(chosen.horizon, chosen)

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        del commands
        o, now, then = self.options, after.hidden[MACHINE], before.hidden[MACHINE]

        def of(name: str) -> torch.Tensor:
            return now[..., _HIDDEN[name]]

        def grown(name: str) -> torch.Tensor:
            return torch.clamp(of(name) - then[..., _HIDDEN[name]], min=0.0)

        service = grown("service_cost")
        profit = (
            o.part_value * of("finished") - o.energy_weight * of("energy_cost") - o.holding_cost * of("held_parts")
            - service
        ).sum(-1, keepdim=True) * o.reward_scale  # fmt: skip
        reward = {name: profit.expand_as(p) * p for name, p in after.present.items()}
        costs = {"energy_kwh": of("energy_kwh"), "service_cost": service, "failures": grown("failures")}
        terminated = torch.zeros(now.shape[0], dtype=torch.bool, device=now.device)
        return Score(reward, terminated, costs)
