"""A cell of the edge benchmarks: its configuration, and a policy of one arm that is written, not learned.

The policy is a network of two hidden layers, exported as any other: it follows the encoder's motion to the target, and
its motion home while the stall is in one of some bands. Most of its hidden units are drawn and go nowhere, so that it
costs what a learned one does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.action_layout import ActionLayout
from ...agents.artifact import save_artifact
from ...agents.forward import PolicyNetwork
from ...agents.layers import Dense
from ...envs.nameplate import Nameplate
from ...envs.robot_cell.config import People, RobotCellConfig
from ...envs.robot_cell.encoder import ArmEncoder, ArmSettings
from ...envs.robot_cell.nameplate import ARM, MEASURED
from ...envs.robot_cell.plant_config import RobotCellPlantConfig

Bands = Sequence[tuple[float, float]]
YIELDS: tuple[Bands, ...] = (((0.8, 2.3), (4.5, 6.0), (9.0, 11.0)), ((2.6, 4.1), (6.6, 8.1), (13.0, 16.0)))
"""Bands of stall, s, in which an arm goes home; those of two arms lie apart, so that one of them makes way."""
TOOL_M = 0.1
_STEEP = 60.0


def busy_cell(seat: int | None = None, **more: Any) -> RobotCellConfig:
    """Two arms, and two people who walk without rest about a cell that they can reach."""
    people = People(number=(2, 2), distance_m=(1.2, 2.8), speed_mps=(1.0, 1.6), pause_s=(0.0, 0.2))
    return RobotCellConfig(**{"tool_length_m": TOOL_M, "people": people, "seat": seat, **more})


def busy_plant(seed: int, **more: Any) -> RobotCellPlantConfig:
    """Its plant: people come up to the arms several times a minute."""
    return RobotCellPlantConfig(**{"seed": seed, "visits_per_min": 4.0, "visit_m": 1.05, **more})


def ring(n: int, spacing_m: float) -> dict[str, Any]:
    """Arms evenly on a ring, ``spacing_m`` from each to the next, facing its middle."""
    radius = 0.5 * spacing_m / math.sin(math.pi / max(2, n))
    turns = [math.pi + 2.0 * math.pi * k / n for k in range(n)]
    places = [
        {"x_m": radius * math.cos(a), "y_m": radius * math.sin(a), "yaw_deg": math.degrees(a) % 360.0} for a in turns
    ]
    return {"arms": {"kind": "fixed", "places": places}}


def reaching_artifact(
    folder: Path, nameplate: Nameplate, bands: Bands, *, tool_m: float = TOOL_M, width: int = 128, seed: int = 0
) -> Path:
    """The policy of an arm that goes home in ``bands`` of its stall and to its target else."""
    settings = ArmSettings(tool_length_m=tool_m, hints=True)
    encoder = ArmEncoder(nameplate, settings)
    stall = _stall_column(encoder, nameplate)
    n, rng = encoder.n_features, np.random.default_rng(seed)
    group = nameplate.group(ARM)
    layout = ActionLayout.of(group, None).blended(group, encoder.motions, {"reach": (0.0, 1.0), "home": (0.0, 1.0)})

    def drawn(n_in: int, n_out: int) -> NDArray[np.float32]:
        return rng.normal(scale=n_in**-0.5, size=(1, n_in, n_out)).astype(np.float32)

    first, second, head = drawn(n, width), drawn(width, width), np.zeros((1, width, 2), np.float32)
    first_bias, second_bias = np.zeros((1, width), np.float32), np.zeros((1, width), np.float32)
    edges = [(edge, sign) for band in bands for edge, sign in zip(band, (1.0, -1.0), strict=True)]
    first[0, :, : len(edges)] = 0.0
    second[0, :, 0] = 0.0
    for k, (edge_s, sign) in enumerate(edges):  # the sum over edges is 1 in a band and 0 outside
        first[0, stall, k], first_bias[0, k] = _STEEP, -_STEEP * edge_s / (edge_s + settings.usual_s)
        second[0, k, 0] = 0.5 * sign * 2.0 * 3.0
    second_bias[0, 0] = -3.0
    head[0, 0] = (-1.2, 1.2)
    layers = (
        Dense(first, first_bias, "tanh"),
        Dense(second, second_bias, "tanh"),
        Dense(head, np.zeros((1, 2), np.float32)),
    )
    network = PolicyNetwork(np.zeros(n), np.ones(n), 5.0, layers, layout)
    return save_artifact(
        folder,
        nameplate=nameplate,
        weights={ARM: network},
        encoders={ARM: {"name": encoder.name, "settings": encoder.settings()}},
        scope="interface",
        provenance={"written": "reach, and home in bands of the stall"},
        report={},
        site="robot_cell",
    )


def _stall_column(encoder: ArmEncoder, nameplate: Nameplate) -> int:
    """Which feature tells the stall."""
    group = nameplate.group(ARM)
    at = [signal.name for signal in MEASURED].index("stall_s")
    rows, found = np.zeros((1, group.n_assets, len(MEASURED))), list[Any]()
    for stall_s in (0.0, 2.0):
        rows[..., at] = stall_s
        seen, _ = encoder.encode(rows, group.statics_array()[None], np.ones((1, group.n_assets), bool), {}, 0.02)
        found.append(np.asarray(seen)[0, 0])
    return int(np.flatnonzero(found[0] != found[1])[0])
