"""FLORIS 4.7 for one farm: the referee of the tests, the physics of the plant, the source of the look-up table.

Costs of one condition with 7 turbines: ``FlorisModel.set`` rebuilds the whole model (21 ms), ``run`` solves it (11 ms).
:class:`FarmSolver` updates the inflow in place instead (0.4 ms) with the same powers to the last bit; the solve hardly
grows with the number of conditions (12 ms for 8).

FLORIS' ``mixed`` operation model refuses a turbine that is yawed *and* limited. ``YAW_DERATING`` composes its two
halves: cosine loss first, then the limit, with thrust reduced in proportion to power, as ``simple-derating`` does. It
equals ``cosine-loss`` without a limit and ``simple-derating`` without yaw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from floris import FlorisModel
from floris.core.turbine.operation_models import POWER_SETPOINT_DEFAULT, BaseOperationModel, CosineLossTurbine
from floris.core.turbine.turbine import TURBINE_MODEL_MAP
from numpy.typing import NDArray

from ..errors import ConfigurationError, ContractError
from .config import WindFarmConfig
from .farm import fixed_layout

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

YAW_DERATING = "twinloop-yaw-derating"
ONE_FARM = "use a layout of kind 'named' or 'coordinates'"


class YawDeratingTurbine(BaseOperationModel):  # type: ignore[misc]  # FLORIS ships no types
    """Cosine loss, then a power limit. Called by FLORIS with its keyword arguments; power in W."""

    @staticmethod
    def power(power_setpoints: FloatArray, **kwargs: Any) -> FloatArray:
        limited: FloatArray = np.minimum(CosineLossTurbine.power(**kwargs), power_setpoints)
        return limited

    @staticmethod
    def thrust_coefficient(power_setpoints: FloatArray, **kwargs: Any) -> FloatArray:
        free: FloatArray = CosineLossTurbine.power(**kwargs)
        share = np.divide(power_setpoints, free, out=np.ones_like(free), where=free > power_setpoints)
        thrust: FloatArray = share * CosineLossTurbine.thrust_coefficient(**kwargs)
        return thrust

    @staticmethod
    def axial_induction(power_setpoints: FloatArray, **kwargs: Any) -> FloatArray:
        thrust = YawDeratingTurbine.thrust_coefficient(power_setpoints, **kwargs)
        cos = np.cos(np.deg2rad(kwargs["yaw_angles"]))
        induction: FloatArray = 0.5 / cos * (1.0 - np.sqrt(1.0 - thrust * cos))
        return induction


def build_model(
    config: WindFarmConfig,
    operation_model: str = "cosine-loss",
    *,
    wind_speeds: Sequence[float] | FloatArray = (8.0,),
    wind_directions: Sequence[float] | FloatArray = (270.0,),
    turbulence: Sequence[float] | FloatArray = (0.06,),
) -> FlorisModel:
    """FLORIS' ``defaults`` with the configured layout, turbine, shear and density, for conditions ``[K]``.

    ``operation_model``: any of FLORIS', or :data:`YAW_DERATING`. Raises :class:`ConfigurationError` for a layout
    that is drawn per episode, and :class:`LayoutError` for one that no farm could have.
    """
    coordinates = fixed_layout(config)
    if coordinates is None:
        raise ConfigurationError(f"layout: kind 'random' is many farms, FLORIS needs one: {ONE_FARM}")
    TURBINE_MODEL_MAP["operation_model"].setdefault(YAW_DERATING, YawDeratingTurbine)
    defaults = FlorisModel.get_defaults()
    is_path = config.turbine.endswith((".yaml", ".yml"))
    turbine = Path(config.turbine).stem if is_path else config.turbine
    defaults["farm"] |= {"layout_x": coordinates[0], "layout_y": coordinates[1], "turbine_type": [turbine]}
    if is_path:
        defaults["farm"]["turbine_library_path"] = str(Path(config.turbine).resolve().parent)
    defaults["flow_field"] |= {
        "wind_speeds": np.asarray(wind_speeds, dtype=np.float64),
        "wind_directions": np.asarray(wind_directions, dtype=np.float64),
        "turbulence_intensities": np.asarray(turbulence, dtype=np.float64),
        "wind_shear": config.inflow.shear_exponent,
        "air_density": config.inflow.air_density_kgpm3,
    }
    model = FlorisModel(defaults)
    if operation_model != model.get_operation_model():
        model.set_operation_model(operation_model)
    return model


@dataclass(frozen=True, eq=False)
class Solution:
    """Equilibrium of K conditions, all ``[K, N]``."""

    power_kw: FloatArray
    rotor_wind_speed_mps: FloatArray
    rotor_turbulence_pu: FloatArray
    thrust_pu: FloatArray


class FarmSolver:
    """One farm solved for a fixed number of conditions at a time, without rebuilding FLORIS."""

    def __init__(self, config: WindFarmConfig, n_conditions: int) -> None:
        self.model = build_model(config, YAW_DERATING)
        self.n_conditions = n_conditions
        self._is_open = False

    def solve(
        self,
        wind_speed_mps: FloatArray,
        wind_direction_deg: FloatArray,
        turbulence_pu: FloatArray,
        yaw_deg: FloatArray,
        power_limit_kw: FloatArray | None = None,
        disabled: BoolArray | None = None,
    ) -> Solution:
        """Solve K conditions: inflow ``[K]``, yaw (FLORIS' sign), limits and outages ``[K, N]``.

        A limit of infinity is no limit. Raises :class:`ContractError` when K is not ``n_conditions``.
        """
        if len(wind_speed_mps) != self.n_conditions:
            raise ContractError(
                f"FLORIS solver: {len(wind_speed_mps)} conditions came, it was made for {self.n_conditions}"
            )
        self._set_inflow(wind_speed_mps, wind_direction_deg, turbulence_pu)
        limit = np.full(yaw_deg.shape, np.inf) if power_limit_kw is None else power_limit_kw
        setpoint = np.where(np.isfinite(limit), 1e3 * limit, POWER_SETPOINT_DEFAULT)
        # set_operation changes its array in place where a turbine is disabled
        self.model.set_operation(yaw_angles=yaw_deg.copy(), power_setpoints=setpoint, disable_turbines=disabled)
        self.model.run()
        return Solution(
            self.model.get_turbine_powers() / 1e3,
            np.array(self.model.turbine_average_velocities),
            np.array(self.model.get_turbine_TIs()),
            np.array(self.model.get_turbine_thrust_coefficients()),
        )

    def _set_inflow(self, speed: FloatArray, direction: FloatArray, turbulence: FloatArray) -> None:
        core = self.model.core
        if not self._is_open:
            self.model.set(wind_speeds=speed, wind_directions=direction, turbulence_intensities=turbulence)
            self._is_open = True
            return
        # What FlorisModel.set does after building a new Core, on the one we have; the order keeps FLORIS' checks.
        core.flow_field.wind_directions = direction
        core.flow_field.wind_speeds = speed
        core.flow_field.turbulence_intensities = turbulence
        core.grid.wind_directions = direction
        core.grid.set_grid()
        core.farm.expand_farm_properties(self.n_conditions, core.grid.sorted_coord_indices)
