"""What a monitor is: something that watches one period after another and says which assets it no longer trusts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from ....envs.plant import Arrays
from ..causes import Cause
from ..decision import BoolArrays

SITE = ""
"""The key of an alarm that is for every asset."""

Memory = Mapping[str, NDArray[Any]]
"""What a monitor remembers: arrays alone, by name, of sizes that never change, so that it is saved and replayed
exactly. A step makes new arrays where it changes them."""

Alarms = dict[str, Cause]
"""Agent name ``group/asset``, or :data:`SITE`, to the cause that modes are told."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to see in one period, before anything is decided; arrays of each group.

    ``measured``: ``[N, O]``, guarded, so finite and in range; ``commands``: ``[N, A]``, what the plant obeys now;
    ``proposed``: ``[N, A]``, what the policy asks for now, not finite where it asks for nothing, None without a policy;
    ``changed``: ``[N]``, whether the shield changed the last proposal; ``prediction``: ``[N, O]``, what the twin
    expected ``measured`` to be, None where there is no twin; ``present``: ``[N]``, whether the asset's own readings can
    be believed; ``clock_s``: the caller's monotonic clock.
    """

    measured: Arrays
    commands: Arrays
    proposed: Arrays | None
    changed: BoolArrays
    prediction: Arrays | None
    present: BoolArrays
    clock_s: float


@runtime_checkable
class Monitor(Protocol):
    """Pure: the same memory and the same ``seen`` give the same answer. An alarm lasts as long as it is raised."""

    @property
    def name(self) -> str: ...

    def start(self) -> Memory:
        """The memory before the first period."""
        ...

    def step(self, memory: Memory, seen: Seen) -> tuple[Memory, Alarms]:
        """The memory after this period, and who is not to be trusted in it."""
        ...
