"""How a farm is tracked by its live twin: what is measured how well, and what wind and wakes may be.

Wind goes where it likes: the members' drift is nearly a random walk, so that the wind of the next hours is not held
to the one that was found in the first. Its steps in a minute (0.14 m/s, 1.2 deg) are those of the measured series that
ship with the site, gusts of the whole farm among them. The errors of model were found against the FLORIS plant in
measured wind, see docs/live_twin.md.
"""

from __future__ import annotations

from ..estimation.settings import FilterSettings, Prior, SignalError
from ..estimation.site import TwinPlan
from .config import FlorisPlantConfig, Inflow, Sensors, WindFarmConfig
from .nameplate import GROUP
from .turbine import load_turbine

N_MEMBERS = 64


def farm_plan(config: WindFarmConfig, plant: FlorisPlantConfig) -> TwinPlan:
    """Members in all winds that turbines run in; noise as the plant's sensors have it, model errors beside it."""
    rated_kw = load_turbine(config.turbine).rated_power_kw
    members = config.model_copy(
        update={
            "inflow": Inflow(
                wind_speed_mps=(4.0, 14.0),
                wind_direction_deg=(0.0, 360.0),
                turbulence_pu=(0.04, 0.20),
                speed_drift_std_mps=3.0,
                speed_drift_time_s=55_000.0,
                direction_drift_std_deg=40.0,
                direction_drift_time_s=133_000.0,
                shear_exponent=config.inflow.shear_exponent,
                air_density_kgpm3=config.inflow.air_density_kgpm3,
            ),
            "sensors": Sensors(),
            "dynamics": config.dynamics.model_copy(update={"kind": "dynamic", "outage_rate_per_day": 0.0}),
        }
    )
    settings = FilterSettings(
        signals={
            f"{GROUP}/power_kw": SignalError(
                noise=max(plant.power_noise_pu, 0.002) * rated_kw, model_error=0.015 * rated_kw
            ),
            f"{GROUP}/wind_speed_mps": SignalError(noise=max(10.0 * plant.wind_speed_noise_pu, 0.05), model_error=0.2),
            f"{GROUP}/wind_direction_deg": SignalError(
                noise=max((plant.vane_noise_deg**2 + plant.vane_bias_deg**2) ** 0.5, 0.5), model_error=0.3
            ),
        },
        parameters={"expansion_turbulence": Prior(std=0.08), "expansion_offset": Prior(std=0.002)},
    )
    return TwinPlan(members, settings, N_MEMBERS)
