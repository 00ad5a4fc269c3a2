"""The effect of a roll-out under way, period by period, from what the plant reads."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays
from .effect import Meter
from .folder import Recheck
from .proposal import Proposal

Floats = NDArray[np.float64]

LEAST_READ = 0.5
"""Share of a window's periods that must be readable, or its effect is not known."""


class Measuring:
    """Windows are those of the stages and then of the measured time, by the plant's time from ``begun_s`` on."""

    def __init__(self, proposal: Proposal, recheck: Recheck, nameplate: Nameplate, begun_s: float) -> None:
        self._meter = Meter(nameplate, proposal.gain.signal, proposal.gain.references)
        self._windows = recheck.windows
        self._begun_s, self._period_s = begun_s, nameplate.period_s
        self._stage_s, self._n_stages = proposal.stage_s, len(proposal.stages)
        self._measure_s = proposal.measure_s
        n = self._n_stages + 1
        self._sums = np.zeros((n, 1 + len(proposal.gain.references)))
        self._counts = np.zeros(n, dtype=np.int64)

    def window_of(self, now_s: float) -> int | None:
        """In which window a reading of ``now_s`` counts: the one whose commands led to it."""
        passed_s = now_s - self._begun_s
        if passed_s < 0.5 * self._period_s:
            return None
        before_s = passed_s - 0.5 * self._period_s
        rolled_s = self._n_stages * self._stage_s
        if before_s < rolled_s:
            return int(before_s / self._stage_s)
        return self._n_stages if before_s < rolled_s + self._measure_s else None

    def read(self, now_s: float, values: Arrays, trusted: Mapping[str, NDArray[np.bool_]]) -> None:
        """Take a reading in; one that is not whole and believed is left out."""
        window = self.window_of(now_s)
        if window is None or not self._meter.can_read(trusted):
            return
        found = self._meter(values)
        if np.isfinite(found).all():
            self._sums[window] += found
            self._counts[window] += 1

    def effect(self, window: int) -> float | None:
        """The mean effect over a window; None where too little of it could be read."""
        length_s = self._stage_s if window < self._n_stages else self._measure_s
        needed = max(1, math.ceil(LEAST_READ * length_s / self._period_s - 1e-9))
        if self._counts[window] < needed:
            return None
        mean = self._sums[window] / self._counts[window]
        return self._windows[window].effect(float(mean[0]), mean[1:].tolist())
