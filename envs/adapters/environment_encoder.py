"""The observation of somebody else's environment as features, and its action mask as what is legal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from ..configuration import Strict
from ..encoder import Array
from ..nameplate import Nameplate

MASK_PREFIX = "may_"
"""What the names of measured signals begin with that carry an action mask."""


class RawSettings(Strict):
    """Settings of the encoder ``raw``."""

    group: str | None = Field(None, description="whom it serves; absent: the first group")
    identity: bool = Field(False, description="adds which asset of the group it is, one-hot")


class RawEncoder:
    """The observation as it is, without the action mask; zero where nobody is."""

    name = "raw"

    def __init__(self, nameplate: Nameplate, settings: RawSettings) -> None:
        group = nameplate.group(settings.group or nameplate.groups[0].name)
        self.group, self._identity, self._n_assets = group.name, settings.identity, group.n_assets
        self._n_observed = sum(1 for s in group.measured if not s.name.startswith(MASK_PREFIX))
        self._counts = [len(s.levels) for s in group.commanded if s.levels is not None]

    @property
    def n_features(self) -> int:
        return self._n_observed + (self._n_assets if self._identity else 0)

    def settings(self) -> dict[str, Any]:
        return {"group": self.group, "identity": self._identity}

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Nothing is remembered."""
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        """Features ``[B, N, F]`` of ``measured`` ``[B, N, O]``; zero where ``present`` ``[B, N]`` is False."""
        xp = _module(measured)
        seen = measured[..., : self._n_observed]
        if self._identity:
            who = xp.zeros((*seen.shape[:2], self._n_assets), dtype=seen.dtype)
            for k in range(self._n_assets):
                who[:, k, k] = 1.0
            seen = xp.concatenate([seen, who], -1)
        return xp.where(present[..., None], seen, xp.zeros_like(seen)), memory


class MaskedRawEncoder(RawEncoder):
    """The same where the environment says which levels are legal."""

    def legal(self, measured: Array, statics: Array, present: Array) -> Array:
        """``[B, N, L]``: the mask among the measured signals; all levels where it allows none, or nobody is."""
        xp = _module(measured)
        mask = (measured[..., self._n_observed :] > 0.5) | ~present[..., None]
        parts, start = [], 0
        for n in self._counts:
            part = mask[..., start : start + n]
            parts.append(part | ~part.any(-1)[..., None])
            start += n
        return xp.concatenate(parts, -1)


def _module(array: Array) -> Any:
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch
