"""A plant of which this process commands some assets only: each arm of a cell has a process of its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..envs.errors import ConfigurationError, nearest
from ..envs.nameplate import Nameplate
from ..envs.plant import Arrays, Plant, Telemetry


class OwnAssets:
    """Commands of other assets are left as they are: they go out as NaN, and come back as they were sent.

    ``assets``: agents such as ``arm/arm_1``. Needs a plant that takes NaN for "as it is", as one at a local socket
    does. Everything else is the plant's own.
    """

    def __init__(self, plant: Plant, assets: Collection[str]) -> None:
        self._plant = plant
        self._others = {
            g.name: np.array([f"{g.name}/{name}" not in assets for name in g.assets]) for g in plant.nameplate.groups
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plant, name)

    @property
    def nameplate(self) -> Nameplate:
        return self._plant.nameplate

    @property
    def clock_s(self) -> float:
        """The plant's."""
        return self._plant.clock_s

    def read(self) -> Telemetry:
        return self._plant.read()

    def write(self, commands: Arrays) -> Arrays:
        own = {n: np.where(self._others[n][:, None], np.nan, np.asarray(v, float)) for n, v in commands.items()}
        accepted = self._plant.write(own)
        return {n: np.where(self._others[n][:, None], commands[n], v) for n, v in accepted.items()}

    def advance(self) -> None:
        self._plant.advance()

    def close(self) -> None:
        self._plant.close()


def named_assets(text: str, nameplate: Nameplate) -> frozenset[str]:
    """Agents of a comma-separated list; raises :class:`ConfigurationError` for one that is not on the nameplate."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for asset in found or [""]:
        if asset not in nameplate.agents:
            raise ConfigurationError(
                f"--assets: {asset!r} is not on the nameplate of {nameplate.site}; assets: "
                f"{', '.join(nameplate.agents)}{nearest(asset, nameplate.agents)}"
            )
    return frozenset(found)
