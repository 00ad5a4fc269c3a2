"""What stops cost: the opportunity window, and the production that is lost for good.

A stop costs nothing while what lies between the machine and the bottleneck keeps the bottleneck busy: parts, if the
machine stands before it, free places, if behind. That many over the line's rate is the opportunity window (Chang, Ni,
Bandyopadhyay, Biller & Xiao 2007, J. Manuf. Sci. Eng. 129(3)); what a stop lasts longer is lost at the line's rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .record import LineRecord

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stop:
    """A stop that was measured, in slots; ``window`` as levels were when it began; ``lost`` parts, for good."""

    machine: int
    period: int
    lasted: float
    window: float
    lost: float


def opportunity_windows(before: Floats, room: Floats, bottleneck: int, rate: float) -> Floats:
    """Slots ``[M]`` that each machine of a row may stop for free; ``before``, ``room`` ``[M]``: parts in the buffer
    before it, room in that behind it; ``rate``: parts a slot."""
    found = np.zeros(len(before))
    for i in range(len(before)):
        kept = before[i + 1 : bottleneck + 1].sum() if i < bottleneck else room[bottleneck:i].sum()
        found[i] = kept / max(rate, 1e-9)
    return found


def stops_of(record: LineRecord, bottleneck: int, rate: float) -> list[Stop]:
    """All stops of a row in a record, the dearest first."""
    found = []
    for i in range(len(record.names)):
        down, begins = record.down[:, i], np.flatnonzero(record.stopped[:, i])
        for k, begin in enumerate(begins):
            limit = begins[k + 1] if k + 1 < len(begins) else record.n_periods
            length = int(np.argmax(np.append(down[begin:limit], 0.0) == 0.0))
            lasted = float(down[begin : begin + length].sum())
            at = max(int(begin) - 1, 0)
            window = float(opportunity_windows(record.before[at], record.room[at], bottleneck, rate)[i])
            found.append(Stop(i, int(begin), lasted, window, max(0.0, lasted - window) * rate))
    return sorted(found, key=lambda s: -s.lost)
