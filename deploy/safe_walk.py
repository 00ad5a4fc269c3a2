"""From what a site obeys to its safe state, step by step, by the limiter of last resort alone.

What is left when the shield cannot be asked: its thread hangs, or its whole process is gone and the watchdog stands in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.constraint import Declaration
from ..envs.plant import Arrays
from .shield.verification import Verifier

Floats = NDArray[np.float64]


class SafeWalk:
    """Walks all assets of a site; holds no state."""

    def __init__(self, declaration: Declaration) -> None:
        self._nameplate = declaration.nameplate
        self.period_s = declaration.nameplate.period_s
        self._verifier = Verifier(declaration)

    def step(self, applied: Arrays, elapsed_s: float, memory: Any = None) -> dict[str, Floats]:
        """Commands ``[N, A]`` per group that are one step of ``elapsed_s`` nearer to the safe states.

        ``applied``: what the plant obeys now, NaN where that is unknown; such a command is sent to its safe value at
        once, since no rate can be kept from an unknown place. ``memory``: the last changes and dwells
        (:class:`~.shield.decision.ShieldState`); without it, commands that must look back stand still.
        """
        return {
            g.name: np.array(
                self._verifier.last_resorts(applied, [(g.name, i) for i in range(g.n_assets)], elapsed_s, memory),
                dtype=np.float64,
            ).reshape(g.n_assets, len(g.commanded))
            for g in self._nameplate.groups
        }

    def allows(self, commands: Arrays, applied: Arrays) -> bool:
        """Whether ``commands`` keep every hard limit within a period from ``applied``, ``[N, A]`` a group each."""
        return self._verifier.failures(commands, applied, self.period_s).fine

    def has_arrived(self, applied: Arrays) -> bool:
        """Whether a step of a whole period would change nothing."""
        aim = self.step(applied, self.period_s)
        return all(np.allclose(applied[name], values) for name, values in aim.items())
