"""From what a site obeys to its safe state, step by step, by the limiter of last resort alone.

What is left when the shield cannot be asked: its thread hangs, or its whole process is gone and the watchdog stands in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.constraint import Declaration
from ..envs.plant import Arrays
from .shield.command_memory import CommandMemory
from .shield.compiled import flat_commands
from .shield.local import LocalLimits
from .shield.verification import Verifier

Floats = NDArray[np.float64]


class SafeWalk:
    """Walks all assets of a site; holds no state."""

    def __init__(self, declaration: Declaration) -> None:
        self._nameplate = declaration.nameplate
        self.period_s = declaration.nameplate.period_s
        self._verifier = Verifier(declaration)
        self._flat = flat_commands(declaration.nameplate)
        self._local = LocalLimits(declaration, self._flat)

    def start(self) -> CommandMemory:
        """The memory of somebody who saw nothing before: all stands still, and changed as often as allowed just now.

        So dwells and switches are waited out from here, and no limit is broken by not knowing.
        """
        found = self._local.start()
        return replace(found, held_s=np.zeros_like(found.held_s), changes_s=np.zeros_like(found.changes_s))

    def after(self, memory: CommandMemory, before: Arrays, applied: Arrays) -> CommandMemory:
        """The memory once ``applied``, which followed on ``before``, has stood for a period."""
        return self._local.after(memory, self._flat.flat(before), self._flat.flat(applied), self.period_s)

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

    def allows(self, commands: Arrays, applied: Arrays, memory: Any = None) -> bool:
        """Whether ``commands`` keep every hard limit within a period from ``applied``, ``[N, A]`` a group each."""
        return self._verifier.failures(commands, applied, self.period_s, memory).fine

    def has_arrived(self, applied: Arrays) -> bool:
        """Whether a step of a whole period would change nothing, with nothing to be waited for."""
        aim = self.step(applied, self.period_s, self._local.start())
        return all(np.allclose(applied[name], values) for name, values in aim.items())
