"""Where an arm is, and how fast its points move: closed forms for a six-joint arm with parallel joints 2, 3 and 4.

The same lines run on floats (one arm, on the edge), numpy and torch (any batch). An arm turns about its foot in a
vertical plane, so that all is first written in plane coordinates (r, t, u): r away from the axis of joint 1, t along
the parallel axes, u up; joint 1 and the base's yaw turn (r, t) into (x, y) at the end. The frames are those of the
maker's Denavit-Hartenberg table (distal variant), which the tests hold this against.

Whole arrays: joints ``q`` ``[.., 6]`` in rad, ``base`` ``[.., 4]``: x, y, z in m, yaw in rad; leading axes broadcast.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .arm import N_JOINTS, UR5E, Arm, Point

Value = Any
"""A float, a numpy array or a torch tensor."""
Array = Any
"""A numpy array or a torch tensor."""
Vector = tuple[Value, Value, Value]

_AS_FLOATS = 16
"""Up to so many arms, float by float is faster than numpy."""


class Frame(NamedTuple):
    """A link's frame in plane coordinates."""

    origin: Vector
    x: Vector
    y: Vector
    z: Vector


class Pose(NamedTuple):
    """An arm's frames 0 to 6 in plane coordinates, and what turns these into the cell's: cosine and sine of joint 1
    plus the base's yaw, and the base's position."""

    frames: tuple[Frame, ...]
    cos: Value
    sin: Value
    base: Vector

    def direction(self, v: Vector) -> Vector:
        """Plane coordinates of a vector to the cell's."""
        r, t, u = v
        if _is_nil(t):
            return r * self.cos, r * self.sin, u
        if _is_nil(r):
            return t * self.sin, -t * self.cos, u
        return r * self.cos + t * self.sin, r * self.sin - t * self.cos, u

    def position(self, v: Vector) -> Vector:
        """Plane coordinates of a point to the cell's."""
        x, y, z = self.direction(v)
        return x + self.base[0], y + self.base[1], z + self.base[2]


def pose(q: Sequence[Value], base: Sequence[Value], arm: Arm = UR5E) -> Pose:
    """Frames of an arm from its six joint angles and its base's x, y, z and yaw, each of any one shape."""
    xp: Any = math if isinstance(q[0], float) else module_of(q[0])
    d, a = arm.d_m, arm.a_m
    turn, q23 = q[0] + base[3], q[1] + q[2]
    q234 = q23 + q[3]
    (c2, s2), (c3, s3), (c4, s4), (c5, s5), (c6, s6) = ((xp.cos(v), xp.sin(v)) for v in (q[1], q23, q234, q[4], q[5]))
    radial, across, up = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    o1 = (0.0, 0.0, d[0])
    o2 = (a[1] * c2, 0.0, d[0] + a[1] * s2)
    o3 = (o2[0] + a[2] * c3, 0.0, o2[2] + a[2] * s3)
    x4, z4 = (c4, 0.0, s4), (s4, 0.0, -c4)
    o4 = (o3[0], d[3], o3[2])
    x5, z5 = (c5 * c4, s5, c5 * s4), (-s5 * c4, c5, -s5 * s4)
    o5 = (o4[0] + d[4] * s4, d[3], o4[2] - d[4] * c4)
    o6 = (o5[0] + d[5] * z5[0], o5[1] + d[5] * z5[1], o5[2] + d[5] * z5[2])
    frames = (
        Frame((0.0, 0.0, 0.0), radial, across, up),
        Frame(o1, radial, up, across),
        Frame(o2, (c2, 0.0, s2), (-s2, 0.0, c2), across),
        Frame(o3, (c3, 0.0, s3), (-s3, 0.0, c3), across),
        Frame(o4, x4, across, z4),
        Frame(o5, x5, (-s4, 0.0, c4), z5),
        Frame(o6, _mix(x5, c6, z4, -s6), _mix(x5, -s6, z4, -c6), z5),
    )
    return Pose(frames, xp.cos(turn), xp.sin(turn), (base[0], base[1], base[2]))


