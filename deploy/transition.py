"""From one period's state to the next: what the plant said, or did not say, that it obeys.

Pure, and shared by the loop and by the replay of its journal, so that both go the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .shield import Shield, ShieldState

OBEYED = "obeyed"
"""Note of a reading: the commands ``[N, A]`` a group that the plant obeys now, NaN where it cannot tell."""

WATCHDOG_TRIPPED = "watchdog_tripped"
"""Note of a reading: the equipment has given up its client and put its commands to neutral."""


def told_commands(telemetry: Any) -> Mapping[str, Any] | None:
    """What a reading says that the plant obeys, None where it says nothing."""
    notes = getattr(telemetry, "notes", None)
    told = notes.get(OBEYED) if isinstance(notes, Mapping) else None
    return told if isinstance(told, Mapping) else None


def observed(shield: Shield, state: ShieldState, telemetry: Any) -> ShieldState:
    """The state before a decision, corrected by what the plant says that it obeys now.

    Others may have commanded it since: a person at its panel, the watchdog, its own time-out. Where it tells nothing
    but that its time-out acted, it obeys its neutral commands.
    """
    told = told_commands(telemetry)
    if told is not None:
        known = {n: np.asarray(told.get(n, np.nan), dtype=np.float64) for n in state.applied}
        same = state.confirmed and all(np.array_equal(known[n], a) for n, a in state.applied.items())
        complete = all(np.isfinite(array).all() for array in known.values())
        return state if same or not complete else shield.accepted(state, known)
    notes = getattr(telemetry, "notes", None)
    if isinstance(notes, Mapping) and notes.get(WATCHDOG_TRIPPED) is True:
        return shield.accepted(state, shield.start().applied)
    return state
