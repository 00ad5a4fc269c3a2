"""What machines that share crews earn: parts, less service; a machine's own, the fleet's, or a mix to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt

from ..configuration import Strict, validate
from ..errors import ConfigurationError
from ..task import Score
from ..twin import Readings, Tensors
from .config import FixedLine, LineConfig, WeibullWear
from .nameplate import HIDDEN, MACHINE, MEASURED, long_run_efficiency
from .renewal import survival_of

_HIDDEN = {signal.name: k for k, signal in enumerate(HIDDEN)}
_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_LEAST_SURVIVAL = 1e-12
Floats = NDArray[np.float64]


class FleetProfitOptions(Strict):
    """Options of the task ``fleet_profit``, in one currency."""

    horizon: PositiveInt = Field(200, description="control periods of an episode")
    part_value: NonNegativeFloat = Field(1.0, description="of a finished part")
    own_pu: float = Field(0.0, ge=0, le=1, description="share of a machine's own profit in its reward; else the mean's")
    usual_profit: float = Field(0.0, description="of a machine and period; rewards are what profit exceeds it by")
    reward_scale: float = Field(1.0, gt=0, description="the reward is that times this")
    failures: Literal["counted", "expected"] = Field(
        "counted",
        description="expected: chances to fail at the present ages stand for failures, priced as repairs; the same "
        "profit in the long run with less noise, of Weibull lives as declared",
    )


@dataclass(frozen=True)
class FleetProfit:
    """Reward: the mean profit of the fleet's machines, mixed with the machine's own; the dispatcher's is the mean.

    A machine's own profit means something where machines stand side by side. Costs, each at its machine, of the period:
    ``service_cost``, ``failures``, ``waiting`` (1 while it waits for a crew).

    With ``failures: expected`` a reward has ``price x (failures - expected failures)`` added: nought on average
    whatever the policy does, since who fails in a slot of work is drawn with the chance of its age. ``risk``
    ``[N, A]``: chances to fail summed over the slots of work before each age; ``price`` ``[N]``: a repair and the
    parts that it stops.
    """

    horizon: int
    options: FleetProfitOptions
    risk: Floats | None = None
    price: Floats | None = None
    name: str = "fleet_profit"

    @staticmethod
    def from_options(config: LineConfig, options: Mapping[str, Any]) -> FleetProfit:
        chosen = validate(dict(options), FleetProfitOptions, "task.options")
        if chosen.own_pu and not (isinstance(config.line, FixedLine) and config.line.parallel):
            raise ConfigurationError(
                f"task.options.own_pu {chosen.own_pu}: in a row a part is everybody's; give 0, or line.parallel: true"
            )
        if chosen.failures == "counted":
            return FleetProfit(chosen.horizon, chosen)
        return FleetProfit(chosen.horizon, chosen, *_risks(config, chosen.part_value))

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        del commands
        o, now, then = self.options, after.hidden[MACHINE], before.hidden[MACHINE]
        present = after.present[MACHINE]

        def grown(name: str) -> torch.Tensor:
            return torch.clamp(now[..., _HIDDEN[name]] - then[..., _HIDDEN[name]], min=0.0)

        service = grown("service_cost")
        own = (o.part_value * now[..., _HIDDEN["finished"]] - service) * present
        if self.risk is not None and self.price is not None:
            price = torch.from_numpy(self.price).to(now)
            own = own + price * (grown("failures") - self._expected(before, after, self.risk)) * present
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

    @staticmethod
    def _expected(before: Readings, after: Readings, risk: Floats) -> torch.Tensor:
        """Failures ``[B, N]`` that were to be expected of the slots that each machine worked."""
        then, now = (r.measured[MACHINE][..., _MEASURED["age_slots"]].round().to(torch.int64) for r in (before, after))
        worked = after.measured[MACHINE][..., _MEASURED["parts"]].round().to(torch.int64)
        since = torch.minimum(worked, now)  # of slots of work, those at the present age; renewed, it began anew
        table = torch.from_numpy(risk).to(now.device)

        def below(age: torch.Tensor) -> torch.Tensor:
            return table.gather(1, age.clamp(0, table.shape[1] - 1).T).T

        found = below(now) - below(now - since) + below(then + worked - since) - below(then)
        return found.to(after.hidden[MACHINE])


def _risks(config: LineConfig, part_value: float) -> tuple[Floats, Floats]:
    """``risk`` and ``price`` of :class:`FleetProfit`."""
    machines = config.line.machines if isinstance(config.line, FixedLine) else ()
    lives, prices = [], []
    for machine in machines:
        upkeep = machine.upkeep
        if upkeep is None:
            lives.append(np.ones(1))
            prices.append(0.0)
            continue
        if not isinstance(upkeep.wear, WeibullWear):
            break
        survival, longest = survival_of(upkeep.wear), 1
        while survival(np.array([longest]))[0] > _LEAST_SURVIVAL:
            longest *= 2
        lives.append(survival(np.arange(longest, dtype=np.float64)))
        prices.append(
            upkeep.corrective_cost + part_value * long_run_efficiency(machine.model) * upkeep.corrective_slots
        )
    if not machines or len(lives) < len(machines):
        raise ConfigurationError(
            "task.options.failures expected: needs one fixed line whose wear is weibull, where a machine's age says "
            "all of its chance to fail; take counted"
        )
    risk = np.zeros((len(lives), max(map(len, lives))))
    for row, alive in zip(risk, lives, strict=True):
        row[1 : len(alive)] = np.cumsum(1.0 - alive[1:] / alive[:-1])
        row[len(alive) :] = row[len(alive) - 1]
    return risk, np.array(prices)
