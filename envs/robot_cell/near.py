"""The nearest pairs of capsules of each arm and the others, and the nearest other arms; numpy and torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arm import N_CAPSULES, Arm
from .capsules import capsule_segments
from .distance import at_least, closest, dot
from .kinematics import Pose, module_of

Array = Any

_FAR_M = 1e3
_FIRST_M = 2e-5
"""By so much a pair goes before the next in order where both are as near. Well above rounding, so that float32 in
training and float64 on the edge list them in one order."""
_STEADY = 1e-6


def nearest_of(
    own: Pose, heard: Pose, message: Sequence[Array], present: Array, arm: Arm, n_pairs: int, n_peers: int
) -> tuple[list[list[Array]], list[list[Array]]]:
    """Pairs and peers, the nearest first; arms as they are see the others as heard.

    Poses and ``message`` are of components ``[B N]``, ``present`` is ``[B, N]``. A pair: presence, gap, normal from the
    other to the own (3), own point, other's point (3 each). A peer: presence, gap, its message. Components ``[B N]``.
    """
    xp = module_of(own.cos)
    n_rows, n = present.shape
    # The others of an arm are those after it, around.
    turns = [[(i + k) % n for i in range(n)] for k in range(1, n)]

    def of_others(values: Array) -> Array:
        """``[.., B N]`` of each arm as ``[.., N - 1, B N]`` of those that it looks at."""
        lead = tuple(values.shape[:-1])
        whole = values.reshape((*lead, n_rows, n))
        return xp.stack([whole[..., turn].reshape((*lead, n_rows * n)) for turn in turns], len(lead))

    mine, theirs = _capsules(own, arm)[:, :, None, None], of_others(_capsules(heard, arm))[:, None]
    there = of_others(present.reshape(-1)) & present.reshape(-1)
    start_a, along_a, start_b, along_b = ((v[k], v[k + 1], v[k + 2]) for v in (mine, theirs) for k in (0, 3))
    s, t, apart = closest(start_a, along_a, start_b, along_b, steady=_STEADY)
    distance = at_least(dot(apart, apart), 1e-12) ** 0.5
    one = xp.ones_like(own.cos)
    radius = xp.stack([c.radius_m * one for c in arm.capsules])[:, None]
    gap = distance - radius[:, None] - radius
    gap = xp.where(there, gap, xp.zeros_like(gap) + _FAR_M)
    m = gap.shape[-1]
    pairs = _picked(
        gap,
        [
            *(v / distance for v in apart),
            *(p + s * v for p, v in zip(start_a, along_a, strict=True)),
            *(p + t * v for p, v in zip(start_b, along_b, strict=True)),
        ],
        n_pairs,
    )
    nearest = xp.amin(gap.reshape(N_CAPSULES * N_CAPSULES, n - 1, m), 0)
    told = of_others(xp.stack(list(message)))
    return pairs, _picked(nearest, list(told), n_peers)


def _capsules(p: Pose, arm: Arm) -> Array:
    """``[6, 8, M]``: starts, and from there to the ends."""
    xp = module_of(p.cos)
    whole = xp.zeros_like(p.cos)
    segments = capsule_segments(p, arm)
    starts = [xp.stack([whole + start[c] for start, _ in segments]) for c in range(3)]
    ends = [xp.stack([whole + end[c] for _, end in segments]) for c in range(3)]
    return xp.stack([*starts, *(end - start for start, end in zip(starts, ends, strict=True))])


def _picked(gap: Array, others: Sequence[Array], count: int) -> list[list[Array]]:
    """Presence, gap and ``others`` of the ``count`` with the smallest gaps; leading axes of ``gap`` are what is picked
    from, the last is kept."""
    xp = module_of(gap)
    m = gap.shape[-1]
    flat = gap.reshape(-1, m)
    # Full shape, of one kind of numbers: a component may lack the axes that it does not depend on.
    columns = [flat, *((v + xp.zeros_like(gap)).reshape(-1, m) for v in others)]
    rank = xp.arange(len(flat), device=gap.device)[:, None]
    key = flat + _FIRST_M * rank
    found = []
    for _ in range(count):
        first = key.argmin(0)[None]
        row = [_taken(v, first)[0] for v in columns]
        there = xp.where(row[0] < 0.5 * _FAR_M, xp.ones_like(row[0]), xp.zeros_like(row[0]))
        found.append([there, *row])
        key = xp.where(rank == first, xp.zeros_like(key) + 2.0 * _FAR_M, key)
    return found


def _taken(values: Array, index: Array) -> Array:
    """Rows of each column: the one thing here that numpy and torch name differently."""
    return np.take_along_axis(values, index, 0) if isinstance(values, np.ndarray) else values.take_along_dim(index, 0)
