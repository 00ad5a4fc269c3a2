"""The site's own rule for commands when a policy cannot be used, believed no more than a policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.plant import Arrays
from .arrays import numeric
from .compiled import FlatCommands
from .inputs import Guarded

Floats = NDArray[np.float64]
Fallback = Callable[[Arrays], Arrays]
"""From guarded measurements ``[N, O]`` per group to commands ``[N, A]`` per group: no memory, no side effect."""


class SiteFallback:
    """``rule`` None: every asset goes to neutral."""

    def __init__(self, flat: FlatCommands, rule: Fallback | None) -> None:
        self._flat = flat
        self._rule = rule

    def commands(self, guarded: Guarded) -> Floats:
        """The rule's commands ``[n]``; neutral wherever it fails or says nonsense."""
        found = self._flat.neutral.copy()
        if self._rule is None:
            return found
        told: Any
        try:
            told = self._rule({n: v.copy() for n, v in guarded.values.items()})
        except Exception:  # noqa: BLE001 - a fallback that fails is replaced by the simpler one
            told = {}
        for name, part in self._flat.grouped(found).items():
            array = numeric(told.get(name) if hasattr(told, "get") else None, part.shape)
            if not isinstance(array, str):
                part[:] = np.where(np.isfinite(array), array, part)
        return found
