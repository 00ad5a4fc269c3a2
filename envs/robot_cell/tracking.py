"""How a cell is tracked by its live twin: what is measured how well, and what arms may be. No torch here.

Joints, targets, people and obstacles are told by controllers and scanners and are simply taken over; what has to be
learnt is what no sensor shows, how an arm follows its commands: the time constant of its speed. It is learnt from, and
judged by, the arms whose commands are known: all of them, or where the process has a ``seat`` its own alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..estimation.settings import FilterSettings, Prior, SignalError
from ..estimation.site import TwinPlan
from .config import FixedArms, RobotCellConfig
from .guard_settings import Guard
from .nameplate import ARM
from .plant_config import RobotCellPlantConfig

if TYPE_CHECKING:
    from ..estimation.contract import Tracker
    from ..twin import Twin

N_MEMBERS = 32
LAG = "actuator_lag_s"
_LAG_S, _LAG_STD_S = 0.005, 0.005
_SPEED_ERRORS_RADPS = (0.002, 0.002, 0.004, 0.015, 0.012, 0.002)
"""Of the six joints, beside the sensors' noise, found on the MuJoCo plant with a kilogram on its flanges: the light
servos of the wrist swing where the arm turns."""


def track_cell(config: RobotCellConfig, plant: RobotCellPlantConfig) -> TwinPlan:
    """Members as the plant is built, without the guard: they get the commands that came out of it.

    Only joint speeds count: angles follow from them, and all else is taken over.
    """
    if not isinstance(config.arms, FixedArms):
        raise ConfigurationError(
            "live_twin: cells that differ from episode to episode are not tracked; give fixed arms"
        )
    guard = Guard(**{**config.guard.model_dump(), "inside_twin": False})
    members = config.model_copy(update={"guard": guard, "home_spread_rad": 0.0})
    noise = max(plant.speed_noise_radps, 1e-3)
    settings = FilterSettings(
        signals={
            f"{ARM}/dq{j}_radps": SignalError(noise=noise, model_error=error, lag_pu=0.0)
            for j, error in enumerate(_SPEED_ERRORS_RADPS, 1)
        },
        parameters={LAG: Prior(std=_LAG_STD_S, mean=max(config.actuator_lag_s, _LAG_S))},
        memory_s=600.0,
    )
    return TwinPlan(members, settings, N_MEMBERS, _Maker(members))


class _Maker:
    """Makes the tracker of one configuration; imports torch only then."""

    def __init__(self, config: RobotCellConfig) -> None:
        self._config = config

    def __call__(self, twin: Twin, settings: FilterSettings) -> Tracker:
        from .cell_tracker import CellTracker

        return CellTracker(twin, settings, self._config)
