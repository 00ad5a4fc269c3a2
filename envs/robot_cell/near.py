"""The nearest pairs of capsules of each arm and the others, and the nearest other arms; numpy and torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arm import N_CAPSULES, Arm
from .arm_body import ArmBody, ArmShape
from .capsules import capsule_segments
from .distance import at_least, closest, closest_of_few, dot
from .kinematics import Pose, Value, module_of, tool_point

Array = Any

_FAR_M = 1e3
_FIRST_M = 2e-5
"""By so much a pair goes before the next in order where both are as near. Well above rounding, so that float32 in
training and float64 on the edge list them in one order."""
_STEADY = 1e-6


def shape_rows(p: Pose, arm: Arm) -> list[Value]:
    """What :func:`nearest` asks of a pose: starts x, y, z of all capsules, ends likewise, and the tool point; 51."""
    segments = capsule_segments(p, arm)
    ends = [segment[e][c] for e in range(2) for c in range(3) for segment in segments]
    return [*ends, *p.position(tool_point(p, arm))]


def nearest(
    own: Array, heard: Array, message: Array, present: Array, arm: Arm, n_pairs: int, n_peers: int
) -> tuple[Array, Array]:
    """Pairs and peers of each arm, the nearest first; arms as they are see the others as heard.

    ``own``, ``heard``: ``[51, M]``, :func:`shape_rows` of the arms of B cells, M = B N; ``message`` ``[C, M]``;
    ``present`` ``[B, N]``. Pairs ``[16, n_pairs, M]``: presence, gap, start of the own axis and its way to its end (3
    each), the other's likewise, and the shares of both ways at which they are nearest. Peers ``[2 + C, n_peers, M]``:
    presence, gap, message; at most N - 1.
    """
    xp = module_of(own)
    n = present.shape[1]
    m = present.shape[0] * n
    # The others of an arm are those after it, around.
    lane = xp.arange(m, device=own.device)
    place = lane % n
    others = (lane - place) + (place + xp.arange(1, n, device=own.device)[:, None]) % n  # [N - 1, M]
    mine, all_heard = _segments(own), _segments(heard)
    lines = mine[:, :, None, None], all_heard[:, None, :, others]  # [6, 8, 1, 1, M], [6, 1, 8, N - 1, M]
    start_a, along_a, start_b, along_b = ((v[k], v[k + 1], v[k + 2]) for v in lines for k in (0, 3))
    s, t, apart = closest(start_a, along_a, start_b, along_b, steady=_STEADY)
    radius = xp.asarray([c.radius_m for c in arm.capsules], dtype=own.dtype, device=own.device)
    gap = at_least(dot(apart, apart), 1e-12) ** 0.5 - (radius[:, None] + radius)[:, :, None, None]
    there = present.reshape(-1)
    gap = xp.where(there[others] & there, gap, xp.zeros_like(gap) + _FAR_M).reshape(-1, n - 1, m)
    pairs = peers = own[:16, None][:, :0]
    if n_pairs:
        first = _first(xp, gap.reshape(-1, m), n_pairs)  # [count, M] into pairs and others together
        at, other = first // (n - 1), others[first % (n - 1), lane]
        share_a, share_b, near = (v.reshape(-1, m)[first, lane][None] for v in (s, t, gap))
        a, b = mine[:, at // N_CAPSULES, lane], all_heard[:, at % N_CAPSULES, other]
        pairs = xp.concatenate((_is_there(xp, near), near, a, b, share_a, share_b))
    if n_peers:
        least = gap.min(0) if xp is np else gap.amin(0)
        first = _first(xp, least, min(n_peers, n - 1))
        near = least[first, lane][None]
        peers = xp.concatenate((_is_there(xp, near), near, message[:, others[first, lane]]))
    return pairs, peers


def nearest_of_one(
    shape: ArmShape, own: ArmBody, others: Sequence[ArmBody], there: Sequence[bool], n_pairs: int, n_peers: int
) -> tuple[list[list[float]], list[tuple[float, float, int]]]:
    """The same of one arm among ``others``, one or more, in the order of :func:`nearest`; ``there``: which of them are.

    Pairs of 16 floats each, and of each peer presence, gap and its place among the others.
    """
    table = _table(shape, len(others))
    mine = np.concatenate((own.start_m, own.along_m), 1).T.take(table.first, 1)  # [6, P]
    ways = np.concatenate([b.start_m for b in others]), np.concatenate([b.along_m for b in others])
    theirs = np.concatenate(ways, 1).T.take(table.second, 1)
    s, t, apart = closest_of_few(mine, theirs, steady=_STEADY)
    gap = np.sqrt(np.maximum(np.einsum("cp,cp->p", apart, apart), 1e-12)) - table.radii_m
    if not all(there):
        gap = np.where(np.tile(there, len(gap) // len(others)), gap, _FAR_M)
    pairs: list[list[float]] = []
    if n_pairs:
        first = (gap + table.lead_m).argsort(kind="stable")[:n_pairs]
        near = gap[first]
        found = (near < 0.5 * _FAR_M, near, *mine[:, first], *theirs[:, first], s[first], t[first])
        pairs = np.array(found, dtype=np.float64).T.tolist()
    least = gap.reshape(-1, len(others)).min(0).tolist()
    order = sorted(range(len(others)), key=lambda k: least[k] + _FIRST_M * k)[:n_peers]
    return pairs, [(float(least[k] < 0.5 * _FAR_M), least[k], k) for k in order]


class _Table(NamedTuple):
    """Of each pair: the own capsule, the others' one after another, both radii, and what it gives way to those before
    it."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    radii_m: NDArray[np.float64]
    lead_m: NDArray[np.float64]


@lru_cache(maxsize=32)
def _table(shape: ArmShape, n_others: int) -> _Table:
    a, b, other = (v.reshape(-1) for v in np.indices((N_CAPSULES, N_CAPSULES, n_others)))
    return _Table(a, other * N_CAPSULES + b, shape.radius_m[a] + shape.radius_m[b], _FIRST_M * np.arange(1.0 * len(a)))


def _segments(shape: Array) -> Array:
    """Starts x, y, z and from there to the ends, ``[6, 8, M]``."""
    xp = module_of(shape)
    ends = shape[: 6 * N_CAPSULES].reshape(6, N_CAPSULES, -1)
    return xp.concatenate((ends[:3], ends[3:] - ends[:3]))


def _first(xp: Any, gap: Array, count: int) -> Array:
    """Rows of the ``count`` smallest gaps of each column, ``[count, M]``."""
    rank = xp.arange(len(gap), device=gap.device)[:, None]
    key = gap + _FIRST_M * rank
    if xp is np:
        return key.argsort(0, kind="stable")[:count]
    found = []
    for _ in range(count):
        found.append(key.argmin(0))
        key = xp.where(rank == found[-1], xp.zeros_like(key) + 2.0 * _FAR_M, key)
    return xp.stack(found)


def _is_there(xp: Any, gap: Array) -> Array:
    return xp.where(gap < 0.5 * _FAR_M, xp.ones_like(gap), xp.zeros_like(gap))
