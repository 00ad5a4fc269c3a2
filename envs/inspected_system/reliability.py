"""How likely too many components of a system have failed, exactly, in numpy or torch.

Components fail independently. The number of failures is Poisson-binomial; its first chances come from the recursion
over components (Barlow & Heidtmann 1984, "Computing k-out-of-n system reliability"). Only positive numbers are added,
so that chances of 1e-12 keep their digits.
"""

from __future__ import annotations

import sys
from typing import Any

Array = Any


def system_failure(failure: Array, needed: int) -> Array:
    """Chance ``[...]`` that fewer than ``needed`` components work; ``failure`` ``[..., N]``, each one's chance."""
    n = failure.shape[-1]
    allowed = n - needed
    counts, too_many = _none(failure, allowed), failure[..., 0] * 0
    for k in range(n):
        too_many = too_many + counts[allowed] * failure[..., k]
        counts = _with_one_more(counts, failure[..., k])
    return too_many


def importance(failure: Array, needed: int) -> Array:
    """What each component's failure adds to the system's chance of failing, ``[..., N]``: the chance that exactly as
    many of the others have failed as the system can bear (Birnbaum 1969).

    It is the gradient of :func:`system_failure`.
    """
    n = failure.shape[-1]
    allowed = n - needed
    before, behind = [_none(failure, allowed)], [_none(failure, allowed)]
    for k in range(n - 1):
        before.append(_with_one_more(before[-1], failure[..., k]))
        behind.append(_with_one_more(behind[-1], failure[..., n - 1 - k]))
    behind.reverse()
    columns = [
        sum((a[m] * b[allowed - m] for m in range(allowed + 1)), start=failure[..., 0] * 0)
        for a, b in zip(before, behind, strict=True)
    ]
    found: Array = sys.modules[type(failure).__module__.split(".")[0]].stack(columns, -1)
    return found


def _none(failure: Array, allowed: int) -> list[Array]:
    zero = failure[..., 0] * 0
    return [zero + 1] + [zero] * allowed


def _with_one_more(counts: list[Array], p: Array) -> list[Array]:
    """Chances of 0, 1, ... failures after a component more."""
    return [counts[0] * (1 - p)] + [counts[m] * (1 - p) + counts[m - 1] * p for m in range(1, len(counts))]
