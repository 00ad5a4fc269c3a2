"""Who is better where several things count: fronts, and how lonely a point is on its front.

Losses ``[P, K]``: smaller is better; infinite where a prototype gave no number, which nothing is worse than.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


def front(losses: Floats) -> Bools:
    """``[P]``: who is not dominated. One point of several equal ones is not dominated by the others."""
    if losses.shape[1] == 1:
        return np.asarray(losses[:, 0] == losses[:, 0].min(initial=np.inf)) & np.isfinite(losses[:, 0])
    found = np.zeros(len(losses), dtype=np.bool_)
    left = np.flatnonzero(np.isfinite(losses).all(1))
    # Points with the smallest sums first: they rule out the most, so few are ever compared with all.
    spread = np.ptp(losses[left], axis=0) if len(left) else np.ones(losses.shape[1])
    order = np.argsort((losses[left] / np.where(spread > 0, spread, 1.0)).sum(1), kind="stable")
    left = left[order]
    while len(left):
        first = left[0]
        found[first] = True
        here = losses[left]
        not_worse = (here < losses[first]).any(1) | (here == losses[first]).all(1)
        not_worse[0] = False
        same = not_worse & (here == losses[first]).all(1)
        found[left[same]] = True
        left = left[not_worse & ~same]
    return found


def crowding(losses: Floats) -> Floats:
    """``[P]``: size of the gap that a point fills on its front (Deb et al. 2002, NSGA-II); infinite at the ends."""
    n, k = losses.shape
    total = np.zeros(n)
    for j in range(k):
        order = np.argsort(losses[:, j], kind="stable")
        column = losses[order, j]
        spread = column[-1] - column[0] if n else 0.0
        gap = np.full(n, np.inf)
        if n > 2:
            gap[1:-1] = (column[2:] - column[:-2]) / (spread or 1.0)
        total[order] += gap
    return total


def best(losses: Floats, n: int) -> Integers:
    """Indices of the ``n`` best: front by front, the lonely ones of the last front first; fewer where numbers lack."""
    usable = np.flatnonzero(np.isfinite(losses).all(1))
    if losses.shape[1] == 1:
        return usable[np.argsort(losses[usable, 0], kind="stable")[:n]]
    found: list[Integers] = []
    count = 0
    while count < n and len(usable):
        on = front(losses[usable])
        members = usable[on]
        lonely_first = np.argsort(-crowding(losses[members]), kind="stable")
        found.append(members[lonely_first][: n - count])
        count += len(found[-1])
        usable = usable[~on]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
