"""Rows that no command in reach can keep: whether what is sent goes back towards them as far as it can.

After a cap has been tightened there is nothing better to send, so that it counts as kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import mul

Reach = Callable[[int], Sequence[float]]
"""What a command can be this period: its two ends, or all its legal levels."""


def nearest(
    weights: Sequence[float], at: Sequence[int], values: Sequence[float], before: Sequence[float], reach: Reach,
    limit: float, bottom: float, slack: float,
) -> bool:  # fmt: skip
    """Whether a weighted sum above ``limit`` can't be kept, and goes at least half the way that reach allows.

    Half, because the filter also keeps room to brake for commands with an acceleration limit, which reach here leaves
    out. ``bottom``: the sum may not fall below this, whatever its commands can do.
    """
    now: float = sum(map(mul, weights, [values[k] for k in at]))
    then: float = sum(map(mul, weights, [before[k] for k in at]))
    best = 0.0
    for w, k in zip(weights, at, strict=True):
        best += min(w * v for v in reach(k))
    best = max(best, bottom)
    if not best > limit + slack:
        return False  # it could have been kept
    return now <= best + slack or now <= then - 0.5 * (then - best) + slack
