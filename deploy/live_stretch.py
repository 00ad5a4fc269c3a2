"""The stretch of the past that a journal holds, as the live twin takes it for a recalibration."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.nameplate import Nameplate
from ..envs.plant import Arrays, Telemetry
from .journal import rows
from .live_twin import Span
from .replay import telemetry_of
from .transition import told_commands


def stretch_of(path: Path, nameplate: Nameplate, most_periods: int = 720) -> list[Span]:
    """The last periods of a journal's last run, oldest first: what the plant obeyed, and what it then measured.

    What it obeyed is what its reading says, else what it accepted of the decision before. Raises
    :class:`~twinloop.envs.errors.JournalError` where there is no journal.
    """
    found: deque[Span] = deque(maxlen=most_periods)
    obeyed: Arrays | None = None
    for row in rows(path):
        kind = row.get("kind")
        if kind == "start":
            found.clear()
            obeyed = _commands(row.get("applied"), nameplate)
        elif kind == "decision":
            telemetry = telemetry_of(row["telemetry"], nameplate)
            reading = telemetry if isinstance(telemetry, Telemetry) else None
            told = _commands(told_commands(reading), nameplate)
            previous = row["previous"] if isinstance(row["previous"], Mapping) else {}
            obeyed = told or _commands(previous.get("accepted"), nameplate) or obeyed
            if obeyed is not None and isinstance(row["plant_time_s"], (int, float)):
                found.append(Span(float(row["plant_time_s"]), obeyed, reading))
        elif kind == "missed":
            outcome = row["outcome"] if isinstance(row["outcome"], Mapping) else {}
            obeyed = _commands(outcome.get("accepted"), nameplate) or obeyed
    return list(found)


def _commands(told: Any, nameplate: Nameplate) -> Arrays | None:
    """Finite commands of all groups, or None."""
    found = {}
    for group in nameplate.groups:
        raw = told.get(group.name) if isinstance(told, Mapping) else None
        try:
            array = np.array(raw, dtype=np.float64)
        except (TypeError, ValueError):
            return None
        if array.shape != (group.n_assets, len(group.commanded)) or not np.isfinite(array).all():
            return None
        found[group.name] = array
    return found
