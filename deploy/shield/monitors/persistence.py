"""Alarm after k of m: one odd reading is noise, several of a few are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....envs.errors import ConfigurationError

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Persistence:
    """True for an asset once ``k`` of its last ``m`` judged periods were odd."""

    k: int = 1
    m: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.m:
            raise ConfigurationError(f"alarm after {self.k} of {self.m} periods: give 1 <= k <= m")

    def start(self, n_assets: int) -> NDArray[np.bool_]:
        """The last ``m`` judgements of each asset, ``[N, m]``, newest first."""
        return np.zeros((n_assets, self.m), dtype=np.bool_)

    def step(self, last: NDArray[Any], odd: Bools, judged: Bools) -> tuple[Bools, Bools]:
        """The judgements after this period, and who is to be alarmed, ``[N]``; ``judged`` False: nothing is said of it.

        Where nothing can be said, nothing is forgotten either: an alarm does not end because a sensor fell silent.
        """
        after: Bools = np.where(judged[:, None], np.concatenate([odd[:, None], last[:, :-1]], axis=1), last)
        return after, np.count_nonzero(after, axis=1) >= self.k
