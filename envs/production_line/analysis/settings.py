"""Settings of a line's diagnosis; loading them imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ...configuration import Strict
from ..remaining_life import ALARM_CHANCE


class LineDiagnosisSettings(Strict):
    """How a line is analysed."""

    blocking: Literal["after", "before", "auto"] = Field(
        "auto",
        description="after: machines hold the part they work on, and are blocked with it when it is done; before: as "
        "the twin has it; auto: after where there is telemetry of a plant",
    )
    method: Literal["auto", "chain", "replicas"] = Field(
        "auto", description="auto: the exact chain for rows of Bernoulli machines with few states, else replicas"
    )
    window_periods: PositiveInt | None = Field(None, description="use the last ones only; None: all since a change")
    change_pu: PositiveFloat = Field(0.05, le=0.5, description="how much faster, or rarer and shorter stops, to try")
    stop_slots: PositiveInt = Field(30, description="length of the stop that is tried on each machine")
    replicas: PositiveInt = Field(128, ge=16, description="of each variant of the line")
    slots: PositiveInt = Field(2400, ge=100, description="that a replica runs, after warming up")
    alarm_nats: PositiveFloat = Field(12.0, description="log-likelihood by which a change must be better than none")
    horizon_slots: PositiveFloat | None = Field(
        None, description="of work, within which a failure is foreseen; None: a tenth of the shortest mean life"
    )
    alarm_chance: float = Field(ALARM_CHANCE, gt=0, lt=1, description="to fail within it, from which on it is an alarm")
    seed: NonNegativeInt = 0
