"""Largest value of a sliding window, O(1) amortised a period, for all assets at once.

Two blocks, after van Herk (1992) and Gil & Werman (1993): of the older one the maxima of every tail are known, of the
newer one the maximum so far. Where a monotonic deque pops as the values happen to fall, here every asset is at the same
place at the same time, so that a period is a few numpy calls whatever was measured. All is kept in plain arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kept = dict[str, NDArray[Any]]


class SlidingMaximum:
    """Maximum over the last ``length`` values, each lowered to the least ``cap`` that came after it.

    Without caps this is *once*; with them it is *since*, whose left side must have held from then to now.
    """

    def __init__(self, length: int, n_assets: int, *, capped: bool = False) -> None:
        self._length = length
        self._n_assets = n_assets
        self._capped = capped

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of what is kept."""
        return ("older", "newer", "best", "at", "caps", "cap") if self._capped else ("older", "newer", "best", "at")

    def start(self) -> Kept:
        """Nothing seen: the maximum of nothing is minus infinity."""
        rows, low = (self._length, self._n_assets), -np.inf
        kept: Kept = {
            "older": np.full(rows, low),
            "newer": np.full(rows, low),
            "best": np.full(self._n_assets, low),
            "at": np.zeros((), np.int64),
        }
        if self._capped:
            kept |= {"caps": np.full(rows, np.inf), "cap": np.full(self._n_assets, np.inf)}
        return kept

    def step(self, kept: Kept, value: Floats, cap: Floats | None = None) -> tuple[Kept, Floats]:
        """Lower all that came before to ``cap`` ``[N]``, take ``value`` ``[N]``, and return the maximum ``[N]``."""
        at = int(kept["at"])
        newer = kept["newer"].copy()
        newer[at] = value
        if cap is None:
            best = np.maximum(kept["best"], value)
            after: Kept = {"older": kept["older"], "newer": newer, "best": best, "at": np.array(at + 1)}
            tail = kept["older"]
        else:
            caps = kept["caps"].copy()
            caps[at] = cap
            least = np.minimum(kept["cap"], cap)
            best = np.maximum(np.minimum(kept["best"], cap), value)
            after = {"older": kept["older"], "newer": newer, "best": best, "at": np.array(at + 1)}
            after |= {"caps": caps, "cap": least}
            tail = np.minimum(kept["older"], least)
        if at + 1 < self._length:
            return after, np.maximum(best, tail[at + 1])
        return self._turned(after), best

    def _turned(self, kept: Kept) -> Kept:
        """The newer block is full and becomes the older one."""
        values = kept["newer"]
        if self._capped:
            later = np.full_like(values, np.inf)
            later[:-1] = np.minimum.accumulate(kept["caps"][:0:-1], axis=0)[::-1]
            values = np.minimum(values, later)
        older = np.maximum.accumulate(values[::-1], axis=0)[::-1].copy()
        return {**self.start(), "older": older}


class Delay:
    """What was given ``periods`` ago; minus infinity before that."""

    def __init__(self, periods: int, n_assets: int) -> None:
        self._periods = periods
        self._n_assets = n_assets

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of what is kept."""
        return ("line", "at")

    def start(self) -> Kept:
        """Nothing was given."""
        return {"line": np.full((self._periods, self._n_assets), -np.inf), "at": np.zeros((), np.int64)}

    def step(self, kept: Kept, value: Floats) -> tuple[Kept, Floats]:
        """Put ``value`` ``[N]`` in, take the oldest out."""
        at = int(kept["at"])
        line = kept["line"].copy()
        out: Floats = line[at].copy()
        line[at] = value
        return {"line": line, "at": np.array((at + 1) % self._periods)}, out
