"""More power from the same wind: the scoring of one step of a wind farm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from ..configuration import Strict, validate
from ..task import Score
from ..twin import Readings, Tensors
from .config import WindFarmConfig
from .nameplate import GROUP, HIDDEN, STATICS

_HIDDEN = {signal.name: k for k, signal in enumerate(HIDDEN)}
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}


class FarmPowerOptions(Strict):
    """Options of the task ``farm_power``."""

    horizon: PositiveInt = Field(1, description="steps of an episode")
    credit: Literal["own", "wake", "farm"] = Field("wake", description="whose power a turbine is rewarded for")
    wake_reach_d: PositiveFloat = Field(25.0, description="how far downstream a turbine gets credit, rotor diameters")


@dataclass(frozen=True)
class FarmPower:
    """Reward: power gained over the aligned farm, as a share of the power of a free turbine.

    ``credit`` says whose gain a turbine is given: its ``own``; its own and that of the turbines its ``wake`` can
    reach (a cone of two diameters' half width that widens by a tenth of the distance); or the whole ``farm``'s. All of
    it is the power of the same instant: no reward is shifted by a wake's travel time. Costs, never part of the
    reward: ``yaw_travel_deg`` of the step, ``load_flap_pu``.
    """

    horizon: int
    credit: str
    wake_reach_d: float
    name: str = "farm_power"

    @staticmethod
    def from_options(config: WindFarmConfig, options: Mapping[str, Any]) -> FarmPower:
        del config  # the task needs nothing of the site's configuration
        chosen = validate(dict(options), FarmPowerOptions, "task.options")
        return FarmPower(chosen.horizon, chosen.credit, chosen.wake_reach_d)

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        del commands
        hidden, present = after.hidden[GROUP], after.present[GROUP]
        gain = hidden[..., _HIDDEN["true_power_kw"]] - hidden[..., _HIDDEN["aligned_power_kw"]]
        rated = torch.clamp(after.statics[GROUP][..., _STATIC["rated_power_kw"]].amax(-1, keepdim=True), min=1.0)
        speed = hidden[..., _HIDDEN["free_wind_speed_mps"]].amax(-1, keepdim=True)
        # a free turbine makes about rated * (u / 11.4)^3 below its rated wind speed; only the scale matters here
        scale = rated * torch.clamp((speed / 11.4) ** 3, min=0.02, max=1.0)
        share = gain / scale
        if self.credit == "farm":
            reward = share.sum(-1, keepdim=True).expand_as(share)
        elif self.credit == "wake":
            reward = share + torch.einsum("bij,bj->bi", self._reached(after).to(share.dtype), share)
        else:
            reward = share
        travel = _HIDDEN["yaw_travel_deg"]
        moved = torch.clamp(hidden[..., travel] - before.hidden[GROUP][..., travel], min=0.0)
        costs = {"yaw_travel_deg": moved, "load_flap_pu": hidden[..., _HIDDEN["load_flap_pu"]]}
        terminated = torch.zeros(present.shape[0], dtype=torch.bool, device=present.device)
        return Score({GROUP: reward * present}, terminated, costs)

    def _reached(self, readings: Readings) -> torch.Tensor:
        """``[B, I, J]``: does the wake of turbine I reach turbine J in the present wind?"""
        statics, present = readings.statics[GROUP], readings.present[GROUP]
        x, y = statics[..., _STATIC["x_m"]], statics[..., _STATIC["y_m"]]
        diameter = torch.clamp(statics[..., _STATIC["rotor_diameter_m"]].amax(-1), min=1.0)[:, None, None]
        angle = torch.deg2rad(readings.hidden[GROUP][..., _HIDDEN["free_wind_direction_deg"]].amax(-1))[:, None]
        east, north = -torch.sin(angle), -torch.cos(angle)
        along, across = x * east + y * north, y * east - x * north
        downstream = (along[:, None, :] - along[:, :, None]) / diameter
        sideways = torch.abs(across[:, None, :] - across[:, :, None]) / diameter
        reached = (downstream > 0.1) & (downstream < self.wake_reach_d) & (sideways < 2.0 + 0.1 * downstream)
        return reached & present[:, None, :] & present[:, :, None]
