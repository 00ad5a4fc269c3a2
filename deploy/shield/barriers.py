"""Rows on the commands that keep measured states safe: barriers of relative degree 1 and 2, and pairwise separation.

A row reads ``rows @ u <= bounds``. All functions are pure, for all assets at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class Terms(Protocol):
    """A barrier and its derivatives along ``x' = f(x) + g(x) u``, as a site's constraint gives them.

    ``h``: ``[N]``, safe where it is >= 0; ``drift``: ``[N]``, its derivative without commands; ``control``: ``[N, A]``,
    the derivative (relative degree 2: the second derivative) by the commands; ``drift2``: ``[N]``, the second
    derivative without commands.
    """

    @property
    def h(self) -> Floats: ...
    @property
    def drift(self) -> Floats: ...
    @property
    def control(self) -> Floats: ...
    @property
    def drift2(self) -> Floats | None: ...


class Rows(NamedTuple):
    """``rows``: ``[M, n]``, ``bounds``: ``[M]``; commands ``u`` keep them where ``rows @ u <= bounds``."""

    rows: Floats
    bounds: Floats


def barrier_rows(terms: Terms, gain_per_s: float, gain2_per_s: float | None = None, margin: float = 0.0) -> Rows:
    """One row ``[A]`` an asset that keeps ``h >= 0`` for ever.

    Relative degree 1 (Ames et al. 2019, arXiv 1903.11199): ``drift + control u >= -gain h + margin``. Relative degree 2
    (Xiao & Belta 2019, arXiv 1903.04706): ``drift2 + control u + (g1 + g2) drift + g1 g2 h >= margin``. ``margin`` pays
    for commands held through a period, see :func:`held_margin`. Raises ``ValueError`` where relative degree 2 is asked
    of terms without ``drift2``.
    """
    if gain2_per_s is None:
        return Rows(-terms.control, terms.drift + gain_per_s * terms.h - margin)
    if terms.drift2 is None:
        raise ValueError(
            "a second gain asks for relative degree 2, and the barrier gives no drift2; give one or drop it"
        )
    g1, g2 = gain_per_s, gain2_per_s
    return Rows(-terms.control, terms.drift2 + (g1 + g2) * terms.drift + g1 * g2 * terms.h - margin)


def held_margin(rate_bound: ArrayLike, period_s: float) -> Floats:
    """The margin that makes a row true through a period in which commands stand still, ``[...]`` like ``rate_bound``.

    ``rate_bound`` bounds how fast the left side of the row may change, per second, for any state of the period and any
    command in range: what changes by no more than ``rate_bound * period_s`` and starts above it stays above zero
    (Breeden, Garg & Panagou 2022, IEEE L-CSS).
    """
    return np.abs(np.asarray(rate_bound, dtype=np.float64)) * period_s


def standing(terms: Terms, gain_per_s: float, gain2_per_s: float | None = None) -> Floats:
    """How far each asset is inside the set that the rows keep, ``[N]``; below 0 nothing is promised until it is back.

    For relative degree 2 that set is ``h >= 0`` and ``h' + gain h >= 0``: being inside ``h`` alone is not enough.
    """
    if gain2_per_s is None:
        return terms.h
    return np.minimum(terms.h, terms.drift + gain_per_s * terms.h)


def closing_speed(gap: ArrayLike, braking: ArrayLike, reaction_s: float, other_speed: ArrayLike = 0.0) -> Floats:
    """The highest speed towards a thing that may itself come at ``other_speed``, from which one still stops in time.

    Solves ``v (reaction) + other (reaction + v / braking) + v^2 / (2 braking) = gap`` for ``v``; 0 where the gap is
    used up. With gaps less intrusion and uncertainties this is the speed-and-separation limit of ISO/TS 15066 (Marvel &
    Norcross 2017, PMC5117641). Units: any length, seconds.
    """
    b, w = np.asarray(braking, dtype=np.float64), np.asarray(other_speed, dtype=np.float64)
    left = np.asarray(gap, dtype=np.float64) - w * reaction_s
    at = w + b * reaction_s
    return np.where(left > 0, np.maximum(np.sqrt(at * at + 2.0 * b * np.maximum(left, 0.0)) - at, 0.0), 0.0)


def separation_rows(
    positions: Floats, distance: float, gain_per_s: float, period_s: float, *,
    braking: float | None = None, shares: Sequence[float] | Floats | None = None, fastest: ArrayLike | None = None,
) -> Rows:  # fmt: skip
    """Rows on velocity commands ``[N * D]``, asset by asset, that keep all pairs of ``positions`` ``[N, D]`` apart.

    A pair may close at no more than ``gain * left``, ``left`` the distance between them beyond ``distance``; with
    ``braking``, also at no more than still stops in ``left`` after one period. The gain is at most 1 / period: distance
    is convex along a straight line, so that a period of held velocities never uses up more than ``left``. Pairs already
    too near must part.

    Without ``shares`` a pair has one row over both. With ``shares`` ``[N]``, positive, it has a row for each, which
    that asset keeps without knowing the other's command: asset ``i`` answers for ``shares_i / (shares_i + shares_j)``
    of the closing. ``fastest`` ``[N]`` drops pairs that cannot close that fast. Assets at one place part along the
    first axis, the earlier one downwards: a fixed choice, so that they do not block each other.
    """
    n, d = positions.shape
    first, second = np.triu_indices(n, 1)
    apart = positions[first] - positions[second]
    reach = np.sqrt(np.einsum("pd,pd->p", apart, apart))
    together = reach <= 1e-9 * max(distance, 1e-300)
    direction = apart / np.where(together, 1.0, reach)[:, None]
    direction[together] = -np.eye(d)[0]
    left = reach - distance
    share = np.full(len(first), 0.5) if shares is None else _share(np.asarray(shares, dtype=np.float64), first, second)
    closing = min(gain_per_s, 1.0 / period_s) * left
    if braking is not None:
        # both brake: with shares the two stopping distances add, without them one may have to stop alone
        together_braking = braking if shares is None else braking / (share**2 + (1.0 - share) ** 2)
        closing = np.where(left > 0, np.minimum(closing, closing_speed(left, together_braking, period_s)), closing)
    if fastest is not None:
        speed = np.broadcast_to(np.asarray(fastest, dtype=np.float64), (n,))
        near = np.flatnonzero(~(closing >= speed[first] + speed[second]))
        first, second = first[near], second[near]
        direction, closing, share = direction[near], closing[near], share[near]
    pairs = np.arange(len(first))
    if shares is None:
        rows = np.zeros((len(first), n, d))
        rows[pairs, first], rows[pairs, second] = -direction, direction
        return Rows(rows.reshape(-1, n * d), closing)
    rows = np.zeros((2 * len(first), n, d))
    rows[2 * pairs, first], rows[2 * pairs + 1, second] = -direction, direction
    bounds = np.stack([share * closing, (1.0 - share) * closing], axis=1).ravel()
    return Rows(rows.reshape(-1, n * d), bounds)


def _share(shares: Floats, first: Indices, second: Indices) -> Floats:
    """The first one's part of each pair's responsibility; the two add up to one."""
    if not (np.isfinite(shares).all() and (shares > 0).all()):
        raise ValueError(f"shares {shares.tolist()} must be positive numbers, one an asset")
    return np.asarray(shares[first] / (shares[first] + shares[second]))
