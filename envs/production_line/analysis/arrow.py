"""The arrow rule: which machine holds the line back, from blocked and starved shares alone.

Li & Meerkov, "Production Systems Engineering" (2009), section 5.1.3: between two machines an arrow points to the next
one when the first is blocked more than the next is starved, else back. A machine that no arrow leaves is a bottleneck;
of several, the primary one has the greatest severity, ``|ST(i+1) - BL(i)| + |ST(i) - BL(i-1)|``. Exact for two
Bernoulli machines, a heuristic for more: on random lines it is right in 86 of 100.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arrows:
    """``forward``: of each buffer, whether its arrow points downstream; ``bottlenecks``: machines without an arrow that
    leaves them; ``severity`` ``[M]``, zero for the others; ``primary``: the one with the greatest."""

    forward: tuple[bool, ...]
    bottlenecks: tuple[int, ...]
    severity: Floats

    @property
    def primary(self) -> int:
        return max(self.bottlenecks, key=lambda i: float(self.severity[i]))


def arrows(blocked: Floats, starved: Floats, producer: tuple[int, ...], consumer: tuple[int, ...]) -> Arrows:
    """Arrows of a line, from shares of slots ``[M]``; buffer ``k`` lies between two machines. There is always a
    machine that no arrow leaves, since parts never run in a circle."""
    difference = np.array([blocked[p] - starved[c] for p, c in zip(producer, consumer, strict=True)])
    forward = difference > 0
    leaves = np.zeros(len(blocked), dtype=np.bool_)
    severity = np.zeros(len(blocked))
    for k, (p, c) in enumerate(zip(producer, consumer, strict=True)):
        leaves[p if forward[k] else c] = True
        severity[[p, c]] += abs(difference[k])
    found = tuple(int(i) for i in np.flatnonzero(~leaves))
    return Arrows(tuple(bool(f) for f in forward), found, np.where(leaves, 0.0, severity))
