"""Damage in stages at the emulated line: how it grows, what an inspection shows, what its controller believes.

The controller believes by what is declared (the forward filter of a hidden Markov chain, Rabiner 1989, section III.A);
the machine may wear faster.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .config import StagedWear

Floats = NDArray[np.float64]


class StagedDamage:
    """Of one machine; ``stage`` is the truth, the last one that it has failed. ``factor``: how fast it wears, of what
    is declared."""

    def __init__(self, wear: StagedWear, factor: float, rng: np.random.Generator) -> None:
        self._wear, self._factor, self._rng = wear, factor, rng
        self._advance = np.array([*wear.advance_pu, 0.0])
        n = len(wear.advance_pu)
        self._sees = np.eye(n + 1)
        self._sees[:n, :n] = wear.error_matrix  # who looks at a failed machine sees that it has failed
        self.renew()

    def renew(self) -> None:
        """As new, and known to be."""
        self.stage = 0
        self.belief: Floats = np.zeros(len(self._advance))
        self.belief[0] = 1.0
        self.silent = False

    @property
    def failed(self) -> bool:
        return self.stage == len(self._advance) - 1

    def work(self) -> bool:
        """A part's worth; whether it has failed by that, which nobody may have noticed (``silent``)."""
        had = self.failed
        if self._rng.random() < self._factor * self._advance[self.stage]:
            self.stage += 1
        moves = self.belief * self._advance
        believed = self.belief - moves
        believed[1:] += moves[:-1]
        fails = self.failed and not had
        if self._wear.announces:
            believed[-1] = 0.0
        elif fails:
            self.silent = True
        if believed.sum() > 0:
            self.belief = believed / believed.sum()
        return fails

    def look(self) -> int:
        """What an inspection shows; that the machine has failed is then known."""
        seen = int(self._rng.choice(len(self._advance), p=self._sees[self.stage]))
        weighed = self.belief * self._sees[:, seen]
        if weighed.sum() > 0:
            self.belief = weighed / weighed.sum()
        self.silent = False
        return seen
