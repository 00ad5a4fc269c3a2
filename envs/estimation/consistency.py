"""Does an ensemble know how wrong it is? Measures over the last periods, and the gate that they open or close.

A twin whose spread does not tell its error promises intervals that nothing stands behind. So before anything is
proposed from it, two measures must be inside their bands: the normalised innovation squared, whose mean is one a
degree of freedom, and the share of observations inside the predicted 95 % interval.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the gate judges numbers, and needs no torch for it
    from .ensemble import Tensor

INTERVAL = 0.95
_TWO_SIDED = 1.959963984540054  # standard normal quantile of (1 + INTERVAL) / 2


def covered(seen: Tensor, observed: Tensor, noise: Tensor) -> Tensor:
    """Bool ``[K]``: whether each of ``observed`` ``[K]`` is inside the 95 % interval that members ``seen`` ``[B, K]``
    and the observation's variances ``noise`` ``[K]`` predict together."""
    spread = (seen.var(0) + noise).sqrt()
    return (observed - seen.mean(0)).abs() <= _TWO_SIDED * spread


@dataclass(frozen=True)
class Band:
    """Where the measures must be: NIS a degree of freedom, and coverage.

    Independent errors a factor ``1 / sqrt(2)`` of what is told (NIS 0.5) are covered by 99.4 %; above that the ceiling
    leaves what a window's chance adds, so that it does not close on forecasts whose width NIS allows.
    """

    nis: tuple[float, float] = (0.5, 2.0)
    coverage: tuple[float, float] = (0.90, 0.998)


@dataclass(frozen=True)
class Verdict:
    """``in_band`` only with a full window and both measures inside; ``why`` says in words what is not.

    ``drifted``: errors are larger than told, NIS above its band or coverage below. A forecast that is too wide is not.
    """

    nis: float
    coverage: float
    n: int
    in_band: bool
    drifted: bool
    why: str = ""


class Consistency:
    """Both measures over the last ``window`` periods that had an observation."""

    def __init__(self, window: int = 60, band: Band | None = None) -> None:
        if window < 1:
            raise ValueError(f"window: {window}; give a positive number of periods")
        self.band = band or Band()
        self._nis: deque[tuple[float, int]] = deque(maxlen=window)
        self._covered: deque[tuple[int, int]] = deque(maxlen=window)
        self._window = window

    def add(self, nis: float, inside: Tensor) -> None:
        """One period: ``nis`` of its analysis, ``inside`` ``[K]`` as :func:`covered` tells. A NaN counts as far out."""
        n = int(inside.numel())
        if n == 0:
            return
        self._nis.append((nis if math.isfinite(nis) else math.inf, n))
        self._covered.append((int(inside.sum()), n))

    def clear(self) -> None:
        """Forget; after a restart or recalibration the window fills anew."""
        self._nis.clear()
        self._covered.clear()

    def memory(self) -> tuple[tuple[float, int, int], ...]:
        """NIS, values and values inside of each period in the window, oldest first; :meth:`recall` is the inverse."""
        return tuple((nis, n, c) for (nis, n), (c, _) in zip(self._nis, self._covered, strict=True))

    def recall(self, memory: Iterable[tuple[float, int, int]]) -> None:
        self.clear()
        for nis, n, inside in memory:
            self._nis.append((nis, n))
            self._covered.append((inside, n))

    def verdict(self) -> Verdict:
        n, freedom = len(self._nis), sum(k for _, k in self._nis)
        nis = sum(value for value, _ in self._nis) / freedom if freedom else math.nan
        coverage = sum(c for c, _ in self._covered) / freedom if freedom else math.nan
        faults = []
        if n < self._window:
            faults.append(f"only {n} of {self._window} periods seen")
        for name, value, (low, high) in (("NIS", nis, self.band.nis), ("coverage", coverage, self.band.coverage)):
            if not low <= value <= high:
                faults.append(f"{name} {value:.3g} outside {low:g} to {high:g}")
        drifted = n == self._window and (nis > self.band.nis[1] or coverage < self.band.coverage[0])
        return Verdict(nis, coverage, n, not faults, drifted, "; ".join(faults))
