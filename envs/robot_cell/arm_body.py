"""Where one arm's capsules are and how they move with its joints, in a few matrix products; numpy alone.

In the arm's plane (:mod:`.kinematics`) every point that the last joint does not move is a sum of thirteen products of
sines and cosines, with constants of the arm. The constants are solved for once, from poses of :func:`.kinematics.pose`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .arm import N_CAPSULES, N_JOINTS, UR5E, Arm
from .capsules import radii
from .kinematics import local_point, pose, tool_point

Floats = NDArray[np.float64]

_N_POINTS = 2 * N_CAPSULES + 1  # starts and ends of capsules, and the tool point
_NIL = 1e-11  # constants below it, in m, are rounding
_KNOWN = 32  # arms that are remembered


@dataclass(frozen=True)
class Body:
    """Capsules ``[K]`` of anything: ``start_m`` ``[K, 3]``, ``along_m`` ``[K, 3]`` (end less start), ``radius_m``
    ``[K]``."""

    start_m: Floats
    along_m: Floats
    radius_m: Floats


@dataclass(frozen=True)
class ArmBody(Body):
    """An arm's eight capsules, how both ends move with each joint, ``start_rates`` and ``along_rates`` ``[8, 6, 3]`` m
    a rad, and its tool point ``[3]`` with its Jacobian ``[3, 6]``."""

    start_rates: Floats
    along_rates: Floats
    tool_m: Floats
    tool_rates: Floats


class ArmShape:
    """The constants of an arm as arrays, made once (:func:`shape_of`).

    Raises :class:`ValueError` for an arm with a point that its last joint moves.
    """

    def __init__(self, arm: Arm = UR5E) -> None:
        self.arm = arm
        self.radius_m = radii(arm)
        self.self_pairs = np.array([(i, j) for a, b in arm.self_blocks for i in range(*a) for j in range(*b)])
        self._constants = _constants(arm)
        self._known: dict[tuple[bytes, bytes], ArmBody] = {}

    def at(self, q: Floats, base: Floats) -> ArmBody:
        """Capsules and rates at ``q`` ``[6]`` rad, on ``base`` ``[4]``: x, y, z in m, yaw in rad."""
        return self.each(q[None], base[None])[0]

    def each(self, q: Floats, bases: Floats) -> list[ArmBody]:
        """The same of arms at ``q`` ``[M, 6]`` on ``bases`` ``[M, 4]``. Those asked for last are remembered: an encoder
        and the guard ask for the same arms in one period."""
        known = self._known
        keys = [(joints.tobytes(), base.tobytes()) for joints, base in zip(q, bases, strict=True)]
        found = [known.get(key) for key in keys]
        new = [m for m, body in enumerate(found) if body is None]
        if new:
            if len(known) >= _KNOWN:
                self._known = known = {}
            for m, body in zip(new, self._worked_out(q[new], bases[new]), strict=True):
                known[keys[m]] = found[m] = body
        return [body for body in found if body is not None]

    def _worked_out(self, q: Floats, bases: Floats) -> list[ArmBody]:
        m = len(q)
        joints, feet = q.tolist(), bases.tolist()
        # [M, 5, 17, 3]: the points and how they move with joints 2 to 5, in the plane
        found = (np.array([_products(*one[1:5]) for one in joints]) @ self._constants).reshape(m, 5, _N_POINTS, 3)
        turned = [one[0] + base[3] for one, base in zip(joints, feet, strict=True)]
        unit = [(math.cos(v), math.sin(v)) for v in turned]
        turn = np.array([((c, s, 0.0), (s, -c, 0.0), (0.0, 0.0, 1.0)) for c, s in unit])
        found = found @ turn[:, None]  # (r, t, u) to (x, y, z)
        points = found[:, 0]
        rates = np.zeros((m, _N_POINTS, N_JOINTS, 3))
        rates[..., 0, 0] = -points[..., 1]
        rates[..., 0, 1] = points[..., 0]
        rates[:, :, 1:5] = found[:, 1:].swapaxes(1, 2)
        points = points + bases[:, None, :3]
        ends, ends_rates = points[:, N_CAPSULES : 2 * N_CAPSULES], rates[:, N_CAPSULES : 2 * N_CAPSULES]
        start, start_rates = points[:, :N_CAPSULES], rates[:, :N_CAPSULES]
        along, along_rates = ends - start, ends_rates - start_rates
        return [
            ArmBody(start[k], along[k], self.radius_m, start_rates[k], along_rates[k], points[k, -1], rates[k, -1].T)
            for k in range(m)
        ]


@lru_cache(maxsize=8)
def shape_of(arm: Arm) -> ArmShape:
    """The one shape of an arm that a process has."""
    return ArmShape(arm)


def _products(q2: float, q3: float, q4: float, q5: float) -> Sequence[Sequence[float]]:
    """The thirteen products, and how they change with joints 2 to 5, ``[5][13]``."""
    c2, s2, c3, s3 = math.cos(q2), math.sin(q2), math.cos(q2 + q3), math.sin(q2 + q3)
    c4, s4, c5, s5 = math.cos(q2 + q3 + q4), math.sin(q2 + q3 + q4), math.cos(q5), math.sin(q5)
    cc, cs, sc, ss = c5 * c4, c5 * s4, s5 * c4, s5 * s4
    return (
        (1.0, c2, s2, c3, s3, c4, s4, cc, cs, s5, sc, ss, c5),
        (0.0, -s2, c2, -s3, c3, -s4, c4, -cs, cc, 0.0, -ss, sc, 0.0),
        (0.0, 0.0, 0.0, -s3, c3, -s4, c4, -cs, cc, 0.0, -ss, sc, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, -s4, c4, -cs, cc, 0.0, -ss, sc, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -sc, -ss, c5, cc, cs, -s5),
    )


def _constants(arm: Arm) -> Floats:
    """``[13, 51]``: what each product gives to the coordinates r, t, u of each point."""
    poses = np.random.default_rng(0).uniform(-math.pi, math.pi, (60, N_JOINTS))
    products = np.array([_products(*q[1:5])[0] for q in poses.tolist()])
    seen = []
    for q in poses.tolist():
        p = pose(q, (0.0, 0.0, 0.0, 0.0), arm)
        ends = [local_point(p.frames[c.frame], point) for c in arm.capsules for point in (c.start_m, c.end_m)]
        seen.append([*ends[0::2], *ends[1::2], tool_point(p, arm)])
    wanted = np.array(seen).reshape(len(poses), -1)
    found = np.linalg.lstsq(products, wanted, rcond=None)[0]
    found[np.abs(found) < _NIL] = 0.0
    if np.abs(products @ found - wanted).max() > _NIL:
        raise ValueError(f"arm {arm.name!r}: a capsule or the tool point lies off the axis of the last joint")
    return np.asarray(found)
