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


def has_timed_out(telemetry: Any) -> bool:
    """Whether a reading says that the equipment's own time-out has acted."""
    notes = getattr(telemetry, "notes", None)
    return isinstance(notes, Mapping) and notes.get(WATCHDOG_TRIPPED) is True


def answered(
    shield: Shield, before: ShieldState, after: ShieldState, outcome: Mapping[str, Any], accepted: Mapping[str, Any]
) -> ShieldState:
    """The state once it is known what became of the commands of ``after``.

    ``outcome`` is what journals keep: ``written`` True with what the plant ``accepted``, "unknown", or False where
    nothing was sent; ``thrown_away``: the decision came too late or was interrupted, as if it had never been made.
    """
    if outcome.get("thrown_away"):
        return before
    if outcome.get("written") is True:
        return shield.accepted(after, accepted)
    if outcome.get("written") == "unknown":
        return shield.unconfirmed(before, after)
    return shield.unsent(before, after)


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
    if has_timed_out(telemetry):
        return shield.accepted(state, shield.start().applied)
    return state
