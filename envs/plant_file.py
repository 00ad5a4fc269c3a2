"""A plant's YAML: which site, and the plant to run it on.

    site:   {kind: wind_farm, name: ablaincourt, ...}     what the site's configuration model takes
    plant:  {kind: floris, series: day, ...}              what the site's plant configuration model takes
    live_twin: {members: 64, ...}                         optional: how it is tracked, see docs/live_twin.md

Reading one imports no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from .configuration import Strict, load_mapping, validate
from .errors import ConfigurationError, UnknownSiteError, located
from .registry import Site, load_site, site_names


class PlantFile(Strict):
    """Top-level keys of a plant's file; what stands below them is the site's own."""

    site: dict[str, Any]
    plant: dict[str, Any] = Field(default_factory=dict)
    live_twin: dict[str, Any] = Field(default_factory=dict, description="read by `twinloop twin` alone")


def load_plant_file(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Site, BaseModel, BaseModel]:
    """Return the site, its configuration and its plant's configuration.

    ``overrides`` are texts such as ``plant.seed=3``. Raises :class:`ConfigurationError` or :class:`UnknownSiteError`,
    naming file and key.
    """
    return plant_of(load_mapping(path, overrides), str(path))


def plant_of(data: Mapping[str, Any], where: str) -> tuple[Site, BaseModel, BaseModel]:
    """As :func:`load_plant_file`, of a mapping that has been read; errors begin with ``where``."""
    file = validate(data, PlantFile, where)
    kind = file.site.get("kind")
    if not isinstance(kind, str):
        raise ConfigurationError(
            f"{where}: site.kind: {kind!r}; needed is the name of an installed site: {', '.join(site_names())}"
        )
    try:
        site = load_site(kind)
    except UnknownSiteError as error:
        raise UnknownSiteError(f"{where}: site.kind: {error}") from error
    site_config = validate(file.site, site.config_model, f"{where}: site")
    plant_config = validate(file.plant, site.plant_config_model, f"{where}: plant")
    with located(f"{where}: site"):
        site.nameplate(site_config)  # what only the site can tell, such as an unknown layout
    return site, site_config, plant_config