def local_point(frame: Frame, point: Point) -> Vector:
    """A point given in a link's frame, in plane coordinates; nothing is computed for coordinates that are nil."""
    r, t, u = frame.origin
    for share, (along_r, along_t, along_u) in zip(point, frame[1:], strict=True):
        if share != 0.0:
            r = r if _is_nil(along_r) else r + share * along_r
            t = t if _is_nil(along_t) else t + share * along_t
            u = u if _is_nil(along_u) else u + share * along_u
    return r, t, u


def tool_point(p: Pose, arm: Arm = UR5E) -> Vector:
    """The tool point in plane coordinates."""
    return local_point(p.frames[N_JOINTS], (0.0, 0.0, arm.tool_length_m))


def point_rates(p: Pose, point: Vector, n_moving: int = N_JOINTS) -> list[Vector]:
    """How a point of the arm moves with each of the first ``n_moving`` joints, in plane coordinates, m a rad."""
    r, t, u = point
    rates: list[Vector] = [(t, -r, 0.0)]  # joint 1 turns about the vertical
    for joint in range(1, min(n_moving, 4)):  # joints 2 to 4 turn in the plane
        o = p.frames[joint].origin
        rates.append((o[2] - u, 0.0, r - o[0]))
    for joint in range(4, n_moving):
        o, z = p.frames[joint].origin, p.frames[joint].z
        rates.append(cross(z, (r - o[0], t - o[1], u - o[2])))
    return rates[:n_moving]


def cross(v: Vector, w: Vector) -> Vector:
    """The cross product of vectors in plane coordinates; (r, t, u) is left-handed, unlike (x, y, z)."""
    return v[2] * w[1] - v[1] * w[2], v[0] * w[2] - v[2] * w[0], v[1] * w[0] - v[0] * w[1]


def tool_position(q: Array, base: Array, arm: Arm = UR5E) -> Array:
    """Tool point in the cell's frame, ``[.., 3]`` m."""
    return assembled(q, base, lambda p: p.position(tool_point(p, arm)), arm)


def tool_rotation(q: Array, base: Array, arm: Arm = UR5E) -> Array:
    """Rotation of the flange in the cell's frame, ``[.., 3, 3]``; its columns are the axes."""

    def rows(p: Pose) -> list[Value]:
        axes = [p.direction(axis) for axis in p.frames[N_JOINTS][1:]]
        return [axes[column][row] for row in range(3) for column in range(3)]

    found = assembled(q, base, rows, arm)
    return found.reshape((*found.shape[:-1], 3, 3))


def frame_origins(q: Array, base: Array, arm: Arm = UR5E) -> Array:
    """Origins of frames 0 to 6 in the cell's frame, ``[.., 7, 3]`` m."""
    found = assembled(q, base, lambda p: [c for f in p.frames for c in p.position(f.origin)], arm)
    return found.reshape((*found.shape[:-1], N_JOINTS + 1, 3))


def joint_axes(q: Array, base: Array, arm: Arm = UR5E) -> Array:
    """Unit axes of joints 1 to 6 in the cell's frame, ``[.., 6, 3]``; joint j turns about them at origin j - 1."""
    found = assembled(q, base, lambda p: [c for f in p.frames[:N_JOINTS] for c in p.direction(f.z)], arm)
    return found.reshape((*found.shape[:-1], N_JOINTS, 3))


def tool_jacobian(q: Array, base: Array, arm: Arm = UR5E) -> Array:
    """How the tool point moves with the joints, cell's frame, ``[.., 3, 6]`` m a rad."""

    def rows(p: Pose) -> list[Value]:
        rates = [p.direction(rate) for rate in point_rates(p, tool_point(p, arm))]
        return [rates[joint][row] for row in range(3) for joint in range(N_JOINTS)]

    found = assembled(q, base, rows, arm)
    return found.reshape((*found.shape[:-1], 3, N_JOINTS))


