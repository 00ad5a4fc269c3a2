"""One period as constraints see it: commands before and now, what was measured after, and the memory that some need.

Arrays are numpy's or torch's, ``[..., N, A]`` commands and ``[..., N, O]`` measurements a group: with a leading ``B``
for a batch of replicas, without for one site.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .declaration import Declaration
from .local import AccelerationConstraint, DwellConstraint, SwitchesConstraint

Arrays = Mapping[str, Any]
HOUR_S = 3600.0


def library(array: Any) -> Any:
    """``numpy`` or ``torch``, whichever the array is of; importing neither."""
    return sys.modules[type(array).__module__.partition(".")[0]]


@dataclass(frozen=True)
class History:
    """Of each command ``[..., N, A]`` a group: its last ``change``, the seconds ``held_s`` that its value has stood,
    and ``n_changes`` in the hour that the next decision ends. At the start nothing has changed for ever."""

    change: Arrays
    held_s: Arrays
    n_changes: Arrays
    window: int = 0
    recent: tuple[Arrays, ...] = field(default=(), repr=False)

    @staticmethod
    def start(declaration: Declaration, applied: Arrays) -> History:
        """The memory before the first period, when ``applied`` stands."""
        zero = {name: x * 0.0 for name, x in applied.items()}
        counts = any(isinstance(c, SwitchesConstraint) for c in declaration.constraints)
        window = math.ceil(HOUR_S / declaration.nameplate.period_s - 1e-9) if counts else 0
        return History(zero, {name: x + math.inf for name, x in zero.items()}, zero, window)

    def after(self, before: Arrays, commands: Arrays, dt_s: float) -> History:
        """The memory once ``commands`` have stood for ``dt_s``; this one stays as it is."""
        change = {name: x - before[name] for name, x in commands.items()}
        moved = {name: x != 0.0 for name, x in change.items()}
        held_s = {name: library(x).where(moved[name], dt_s, x + dt_s) for name, x in self.held_s.items()}
        if not self.window:
            return History(change, held_s, self.n_changes)
        recent = (*self.recent, moved)
        n_changes = {name: self.n_changes[name] + moved[name] for name in moved}
        # Of an hour of `window` decisions the next one is the last, so one less is remembered.
        if len(recent) >= self.window:
            n_changes = {name: n_changes[name] - x for name, x in _as_numbers(recent[0], n_changes).items()}
            recent = recent[1:]
        return History(change, held_s, n_changes, self.window, recent)


def _as_numbers(flags: Arrays, like: Arrays) -> dict[str, Any]:
    return {name: x + 0.0 * like[name] for name, x in flags.items()}


@dataclass(frozen=True)
class Moment:
    """``before``: commands applied until now; ``commands``: from now on, for ``dt_s``; ``measured``: after that.

    ``present``: ``[..., N]`` bool a group, absent: all. ``history``: as it was before ``commands``; needed where
    :func:`needs_history` says so.
    """

    before: Arrays
    commands: Arrays
    measured: Arrays
    dt_s: float
    present: Arrays | None = None
    history: History | None = None


def needs_history(declaration: Declaration) -> bool:
    """Whether a constraint looks further back than the commands applied before."""
    kinds = (AccelerationConstraint, DwellConstraint, SwitchesConstraint)
    return any(isinstance(c, kinds) for c in declaration.constraints)
