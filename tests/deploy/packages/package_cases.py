"""An artifact, its site and keys, as small as they can be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.artifact import save_artifact
from twinloop.agents.forward import PolicyNetwork
from twinloop.agents.layers import Dense
from twinloop.agents.own_signals import OwnSignalsEncoder
from twinloop.deploy.audit.signing import PrivateKey, load_private, make_keys
from twinloop.deploy.packages.here import Here
from twinloop.deploy.packages.package import build
from twinloop.envs.constraint import Declaration, declaration_of_site
from twinloop.envs.registry import load_site

GROUP = "turbine"


def declaration(**changes: Any) -> Declaration:
    site = load_site("wind_farm")
    return declaration_of_site(site, site.config_model.model_validate({"name": "farm", **changes}))


def make_key(folder: Path) -> PrivateKey:
    make_keys(folder)
    return load_private(folder / "journal.key")


def make_artifact(folder: Path, seed: int = 0) -> Path:
    """A policy of random weights that turns the farm of :func:`declaration` a little."""
    plate = declaration().nameplate
    n = OwnSignalsEncoder(plate, GROUP).n_features
    layers = (
        Dense(np.random.default_rng(seed).normal(size=(1, n, 1)).astype(np.float32), np.zeros((1, 1), np.float32)),
    )
    network = PolicyNetwork(
        feature_mean=np.zeros(n, np.float32),
        feature_std=np.ones(n, np.float32),
        feature_clip=10.0,
        layers=layers,
        layout=ActionLayout.of(plate.group(GROUP), [plate.group(GROUP).commanded[0].name]),
    )
    return save_artifact(
        folder,
        nameplate=plate,
        weights={GROUP: network},
        encoders={},
        scope="site",
        provenance={"seed": seed},
        report={},
    )


def make_package(
    artifact: Path,
    key: PrivateKey,
    release: int = 1,
    name: str = "yaw",
    evaluation: Mapping[str, Any] | None = None,
    **site: Any,
) -> bytes:
    declared = declaration(**site)
    configuration = load_site("wind_farm").config_model.model_validate({"name": "farm", **site})
    return build(
        artifact,
        declaration=declared,
        twin=("wind_farm", configuration),
        name=name,
        release=release,
        key=key,
        evaluation=evaluation,
    )


def here(**site: Any) -> Here:
    declared = declaration(**site)
    return Here(declared.nameplate, declared.hash, "a test")
