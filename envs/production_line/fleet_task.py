"""What machines that share crews earn: parts, less service; a machine's own, the fleet's, or a mix to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt

from ..configuration import Strict, validate
from ..errors import ConfigurationError
from ..task import Score
from ..twin import Readings, Tensors
from .config import FixedLine, LineConfig
from .nameplate import HIDDEN, MACHINE, MEASURED, long_run_efficiency
from .renewal import own_best_ages

_HIDDEN = {signal.name: k for k, signal in enumerate(HIDDEN)}
_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_IN_SERVICE = 7
Floats = NDArray[np.float64]


class FleetProfitOptions(Strict):
    """Options of the task ``fleet_profit``, in one currency."""

    horizon: PositiveInt = Field(200, description="control periods of an episode")
    part_value: NonNegativeFloat = Field(1.0, description="of a finished part")
    own_pu: float = Field(0.0, ge=0, le=1, description="share of a machine's own profit in its reward; else the mean's")
    usual_profit: float = Field(0.0, description="of a machine and period; rewards are what profit exceeds it by")
    reward_scale: float = Field(1.0, gt=0, description="the reward is that times this")
    write_off: bool = Field(
        False,
        description="the price of a service is written off evenly over the machine's own best age, instead of paid at "
        "once; the same profit in the long run, and whoever calls at that age is told at once that it was right",
    )


@dataclass(frozen=True)
class FleetProfit:
    """Reward: the mean profit of the fleet's machines, mixed with the machine's own; the dispatcher's is the mean.

    A machine's own profit means something where machines stand side by side. Costs, each at its machine, of the period:
    ``service_cost``, ``failures``, ``waiting`` (1 while it waits for a crew).

    With ``write_off`` a reward has ``value after - value before`` added (Ng, Harada & Russell 1999, potential-based
    shaping, here of an average reward: it telescopes); a machine is worth ``-price`` at ``best_age`` and beyond, 0 as
    new or in service, in between by its age. ``price``: of a preventive service with the parts that it stops;
    ``best_age``: of the machine alone; both ``[N]``.
    """

    horizon: int
    options: FleetProfitOptions
    price: Floats | None = None
    best_age: Floats | None = None
    name: str = "fleet_profit"

    @staticmethod
    def from_options(config: LineConfig, options: Mapping[str, Any]) -> FleetProfit:
        chosen = validate(dict(options), FleetProfitOptions, "task.options")
        if chosen.own_pu and not (isinstance(config.line, FixedLine) and config.line.parallel):
            raise ConfigurationError(
                f"task.options.own_pu {chosen.own_pu}: in a row a part is everybody's; give 0, or line.parallel: true"
            )
        if not chosen.write_off:
            return FleetProfit(chosen.horizon, chosen)
        if not isinstance(config.line, FixedLine):
            raise ConfigurationError(
                "task.options.write_off: machines change from episode to episode; give a fixed line, or false"
            )
        kept = [(m.upkeep, long_run_efficiency(m.model)) for m in config.line.machines]
        price = [k.preventive_cost + chosen.part_value * e * k.preventive_slots if k else 0.0 for k, e in kept]
        return FleetProfit(chosen.horizon, chosen, np.array(price), own_best_ages(config.line, chosen.part_value))

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        del commands
        o, now, then = self.options, after.hidden[MACHINE], before.hidden[MACHINE]
        present = after.present[MACHINE]

        def grown(name: str) -> torch.Tensor:
            return torch.clamp(now[..., _HIDDEN[name]] - then[..., _HIDDEN[name]], min=0.0)

        service = grown("service_cost")
        own = (o.part_value * now[..., _HIDDEN["finished"]] - service) * present
        if self.price is not None and self.best_age is not None:
            price, best_age = (torch.from_numpy(x).to(now) for x in (self.price, self.best_age))
            own = own + price * (_written_off(before, best_age) - _written_off(after, best_age)) * present
        mean = own.sum(-1, keepdim=True) / present.sum(-1, keepdim=True)
        mixed = own * o.own_pu + mean * (1.0 - o.own_pu)
        reward = {
            name: ((mixed if name == MACHINE else mean.expand_as(p)) - o.usual_profit) * o.reward_scale * p
            for name, p in after.present.items()
        }
        waits = after.measured[MACHINE][..., _MEASURED["waits_for_crew"]]
        costs = {"service_cost": service, "failures": grown("failures"), "waiting": waits}
        terminated = torch.zeros(now.shape[0], dtype=torch.bool, device=now.device)
        return Score(reward, terminated, costs)


def _written_off(readings: Readings, best_age: torch.Tensor) -> torch.Tensor:
    """Shares ``[B, N]`` of the price of a service that machines have written off, 0 to 1."""
    measured = readings.measured[MACHINE]
    share = torch.clamp(measured[..., _MEASURED["age_slots"]] / best_age, max=1.0)
    return torch.where(measured[..., _MEASURED["state"]].round() == _IN_SERVICE, 0.0, share)
