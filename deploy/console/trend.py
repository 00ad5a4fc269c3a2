"""The last minutes of every signal, in memory, for trends and for where a value usually lies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sheet import Sheet

Floats = NDArray[np.float64]

SPAN_S = 600.0
_FEWEST, _MOST = 300, 6000
_ENOUGH = 30
_USUAL_PERCENT = (5.0, 95.0)


class Trend:
    """A ring of the last ten minutes of what is measured, and sent, ``[K, signals]``; NaN where nothing was."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        length = min(max(math.ceil(SPAN_S / sheet.period_s), _FEWEST), _MOST)
        names = [f"measured:{n}" for n in sheet.nameplate.signal_names("measured")]
        names += [f"sent:{n}" for n in sheet.nameplate.signal_names("commanded")]
        self._column = {name: i for i, name in enumerate(names)}
        self._times = np.full(length, np.nan)
        self._values = np.full((length, len(names)), np.nan, dtype=np.float32)
        self._n = 0

    def add(self, state: Mapping[str, Any]) -> None:
        """Take one state."""
        utc_s = state.get("utc_s")
        if not isinstance(utc_s, (int, float)):
            return
        row = self._n % len(self._times)
        self._times[row] = utc_s
        self._values[row] = np.nan
        place = 0
        for what, kind in (("measured", "measured"), ("sent", "commanded")):
            for group in self.sheet.nameplate.groups:
                found = (state.get("groups") or {}).get(group.name, {}).get(what) or {}
                signals = getattr(group, kind)
                block = self._values[row, place : place + group.n_assets * len(signals)]
                for i, signal in enumerate(signals):
                    column = found.get(signal.name)
                    if isinstance(column, list) and len(column) == group.n_assets:
                        block[i :: len(signals)] = [v if isinstance(v, (int, float)) else np.nan for v in column]
                place += group.n_assets * len(signals)
        self._n += 1

    def series(self, name: str) -> tuple[list[float], list[float | None]]:
        """UTC seconds and values of ``measured:group/asset/signal`` or ``sent:...``, oldest first, None for a gap."""
        order = self._order()
        values = self._values[order, self._column[name]].astype(np.float64)
        return self._times[order].tolist(), [v if math.isfinite(v) else None for v in values.tolist()]

    def knows(self, name: str) -> bool:
        return name in self._column

    def usual(self, name: str) -> tuple[float, float] | None:
        """Between which values nine tenths of the last ten minutes were; None while they are too few to say."""
        values = self._values[self._order(), self._column[name]]
        values = values[np.isfinite(values)]
        if len(values) < _ENOUGH:
            return None
        low, high = np.percentile(values.astype(np.float64), _USUAL_PERCENT)
        return float(low), float(high)

    def _order(self) -> NDArray[np.intp]:
        length = len(self._times)
        if self._n <= length:
            return np.arange(self._n)
        return (np.arange(length) + self._n) % length
