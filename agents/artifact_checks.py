"""Does an artifact fit the plant, the site's code and itself? Asked before any of it may act."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.encoder import Encoder
from ..envs.errors import ArtifactError
from ..envs.nameplate import Group, Nameplate
from .forward import Floats, PolicyNetwork
from .onnx_graph import COMMANDS, FEATURES, LEGAL, MEMORY, NEXT_MEMORY

CHECK_TOLERANCE_PU = 1e-5
"""Largest difference of numpy and onnxruntime that passes, as a share of a command's range; of memory, absolute."""
_N_ROWS, _N_STEPS = 32, 3
_CLEAR = 1e-3
"""Logits nearer to each other than this may be told apart by rounding, so no level is compared there."""


def check_fit(folder: Path, scope: str, own: Nameplate, plant: Nameplate) -> None:
    """Raise ArtifactError for a plant that the policy was not made for, with the signals that differ."""
    interface_only = scope == "interface"
    if interface_only:  # what takes no commands, such as people, a policy neither sees nor acts on
        own, plant = (replace(n, groups=tuple(g for g in n.groups if g.commanded)) for n in (own, plant))
    if own.interface_hash == plant.interface_hash if interface_only else own.hash == plant.hash:
        return
    differences = own.differences(plant, interface_only=interface_only) or ["descriptions, tags or hidden signals only"]
    needs = "a plant with the same signals as" if interface_only else "no other plant than"
    raise ArtifactError(
        f"{folder}: this policy serves {needs} {own.site!r} (here), not {plant.site!r} (there); they differ in: "
        f"{'; '.join(differences)}; use an artifact of this plant, or train one"
    )


def check_widths(folder: Path, group: Group, network: PolicyNetwork, encoder: Encoder) -> None:
    """Raise ArtifactError unless network, encoder and nameplate agree on features, commands, levels and assets."""
    layout = network.layout
    for what, n_network, n_here in (
        ("features", network.n_features, encoder.n_features),
        ("commands", network.n_commands, len(group.commanded)),
    ):
        if n_network != n_here:
            raise ArtifactError(
                f"{folder}: the network of group {group.name!r} has {n_network} {what}, encoder and nameplate here "
                f"have {n_here}; the artifact comes from another version of the site, export it again"
            )
    levels = tuple(group.commanded[column].levels for column in layout.discrete)
    if levels != layout.levels or any(group.commanded[column].levels for column in layout.continuous):
        raise ArtifactError(
            f"{folder}: the network of group {group.name!r} chooses among levels {list(layout.levels)}, the nameplate "
            f"here has {list(levels)}; the artifact comes from another version of the site, export it again"
        )
    check_stacks(folder, group, network)


def check_stacks(folder: Path, group: Group, network: PolicyNetwork) -> None:
    """Raise ArtifactError where a network of separate weights meets another number of assets."""
    if network.n_stacks not in (1, group.n_assets):
        raise ArtifactError(
            f"{folder}: the network of group {group.name!r} has separate weights for {network.n_stacks} assets, this "
            f"site has {group.n_assets}; it serves the very site that it was trained for. Use that site, or train with "
            "shared weights"
        )


def check_forward(folder: Path, group: Group, network: PolicyNetwork, session: Any) -> None:
    """Numpy and onnxruntime must agree on fixed random features, memory and masks before either may act."""
    rng = np.random.default_rng(0)
    n_assets, layout = group.n_assets, network.layout
    graph_memory = memory = rng.uniform(-1.0, 1.0, (_N_ROWS, n_assets, network.n_memory)).astype(np.float32)
    span = np.maximum(group.upper("commanded") - group.lower("commanded"), 1e-30)
    for _ in range(_N_STEPS):
        spread = rng.uniform(-2.0, 2.0, (_N_ROWS, n_assets, network.n_features))
        features = (network.feature_mean + network.feature_std * spread).astype(np.float32)
        legal = _some_legal(rng, (_N_ROWS, n_assets), layout.level_counts)
        try:
            graph, graph_memory = run_graph(session, network, features, graph_memory, legal)
        except Exception as error:  # onnxruntime raises a dozen classes of its own for a graph that does not fit
            raise ArtifactError(f"{folder}: policy_{group.name}.onnx does not take its inputs ({error})") from error
        clear = _margin(network, features, memory, legal) > _CLEAR
        commands, memory = network.forward(features, memory, legal)
        if graph.shape != commands.shape or graph_memory.shape != memory.shape:
            worst = math.inf
        else:
            off = np.abs(graph - commands) / span
            off[..., list(layout.discrete)] *= clear
            worst = float(max(off.max(), np.abs(graph_memory - memory).max(initial=0.0)))
        if not worst <= CHECK_TOLERANCE_PU:
            raise ArtifactError(
                f"{folder}: policy_{group.name}.onnx and weights_{group.name}.npz disagree by {worst:.2g} of the "
                f"command's range, allowed {CHECK_TOLERANCE_PU}; they are not the same network, export it again"
            )


def run_graph(
    session: Any, network: PolicyNetwork, features: Floats, memory: Floats, legal: Floats | None
) -> tuple[Floats, Floats]:
    """Commands ``[B, N, A]`` and new memory ``[B, N, H]`` by onnxruntime; as :meth:`PolicyNetwork.forward`."""
    given = {FEATURES: features}
    if network.n_memory:
        given[MEMORY] = memory
    if network.layout.discrete:
        everything = np.ones((*features.shape[:2], network.layout.n_levels), np.bool_)
        given[LEGAL] = everything if legal is None else legal
    if not network.n_memory:
        return session.run([COMMANDS], given)[0], memory
    commands, after = session.run([COMMANDS, NEXT_MEMORY], given)
    return commands, after


def _some_legal(rng: np.random.Generator, shape: tuple[int, int], level_counts: tuple[int, ...]) -> Floats:
    """Random masks ``[B, N, L]`` with at least one legal level a command."""
    parts = [np.empty((*shape, 0), np.bool_)]
    for n_levels in level_counts:
        flags = rng.random((*shape, n_levels)) < 0.5
        np.put_along_axis(flags, rng.integers(n_levels, size=(*shape, 1)), True, -1)
        parts.append(flags)
    return np.concatenate(parts, -1)


def _margin(network: PolicyNetwork, features: Floats, memory: Floats, legal: Floats) -> Floats:
    """How far the chosen level's logit is ahead of the next, ``[B, N, Kd]``; infinity where one alone is legal."""
    head, _ = network.head(features, memory)
    at, found = len(network.layout.continuous), [np.empty((*features.shape[:2], 0), np.float32)]
    logits = np.where(legal, head[..., at:], np.float32(-np.inf))
    at = 0
    for n_levels in network.layout.level_counts:
        part = np.sort(logits[..., at : at + n_levels], -1)
        found.append(part[..., -1:] - part[..., -2:-1] if n_levels > 1 else np.full_like(part, np.inf))
        at += n_levels
    return np.concatenate(found, -1)
