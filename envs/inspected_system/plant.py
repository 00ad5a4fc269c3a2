"""The emulated plant: one system with true cracks, and the integrity record that its inspectors keep.

What differs from the twin, on purpose: a crack is a number and not a chance, its constants stay with the component for
its life (the twin's beliefs forget them), findings depend on its very size, and the record's table of growth is counted
from a limited number of paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PlantError
from ..nameplate import Nameplate
from ..plant import Arrays, Quality, Telemetry
from .config import CrackPlantConfig, InspectedSystemConfig
from .crack_world import CrackWorld
from .nameplate import ACTION, COMPONENT, YEAR_S, system_nameplate

EPOCH_UTC_S = 1_735_689_600.0
"""2025-01-01T00:00Z, where the plant's clock starts."""
_LEVELS: NDArray[np.float64] = np.array(ACTION.levels)


class CrackPlant:
    """A running system. ``advance`` lets a year pass; nothing waits. What was written is done once."""

    def __init__(self, config: InspectedSystemConfig, plant_config: CrackPlantConfig) -> None:
        self._config = config
        self._lost_pu = plant_config.lost_reading_pu
        self._nameplate = system_nameplate(config)
        self._world = CrackWorld(config, plant_config, 1)
        self._rng = np.random.default_rng(plant_config.seed + 1)
        self._action = np.zeros((config.components, 1))
        self._sequence = 0

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def clock_s(self) -> float:
        """Emulated UTC, seconds."""
        return EPOCH_UTC_S + self._world.year * YEAR_S

    def truth(self) -> Mapping[str, Any]:
        """What nobody can measure: ``crack_mm`` ``[N]``, and whether the system ``has_failed``."""
        return {"crack_mm": self._world.crack_mm[0].copy(), "has_failed": bool(self._world.has_failed[0])}

    def read(self) -> Telemetry:
        self._sequence += 1
        values = self._world.measured()[0]
        quality = np.zeros(values.shape, dtype=np.int8)
        if self._lost_pu > 0:
            quality[self._rng.random(len(values)) < self._lost_pu] = Quality.BAD
        return Telemetry(
            values={COMPONENT: values},
            source_time_s={COMPONENT: np.full(values.shape, self.clock_s)},
            quality={COMPONENT: quality},
            received_time_s=self.clock_s,
            sequence=self._sequence,
        )

    def write(self, commands: Arrays) -> Arrays:
        given = np.asarray(commands[COMPONENT], dtype=np.float64)
        if given.shape != self._action.shape or not np.isfinite(given).all():
            raise PlantError(
                f"commands of {COMPONENT!r}: {given.shape}, expected finite numbers {self._action.shape}; the commands "
                "before stand"
            )
        self._action = _LEVELS[np.abs(given - _LEVELS).argmin(1)][:, None]
        return {COMPONENT: self._action.copy()}

    def advance(self) -> None:
        self._world.advance(self._action[:, 0].astype(np.int64)[None])
        self._action = np.zeros_like(self._action)

    def close(self) -> None:
        """Nothing is held."""
