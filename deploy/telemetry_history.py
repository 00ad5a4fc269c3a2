"""The telemetry of a journal's last run as arrays, for whoever looks back on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..envs.diagnosis import History
from ..envs.errors import ConfigurationError, JournalError
from ..envs.nameplate import Nameplate
from ..envs.plant import Quality
from .journal import rows
from .live_stretch import SpanReader
from .live_twin import Span


def history_of(path: Path, nameplate: Nameplate) -> History:
    """The periods of a journal's last run, without the reading it began with, which ends no period of it.

    Raises :class:`JournalError` where there is no journal or no period, :class:`ConfigurationError` where the run was
    on another plant than ``nameplate``'s.
    """
    spans, began, reader = list[Span](), False, SpanReader(nameplate)
    for row in rows(path):
        if row.get("kind") == "start":
            _same_plant(path, row, nameplate)
            spans, began, reader = [], False, SpanReader(nameplate)
        span = reader.take(row)
        if span is not None and span.telemetry is not None and began:
            spans.append(span)
        began = began or row.get("kind") == "decision"
    if not spans:
        raise JournalError(f"{path}: its last run has no period with a reading; run longer")
    measured, good, obeyed = {}, {}, {}
    for group in nameplate.groups:
        g = group.name
        shape = (group.n_assets, len(group.measured))
        read = [_shaped(s.telemetry.values.get(g), shape, np.nan) for s in spans if s.telemetry is not None]
        quality = [_shaped(s.telemetry.quality.get(g), shape, Quality.BAD) for s in spans if s.telemetry is not None]
        measured[g] = np.array(read)
        good[g] = (np.array(quality) != Quality.BAD) & np.isfinite(measured[g])
        obeyed[g] = np.array([s.accepted[g] for s in spans])
    return History(np.array([s.time_s for s in spans]), measured, good, obeyed)


def _same_plant(path: Path, start: dict[str, Any], nameplate: Nameplate) -> None:
    if start.get("nameplate_hash") != nameplate.hash:
        raise ConfigurationError(
            f"{path}: the run was on another plant, {start.get('site')!r} with nameplate "
            f"{str(start.get('nameplate_hash'))[:12]}, the file's is {nameplate.hash[:12]}; give the plant's file of "
            "that run, with its overrides"
        )


def _shaped(told: Any, shape: tuple[int, int], instead: float) -> Any:
    """An array of a reading, or one full of ``instead`` where the reading had something else there."""
    try:
        array = np.asarray(told, dtype=np.float64)
    except (TypeError, ValueError):
        return np.full(shape, instead)
    return array if array.shape == shape else np.full(shape, instead)
