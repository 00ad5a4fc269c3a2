"""What an engineer may set about the monitors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ....envs.configuration import Strict


class InputMonitorSettings(Strict):
    """Is the policy's input like what it was trained on?"""

    score: Literal["mahalanobis", "knn"] = Field(default="knn", description="knn: also for several operating points")
    alpha: PositiveFloat = Field(default=0.001, lt=1.0, description="false-alarm rate of one reading")
    k: PositiveInt = Field(default=3, description="odd readings of the last m until the alarm")
    m: PositiveInt = Field(default=5)


class ResidualMonitorSettings(Strict):
    """Does the plant do what the twin says?"""

    alpha: PositiveFloat = Field(default=0.01, lt=1.0, description="false-alarm rate of one period and asset")
    k: PositiveInt = Field(default=3, description="odd periods of the last m until the alarm")
    m: PositiveInt = Field(default=5)
    adaptation: NonNegativeFloat = Field(default=0.0, description="step of adaptive conformal inference, 0: none")


class DriftMonitorSettings(Strict):
    """Does the shield intervene more often than at commissioning?"""

    factor: PositiveFloat = Field(default=3.0, gt=1.0, description="multiple of the rate that is to be noticed")
    run_length_periods: PositiveFloat = Field(default=1e5, description="between false alarms of an asset, on average")
    least_rate: PositiveFloat = Field(default=0.005, lt=1.0, description="a lower rate counts as this")


class MonitorSettings(Strict):
    """All monitors; each one runs where there is what it needs."""

    robustness_window_periods: PositiveInt = Field(
        default=3, description="hard constraints on measured signals must have held for so long"
    )
    inputs: InputMonitorSettings = Field(default_factory=InputMonitorSettings)
    residual: ResidualMonitorSettings = Field(default_factory=ResidualMonitorSettings)
    drift: DriftMonitorSettings = Field(default_factory=DriftMonitorSettings)
