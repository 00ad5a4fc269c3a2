"""What of a plant is assimilated, how sure it is, and what is not known about the twin before."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ..configuration import Strict


class SignalError(Strict):
    """Standard deviations in the signal's unit; their squares add.

    ``noise`` is the sensor's. ``model_error`` is how far a twin that is right in all that it can be set to still is
    from the plant in one period: too small, and the ensemble grows sure of what is wrong. How long it lasts says what
    is left of it in a mean over many periods; the defaults are those of a wind farm's twin against FLORIS.
    """

    noise: PositiveFloat
    model_error: NonNegativeFloat = 0.0
    lag_pu: float = Field(0.5, ge=0.0, lt=1.0, description="share of the model error that is left after a period")
    stays_pu: float = Field(0.1, ge=0.0, le=1.0, description="share of its variance that is never gone")

    @property
    def variance(self) -> float:
        return self.noise**2 + self.model_error**2


class Prior(Strict):
    """What is known of a parameter before: normal, cut at the parameter's bounds. ``mean`` None: the twin's value."""

    std: PositiveFloat
    mean: float | None = None


class FilterSettings(Strict):
    """An ensemble filter. ``signals`` by ``group/signal``; what is not named mixes nothing."""

    signals: dict[str, SignalError] = Field(min_length=1)
    parameters: dict[str, Prior] = Field(
        default_factory=dict, description="parameters that are estimated; all others stay as the twin has them"
    )
    memory_s: PositiveFloat = Field(
        86_400.0, description="time in which a parameter's spread goes back to its prior where nothing is learnt of it"
    )
    method: Literal["deterministic", "stochastic", "square_root"] = "deterministic"
    inflation: float = Field(1.0, ge=1.0, le=2.0, description="of all anomalies at each analysis")
    outlier_sigma: PositiveFloat = Field(
        6.0, description="a value this far from its forecast is left out, unless over a quarter of them are"
    )
    seed: int = Field(0, ge=0, description="of the members' prior, noise and walks")
    most_periods_at_once: PositiveInt = Field(
        720, description="periods without a reading that are stepped through; after more, start anew"
    )
