"""What a line earns: parts sold, less energy, parts held and service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from ..configuration import Strict, validate
from ..errors import ConfigurationError
from ..task import Score
from ..twin import Readings, Tensors
from .config import BernoulliMachine, LineConfig
from .line_plan import plan_of
from .nameplate import HIDDEN, MACHINE, MEASURED, STATICS

_HIDDEN = {signal.name: k for k, signal in enumerate(HIDDEN)}
_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}


class LineProfitOptions(Strict):
    """Options of the task ``line_profit``, in one currency; energy costs what the site's tariff says."""

    horizon: PositiveInt = Field(200, description="control periods of an episode")
    part_value: NonNegativeFloat = Field(1.0, description="of a finished part")
    energy_weight: NonNegativeFloat = Field(1.0, description="on the cost of energy")
    holding_cost: NonNegativeFloat = Field(0.0, description="of a part in a buffer for a period")
    usual_profit: float | Literal["unhindered"] = Field(
        0.0,
        description="of a period; the reward is what the profit exceeds it by. unhindered: what each line would earn "
        "if its slowest machine never waited and all idled; with parts_count slowest",
    )
    reward_scale: float = Field(1.0, gt=0, description="the reward is that times this")
    parts_count: Literal["finished", "slowest"] = Field(
        "finished",
        description="as they leave the line; or, in rows of Bernoulli machines decided every slot, as the slowest "
        "machine makes them on average: the same profit in the long run, with far less noise to learn from",
    )


@dataclass(frozen=True)
class LineProfit:
    """Reward: the line's profit of the period, the same for every machine and the dispatcher, since a part is
    everybody's.

    Costs, each at its machine, of the period: ``energy_kwh``, ``service_cost``, ``failures``.
    """

    horizon: int
    options: LineProfitOptions
    looks_through: bool = True
    period_h: float = 0.0
    price_per_kwh: float = 0.0
    name: str = "line_profit"

    @staticmethod
    def from_options(config: LineConfig, options: Mapping[str, Any]) -> LineProfit:
        chosen = validate(dict(options), LineProfitOptions, "task.options")
        if chosen.parts_count == "slowest":
            plan = plan_of(config)
            bernoulli = all(isinstance(m.model, BernoulliMachine) for m in plan.machines)
            if not (plan.is_serial and bernoulli and config.slots_per_period == 1):
                raise ConfigurationError(
                    "task.options.parts_count slowest: for rows of Bernoulli machines with slots_per_period 1; take "
                    f"finished (machines in a row: {plan.is_serial}, all Bernoulli: {bernoulli}, slots_per_period "
                    f"{config.slots_per_period})"
                )
        elif chosen.usual_profit == "unhindered":
            raise ConfigurationError("task.options.usual_profit unhindered: goes with parts_count slowest")
        prices = config.tariff.prices_per_kwh
        return LineProfit(chosen.horizon, chosen, config.looks_through, config.dt_s / 3600.0, sum(prices) / len(prices))

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        o, now, then = self.options, after.hidden[MACHINE], before.hidden[MACHINE]

        def of(name: str) -> torch.Tensor:
            return now[..., _HIDDEN[name]]

        def grown(name: str) -> torch.Tensor:
            return torch.clamp(of(name) - then[..., _HIDDEN[name]], min=0.0)

        service = grown("service_cost")
        made = of("finished").sum(-1)
        if o.parts_count == "slowest":
            made = made_by_slowest(before, commands[MACHINE][..., 1], after, self.looks_through)
        spent = o.energy_weight * of("energy_cost") + o.holding_cost * of("held_parts") + service
        profit = (o.part_value * made - spent.sum(-1))[:, None]
        usual = o.usual_profit
        if usual == "unhindered":
            profit = (profit - self._unhindered(after)[:, None]) * o.reward_scale
        else:
            profit = (profit - usual) * o.reward_scale
        reward = {name: profit.expand_as(p) * p for name, p in after.present.items()}
        costs = {"energy_kwh": of("energy_kwh"), "service_cost": service, "failures": grown("failures")}
        terminated = torch.zeros(now.shape[0], dtype=torch.bool, device=now.device)
        return Score(reward, terminated, costs)

    def _unhindered(self, readings: Readings) -> torch.Tensor:
        """``[B]``: see ``usual_profit``; of statics and prices alone, so that it changes no decision."""
        o, present, statics = self.options, readings.present[MACHINE], readings.statics[MACHINE]
        slowest = torch.where(present, statics[..., _STATIC["efficiency_pu"]], 2.0).amin(-1)
        idle_kwh = (statics[..., _STATIC["idle_kw"]] * present).sum(-1) * self.period_h
        return o.part_value * slowest - o.energy_weight * self.price_per_kwh * idle_kwh


def made_by_slowest(before: Readings, speed: torch.Tensor, after: Readings, looks_through: bool) -> torch.Tensor:
    """``[B]``: parts that the slowest machine makes on average in the slot, given whether it runs, is fed and finds
    room. Whatever anybody decides, its mean is that of the parts finished, since parts are neither made nor lost
    between two machines.

    ``speed`` ``[B, N]``, commanded.
    """
    then, now = before.measured[MACHINE], after.measured[MACHINE]
    made = now[..., _MEASURED["parts"]]
    next_takes = torch.cat((made[:, 1:], torch.zeros_like(made[:, :1])), 1) > 0.5
    roomy = then[..., _MEASURED["room_behind"]] > 0.5
    runs = now[..., _MEASURED["state"]] < 2.5  # running, blocked or starved
    could = runs & (then[..., _MEASURED["parts_before"]] > 0.5) & (roomy | next_takes if looks_through else roomy)
    efficiency = after.statics[MACHINE][..., _STATIC["efficiency_pu"]]
    slowest = torch.where(after.present[MACHINE], efficiency, 2.0).argmin(-1, keepdim=True)
    return (efficiency * speed * could).gather(-1, slowest)[:, 0]
