"""Configuration of the wind-farm site; loading it imports neither torch nor FLORIS.

Where things come from in an episode: ``layout`` and ``inflow`` are drawn from the replica's seed at reset, so one
batch can hold many farms in many winds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..configuration import Strict


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(
            "the first end exceeds the second; give [smallest, largest], and a sector through north as [350, 370]"
        )
    return ends


Angle = Annotated[float, Field(ge=-360, le=720)]
Speed = Annotated[float, Field(gt=0, le=60)]
Share = Annotated[float, Field(ge=0, le=1)]


class NamedLayout(Strict):
    """A layout from the literature; ``twinloop sites wind_farm`` lists the names."""

    kind: Literal["named"] = "named"
    name: str = "row3_5d"


class CoordinateLayout(Strict):
    """Turbine positions in metres, x to the east and y to the north."""

    kind: Literal["coordinates"] = "coordinates"
    x_m: tuple[float, ...]
    y_m: tuple[float, ...]


class RandomLayout(Strict):
    """A new farm for every episode: rows, grids, staggered grids and scattered positions, turned at random."""

    kind: Literal["random"] = "random"
    n_min: PositiveInt = 3
    n_max: PositiveInt = 16
    spacing_min_d: PositiveFloat = Field(3.5, description="smallest distance of two turbines, rotor diameters")
    spacing_max_d: PositiveFloat = Field(8.0, description="largest pitch of the pattern, rotor diameters")
    aligned_share: float = Field(0.0, ge=0, le=1, description="share of farms whose rows nearly face the wind")
    aligned_std_deg: PositiveFloat = Field(2.0, description="how nearly: standard deviation of the angle")

    @model_validator(mode="after")
    def _ordered(self) -> RandomLayout:
        if self.n_min > self.n_max:
            raise ValueError(f"n_min {self.n_min} exceeds n_max {self.n_max}")
        if not 2.0 <= self.spacing_min_d <= self.spacing_max_d:
            raise ValueError(
                f"spacing_min_d {self.spacing_min_d} and spacing_max_d {self.spacing_max_d}: need 2 <= min <= max"
            )
        return self


Layout = Annotated[NamedLayout | CoordinateLayout | RandomLayout, Field(discriminator="kind")]


class Inflow(Strict):
    """Undisturbed wind: drawn per episode from the ranges, then drifting as Ornstein-Uhlenbeck processes.

    A range of equal ends is a constant; zero ``*_std`` switches the drift off.
    """

    wind_speed_mps: Annotated[tuple[Speed, Speed], AfterValidator(_rising)] = (8.0, 8.0)
    wind_direction_deg: Annotated[tuple[Angle, Angle], AfterValidator(_rising)] = (270.0, 270.0)
    turbulence_pu: Annotated[tuple[Share, Share], AfterValidator(_rising)] = (0.06, 0.06)
    speed_drift_std_mps: float = Field(0.0, ge=0)
    speed_drift_time_s: PositiveFloat = 1800.0
    direction_drift_std_deg: float = Field(0.0, ge=0)
    direction_drift_time_s: PositiveFloat = 1800.0
    turbulent: bool = Field(False, description="filtered-noise gusts at each rotor with the inflow's intensity")
    shear_exponent: float = Field(0.12, ge=0, le=0.6)
    air_density_kgpm3: PositiveFloat = 1.225


class Sensors(Strict):
    """Noise per reading and bias per episode, standard deviations."""

    wind_speed_noise_pu: float = Field(0.0, ge=0)
    wind_speed_bias_pu: float = Field(0.0, ge=0)
    vane_noise_deg: float = Field(0.0, ge=0)
    vane_bias_deg: float = Field(0.0, ge=0)
    power_noise_pu: float = Field(0.0, ge=0, description="share of rated power")


class Dynamics(Strict):
    """``steady``: every step is FLORIS' equilibrium. ``dynamic``: wakes travel, yaw drives turn, rotors lag."""

    kind: Literal["steady", "dynamic"] = "steady"
    advection_ratio: float = Field(0.8, gt=0.2, le=1.2, description="speed of a wake over that of the free wind")
    yaw_rate_degps: PositiveFloat = 0.3
    yaw_deadband_deg: float = Field(1.0, ge=0, description="the drive starts above this error, and stops at zero")
    yaw_duty_limit_pu: float = Field(0.1, gt=0, le=1.0, description="share of time the yaw drive may turn")
    yaw_duty_window_s: PositiveFloat = 3600.0
    direction_filter_s: float = Field(60.0, ge=0, description="the yaw controller's low-pass on its own vane")
    power_lag_s: float = Field(6.0, ge=0)
    pitch_rate_degps: PositiveFloat = 8.0
    outage_rate_per_day: float = Field(0.0, ge=0)
    outage_duration_s: PositiveFloat = 3600.0
    aligned_refresh_s: PositiveFloat = Field(60.0, description="how often the hidden aligned power is solved anew")
    floris_rounding: bool = Field(False, description="repeat FLORIS' rounding of abreast turbines; for referee tests")


