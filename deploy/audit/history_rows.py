"""One row of the journal as one row of the history: columns by full signal name.

For a signal ``group/asset/signal`` there are, if it is measured, ``group/asset/signal`` (its value, null for NaN),
``...@quality`` (0 good, 1 uncertain, 2 bad) and ``...@source_time`` (UTC, when its source took it); if it is
commanded, ``...@sent`` and ``...@accepted`` (what the plant said that it obeys, null where it did not answer).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate

Floats = NDArray[np.float64]

VALUE, QUALITY, SOURCE_TIME, SENT, ACCEPTED = "", "@quality", "@source_time", "@sent", "@accepted"
MEASURED_PARTS = {VALUE: "values", QUALITY: "quality", SOURCE_TIME: "source_time_s"}
_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Columns:
    """Where the numbers of a site's rows go: ``names`` in the order of :meth:`numbers`."""

    plate: Nameplate

    @property
    def names(self) -> tuple[str, ...]:
        measured, commanded = self.plate.signal_names("measured"), self.plate.signal_names("commanded")
        parts = [(measured, part) for part in MEASURED_PARTS] + [(commanded, SENT), (commanded, ACCEPTED)]
        return tuple(name + part for names, part in parts for name in names)

    def numbers(self, row: Mapping[str, Any], follower: Mapping[str, Any]) -> Floats:
        """All numbers of a row, NaN where there are none; ``follower`` is the next row, which tells what came of it."""
        telemetry = row.get("telemetry")
        told = telemetry if isinstance(telemetry, Mapping) else {}
        tables = [(told.get(key), "measured") for key in MEASURED_PARTS.values()]
        outcome = row.get("outcome") if row.get("kind") == "missed" else follower.get("previous")
        accepted = outcome.get("accepted") if isinstance(outcome, Mapping) else None
        tables += [(row.get("sent"), "commanded"), (accepted, "commanded")]
        return np.concatenate([self._flat(table, kind) for table, kind in tables])

    def _flat(self, table: Any, kind: str) -> Floats:
        """A table by group as one line, in the order of the full names."""
        parts = []
        for group in self.plate.groups:
            shape = (group.n_assets, len(getattr(group, kind)))
            parts.append(_array(table.get(group.name) if isinstance(table, Mapping) else None, shape).ravel())
        return np.concatenate(parts)


def instant_s(row: Mapping[str, Any], otherwise_s: float) -> float:
    """When a row was, in UTC seconds by the plant's clock, or by ours for a row of no period."""
    found = row.get("plant_time_s", row.get("utc_s"))
    return float(found) if isinstance(found, (int, float)) and 0.0 <= found < 2.5e11 else otherwise_s


def day_of(instant: float) -> str:
    """The day in UTC, ``2026-01-31``."""
    return datetime.fromtimestamp(instant, UTC).date().isoformat()


def one_mode(row: Mapping[str, Any]) -> str | None:
    """The mode that all assets share; "mixed" where they do not, None in a row without a decision."""
    modes = row.get("modes")
    return modes if modes is None or isinstance(modes, str) else "mixed"


def _array(value: Any, shape: tuple[int, int]) -> Floats:
    """An array of a row, one number standing for all; NaN everywhere where it is no such array."""
    try:
        found = np.array(_numbers(value), dtype=np.float64)
        return np.broadcast_to(found, shape) if found.ndim == 0 or found.shape == shape else np.full(shape, math.nan)
    except (TypeError, ValueError):  # what stood there was no array of numbers, and the row says so by a type's name
        return np.full(shape, math.nan)


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return math.nan if value is None else _NUMBERS.get(value, value) if isinstance(value, str) else value
