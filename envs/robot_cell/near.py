"""The nearest pairs of capsules of each arm and the others, and the nearest other arms; numpy and torch."""

from __future__ import annotations

from typing import Any

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
    own: Array, heard: Array, message: Array, present: Array, arm: Arm, n_pairs: int, n_peers: int
) -> tuple[Array, Array]:
    """Pairs and peers of each arm, the nearest first; arms as they are see the others as heard.

    ``own``, ``heard``: ``[51, M]``, :func:`shape_rows` of the arms of B cells, M = B N; ``message`` ``[C, M]``;
    ``present`` ``[B, N]``. Pairs ``[n_pairs, 11, M]``: presence, gap, normal from the other to the own (3), point on
    the own axis and on the other's (3 each). Peers ``[n_peers, 2 + C, M]``: presence, gap, message; at most N - 1.
    """
    xp = module_of(own)
    n_rows, n = present.shape
    m = n_rows * n
    # The others of an arm are those after it, around.
    turns = [[(i + k) % n for i in range(n)] for k in range(1, n)]

    def of_others(values: Array) -> Array:
        """``[C, M]`` of each arm as ``[C, N - 1, M]`` of those that it looks at."""
        whole = values.reshape(-1, n_rows, n)
        return xp.stack([whole[..., turn].reshape(-1, m) for turn in turns], 1)

    mine = _segments(own)[:, :, None, None]  # [6, 8, 1, 1, M]
    theirs = of_others(_segments(heard).reshape(6 * N_CAPSULES, m)).reshape(6, 1, N_CAPSULES, n - 1, m)
    start_a, along_a, start_b, along_b = ((v[k], v[k + 1], v[k + 2]) for v in (mine, theirs) for k in (0, 3))
    s, t, apart = closest(start_a, along_a, start_b, along_b, steady=_STEADY)
    distance = at_least(dot(apart, apart), 1e-12) ** 0.5
    radius = xp.asarray([c.radius_m for c in arm.capsules], dtype=own.dtype, device=own.device)
    gap = distance - (radius[:, None] + radius)[:, :, None, None]
    there = of_others(present.reshape(1, -1))[0] & present.reshape(-1)
    gap = xp.where(there, gap, xp.zeros_like(gap) + _FAR_M)
    pairs = xp.zeros_like(own[:0])[:, None]
    peers = pairs
    if n_pairs:
        pairs = _pairs(xp, gap, (mine, theirs, xp.stack((s, t, distance, *apart))), n_pairs)
    if n_peers:
        peers = _peers(xp, xp.amin(gap.reshape(-1, n - 1, m), 0), of_others(message), n_peers)
    return pairs, peers


def _pairs(xp: Any, gap: Array, parts: tuple[Array, Array, Array], count: int) -> Array:
    mine, theirs, found = parts
    n_others, m = gap.shape[-2:]
    first = _first(xp, gap.reshape(-1, m), count)  # [count, M] into pairs and others together
    lane = xp.arange(m, device=gap.device)
    share_a, share_b, distance, *apart = found.reshape(6, -1, m)[:, first, lane]
    near = gap.reshape(-1, m)[first, lane]
    a = mine.reshape(6, N_CAPSULES, m)[:, first // (N_CAPSULES * n_others), lane]
    b = theirs.reshape(6, -1, m)[:, first % (N_CAPSULES * n_others), lane]
    normal = xp.stack(apart) / distance
    rows = (_is_there(xp, near)[None], near[None], normal, a[:3] + share_a * a[3:], b[:3] + share_b * b[3:])
    return xp.swapaxes(xp.concatenate(rows), 0, 1)


def _peers(xp: Any, gap: Array, message: Array, count: int) -> Array:
    n_others, m = gap.shape
    first = _first(xp, gap, min(count, n_others))
    lane = xp.arange(m, device=gap.device)
    near = gap[first, lane]
    rows = (_is_there(xp, near)[None], near[None], message[:, first, lane])
    return xp.swapaxes(xp.concatenate(rows), 0, 1)


def _segments(shape: Array) -> Array:
    """Starts x, y, z and from there to the ends, ``[6, 8, M]``."""
    xp = module_of(shape)
    ends = shape[: 6 * N_CAPSULES].reshape(6, N_CAPSULES, -1)
    return xp.concatenate((ends[:3], ends[3:] - ends[:3]))


def _first(xp: Any, gap: Array, count: int) -> Array:
    """Rows of the ``count`` smallest gaps of each column, ``[count, M]``."""
    rank = xp.arange(len(gap), device=gap.device)[:, None]
    key = gap + _FIRST_M * rank
    found = []
    for _ in range(count):
        found.append(key.argmin(0))
        key = xp.where(rank == found[-1], xp.zeros_like(key) + 2.0 * _FAR_M, key)
    return xp.stack(found)


def _is_there(xp: Any, gap: Array) -> Array:
    return xp.where(gap < 0.5 * _FAR_M, xp.ones_like(gap), xp.zeros_like(gap))
