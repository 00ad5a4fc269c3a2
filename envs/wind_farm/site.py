"""The wind farm as the registry sees it; torch and FLORIS are imported only where they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..configuration import validate
from ..errors import ConfigurationError, nearest
from ..nameplate import Nameplate
from .config import FlorisPlantConfig, RelationalSettings, WindFarmConfig

if TYPE_CHECKING:
    import torch

    from ..constraint import Constraint, SafeState
    from ..encoder import Encoder
    from ..estimation.site import TwinPlan
    from ..plant import Plant
    from ..task import Task
    from ..twin import Tensors, Twin


class WindFarmSite:
    """Turbines that steer their wakes; wakes as in FLORIS' Gauss-curl-hybrid model."""

    name = "wind_farm"
    summary = "turbines that steer their wakes (batched Gauss-curl-hybrid twin, FLORIS plant)"
    config_model = WindFarmConfig
    plant_config_model = FlorisPlantConfig

    def nameplate(self, config: WindFarmConfig) -> Nameplate:
        from .farm import farm_nameplate

        return farm_nameplate(config)

    def twin(self, config: WindFarmConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        from .twin import WindFarmTwin

        return WindFarmTwin(config, n_replicas, device=device, dtype=dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("farm_power",)

    def task(self, name: str, config: WindFarmConfig, options: Mapping[str, Any]) -> Task:
        from .task import FarmPower

        self._known("task", name, self.tasks())
        return FarmPower.from_options(config, options)

    def layouts(self) -> tuple[str, ...]:
        from .layouts import layout_names

        return layout_names()

    def encoders(self) -> tuple[str, ...]:
        return ("relational",)

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        from .relational import RelationalEncoder

        self._known("encoder", name, self.encoders())
        chosen = validate(dict(settings), RelationalSettings, "encoder.settings")
        return RelationalEncoder(nameplate, **chosen.model_dump())

    def plant(self, config: WindFarmConfig, plant_config: FlorisPlantConfig) -> Plant:
        from .plant import FlorisPlant

        return FlorisPlant(config, plant_config)

    def live_twin(self, config: WindFarmConfig, plant_config: FlorisPlantConfig) -> TwinPlan:
        from .tracking import farm_plan

        return farm_plan(config, plant_config)

    def prototypes(self, config: WindFarmConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        from .prototypes import FarmPrototypes

        return FarmPrototypes(config, n_replicas, device=device, dtype=dtype)

    def feasible(self, config: WindFarmConfig, values: Tensors) -> torch.Tensor:
        from .prototypes import feasible_farms

        return feasible_farms(config, values)

    def built(self, config: WindFarmConfig, values: Mapping[str, float]) -> WindFarmConfig:
        from .prototypes import built_farm

        return built_farm(config, values)

    def constraints(self, config: WindFarmConfig) -> tuple[Constraint, ...]:
        from .constraints import farm_constraints

        return farm_constraints(config)

    def safe_states(self, config: WindFarmConfig) -> Mapping[str, SafeState]:
        from .constraints import farm_safe_states

        return farm_safe_states(config)

    def _known(self, what: str, name: str, allowed: tuple[str, ...]) -> None:
        if name not in allowed:
            raise ConfigurationError(
                f"site {self.name!r} has no {what} {name!r}; it has {', '.join(allowed)}{nearest(name, allowed)}"
            )


SITE = WindFarmSite()
