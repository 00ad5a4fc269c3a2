"""A package, or an artifact without one, as an AAS environment in JSON (metamodel 3.0, IDTA 01001)."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....agents.artifact_files import check_manifest
from ....agents.forward import PolicyNetwork
from ....envs.errors import ArtifactError, ConfigurationError, NameplateError
from ....envs.nameplate import Nameplate
from ..content import ARTIFACT, EVALUATION, LIMITS, NAMEPLATE, TWIN
from ..package import Package
from .elements import Element
from .model_shell import model_shell
from .site_shell import site_shell

_BASE = re.compile(r"[a-z][a-z0-9+.-]*:[^\s<>\"{}|\\^`]*[^\s<>\"{}|\\^`/]")


@dataclass(frozen=True)
class Export:
    """``environment``: the document; ``missing``: what the templates ask for and nobody told, in words."""

    environment: Mapping[str, Any]
    missing: tuple[str, ...]

    @property
    def text(self) -> str:
        return json.dumps(self.environment, indent=1, sort_keys=True, allow_nan=False) + "\n"


def export(
    source: Package | Path, base: str, *, manufacturer: str | None = None, endpoint: str | None = None
) -> Export:
    """Two shells, of the site and of the model, with their submodels.

    ``source``: a package, or an artifact's folder, which knows neither limits nor twin. ``base``: the IRI below which
    the shells' ids are made, of whoever owns the site. Raises :class:`ArtifactError` for an artifact that is not sound,
    and :class:`ConfigurationError` for a ``base`` that can begin no id.
    """
    if not _BASE.fullmatch(base):
        raise ConfigurationError(
            f"--base {base!r}: can begin no id; give an IRI of whoever owns the site, such as https://example.org/twins"
        )
    limits: Mapping[str, Any] | None = None
    twin: Mapping[str, Any] | None = None
    if isinstance(source, Package):
        inside = {n.removeprefix(ARTIFACT): d for n, d in source.members.items() if n.startswith(ARTIFACT)}
        plate = Nameplate.from_dict(source.data(NAMEPLATE))
        limits, twin = source.data(LIMITS), source.data(TWIN)
        policy, version = source.about.policy, str(source.about.release)
        evaluation = source.data(EVALUATION)
        where = source.title
    else:
        policy = check_manifest(Path(source))
        inside = {path.name: path.read_bytes() for path in Path(source).iterdir()}
        plate, version, evaluation, where = None, policy[:12], None, str(source)
    try:
        about = json.loads(inside["artifact.json"])
        plate = plate or Nameplate.from_dict(json.loads(inside["nameplate.json"]))
        report = json.loads(inside.get("report.json", b"{}"))
        networks = {group: _network(inside[f"weights_{group}.npz"]) for group in about["groups"]}
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, NameplateError) as error:
        raise ArtifactError(f"{where}: cannot be read ({type(error).__name__}: {error}); export it again") from error
    if evaluation is not None:
        report = {**report, "evaluation": evaluation}
    site, of_site, missing = site_shell(plate, base, manufacturer, endpoint, limits, twin)
    model, of_model, more = model_shell(plate, base, policy, about, networks, report, version)
    submodels: list[Element] = [*of_site, *of_model]
    return Export({"assetAdministrationShells": [site, model], "submodels": submodels}, (*missing, *more))


def _network(data: bytes) -> PolicyNetwork:
    with np.load(io.BytesIO(data), allow_pickle=False) as named:
        return PolicyNetwork.from_arrays(dict(named))
