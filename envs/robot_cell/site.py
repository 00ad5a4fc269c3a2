"""The robot cell as the registry sees it; torch and MuJoCo are imported only where they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..configuration import validate
from ..errors import ConfigurationError, nearest
from ..nameplate import Nameplate
from .config import RobotCellConfig
from .plant_config import RobotCellPlantConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..constraint import Constraint, SafeState
    from ..encoder import Encoder
    from ..estimation.site import TwinPlan
    from ..plant import Plant
    from ..task import Task
    from ..twin import Twin
    from ..warning import AssetWarning


class RobotCellSite:
    """Arms that share a workspace."""

    name = "robot_cell"
    summary = "six-joint arms that share a workspace (batched kinematic twin, MuJoCo plant)"
    config_model = RobotCellConfig
    plant_config_model = RobotCellPlantConfig

    def nameplate(self, config: RobotCellConfig) -> Nameplate:
        from .nameplate import cell_nameplate

        return cell_nameplate(config)

    def twin(self, config: RobotCellConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        from .twin import RobotCellTwin

        return RobotCellTwin(config, n_replicas, device=device, dtype=dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("reach_stream", "pick_place")

    def task(self, name: str, config: RobotCellConfig, options: Mapping[str, Any]) -> Task:
        from .task import TouchStream

        self._known("task", name, self.tasks())
        return TouchStream.from_options(name, config, options)

    def encoders(self) -> tuple[str, ...]:
        return ("arm",)

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        from .encoder import ArmEncoder, ArmSettings

        self._known("encoder", name, self.encoders())
        return ArmEncoder(nameplate, validate(dict(settings), ArmSettings, "encoder.settings"))

    def plant(self, config: RobotCellConfig, plant_config: RobotCellPlantConfig) -> Plant:
        from .plant import MuJoCoCell

        return MuJoCoCell(config, plant_config)

    def live_twin(self, config: RobotCellConfig, plant_config: RobotCellPlantConfig) -> TwinPlan:
        from .tracking import track_cell

        return track_cell(config, plant_config)

    def constraints(self, config: RobotCellConfig) -> tuple[Constraint, ...]:
        from .constraints import cell_constraints

        return cell_constraints(config)

    def warnings(self, nameplate: Nameplate, measured: Mapping[str, NDArray[np.float64]]) -> tuple[AssetWarning, ...]:
        """Arms that block each other (:mod:`twinloop.envs.warning`)."""
        from .warnings import cell_warnings

        return cell_warnings(nameplate, measured)

    def twin_keeps_constraints(self, config: RobotCellConfig) -> bool:
        """Whether the twin's arms obey the guard, so that nobody has to watch them."""
        return config.guard.inside_twin

    def safe_states(self, config: RobotCellConfig) -> Mapping[str, SafeState]:
        from .constraints import cell_safe_states

        return cell_safe_states(config)

    def _known(self, what: str, name: str, allowed: tuple[str, ...]) -> None:
        if name not in allowed:
            raise ConfigurationError(
                f"site {self.name!r} has no {what} {name!r}; it has {', '.join(allowed)}{nearest(name, allowed)}"
            )


SITE = RobotCellSite()
