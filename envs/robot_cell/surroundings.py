"""All that one arm may meet, as one list of pairs of capsules: worked out together, since a dozen small arrays cost as
much as one. Numpy alone; :mod:`.gaps` has the same pair by pair of bodies.

Links of one arm come as near as a centimetre, and often side by side. Of two that are nearly parallel the nearest
points jump from one end to the other, and the gap there, which nobody had looked at, is the one that closes: each end
of a link is therefore looked at too, as a capsule of no length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .arm import N_CAPSULES, N_JOINTS, Arm
from .arm_body import ArmBody, Body, shape_of
from .distance import NO_DISTANCE_M, closest_of_few

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_OWN = 3 * N_CAPSULES  # capsules, and both ends of each
MOUNTED = 2
"""So many capsules of an arm, the first ones, stand where they stand."""
PLANE_GAPS = N_CAPSULES - MOUNTED
"""Gaps of an arm to one plane."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which of the own capsules ``first`` ``[P]`` is looked at with which of all bodies' ``second`` ``[P]``, own ones
    first: eight capsules, their starts, and their ends. Slices of ``[P]``: ``itself``, ``ends`` (of the own capsules of
    each pair in ``itself``, four times as many), ``peers`` (64 each), ``fixtures``, ``obstacles``, ``people``; what
    planes add comes after them."""

    first: Indices
    second: Indices
    itself: slice
    ends: slice
    peers: slice
    fixtures: slice
    obstacles: slice
    people: slice


@lru_cache(maxsize=64)
def pairs_of(arm: Arm, n_peers: int, n_fixtures: int, n_obstacles: int, n_people: int) -> Pairs:
    """The pairs of an arm among so many arms, capsules, obstacles and people."""
    a, b = shape_of(arm).self_pairs.T
    starts, ends = N_CAPSULES, 2 * N_CAPSULES
    first, second = [a, starts + a, ends + a, starts + b, ends + b], [b, b, b, a, a]
    slices = [slice(0, len(a)), slice(len(a), 5 * len(a))]
    at = _OWN
    for count, capsules in (
        (n_peers * N_CAPSULES, range(N_CAPSULES)), (n_fixtures, range(MOUNTED, N_CAPSULES)),
        (n_obstacles, range(N_CAPSULES)), (n_people, range(N_CAPSULES)),
    ):  # fmt: skip
        first.append(np.tile(np.array(capsules, dtype=np.intp), count))
        second.append(np.repeat(np.arange(at, at + count), len(capsules)))
        slices.append(slice(slices[-1].stop, slices[-1].stop + len(first[-1])))
        at += count
    return Pairs(np.concatenate(first), np.concatenate(second), *slices)


@dataclass(frozen=True)
class Nearness:
    """Of each pair: ``gap_m`` ``[P]``, ``normal`` ``[P, 3]`` to the own capsule, ``gradient`` ``[P, 6]`` of the gap by
    the own joints in m a rad; of those with other arms, ``theirs`` ``[.., 6, 3]``: how the other's point moves with its
    joints."""

    gap_m: Floats
    normal: Floats
    gradient: Floats
    theirs: Floats


def look_around(
    own: ArmBody, peers: Sequence[ArmBody], others: Sequence[Body], pairs: Pairs, *, theirs: bool = True
) -> Nearness:
    """Every pair of ``pairs``; ``others``: fixtures, obstacles and people, in this order. ``theirs``: whether it shall
    be told how the other arms' points move."""
    own = _with_ends(own)
    bodies = (own, *peers, *others)
    first, second = pairs.first, pairs.second
    lines = np.concatenate(
        [np.concatenate([b.start_m for b in bodies]), np.concatenate([b.along_m for b in bodies])], 1
    ).T  # [6, K]
    radius = np.concatenate([b.radius_m for b in bodies])
    s, t, apart = closest_of_few(lines.take(first, 1), lines.take(second, 1))
    distance = np.sqrt(np.einsum("cp,cp->p", apart, apart))
    scale = np.where(distance > NO_DISTANCE_M, 1.0 / np.maximum(distance, NO_DISTANCE_M), 0.0)
    normal = (apart * scale).T
    rates = _rates(own, first, s)
    itself = slice(pairs.itself.start, pairs.ends.stop)
    rates[itself] -= _rates(own, second[itself], t[itself])
    gradient = np.einsum("pjc,pc->pj", rates, normal)
    moves = rates[:0]
    if peers and theirs:
        those, each = pairs.peers, N_CAPSULES * N_CAPSULES
        which, share = second[those] % N_CAPSULES, t[those]
        spans = [slice(k * each, (k + 1) * each) for k in range(len(peers))]
        moves = np.concatenate([_rates(peer, which[k], share[k]) for peer, k in zip(peers, spans, strict=True)])
    return Nearness(distance - radius[first] - radius[second], normal, gradient, moves)


def look_down(own: ArmBody, planes: Floats) -> tuple[Floats, Floats]:
    """Gaps ``[6 P]`` of the arm's capsules, but those that are mounted, to ``planes`` ``[P, 4]`` (unit normal, offset),
    and their gradients ``[6 P, 6]``, as :func:`~.gaps.plane_gaps` has them one plane at a time."""
    normal = planes[:, :3].T
    fall = own.along_m[MOUNTED:] @ normal  # [6, P]
    gap = own.start_m[MOUNTED:] @ normal + np.minimum(fall, 0.0)
    gap -= planes[:, 3] + own.radius_m[MOUNTED:, None]
    gradient = own.along_rates[MOUNTED:] @ normal  # [6, 6, P]
    gradient *= (fall < 0.0)[:, None]
    gradient += own.start_rates[MOUNTED:] @ normal
    return gap.reshape(-1), gradient.swapaxes(1, 2).reshape(-1, N_JOINTS)


def _with_ends(arm: ArmBody) -> ArmBody:
    """The arm with both ends of each capsule behind its capsules, as capsules of no length."""
    nil, none = np.zeros_like(arm.along_m), np.zeros_like(arm.along_rates)
    return replace(
        arm,
        start_m=np.concatenate((arm.start_m, arm.start_m, arm.start_m + arm.along_m)),
        along_m=np.concatenate((arm.along_m, nil, nil)),
        radius_m=np.concatenate((arm.radius_m,) * 3),
        start_rates=np.concatenate((arm.start_rates, arm.start_rates, arm.start_rates + arm.along_rates)),
        along_rates=np.concatenate((arm.along_rates, none, none)),
    )


def _rates(arm: ArmBody, which: Indices, share: Floats) -> Floats:
    """How points at ``share`` ``[P]`` of capsules ``which`` ``[P]`` move with the joints, ``[P, 6, 3]``."""
    found = arm.along_rates.take(which, 0)
    found *= share[:, None, None]
    found += arm.start_rates.take(which, 0)
    return found
