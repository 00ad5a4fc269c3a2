"""The plainest encoder: an asset's own measured signals, scaled by the nameplate's ranges, and nothing of its peers."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..envs.encoder import Array
from ..envs.nameplate import Nameplate


class OwnSignalsEncoder:
    """Features of one group for any site: each signal in [-1, 1] over its range, angles as sine and cosine."""

    name = "own_signals"

    def __init__(self, nameplate: Nameplate, group: str) -> None:
        self.group = group
        self._signals = nameplate.group(group).measured

    @property
    def n_features(self) -> int:
        return len(self._signals) + sum(1 for s in self._signals if s.circular)

    def settings(self) -> dict[str, Any]:
        return {}

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Nothing is remembered."""
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        """Features ``[B, N, F]`` of ``measured`` ``[B, N, O]``; zero where ``present`` ``[B, N]`` is False."""
        xp: Any = np if isinstance(measured, np.ndarray) else sys.modules["torch"]
        columns: list[Array] = []
        for k, signal in enumerate(self._signals):
            share = (measured[..., k, None] - signal.minimum) / (signal.maximum - signal.minimum)
            if signal.circular:
                columns += [xp.sin(2.0 * math.pi * share), xp.cos(2.0 * math.pi * share)]
            else:
                columns.append(xp.clip(2.0 * share - 1.0, -1.0, 1.0))
        features = xp.concatenate(columns, -1)
        return xp.where(present[..., None], features, xp.zeros_like(features)), memory
