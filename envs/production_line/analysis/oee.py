"""Key figures of machines by ISO 22400-2's names, from what the record has.

Availability = actual production time / planned busy time; effectiveness = planned run time per item x produced quantity
/ actual production time; quality ratio = good quantity / produced quantity; OEE index = their product. Planned busy
time is all time on record in which a machine was on and warm; production time that in which it neither waited nor
stood. Parts are not inspected here, so that the quality ratio is not measured, and the OEE index holds for a ratio of
one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .record import LineRecord

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class KeyFigures:
    """``[M]`` each; NaN where there is nothing to measure. Shares of planned busy time: ``availability``, ``blocked``,
    ``starved``, ``down``; ``effectiveness`` and ``oee``; ``rate``, parts a slot; mean time to repair, and of operation
    between failures, in slots."""

    availability: Floats
    effectiveness: Floats
    oee: Floats
    blocked: Floats
    starved: Floats
    down: Floats
    rate: Floats
    repair_slots: Floats
    between_slots: Floats


def key_figures(record: LineRecord, efficiency: Floats) -> KeyFigures:
    """Of a record. Where it counts slots in which a machine would have processed, ``efficiency`` ``[M]`` tells how long
    it waited in all."""
    busy = _or_nan(record.slots * record.valid.sum(0).astype(np.float64))
    waits = efficiency if record.counting == "draws" else np.ones_like(efficiency)
    blocked, starved = record.blocked.sum(0) / waits, record.starved.sum(0) / waits
    down, parts, stops = record.down.sum(0), record.parts.sum(0), record.stopped.sum(0).astype(np.float64)
    produced = np.maximum(busy - blocked - starved - down, 0.0)
    return KeyFigures(
        produced / busy, parts / _or_nan(produced), parts / busy, blocked / busy, starved / busy, down / busy,
        parts / busy, down / _or_nan(stops), produced / _or_nan(stops),
    )  # fmt: skip


def _or_nan(values: Floats) -> Floats:
    return np.where(values > 0, values, np.nan)
