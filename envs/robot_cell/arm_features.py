"""What an arm's policy is told, component by component: the same lines on floats (one arm, on the edge), numpy and
torch (any batch), like :mod:`.kinematics`. :mod:`.encoder` has the order.

Vectors are sequences of components, each a float or ``[M]``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .arm import N_JOINTS
from .distance import at_least
from .kinematics import Value, Vector, module_of
from .nameplate import MEASURED

_AT = {signal.name: k for k, signal in enumerate(MEASURED)}
Q, DQ, TARGET = (slice(_AT[n], _AT[n] + k) for n, k in (("q1_rad", 6), ("dq1_radps", 6), ("target_x_m", 3)))
_STALL, _GAP, _HOLDS = _AT["stall_s"], _AT["gap_m"], _AT["holds"]

N_OWN, N_PAIR, N_PEER = 3 * N_JOINTS + 16, 12, 3 * N_JOINTS + 16
MOTIONS = ("turns", "reach", "home", "out", "across", "up")
"""What :func:`motion_shares` proposes."""
TURN_M = 0.12
"""Arms nearer than this take turns in the motion ``turns``."""
_REACH_PER_S, _REACH_MPS, _HOME_PER_S, _ASIDE_MPS, _DAMPING_M = 4.0, 0.5, 3.0, 0.3, 0.05


class BaseFrame(NamedTuple):
    """The frame of an arm's base: its origin in the cell, cosine and sine of its yaw."""

    origin: Vector
    cos: Value
    sin: Value

    @classmethod
    def of(cls, base: Sequence[Value]) -> BaseFrame:
        """``base``: x, y, z in m, yaw in rad."""
        f = _functions(base[3])
        return cls((base[0], base[1], base[2]), f.cos(base[3]), f.sin(base[3]))

    def point(self, v: Sequence[Value]) -> Vector:
        """A point of the cell in this frame."""
        x, y, z = self.origin
        return self.direction((v[0] - x, v[1] - y, v[2] - z))

    def direction(self, v: Sequence[Value]) -> Vector:
        x, y, z = v
        return x * self.cos + y * self.sin, y * self.cos - x * self.sin, z


def own_features(
    told: Sequence[Value],
    tool: Sequence[Value],
    frame: BaseFrame,
    top_radps: Sequence[float],
    reach_m: float,
    usual_m: float,
    usual_s: float,
) -> list[Value]:
    """:data:`N_OWN` of what an arm measures itself; ``tool``: its tool point in the cell."""
    f, q = _functions(told[0]), told[Q]
    at, target = frame.point(tool), frame.point(told[TARGET])
    way = target[0] - at[0], target[1] - at[1], target[2] - at[2]
    distance, stall = _length(way), told[_STALL]
    found = [f.sin(v) for v in q]
    found += [f.cos(v) for v in q]
    found += [v / top for v, top in zip(told[DQ], top_radps, strict=True)]
    found += [v / reach_m for v in (*at, *target)]
    found += [v / 0.5 for v in way]
    found += [v / 0.05 for v in way]
    found += [distance / (distance + 0.2), told[_HOLDS], stall / (stall + usual_s), _nearness(told[_GAP], usual_m)]
    return found


def pair_features(pair: Sequence[Value], frame: BaseFrame, reach_m: float, usual_m: float) -> list[Value]:
    """:data:`N_PAIR` of a pair as :func:`~.near.nearest` gives it; nil where there is none."""
    there, gap, ax, ay, az, aux, auy, auz, bx, by, bz, bux, buy, buz, s, t = pair
    a = ax + s * aux, ay + s * auy, az + s * auz
    b = bx + t * bux, by + t * buy, bz + t * buz
    way = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    distance = _length(way)
    normal = frame.direction((way[0] / distance, way[1] / distance, way[2] / distance))
    known = [_nearness(gap, usual_m), gap, *normal, *(v / reach_m for v in (*frame.point(a), *frame.point(b)))]
    return [there, *(v * there for v in known)]


def peer_features(
    peer: Sequence[Value],
    frame: BaseFrame,
    top_radps: Sequence[float],
    reach_m: float,
    usual_m: float,
    usual_s: float,
) -> list[Value]:
    """:data:`N_PEER` of another arm: presence, gap, and its message: base (4), tool (3), joints (6), speeds (6),
    target (3), stall, age. The last place is empty: networks that were trained with one more go on."""
    there, gap, yaw, stall, age = peer[0], peer[1], peer[5], peer[24], peer[25]
    f = _functions(there)
    cos, sin = f.cos(yaw), f.sin(yaw)
    points = (*frame.point(peer[2:5]), *frame.point(peer[6:9]), *frame.point(peer[21:24]))
    known = [_nearness(gap, usual_m), *(v / reach_m for v in points)]
    known += [cos * frame.cos + sin * frame.sin, sin * frame.cos - cos * frame.sin]
    known += [f.sin(v) for v in peer[9:15]]
    known += [f.cos(v) for v in peer[9:15]]
    known += [v / top for v, top in zip(peer[15:21], top_radps, strict=True)]
    known += [stall / (stall + usual_s), age / (age + 0.1), 0.0 * there]
    return [there, *(v * there for v in known)]