def resolved_rates(
    q: Array,
    base: Array,
    velocity_mps: Array,
    arm: Arm = UR5E,
    *,
    damping_m: float = 0.05,
    towards_rad: Array | None = None,
    pull_per_s: float = 0.5,
) -> Array:
    """Joint speeds ``[.., 6]`` rad/s that move the tool point with ``velocity_mps`` ``[.., 3]``.

    Damped least squares (Wampler 1986; Nakamura & Hanafusa 1986): ``J' (J J' + damping^2)^-1 v``, bounded by
    ``|v| / (2 damping)`` also where the arm is singular. With ``towards_rad`` ``[.., 6]`` the joints are drawn there at
    ``pull_per_s``, as far as the tool does not feel it.
    """
    xp = module_of(q)
    jacobian = tool_jacobian(q, base, arm)
    turned = jacobian.swapaxes(-1, -2)
    square = jacobian @ turned
    eye = xp.eye(3, dtype=square.dtype) if xp is np else xp.eye(3, dtype=square.dtype, device=square.device)
    wanted = velocity_mps[..., None]
    pull = None
    if towards_rad is not None:
        pull = (pull_per_s * (towards_rad - q))[..., None]
        wanted = wanted - jacobian @ pull
    speeds = turned @ xp.linalg.solve(square + damping_m**2 * eye, wanted)
    return (speeds if pull is None else speeds + pull)[..., 0]


def reach_speeds(
    q: Array,
    base: Array,
    target_m: Array,
    arm: Arm = UR5E,
    *,
    gain_per_s: float = 4.0,
    speed_mps: float = 0.5,
    towards_rad: Array | None = None,
) -> Array:
    """Joint speeds ``[.., 6]`` that bring the tool point straight to ``target_m`` ``[.., 3]``: as fast as
    ``speed_mps`` from afar, ``gain_per_s`` times the distance from near."""
    xp = module_of(q)
    way = target_m - tool_position(q, base, arm)
    distance = xp.sqrt((way * way).sum(-1))[..., None]
    tiny = 1e-9
    pace = xp.clip(distance * gain_per_s, 0.0, speed_mps) / (distance + tiny)
    return resolved_rates(q, base, way * pace, arm, towards_rad=towards_rad)


def module_of(array: Array) -> Any:
    """Either numpy or torch, whichever the array is of; torch is imported only by those who use it."""
    return sys.modules[type(array).__module__.split(".")[0]]


def as_floats(q: Array) -> bool:
    """Whether these arms go float by float."""
    return isinstance(q, np.ndarray) and q.size <= _AS_FLOATS * N_JOINTS


def assembled(q: Array, base: Array, rows: Callable[[Pose], Sequence[Value]], arm: Arm = UR5E) -> Array:
    """``rows`` of the pose, a sequence of components, as one array whose last axis they are."""
    found = stacked(q, base, rows, arm)
    return np.moveaxis(found, 0, -1) if isinstance(found, np.ndarray) else found.movedim(0, -1)


def stacked(q: Array, base: Array, rows: Callable[[Pose], Sequence[Value]], arm: Arm = UR5E) -> Array:
    """``rows`` of the pose, a sequence of components, as one array whose first axis they are."""
    if as_floats(q):
        lead = np.broadcast_shapes(q.shape[:-1], base.shape[:-1])
        joints = np.broadcast_to(q, (*lead, N_JOINTS)).reshape(-1, N_JOINTS).tolist()
        bases = np.broadcast_to(base, (*lead, 4)).reshape(-1, 4).tolist()
        found = [rows(pose(one, where, arm)) for one, where in zip(joints, bases, strict=True)]
        return np.array(found, dtype=np.result_type(q, base)).T.reshape((-1, *lead))
    xp = module_of(q)
    nothing = q[..., 0] + base[..., 0]
    nothing = nothing - nothing
    return xp.stack([nothing + part for part in rows(pose(_split(q), _split(base), arm))])


def _split(array: Array) -> list[Array]:
    return [array[..., k] for k in range(array.shape[-1])]


def _mix(v: Vector, a: Value, w: Vector, b: Value) -> Vector:
    return (a * v[0] + b * w[0], a * v[1] + b * w[1], a * v[2] + b * w[2])


def _is_nil(value: Value) -> bool:
    """A coordinate that is zero by construction, of which no product needs to be made."""
    return isinstance(value, float) and value == 0.0
