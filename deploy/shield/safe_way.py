"""The way of each asset to its own safe state: hold, neutral, values at once, or a straight line in a given time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Declaration
from .compiled import FlatCommands

Floats = NDArray[np.float64]


class SafeWay:
    """The safe states of one declaration."""

    def __init__(self, declaration: Declaration, flat: FlatCommands) -> None:
        self._asset = flat.asset
        target: list[float] = []
        within: list[float] = []
        for group in declaration.nameplate.groups:
            for asset in group.assets:
                state = declaration.safe_states[f"{group.name}/{asset}"]
                there = state.target(group)
                target += [np.nan] * len(group.commanded) if there is None else list(there)
                within.append(state.within_s if state.kind == "ramp_to" and state.within_s is not None else 0.0)
        self.target = np.array(target, dtype=np.float64)
        """``[n]``, NaN where an asset holds."""
        self._within_s = np.array(within, dtype=np.float64)
        self._ramps = bool(self._within_s.any())

    def toward(self, applied: Floats, landing_s: Floats | None, elapsed_s: float) -> Floats:
        """Where commands ``[n]`` are to be after this period, from ``applied`` ``[n]``.

        ``landing_s``: ``[agents]``, how long each asset has been on its way, None before the first period of it. A ramp
        goes the remaining way in the remaining time, which is a straight line from wherever it began.
        """
        goal = np.where(np.isnan(self.target), applied, self.target)
        if not self._ramps:
            return goal
        spent = 0.0 if landing_s is None else landing_s
        remaining = self._within_s - spent
        share = np.where(remaining > elapsed_s, elapsed_s / np.where(remaining > 0, remaining, 1.0), 1.0)
        return np.asarray(applied + share[self._asset] * (goal - applied))
