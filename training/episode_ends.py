"""What was seen last where something ended that is still to be valued: an episode at its horizon, an asset's part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import Float32
from ..envs.twin import Readings
from .rollout_batch import Flags


class EpisodeEnds:
    """In order: ``[e, 2]`` step and replica, features ``[e, N, F]`` a group, site states ``[e, D]``."""

    def __init__(self) -> None:
        self.index: list[NDArray[np.int64]] = []
        self.features: list[dict[str, Float32]] = []
        self.states: list[Float32] = []

    def add(self, t: int, rows: Flags, features: Mapping[str, Float32], states: Float32 | None) -> None:
        """Keep ``rows`` ``[B]`` of the features and states of all replicas after step ``t``."""
        at = np.flatnonzero(rows)
        self.index.append(np.stack([np.full(at.size, t), at], 1))
        self.features.append({name: array[rows].copy() for name, array in features.items()})
        if states is not None:
            self.states.append(states[rows])


def rows_with(cut: Mapping[str, Flags]) -> Flags | None:
    """Replicas ``[B]`` in which somebody was cut; None where nobody was."""
    rows = [flags.any(axis=1) for flags in cut.values()]
    if not any(r.any() for r in rows):
        return None
    found: Flags = np.logical_or.reduce(rows)
    return found


def seen_last(after: Readings, cut: Mapping[str, Flags]) -> Readings:
    """``after`` as if those who were cut, ``[B, N]`` a group, were still there."""
    present = dict(after.present)
    for name, flags in cut.items():
        present[name] = present[name] | torch.from_numpy(flags).to(present[name].device)
    return replace(after, present=present)
