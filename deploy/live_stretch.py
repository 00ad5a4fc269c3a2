"""A journal as the live twin takes it: what the plant obeyed in each period, and what it then measured."""

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


class SpanReader:
    """Rows one after the other, a period each; ``obeyed`` is what the plant obeys from the last row on, if it is known.

    What it obeyed is what its reading says, else what it accepted of the decision before, which the next row tells.
    """

    def __init__(self, nameplate: Nameplate, obeyed: Arrays | None = None) -> None:
        self._nameplate = nameplate
        self.obeyed = obeyed

    def take(self, row: Mapping[str, Any]) -> Span | None:
        """The period that a row ends; None for a row that ends none, or in which nothing is known of the plant."""
        kind = row.get("kind")
        if kind == "start":
            self.obeyed = commands_of(row.get("applied"), self._nameplate)
        elif kind == "decision":
            return self._decided(row)
        elif kind == "missed":
            outcome = row.get("outcome")
            accepted = outcome.get("accepted") if isinstance(outcome, Mapping) else None
            self.obeyed = commands_of(accepted, self._nameplate) or self.obeyed
        return None

    def _decided(self, row: Mapping[str, Any]) -> Span | None:
        telemetry = telemetry_of(row.get("telemetry"), self._nameplate)
        reading = telemetry if isinstance(telemetry, Telemetry) else None
        told = commands_of(told_commands(reading), self._nameplate)
        previous = row.get("previous")
        accepted = previous.get("accepted") if isinstance(previous, Mapping) else None
        self.obeyed = told or commands_of(accepted, self._nameplate) or self.obeyed
        time_s = row.get("plant_time_s")
        if self.obeyed is None or not isinstance(time_s, (int, float)):
            return None
        return Span(float(time_s), self.obeyed, reading)


def stretch_of(path: Path, nameplate: Nameplate, most_periods: int = 720) -> list[Span]:
    """The last periods of a journal's last run, oldest first: what the plant obeyed, and what it then measured.

    Raises :class:`~twinloop.envs.errors.JournalError` where there is no journal.
    """
    found: deque[Span] = deque(maxlen=most_periods)
    reader = SpanReader(nameplate)
    for row in rows(path):
        if row.get("kind") == "start":
            found.clear()
        span = reader.take(row)
        if span is not None:
            found.append(span)
    return list(found)


def commands_of(told: Any, nameplate: Nameplate) -> Arrays | None:
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
