"""What a production line earns by a task's prices: the event-driven plant, and the members of its live twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...agents.policy import Policy
from ...deploy.live_twin import LiveTwin
from ...envs.configuration import Strict, validate
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry
from ...envs.production_line.config import LineConfig
from ...envs.production_line.fleet_task import FleetProfitOptions
from ...envs.production_line.line_plan import plan_of
from ...envs.production_line.nameplate import HIDDEN, MACHINE, MEASURED, STATICS
from ...envs.production_line.plant import SimPyLine
from ...envs.production_line.plant_config import LinePlantConfig
from ...envs.production_line.task import LineProfitOptions

Floats = NDArray[np.float64]

_AT = {s.name: k for k, s in enumerate(MEASURED)}
_HIDDEN = {s.name: k for k, s in enumerate(HIDDEN)}
_EFFICIENCY = [s.name for s in STATICS].index("efficiency_pu")


class Earnings(Strict):
    """What a line earns, as the tasks ``line_profit`` and ``fleet_profit`` have it in common."""

    part_value: float = 1.0
    energy_weight: float = 0.0
    holding_cost: float = 0.0


def earnings(task: Mapping[str, Any], where: str) -> Earnings:
    """Of a task's options; raises :class:`ConfigurationError` for another task."""
    options, name = dict(task.get("options") or {}), task.get("name")
    if name == "line_profit":
        chosen = validate(options, LineProfitOptions, f"{where}: task.options")
        return Earnings(**{k: getattr(chosen, k) for k in Earnings.model_fields})
    if name == "fleet_profit":
        return Earnings(part_value=validate(options, FleetProfitOptions, f"{where}: task.options").part_value)
    raise ConfigurationError(f"{where}: task.name: {name!r}; a line earns by line_profit or fleet_profit")


def counted(config: LineConfig, plate: Nameplate) -> list[int]:
    """Machines whose parts count: of a row the slowest, of machines side by side or of a tree those at its ends."""
    plan = plan_of(config)
    if plan.is_serial:
        return [int(plate.group(MACHINE).statics_array()[:, _EFFICIENCY].argmin())]
    return [i for i in range(len(plan.names)) if i not in plan.producer]


class EarningLine:
    """A plant that knows what it has earned."""

    def __init__(self, config: LineConfig, plant_config: LinePlantConfig, prices: Earnings) -> None:
        self._plant = SimPyLine(config, plant_config)
        self._prices = prices
        self._held = 0.0
        plate = self._plant.nameplate
        self._counted = counted(config, plate)
        self.nameplate = plate

    @property
    def clock_s(self) -> float:
        return self._plant.clock_s

    def truth(self) -> dict[str, Any]:
        return self._plant.truth()

    def read(self) -> Telemetry:
        return self._plant.read()

    def write(self, commands: Arrays) -> Arrays:
        return self._plant.write(commands)

    def advance(self) -> None:
        self._plant.advance()
        self._held += sum(self._plant.levels)

    def close(self) -> None:
        self._plant.close()

    def earned(self) -> float:
        """Since the plant's start."""
        o, true = self._prices, self._plant.truth()
        spent = o.energy_weight * true["energy_cost"] + o.holding_cost * self._held + sum(true["service_cost"])
        return float(o.part_value * sum(true["parts"][i] for i in self._counted) - spent)


@torch.inference_mode()
def earned_in_twin(live: LiveTwin, policy: Policy, prices: Earnings, periods: int, machines: Sequence[int]) -> Floats:
    """``[B]``: mean profit a period of each member, from where it stands; parts of these ``machines``."""
    with live.replicas() as (twin, readings):
        memory, n = policy.start(twin.n_replicas), twin.n_replicas
        earned = np.zeros(n)
        served = readings.hidden[MACHINE][..., _HIDDEN["service_cost"]].sum(1)
        for _ in range(periods):
            commands, memory = policy.act(readings.observation(twin.dt_s), memory)
            readings = twin.step({name: torch.from_numpy(np.array(c)) for name, c in commands.items()})
            hidden = readings.hidden[MACHINE]
            made = readings.measured[MACHINE][:, machines, _AT["parts"]].sum(1)
            spent = (
                prices.energy_weight * hidden[..., _HIDDEN["energy_cost"]]
                + prices.holding_cost * hidden[..., _HIDDEN["held_parts"]]
            )
            earned += (prices.part_value * made - spent.sum(1)).numpy()
        served = readings.hidden[MACHINE][..., _HIDDEN["service_cost"]].sum(1) - served
        return np.asarray((earned - served.numpy()) / periods)
