"""A plant's YAML: which site, and the plant to run it on.

    site:   {kind: wind_farm, name: ablaincourt, ...}     what the site's configuration model takes
    plant:  {kind: floris, series: day, ...}              what the site's plant configuration model takes

Reading one imports no simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from .configuration import Strict, load_mapping, validate
from .errors import ConfigurationError, UnknownSiteError
from .registry import Site, load_site, site_names


class PlantFile(Strict):
    """Top-level keys of a plant's file; what stands below them is the site's own."""

    site: dict[str, Any]
    plant: dict[str, Any] = Field(default_factory=dict)


def load_plant_file(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Site, BaseModel, BaseModel]:
    """Return the site, its configuration and its plant's configuration.

    ``overrides`` are texts such as ``plant.seed=3``. Raises :class:`ConfigurationError` or :class:`UnknownSiteError`,
    naming file and key.
    """
    file = validate(load_mapping(path, overrides), PlantFile, str(path))
    kind = file.site.get("kind")
    if not isinstance(kind, str):
        raise ConfigurationError(
            f"{path}: site.kind: {kind!r}; needed is the name of an installed site: {', '.join(site_names())}"
        )
    try:
        site = load_site(kind)
    except UnknownSiteError as error:
        raise UnknownSiteError(f"{path}: site.kind: {error}") from error
    return (
        site,
        validate(file.site, site.config_model, f"{path}: site"),
        validate(file.plant, site.plant_config_model, f"{path}: plant"),
    )
