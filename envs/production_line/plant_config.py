"""Configuration of the event-driven plant; loading it does not import SimPy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from ..configuration import Strict
from .scenarios import Fault


class LinePlantConfig(Strict):
    """What the emulated line has that its twin does not know."""

    kind: Literal["simpy"] = "simpy"
    seed: NonNegativeInt = 0
    cycle_spread_pu: NonNegativeFloat = Field(0.05, description="standard deviation of a cycle's time over its mean")
    repair_spread_pu: NonNegativeFloat = Field(0.5, description="standard deviation of a repair's time over its mean")
    efficiency_error_pu: NonNegativeFloat = Field(0.0, lt=0.5, description="spread of machines' true efficiencies")
    drift_pu_per_day: NonNegativeFloat = Field(0.0, description="efficiency that one machine loses a day, from start")
    drifting_machine: NonNegativeInt = Field(0, description="which one drifts, from 1; 0: none")
    meter_noise_pu: NonNegativeFloat = Field(0.01, description="of the power meters, over their reading")
    faults: tuple[Fault, ...] = Field((), description="of machines and sensors, see scenarios.py")
    lost_reading_pu: NonNegativeFloat = Field(0.0, le=1, description="chance that a machine's reading is bad")
