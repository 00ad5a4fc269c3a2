"""Configuration of the MuJoCo cell; loading it does not import MuJoCo."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from ..configuration import Strict
from .config import LONGEST_DELAY_PERIODS


class RobotCellPlantConfig(Strict):
    """What the emulated cell has that its twin does not know."""

    kind: Literal["mujoco"] = "mujoco"
    seed: NonNegativeInt = 0
    real_time: bool = Field(False, description="advance() waits for the period to pass on this machine's clock")
    payload_kg: NonNegativeFloat = Field(1.0, le=5, description="on every flange; the arms' controllers don't know it")
    part_kg: PositiveFloat = Field(0.5, le=5, description="of a carried part, in pick and place")
    friction_pu: NonNegativeFloat = Field(1.0, description="of the joints, over what is assumed for a UR5e")
    angle_noise_rad: NonNegativeFloat = Field(2e-4, description="standard deviation of a measured joint angle")
    speed_noise_radps: NonNegativeFloat = Field(2e-3, description="standard deviation of a measured joint speed")
    scanner_noise_m: NonNegativeFloat = Field(0.01, description="standard deviation of a measured person or obstacle")
    command_timeout_s: PositiveFloat = Field(0.2, description="an arm brakes when nobody has commanded it for so long")
    stops_on_contact: bool = Field(False, description="a touched arm stops for restart_s, as the maker's does at 25 N")
    restart_s: PositiveFloat = Field(2.0, description="a protective stop lasts so long, then commands count again")
    peer_delay_periods: NonNegativeInt = Field(0, le=LONGEST_DELAY_PERIODS, description="arms hear each other late")
    peer_loss_s: NonNegativeFloat = Field(0.0, description="a burst in which nothing of an arm is heard lasts so long")
    peer_losses_per_min: NonNegativeFloat = Field(0.0, description="such bursts of each arm, at random times")
    peer_frozen: bool = Field(False, description="in a burst the message before it is repeated, looking fresh")
    peer_stamps_trusted: bool = Field(
        False, description="arms judge the age of a message by its stamp alone; else one that is repeated is no news"
    )
    visits_per_min: NonNegativeFloat = Field(0.5, description="how often a person walks up to the arms, each person")
    visit_m: NonNegativeFloat = Field(0.9, description="how near to the cell's middle a visit leads")
