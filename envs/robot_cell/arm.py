"""Universal Robots UR5e in plain data: geometry, limits, stopping data, capsules. No torch, no simulator.

Denavit-Hartenberg table: the maker's "DH parameters for calculations of kinematics and dynamics" (Universal Robots
support article). Braking: the maker's user manual of the UR5/CB3, stop category 0, 183 deg/s, full reach, 5 kg payload:
base 0.31 rad, shoulder 0.70 rad, elbow 0.22 rad; speed squared over twice that arc is the deceleration. The manual has
no wrists; they carry less than the elbow and get its figure.

Capsules: smallest in volume (CMA-ES over ends and radii, axes being those of joints and tubes) that hold all vertices
of the maker's shells as DeepMind's MuJoCo Menagerie has them, and its collision shapes, which are smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

N_JOINTS = 6
N_CAPSULES = 8

Point = tuple[float, float, float]
Span = tuple[int, int]


@dataclass(frozen=True)
class Capsule:
    """All points within ``radius_m`` of the segment from ``start_m`` to ``end_m``, in the frame of joint ``frame``.

    Frame 0 is the base, frame k follows joint k. ``n_moving`` joints from the first move it: a capsule whose axis is
    that of the joint before it does not feel that joint.
    """

    name: str
    frame: int
    start_m: Point
    end_m: Point
    radius_m: float
    n_moving: int


@dataclass(frozen=True)
class Arm:
    """A six-joint arm whose joints 2, 3 and 4 are parallel.

    ``d_m``, ``a_m``, ``alpha_rad``: Denavit-Hartenberg rows (Denavit & Hartenberg 1955, distal variant). ``q_min_rad``,
    ``q_max_rad``, ``speed_radps``, ``braking_radps2``: limits of each joint. ``tool_length_m``: from the flange to the
    tool point, along the flange's axis. ``self_blocks``: capsules of one arm that can meet each other, all
    of a span (first, last + 1) with all of another.
    """

    name: str
    d_m: tuple[float, ...]
    a_m: tuple[float, ...]
    alpha_rad: tuple[float, ...]
    q_min_rad: tuple[float, ...]
    q_max_rad: tuple[float, ...]
    speed_radps: tuple[float, ...]
    braking_radps2: tuple[float, ...]
    reach_m: float
    capsules: tuple[Capsule, ...]
    self_blocks: tuple[tuple[Span, Span], ...]
    tool_length_m: float = 0.0


_FOREARM_M = 0.3922

UR5E = Arm(
    name="ur5e",
    d_m=(0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996),
    a_m=(0.0, -0.425, -_FOREARM_M, 0.0, 0.0, 0.0),
    alpha_rad=(math.pi / 2, 0.0, 0.0, math.pi / 2, -math.pi / 2, 0.0),
    q_min_rad=(-2 * math.pi, -2 * math.pi, -math.pi, -2 * math.pi, -2 * math.pi, -2 * math.pi),
    q_max_rad=(2 * math.pi, 2 * math.pi, math.pi, 2 * math.pi, 2 * math.pi, 2 * math.pi),
    speed_radps=(math.pi,) * 6,
    braking_radps2=(16.5, 7.3, 23.2, 23.2, 23.2, 23.2),
    reach_m=0.85,
    capsules=(
        Capsule("shoulder", 0, (0.0, 0.0, 0.0095), (0.0, 0.0, 0.1825), 0.076, 0),
        Capsule("shoulder_lift", 1, (0.0, 0.0, 0.039), (0.0, 0.0, 0.190), 0.061, 1),
        Capsule("upper_arm", 2, (0.432, 0.0, 0.138), (0.034, 0.0, 0.138), 0.059, 2),
        Capsule("elbow", 3, (_FOREARM_M, 0.0, 0.038), (_FOREARM_M, 0.0, 0.173), 0.0675, 2),
        Capsule("forearm", 3, (0.3732, 0.0, 0.007), (-0.0018, 0.0, 0.007), 0.05, 3),
        Capsule("wrist_1", 4, (0.0, -0.1638, 0.0), (0.0, 0.0027, 0.0), 0.0405, 3),
        Capsule("wrist_2", 5, (0.0, 0.1352, 0.0), (0.0, -0.0103, 0.0), 0.0405, 4),
        Capsule("wrist_3", 6, (0.0, 0.0, -0.1441), (0.0, 0.0, -0.0021), 0.0435, 5),
    ),
    # Shoulder with forearm and wrists, upper arm with wrists, elbow and forearm with the last wrist. Upper arm and
    # forearm turn in planes 13 cm apart and never meet.
    self_blocks=(((0, 2), (4, 8)), ((2, 3), (5, 8)), ((3, 5), (7, 8))),
)


def with_tool(arm: Arm, length_m: float) -> Arm:
    """The arm with a tool of that length on its flange; its last capsule grows by as much."""
    last = arm.capsules[-1]
    grown = replace(last, end_m=(last.end_m[0], last.end_m[1], last.end_m[2] + length_m))
    return replace(arm, capsules=(*arm.capsules[:-1], grown), tool_length_m=length_m)
