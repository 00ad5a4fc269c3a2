"""What an asset does when nothing better is known: hold is not safe for every machine, so each declares its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..nameplate import Group


@dataclass(frozen=True)
class SafeState:
    """``hold``: the commands applied last. ``neutral``: the nameplate's neutral commands. ``values``: these commands,
    as fast as the limits allow. ``ramp_to``: these commands, in a straight line that arrives after ``within_s``.

    ``values``: command by signal name; signals that are not named go to neutral. ``within_s``: the time after which
    the asset must have arrived from anywhere in its range; a promise that the declaration is checked for.
    """

    kind: Literal["hold", "neutral", "values", "ramp_to"] = "neutral"
    values: Mapping[str, float] = field(default_factory=dict)
    within_s: float | None = None

    def target(self, group: Group) -> tuple[float, ...] | None:
        """Command of each signal, ``[A]``; None for ``hold``, which has no place of its own."""
        if self.kind == "hold":
            return None
        named = self.values if self.kind in ("values", "ramp_to") else {}
        return tuple(float(named.get(s.name, s.neutral)) for s in group.commanded)

    def describe(self) -> str:
        """One cell of a table."""
        told = ", ".join(f"{name} {value:g}" for name, value in sorted(self.values.items()))
        where = {"hold": "hold", "neutral": "neutral", "values": told, "ramp_to": f"ramp to {told}"}[self.kind]
        return where if self.within_s is None else f"{where} within {self.within_s:g} s"
