"""Policies by recipe, so that another process can build them: controllers by name, the look-up table, an artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..envs.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from ..agents.policy import Policy
    from ..envs.nameplate import Nameplate
    from ..envs.wind_farm.config import FlorisPlantConfig, WindFarmConfig
    from ..envs.wind_farm.yaw_optimum import Progress
    from ..envs.wind_farm.yaw_table import YawTable

LUT, ARTIFACT = "lut", "artifact"

TABLE_STEP_DEG = 3.0
TABLE_STEP_MPS = 2.0
_SECTOR_MARGIN_DEG = 12.0
_SPEED_MARGIN_MPS = 1.0
_WIDEST_SECTOR_DEG = 300.0


@dataclass(frozen=True)
class Contestant:
    """One policy of a comparison. ``kind``: a controller's name (:mod:`twinloop.agents.named`), ``lut`` or
    ``artifact``; ``path``: the artifact's folder, or the look-up table's file."""

    kind: str
    path: Path | None = None

    @property
    def name(self) -> str:
        """The name in tables."""
        return "policy" if self.kind == ARTIFACT else self.kind

    def fingerprint(self) -> str:
        """Changes when the policy does: what results are kept under."""
        if self.path is None:
            return self.kind
        file = self.path / "MANIFEST.sha256" if self.kind == ARTIFACT else self.path
        return f"{self.kind}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"

    def build(self, nameplate: Nameplate, seed: int = 0) -> Policy:
        """The policy for a plant; raises :class:`ConfigurationError` when its file is not there, or a controller does
        not fit the plant."""
        from ..agents.controllers import LookUpTable
        from ..agents.named import named_policy

        if self.kind not in (LUT, ARTIFACT):
            return named_policy(self.kind, nameplate, seed)
        if self.path is None:
            raise ConfigurationError(f"policy {self.kind!r} needs a path")
        if self.kind == ARTIFACT:
            from ..agents.artifact import load_artifact

            return load_artifact(self.path, nameplate)
        from ..envs.wind_farm.yaw_table import YawTable

        table = YawTable.load(self.path)
        if table is None:
            raise ConfigurationError(f"{self.path}: no look-up table; build it first")
        return LookUpTable(nameplate, table)


def baselines_for(nameplate: Nameplate, *, has_table: bool) -> tuple[str, ...]:
    """What a site's policy can be compared with: its controllers, and the look-up table where it ``has_table``."""
    from ..agents.named import names_for

    names = names_for(nameplate)
    return (names[0], LUT, *names[1:]) if has_table else names


def parse_baselines(text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Names from ``greedy,lut``; raises :class:`ConfigurationError` with the ``allowed`` ones and the nearest."""
    found: list[str] = []
    for word in (w.strip() for w in text.split(",") if w.strip()):
        if word not in allowed:
            raise ConfigurationError(
                f"--against: {word!r} is no baseline of this site; it has {', '.join(allowed)}{nearest(word, allowed)}"
            )
        if word not in found:
            found.append(word)
    return tuple(found)


@dataclass(frozen=True)
class TableGrid:
    """Conditions that a look-up table covers."""

    directions_deg: tuple[float, ...]
    speeds_mps: tuple[float, ...]
    turbulence_pu: tuple[float, ...]

    @property
    def n_conditions(self) -> int:
        return len(self.directions_deg) * len(self.speeds_mps) * len(self.turbulence_pu)


def full_grid(turbulence_pu: tuple[float, ...] = (0.06, 0.12, 0.18)) -> TableGrid:
    """All directions, from cut-in to where wakes cost no power."""
    return TableGrid(
        tuple(float(d) for d in np.arange(0.0, 360.0, TABLE_STEP_DEG)),
        tuple(float(s) for s in np.arange(4.0, 14.1, TABLE_STEP_MPS)),
        turbulence_pu,
    )


def grid_for(plant: FlorisPlantConfig, config: WindFarmConfig, hours: float) -> TableGrid:
    """The sector, speeds and median turbulence of one stretch of a plant's series, with margins.

    It limits what is computed, not what the controller knows: inside the sector the table is the full one.
    """
    from ..envs.wind_farm.inflow_series import load_series

    if plant.series == "constant":
        inflow = config.inflow
        direction = np.array(inflow.wind_direction_deg, dtype=np.float64)
        speed = np.array(inflow.wind_speed_mps, dtype=np.float64)
        turbulence = float(np.mean(inflow.turbulence_pu))
    else:
        series = load_series(plant.series)
        used = (series.time_s >= plant.start_s - 600.0) & (series.time_s <= plant.start_s + 3600.0 * hours + 600.0)
        used = used if used.any() else np.ones_like(used)
        direction = np.unwrap(series.wind_direction_deg[used], period=360.0)
        speed = series.wind_speed_mps[used]
        turbulence = float(np.median(series.turbulence_pu[used]))
    low, high = direction.min() - _SECTOR_MARGIN_DEG, direction.max() + _SECTOR_MARGIN_DEG
    if high - low > _WIDEST_SECTOR_DEG:
        directions = np.arange(0.0, 360.0, TABLE_STEP_DEG)
    else:
        directions = TABLE_STEP_DEG * np.arange(np.floor(low / TABLE_STEP_DEG), np.ceil(high / TABLE_STEP_DEG) + 1)
    slow, fast = speed.min() - _SPEED_MARGIN_MPS, speed.max() + _SPEED_MARGIN_MPS
    speeds = TABLE_STEP_MPS * np.arange(np.floor(slow / TABLE_STEP_MPS), np.ceil(fast / TABLE_STEP_MPS) + 1)
    speeds = np.clip(speeds, 4.0, 14.0)
    return TableGrid(
        tuple(float(d) for d in directions),
        tuple(float(s) for s in np.unique(speeds)),
        (round(turbulence, 3),),
    )


def table_for(config: WindFarmConfig, grid: TableGrid, file: Path, progress: Progress | None = None) -> YawTable:
    """Build the look-up table, or read it from ``file`` where it was built for the same farm and grid."""
    from ..envs.wind_farm.yaw_optimum import build_table

    return build_table(config, grid.directions_deg, grid.speeds_mps, grid.turbulence_pu, cache=file, progress=progress)
