"""Where an arm's capsules are; numpy and torch, and float by float for one arm (:mod:`.kinematics`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arm import N_CAPSULES, UR5E, Arm
from .kinematics import Array, Pose, Vector, assembled, local_point

Segment = tuple[Vector, Vector]
"""Start and end, each of three coordinates."""


def capsule_segments(p: Pose, arm: Arm = UR5E) -> list[Segment]:
    """Axes of an arm's capsules in the cell's frame, eight of them."""
    return [
        (p.position(local_point(p.frames[c.frame], c.start_m)), p.position(local_point(p.frames[c.frame], c.end_m)))
        for c in arm.capsules
    ]


def capsule_ends(q: Array, base: Array, arm: Arm = UR5E) -> Array:
    """Both ends of the axes of an arm's capsules in the cell's frame, ``[.., 8, 2, 3]`` m.

    ``q``: ``[.., 6]`` rad; ``base``: ``[.., 4]``: x, y, z in m, yaw in rad.
    """

    def rows(p: Pose) -> list[Any]:
        return [value for segment in capsule_segments(p, arm) for end in segment for value in end]

    found = assembled(q, base, rows, arm)
    return found.reshape((*found.shape[:-1], N_CAPSULES, 2, 3))


def radii(arm: Arm = UR5E) -> NDArray[np.float64]:
    """Radius of each capsule, ``[8]`` m."""
    return np.array([c.radius_m for c in arm.capsules])
