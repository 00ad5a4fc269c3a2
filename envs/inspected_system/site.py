"""The inspected system as the registry sees it; torch and scipy are imported only where they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..configuration import validate
from ..errors import ConfigurationError, nearest
from ..nameplate import Nameplate
from .config import CrackPlantConfig, InspectedSystemConfig

if TYPE_CHECKING:
    import torch

    from ..encoder import Encoder
    from ..plant import Plant
    from ..task import Task
    from ..twin import Twin


class InspectedSystemSite:
    """Components that crack, some of which must work."""

    name = "inspected_system"
    summary = "components that crack: inspect, repair, or bear the risk (belief twin, Monte-Carlo plant)"
    config_model = InspectedSystemConfig
    plant_config_model = CrackPlantConfig

    def nameplate(self, config: InspectedSystemConfig) -> Nameplate:
        from .nameplate import system_nameplate

        return system_nameplate(config)

    def twin(self, config: InspectedSystemConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        from .twin import InspectedSystemTwin

        return InspectedSystemTwin(config, n_replicas, device=device, dtype=dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("inspection_cost",)

    def task(self, name: str, config: InspectedSystemConfig, options: Mapping[str, Any]) -> Task:
        from .task import InspectionCost

        self._known("task", name, self.tasks())
        return InspectionCost.from_options(config, options)

    def encoders(self) -> tuple[str, ...]:
        return ("integrity",)

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        from .encoder import IntegrityEncoder, IntegritySettings

        self._known("encoder", name, self.encoders())
        return IntegrityEncoder(nameplate, validate(dict(settings), IntegritySettings, "encoder.settings"))

    def plant(self, config: InspectedSystemConfig, plant_config: CrackPlantConfig) -> Plant:
        from .plant import CrackPlant

        return CrackPlant(config, plant_config)

    def _known(self, what: str, name: str, allowed: tuple[str, ...]) -> None:
        if name not in allowed:
            raise ConfigurationError(
                f"site {self.name!r} has no {what} {name!r}; it has {', '.join(allowed)}{nearest(name, allowed)}"
            )


SITE = InspectedSystemSite()
