"""Shares of a coupled row that are safe with no communication, and the exact split when all is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...envs.errors import ConfigurationError


def row_shares(
    weights: ArrayLike, minimum: ArrayLike, maximum: ArrayLike, bound: float, rating: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Split ``sum_i weights_i u_i <= bound`` into budgets ``[N]`` of what each ``weights_i u_i`` may be.

    ``minimum, maximum``: ``[N]``, range of ``u_i``. Beyond the least that the ranges allow, room is split by ``rating``
    ``[N]``, by default the width of each asset's use; what an asset can't use goes to the rest. The shares sum to
    ``bound``, or to less where the row can't bind. A row ``sum >= bound`` is this one with both signs turned.
    Raises :class:`ConfigurationError` when no command satisfies the row.
    """
    factor, low_u, high_u = (np.asarray(each, np.float64) for each in (weights, minimum, maximum))
    if not (factor.shape == low_u.shape == high_u.shape and factor.ndim == 1):
        raise ConfigurationError(
            f"row shares: weights {factor.shape}, minimum {low_u.shape}, maximum {high_u.shape}; allowed: one [N]"
        )
    low, high = np.minimum(factor * low_u, factor * high_u), np.maximum(factor * low_u, factor * high_u)
    size = high - low if rating is None else np.asarray(rating, np.float64)
    if size.shape != low.shape or not (np.isfinite([low, high, size]).all() and np.isfinite(bound)):
        raise ConfigurationError(f"row shares: rating {size.shape} of {low.shape}, or a number that is not finite")
    if (size < 0.0).any() or (low_u > high_u).any():
        raise ConfigurationError("row shares: a negative rating, or a minimum above its maximum")
    room = bound - float(low.sum())
    if room < 0.0:
        raise ConfigurationError(
            f"row shares: the bound {bound:g} lies below the least possible sum {low.sum():g}; raise it or widen ranges"
        )
    share = low.copy()
    for _ in range(low.size):
        open_size = np.where(share < high, size, 0.0)
        left = room - float((share - low).sum())
        if left <= 0.0 or open_size.sum() <= 0.0:
            break
        share = np.minimum(high, share + left * open_size / open_size.sum())
    return _below(share, bound)


def water_fill(wanted: ArrayLike, minimum: ArrayLike, bound: float) -> NDArray[np.float64]:
    """The split ``[N]`` nearest to ``wanted`` with sum at most ``bound``: ``max(wanted - level, minimum)``.

    It minimises the squared change; the level is found on the sorted breakpoints, exactly. ``wanted`` comes back where
    the sum already holds, ``minimum`` where even that is too much.
    """
    want, low = np.asarray(wanted, np.float64), np.asarray(minimum, np.float64)
    want = np.maximum(want, low)
    excess = float(want.sum()) - bound
    if excess <= 0.0:
        return want
    # At level v the sum has fallen by sum_i min(v, depth_i): piecewise linear, with its corners at the depths.
    depth = np.sort(want - low)
    fallen = np.concatenate(([0.0], np.cumsum(depth)))[:-1] + depth * np.arange(depth.size, 0, -1)
    place = int(np.searchsorted(fallen, excess))
    if place == depth.size:
        return low.copy()
    level = (excess - float(depth[:place].sum())) / (depth.size - place)
    return np.maximum(want - level, low)


def _below(share: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """Take rounding from the largest share, so that the sum in floating point is not above the bound."""
    while share.sum() > bound:
        place = int(share.argmax())
        share[place] = np.nextafter(share[place] - (share.sum() - bound), -np.inf)
    return share
