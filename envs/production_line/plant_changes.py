"""The word that something has changed at the emulated line, for which its machines and its crews wait."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

Events = Generator[simpy.Event, Any, None]
"""What a process of the line waits for, one after another."""


class Changes:
    """``next``: the event that something changes; who has waited for it looks again at what he needs."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self.next = env.event()

    def tell(self) -> None:
        """Wake everybody who waits for something to change."""
        changed, self.next = self.next, self._env.event()
        changed.succeed()
