"""Many small programs at once: the nearest commands of each asset inside its own ranges and its own few rows.

For each of ``K`` assets, minimise ``0.5 * |u - desired|^2`` subject to ``lower <= u <= upper`` and ``rows @ u <=
bounds``, with ``n <= 3`` commands and ``m <= 8`` rows. The optimum is the projection onto the rows that are active
there, and at most ``n`` independent ones are: so all sets of one row are tried, for all assets in one array, then for
the assets left all sets of two, then of three. A candidate that keeps every row and whose prices are not negative is
the optimum (Boyd & Vandenberghe 2004, section 5.5). Exact, and nothing iterates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

MAX_COMMANDS = 3
MAX_ROWS = 8

KEPT = 1e-11
"""How far a candidate may pass a row of unit length, relative to half the widest range: rounding."""

_PARALLEL = 1e-10  # rows whose Gram determinant is below this (unit rows, squared sine) span no corner
_CHUNK = 400000  # candidates times rows in one array: bounds the memory, and keeps it in the cache


@dataclass(frozen=True)
class SmallSolutions:
    """``u``: ``[K, n]``, always finite. ``solved``: ``[K]``; where it is False, no commands keep the rows, or a number
    was none, and ``u`` is the nearest end of the range: the next rung must judge. ``multipliers``: ``[K, m]`` of the
    rows."""

    u: Floats
    solved: Bools
    multipliers: Floats


def solve_small(desired: Any, lower: Any, upper: Any, rows: Any, bounds: Any) -> SmallSolutions:
    """Solve ``K`` programs: ``desired``, ``lower``, ``upper`` ``[K, n]``, ``rows`` ``[K, m, n]``, ``bounds`` ``[K,
    m]``.

    Ranges broadcast. A bound of +inf is no bound. Raises ``ValueError`` for shapes beyond the limits, which is the
    caller's fault and not the plant's; nothing for bad numbers.
    """
    d, a, b = (np.asarray(v, dtype=np.float64) for v in (desired, rows, bounds))
    if d.ndim != 2 or a.shape != (*b.shape, d.shape[1]) or b.shape[:1] != d.shape[:1]:
        raise ValueError(f"desired {d.shape}, rows {a.shape}, bounds {b.shape}: expected [K, n], [K, m, n], [K, m]")
    if not 1 <= d.shape[1] <= MAX_COMMANDS or b.shape[1] > MAX_ROWS:
        raise ValueError(
            f"{d.shape[1]} commands and {b.shape[1]} rows an asset: at most {MAX_COMMANDS} and {MAX_ROWS} are solved "
            "by enumeration; use program.solve"
        )
    lo = np.broadcast_to(np.asarray(lower, dtype=np.float64), d.shape)
    hi = np.broadcast_to(np.asarray(upper, dtype=np.float64), d.shape)
    with np.errstate(all="ignore"):  # infinities and NaN are judged here, not warned of
        return _solve(d, lo, hi, a, b)


def _solve(d: Floats, lo: Floats, hi: Floats, a: Floats, b: Floats) -> SmallSolutions:
    u = np.minimum(np.maximum(d, lo), hi)
    multipliers = np.zeros_like(b)
    fine = np.isfinite(d + lo + hi).all(axis=1) & np.isfinite(a).all(axis=(1, 2)) & (lo <= hi).all(axis=1)
    fine &= ~np.isnan(b).any(axis=1)
    solved = fine & (np.einsum("kmn,kn->km", a, u) <= b).all(axis=1)
    if not fine.all():
        bad = ~fine
        middle = np.where(np.isfinite(lo + hi), 0.5 * lo + 0.5 * hi, 0.0)
        u[bad] = np.where(np.isfinite(u), u, middle)[bad]
    # with nothing but the range to keep, clipping is the optimum; the others are enumerated
    work = np.flatnonzero(fine & ~solved)
    n, m = d.shape[1], b.shape[1]
    n_sets = sum(len(s) for s in _active_sets(n, m))
    chunk = max(1, _CHUNK // (n_sets * (m + 2 * n)))
    for start in range(0, len(work), chunk):
        part = work[start : start + chunk]
        found, reached, prices = _enumerate(d[part], lo[part], hi[part], a[part], b[part])
        u[part] = np.where(reached[:, None], found, u[part])
        multipliers[part] = np.where(reached[:, None], prices, 0.0)
        solved[part] = reached
    return SmallSolutions(u, solved, multipliers)


def _enumerate(d: Floats, lo: Floats, hi: Floats, a: Floats, b: Floats) -> tuple[Floats, Bools, Floats]:
    """Optimum ``[K, n]``, whether there is one ``[K]``, and the prices of the rows ``[K, m]``."""
    k, n = d.shape
    m = b.shape[1]
    middle = 0.5 * lo + 0.5 * hi
    size = np.maximum((0.5 * hi - 0.5 * lo).max(axis=1), np.finfo(np.float64).tiny)[:, None]
    length = np.sqrt(np.einsum("kmn,kmn->km", a, a))
    zero = length <= 1e-12 * np.maximum(length.max(axis=1, initial=0.0), 1e-300)[:, None]
    at = a / np.where(zero, np.inf, length)[..., None]
    bt = (b - np.einsum("kmn,kn->km", a, middle)) / (np.where(zero, 1.0, length) * size)
    impossible = (zero & (b < 0)).any(axis=1)
    bt = np.where(zero, 1.0, np.minimum(bt, 1e6))  # what is further is never active, and infinities stay out
    unit = np.broadcast_to(np.eye(n), (k, n, n))
    z_half = (0.5 * hi - 0.5 * lo) / size
    # all rows alike, [n + n + m, K, ...]: with the assets last, numpy works on long runs
    normals = np.ascontiguousarray(np.concatenate([unit, -unit, at], axis=1).transpose(1, 2, 0))
    limits = np.ascontiguousarray(np.concatenate([z_half, z_half, bt], axis=1).T)
    z0 = np.ascontiguousarray(((d - middle) / size).T)
    passed = np.einsum("rnk,nk->rk", normals, z0) - limits
    u, prices, reached = np.zeros((k, n)), np.zeros((k, m)), np.zeros(k, dtype=bool)
    left = np.flatnonzero(~impossible)
    for sets in _active_sets(n, m):
        if not len(left):
            break
        if len(left) < len(z0.T):
            normals_left, passed_left, limits_left = normals[..., left], passed[:, left], limits[:, left]
        else:
            normals_left, passed_left, limits_left = normals, passed, limits
        z, price = _project(sets, normals_left, passed_left, z0[:, left])
        kept = _keeps(z, normals_left, limits_left)
        if sets.shape[1] < n:  # rows kept and prices >= 0 prove the optimum, and its asset is done
            kept &= (price >= 0).all(axis=1)
        distance = np.zeros_like(kept, dtype=np.float64)
        for j in range(n):
            distance += (z[:, j] - z0[j, left]) ** 2
        distance[~kept] = np.inf
        best = np.argmin(distance, axis=0)
        here = np.flatnonzero(kept[best, np.arange(len(left))])
        done, best = left[here], best[here]
        u[done] = z[best, :, here]
        reached[done] = True
        for i in range(sets.shape[1]):
            row = sets[best, i] - 2 * n
            proper = row >= 0
            prices[done[proper], row[proper]] = np.maximum(price[best, i, here][proper], 0.0)
        left = np.delete(left, here)
    u = np.minimum(np.maximum(middle + size * u, lo), hi)
    return u, reached, prices * size / np.where(zero, np.inf, length)


def _keeps(z: Floats, normals: Floats, limits: Floats) -> Bools:
    """Which candidates ``[S, n, K]`` keep every row, ``[S, K]``; a NaN, of parallel rows, keeps none."""
    worst = np.full((z.shape[0], z.shape[2]), -np.inf)
    for r in range(len(limits)):
        row = normals[r, 0] * z[:, 0]
        for j in range(1, z.shape[1]):
            row += normals[r, j] * z[:, j]
        row -= limits[r]
        np.maximum(worst, row, out=worst)
    return np.asarray(worst <= KEPT)


def _project(sets: Indices, normals: Floats, passed: Floats, z0: Floats) -> tuple[Floats, Floats]:
    """Project onto each set of rows as equalities: candidates ``[S, n, K]`` and prices ``[S, size of a set, K]``."""
    size = sets.shape[1]
    rows = [normals[sets[:, i]] for i in range(size)]  # [S, n, K] each
    v = [passed[sets[:, i]] for i in range(size)]
    if size == 1:
        price = v[0][:, None]  # rows are of unit length
    elif size == 2:
        cosine = _dot(rows[0], rows[1])
        det = 1.0 - cosine * cosine
        det[~(det > _PARALLEL)] = np.nan
        price = np.empty((len(sets), 2, z0.shape[1]))
        np.divide(v[0] - cosine * v[1], det, out=price[:, 0])
        np.divide(v[1] - cosine * v[0], det, out=price[:, 1])
    else:
        price = _solve_three([_dot(rows[i], rows[j]) for i, j in ((0, 1), (0, 2), (1, 2))], v)
    z = z0 - price[:, :1] * rows[0]
    for i in range(1, size):
        z -= price[:, i, None] * rows[i]
    return z, price


def _dot(a: Floats, b: Floats) -> Floats:
    """Products ``[S, K]`` of vectors ``[S, n, K]``."""
    total = a[:, 0] * b[:, 0]
    for j in range(1, a.shape[1]):
        total += a[:, j] * b[:, j]
    return total


def _solve_three(g: list[Floats], v: list[Floats]) -> Floats:
    """The 3x3 systems of three rows of unit length with cosines ``g`` (01, 02, 12), by cofactors, ``[S, 3, K]``."""
    g01, g02, g12 = g
    c00, c11, c22 = 1.0 - g12**2, 1.0 - g02**2, 1.0 - g01**2
    c01, c02, c12 = g02 * g12 - g01, g01 * g12 - g02, g01 * g02 - g12
    det = c00 + g01 * c01 + g02 * c02
    det[~(det > _PARALLEL)] = np.nan
    price = np.stack(
        [
            c00 * v[0] + c01 * v[1] + c02 * v[2],
            c01 * v[0] + c11 * v[1] + c12 * v[2],
            c02 * v[0] + c12 * v[1] + c22 * v[2],
        ],
        axis=1,
    )
    price /= det[:, None]
    return price


@cache
def _active_sets(n: int, m: int) -> tuple[Indices, ...]:
    """Sets of 1 to ``n`` of the ``2n + m`` rows, by size; both ends of one range are never active together."""
    found = []
    for size in range(1, n + 1):
        sets = [
            s for s in combinations(range(2 * n + m), size) if not any(i < n and i + n in s for i in s)
        ]  # fmt: skip
        found.append(np.array(sets, dtype=np.intp).reshape(len(sets), size))
    return tuple(found)
