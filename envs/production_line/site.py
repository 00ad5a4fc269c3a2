"""The production line as the registry sees it; torch and SimPy are imported only where they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..configuration import validate
from ..errors import ConfigurationError, nearest
from ..nameplate import Nameplate
from .analysis.settings import LineDiagnosisSettings
from .config import LineConfig
from .plant_config import LinePlantConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..constraint import Constraint, SafeState
    from ..diagnosis import Diagnosis, History
    from ..encoder import Encoder
    from ..estimation.site import TwinPlan
    from ..plant import Plant
    from ..task import Task
    from ..teacher import Lesson
    from ..twin import Tensors, Twin
    from ..warning import AssetWarning


class ProductionLineSite:
    """Machines, buffers, crews and a power bill."""

    name = "production_line"
    summary = "machines, buffers and crews (batched slotted twin, event-driven plant)"
    config_model = LineConfig
    plant_config_model = LinePlantConfig
    diagnosis_model = LineDiagnosisSettings
    encodes_every_group = True

    def nameplate(self, config: LineConfig) -> Nameplate:
        from .nameplate import line_nameplate

        return line_nameplate(config)

    def twin(self, config: LineConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        from .twin import ProductionLineTwin

        return ProductionLineTwin(config, n_replicas, device=device, dtype=dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("line_profit", "fleet_profit")

    def task(self, name: str, config: LineConfig, options: Mapping[str, Any]) -> Task:
        from .task import LineProfit

        self._known("task", name, self.tasks())
        if name == "fleet_profit":
            from .fleet_task import FleetProfit

            return FleetProfit.from_options(config, options)
        return LineProfit.from_options(config, options)

    def encoders(self) -> tuple[str, ...]:
        return ("neighbours", "levels", "fleet", "crew")

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        from .encoder import NeighbourEncoder, NeighbourSettings
        from .nameplate import CREW

        self._known("encoder", name, self.encoders())
        group = settings.get("group")
        if name in ("fleet", "crew") or group == CREW:
            from .fleet_encoder import CrewEncoder, FleetEncoder, FleetSettings

            own = settings if name in ("fleet", "crew") else {"group": CREW}
            chosen = validate(dict(own), FleetSettings, "encoder.settings")
            of_crew = name == "crew" or group == CREW
            return CrewEncoder(nameplate, chosen) if of_crew else FleetEncoder(nameplate, chosen)
        own = {key: value for key, value in settings.items() if key != "group"}
        if name == "levels":
            from .level_encoder import LevelEncoder, LevelSettings

            return LevelEncoder(nameplate, validate(own, LevelSettings, "encoder.settings"))
        return NeighbourEncoder(nameplate, validate(own, NeighbourSettings, "encoder.settings"))

    def lesson(self, config: LineConfig, task: str, options: Mapping[str, Any], seed: int, n_states: int) -> Lesson:
        """States of a small row of Bernoulli machines and what is best in them (:mod:`twinloop.envs.teacher`)."""
        from .lessons import line_lesson

        if task != "line_profit":
            raise ConfigurationError(f"site {self.name!r}: the best answer is known for task line_profit, not {task!r}")
        return line_lesson(config, options, seed, n_states)

    def plant(self, config: LineConfig, plant_config: LinePlantConfig) -> Plant:
        from .plant import SimPyLine

        return SimPyLine(config, plant_config)

    def live_twin(self, config: LineConfig, plant_config: LinePlantConfig) -> TwinPlan:
        from .tracking import track_line

        return track_line(config, plant_config)

    def prototypes(self, config: LineConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        from .prototypes import LinePrototypes

        return LinePrototypes(config, n_replicas, device=device, dtype=dtype)

    def feasible(self, config: LineConfig, values: Tensors) -> torch.Tensor:
        from .prototypes import feasible_lines

        return feasible_lines(config, values)

    def built(self, config: LineConfig, values: Mapping[str, float]) -> LineConfig:
        from .prototypes import built_line

        return built_line(config, values)

    def diagnose(self, config: LineConfig, history: History | None, settings: LineDiagnosisSettings) -> Diagnosis:
        """Bottleneck, losses and what pays; a history is of a plant, whose controllers time their states."""
        from .analysis.diagnosis import find
        from .analysis.report import LineDiagnosis

        return LineDiagnosis(find(config, history, settings))

    def constraints(self, config: LineConfig) -> tuple[Constraint, ...]:
        from .constraints import line_constraints

        return line_constraints(config)

    def safe_states(self, config: LineConfig) -> Mapping[str, SafeState]:
        from .constraints import line_safe_states

        return line_safe_states(config)

    def warnings(self, nameplate: Nameplate, measured: Mapping[str, NDArray[np.float64]]) -> tuple[AssetWarning, ...]:
        """Machines that may fail before service can be planned (:mod:`twinloop.envs.warning`)."""
        from .warnings import line_warnings

        return line_warnings(nameplate, measured)

    def _known(self, what: str, name: str, allowed: tuple[str, ...]) -> None:
        if name not in allowed:
            raise ConfigurationError(
                f"site {self.name!r} has no {what} {name!r}; it has {', '.join(allowed)}{nearest(name, allowed)}"
            )


SITE = ProductionLineSite()
