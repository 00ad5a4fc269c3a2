"""The state of a whole site as one row of numbers: what a central critic sees in training, and no policy ever."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agents.action_layout import Float32
from ..envs.nameplate import Group, Nameplate
from ..envs.twin import Readings


class SiteState:
    """Measured and hidden signals of every asset of every group, and whether the asset is there.

    Signals are scaled so that the nameplate's range is [-1, 1]; an absent asset's are zero, whatever the twin says.
    """

    def __init__(self, nameplate: Nameplate) -> None:
        self._scales = {group.name: _scale(group) for group in nameplate.groups}
        self.n_features = sum(g.n_assets * (len(g.measured) + len(g.hidden) + 1) for g in nameplate.groups)
        """``D``, the width of a row."""

    def of(self, readings: Readings) -> Float32:
        """Rows ``[B, D]``: group by group, asset by asset, its signals and then 1 for present or 0."""
        parts: list[Float32] = []
        for name, (middle, half) in self._scales.items():
            measured, hidden, present = (
                tensors[name].numpy(force=True) for tensors in (readings.measured, readings.hidden, readings.present)
            )
            rows = np.empty((*present.shape, middle.size + 1), np.float32)
            np.subtract(np.concatenate([measured, hidden], -1), middle, out=rows[..., :-1], casting="same_kind")
            rows[..., :-1] /= half
            rows[..., -1] = 1.0
            if not present.all():
                rows[~present] = 0.0
            parts.append(rows.reshape(len(rows), -1))
        return np.concatenate(parts, -1)


def _scale(group: Group) -> tuple[NDArray[Any], NDArray[Any]]:
    """Middle and half width of the signals' ranges."""
    lower, upper = (
        np.concatenate([getattr(group, side)("measured"), getattr(group, side)("hidden")])
        for side in ("lower", "upper")
    )
    return ((upper + lower) / 2.0).astype(np.float32), ((upper - lower) / 2.0).astype(np.float32)
