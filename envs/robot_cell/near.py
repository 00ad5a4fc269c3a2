"""The nearest pairs of capsules of each arm and the others, and the nearest other arms; numpy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arm import N_CAPSULES, Arm
from .capsules import capsule_segments
from .distance import at_least, closest, dot
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
    own: Array, heard: Array, message: Array, present: Array, asked: Array, arm: Arm, n_pairs: int, n_peers: int
) -> tuple[Array, Array]:
    """Pairs and peers of some arms, the nearest first; arms as they are see the others as heard.

    ``asked`` ``[M]``: which of the arms of B cells, ``present`` ``[B, N]``, row by row. ``own`` ``[51, M]``,
    ``heard`` ``[51, B N]``: :func:`shape_rows`; ``message`` ``[C, B N]``. Pairs ``[16, n_pairs, M]``: presence, gap,
    start of the own axis and its way to its end (3 each), the other's likewise, and the shares of both ways at which
    they are nearest. Peers ``[2 + C, n_peers, M]``: presence, gap, message; at most N - 1.
    """
    xp = module_of(own)
    n, m = present.shape[1], len(asked)
    # The others of an arm are those after it, around.
    lane, place = xp.arange(m, device=own.device), asked % n
    others = (asked - place) + (place + xp.arange(1, n, device=own.device)[:, None]) % n  # [N - 1, M] of B N
    mine, all_heard = _segments(own), _segments(heard)
    lines = mine[:, :, None, None], all_heard[:, None, :, others]  # [6, 8, 1, 1, M], [6, 1, 8, N - 1, M]
    if xp is np:  # few numbers: one after the other is faster than side by side
        whole = 6, N_CAPSULES, N_CAPSULES, n - 1, m
        lines = np.broadcast_to(lines[0], whole).reshape(6, -1), np.broadcast_to(lines[1], whole).reshape(6, -1)
    start_a, along_a, start_b, along_b = ((v[k], v[k + 1], v[k + 2]) for v in lines for k in (0, 3))
    s, t, apart = closest(start_a, along_a, start_b, along_b, steady=_STEADY)
    distance = at_least(dot(apart, apart), 1e-12) ** 0.5
    radius = xp.asarray([c.radius_m for c in arm.capsules], dtype=own.dtype, device=own.device)
    gap = distance.reshape(-1, n - 1, m) - (radius[:, None] + radius).reshape(-1, 1, 1)
    there = present.reshape(-1)
    gap = xp.where(there[others] & there[asked], gap, xp.zeros_like(gap) + _FAR_M)
    pairs = peers = xp.zeros_like(own[:0])[:, None]
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