def is_sooner(peer: Sequence[Value], target: Sequence[Value], tool: Sequence[Value]) -> Value:
    """Whether a peer within :data:`TURN_M` is nearer to its target than the own tool is to its own."""
    left = peer[21] - peer[6], peer[22] - peer[7], peer[23] - peer[8]
    way = target[0] - tool[0], target[1] - tool[1], target[2] - tool[2]
    return (_square(left) < _square(way)) & (peer[0] > 0.5) & (peer[1] < TURN_M)


def motion_shares(
    told: Sequence[Value],
    home: Sequence[Value],
    tool: Sequence[Value],
    frame: BaseFrame,
    jacobian: Sequence[Sequence[Value]],
    behind: Value,
    top_radps: Sequence[float],
) -> list[Value]:
    """Six joints of each of :data:`MOTIONS`, each scaled as a whole to the top speeds; ``behind``: not its turn.

    Damped least squares as in :func:`~.kinematics.resolved_rates`; the damped square is positive, so that its LDL
    decomposition needs no pivots (Golub & Van Loan 2013, section 4.1). ``jacobian``: of the tool, ``[3][6]``.
    """
    j1, j2, j3 = jacobian
    target = told[TARGET]
    way = target[0] - tool[0], target[1] - tool[1], target[2] - tool[2]
    distance = _length(way)
    pace = _at_most(_REACH_PER_S * distance, _REACH_MPS) / distance
    cos, sin = _ASIDE_MPS * frame.cos, _ASIDE_MPS * frame.sin
    # At q1 = 0 an arm reaches to the -x of its base.
    wanted = (
        (way[0] * pace, way[1] * pace, way[2] * pace),
        (-cos, -sin, 0.0),
        (sin, -cos, 0.0),
        (0.0, 0.0, _ASIDE_MPS),
    )
    damping = _DAMPING_M**2
    d1, a12, a13 = _product(j1, j1) + damping, _product(j1, j2), _product(j1, j3)
    l21, l31 = a12 / d1, a13 / d1
    d2, rest = _product(j2, j2) + damping - l21 * a12, _product(j2, j3) - l21 * a13
    l32 = rest / d2
    d3 = _product(j3, j3) + damping - l31 * a13 - l32 * rest
    moves = []
    for x, y, z in wanted:
        y = y - l21 * x
        z = (z - l31 * x - l32 * y) / d3
        y = y / d2 - l32 * z
        x = x / d1 - l21 * y - l31 * z
        moves.append(
            _scaled([(a * x + b * y + c * z) / top for a, b, c, top in zip(j1, j2, j3, top_radps, strict=True)])
        )
    back = [(h - v) * _HOME_PER_S / top for h, v, top in zip(home, told[Q], top_radps, strict=True)]
    reach, *aside, back = *moves, _scaled(back)
    if isinstance(behind, bool):
        turns = back if behind else reach
    else:
        turns = [module_of(b).where(behind, b, r) for b, r in zip(back, reach, strict=True)]
    return [*turns, *reach, *back, *(v for motion in aside for v in motion)]


def _scaled(shares: list[Value]) -> list[Value]:
    """All of them slower alike, so that none is above one."""
    if isinstance(shares[0], float):
        most: Value = max(1.0, *map(abs, shares))
    else:
        xp = module_of(shares[0])
        most = xp.abs(xp.stack(shares))
        most = at_least(most.max(0) if xp is np else most.amax(0), 1.0)
    return [share / most for share in shares]


def _functions(like: Value) -> Any:
    """Where the sine of such a value is."""
    return math if isinstance(like, float) else module_of(like)


def _nearness(gap: Value, usual_m: float) -> Value:
    """1 at no gap or less, 0.5 at the usual one, falling to 0."""
    return usual_m / (usual_m + (max(gap, 0.0) if isinstance(gap, float) else at_least(gap, 0.0)))


def _length(v: Vector) -> Value:
    """No less than a micrometre."""
    square = _square(v)
    return math.sqrt(max(square, 1e-12)) if isinstance(square, float) else at_least(square, 1e-12) ** 0.5


def _at_most(value: Value, most: float) -> Value:
    return min(value, most) if isinstance(value, float) else -at_least(-value, -most)


def _square(v: Vector) -> Value:
    return v[0] * v[0] + v[1] * v[1] + v[2] * v[2]


def _product(v: Sequence[Value], w: Sequence[Value]) -> Value:
    """Of six components each."""
    return v[0] * w[0] + v[1] * w[1] + v[2] * w[2] + v[3] * w[3] + v[4] * w[4] + v[5] * w[5]