class FarmLimits(Strict):
    """What the farm as a whole must keep, beyond the turbines' own limits; see constraints.py."""

    power_cap_kw: PositiveFloat | None = Field(None, description="largest sum of the turbines' power set-points")
    power_rise_kw_per_s: PositiveFloat | None = Field(None, description="how fast that sum may rise")
    power_fall_kw_per_s: PositiveFloat | None = Field(None, description="how fast that sum may fall")
    preferred_yaw_deg: PositiveFloat | None = Field(None, description="yaw offsets beyond it only in need (soft)")


class WindFarmConfig(Strict):
    """One wind farm, or a distribution of them."""

    kind: Literal["wind_farm"] = "wind_farm"
    name: str = "wind_farm"
    layout: Layout = NamedLayout()
    turbine: str = Field("nrel_5MW", description="a turbine of FLORIS' library, or the path of a turbine YAML")
    other_turbines: tuple[str, ...] = Field((), description="further types; each episode draws one type for its farm")
    dt_s: PositiveFloat = 10.0
    inflow: Inflow = Inflow()
    sensors: Sensors = Sensors()
    dynamics: Dynamics = Dynamics()
    limits: FarmLimits = FarmLimits()


class RelationalSettings(Strict):
    """Settings of the encoder ``relational``, which :mod:`twinloop.envs.wind_farm.relational` explains."""

    n_downstream: NonNegativeInt = 6
    n_upstream: NonNegativeInt = 4
    reach_d: PositiveFloat = 25.0
    filter_s: float = Field(60.0, ge=0)
    exposure: bool = False


class FlorisPlantConfig(Strict):
    """The emulated farm: FLORIS with its own inflow, wake travel, drives and sensors (see plant.py).

    Limits of the equipment (yaw rate, yaw duty) are the site's, in ``dynamics``; what is here may differ from the twin.
    """

    kind: Literal["floris"] = "floris"
    series: str = Field(
        "day", description="a shipped wind series, the path of a CSV, or 'constant' (middle of inflow's ranges)"
    )
    start_s: float = Field(0.0, ge=0, description="seconds into the series")
    seed: int = Field(0, ge=0, description="of gusts, sensor noise, biases, dropouts and outages")
    gust_share: float = Field(
        0.25, ge=0, le=1, description="share of the turbulence that the whole farm feels as gusts"
    )
    direction_gust_deg: float = Field(
        1.5, ge=0, description="standard deviation of direction inside the series' samples"
    )
    wake_speed_ratio: float = Field(0.9, gt=0.2, le=1.2, description="speed of a wake over that of the free wind")
    n_age_classes: PositiveInt = Field(
        8, description="past instants that FLORIS solves in a period; exact from N turbines on"
    )
    yaw_deadband_deg: float = Field(2.0, ge=0, description="the drive starts above this error, and stops at zero")
    vane_filter_s: float = Field(45.0, ge=0, description="low-pass of the yaw controller on its own vane")
    power_lag_s: float = Field(8.0, ge=0)
    wind_speed_noise_pu: float = Field(0.02, ge=0)
    vane_noise_deg: float = Field(1.5, ge=0)
    vane_bias_deg: float = Field(1.0, ge=0, description="standard deviation of each vane's constant error")
    power_noise_pu: float = Field(0.005, ge=0)
    dropout_pu: float = Field(0.0, ge=0, le=1, description="share of readings that come with bad quality")
    outage_rate_per_day: float = Field(0.0, ge=0, description="mean number of outages a turbine and day")
    outage_duration_s: PositiveFloat = 3600.0
    aligned_refresh_s: PositiveFloat = Field(60.0, description="how often the hidden aligned power is solved anew")
    floris_rounding: bool = Field(False, description="repeat FLORIS' rounding of abreast turbines; for referee tests")
