"""Gaps of one cell and their gradients, for what decides on the spot: numpy alone, all pairs at once.

A gap is the distance of two capsules' axes less both radii, negative where they overlap. Its gradient is that of the
two closest points held fast on their links (Danskin 1967: to first order it does not count where on the links they
sit). It is nil where axes meet, since no direction leads apart there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arm_body import ArmBody, Body
from .distance import NO_DISTANCE_M, closest, dot
from .kinematics import Vector

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gaps:
    """Pairs of capsules, ``[..]`` of a and b: ``gap_m`` ``[..]``; ``normal`` ``[.., 3]`` from b to a, unit or nil;
    ``point_a_m``, ``point_b_m`` ``[.., 3]``, the nearest on the axes; ``gradient_a``, ``gradient_b`` ``[.., 6]``: the
    gap by the joints of either arm, m a rad (nil for what is no arm)."""

    gap_m: Floats
    normal: Floats
    point_a_m: Floats
    point_b_m: Floats
    gradient_a: Floats
    gradient_b: Floats


def arm_gaps(a: ArmBody, b: ArmBody) -> Gaps:
    """All pairs of two arms' capsules, ``[8, 8]``."""
    s, t, gap, normal = _pairs(a, b)
    toward = np.swapaxes(normal, 0, 1)
    gradient_a = _gradient(normal, s, a)
    gradient_b = np.swapaxes(_gradient(toward, t.T, b), 0, 1)
    return Gaps(gap, normal, *_points(a, b, s, t), gradient_a, -gradient_b)


def body_gaps(a: ArmBody, b: Body) -> Gaps:
    """All pairs of an arm's capsules and others, ``[8, K]``."""
    s, t, gap, normal = _pairs(a, b)
    gradient = _gradient(normal, s, a)
    return Gaps(gap, normal, *_points(a, b, s, t), gradient, np.zeros_like(gradient))


def plane_gaps(a: ArmBody, normal: Floats, offset_m: float) -> Gaps:
    """An arm's capsules but its first two, which are mounted, against ``normal . x = offset``, ``[6]``.

    ``normal``: unit, ``[3]``, to the side where arms are. The nearest point is the lower end.
    """
    share = (a.along_m[2:] @ normal < 0.0).astype(np.float64)
    point = a.start_m[2:] + share[:, None] * a.along_m[2:]
    height = point @ normal - offset_m
    gradient = a.start_rates[2:] @ normal + share[:, None] * (a.along_rates[2:] @ normal)
    towards = np.broadcast_to(normal, point.shape)
    foot = point - height[:, None] * normal
    return Gaps(height - a.radius_m[2:], towards, point, foot, gradient, np.zeros_like(gradient))


def self_gaps(a: ArmBody, pairs: NDArray[np.int64]) -> Gaps:
    """Pairs of one arm's capsules, ``pairs`` ``[P, 2]``; ``gradient_a`` is the whole, ``gradient_b`` nil."""
    i, j = pairs[:, 0], pairs[:, 1]
    first = _columns(a.start_m[i]), _columns(a.along_m[i])
    s, t, apart = closest(*first, _columns(a.start_m[j]), _columns(a.along_m[j]))
    gap, normal = _gap(apart, a.radius_m[i] + a.radius_m[j])
    rates = a.start_rates[i] - a.start_rates[j]
    rates = rates + s[:, None, None] * a.along_rates[i] - t[:, None, None] * a.along_rates[j]
    gradient = (rates @ normal[..., None])[..., 0]
    point_a = a.start_m[i] + s[:, None] * a.along_m[i]
    point_b = a.start_m[j] + t[:, None] * a.along_m[j]
    return Gaps(gap, normal, point_a, point_b, gradient, np.zeros_like(gradient))


def _pairs(a: Body, b: Body) -> tuple[Floats, Floats, Floats, Floats]:
    """Shares ``s``, ``t``, gap, each ``[Ka, Kb]``, and normal ``[Ka, Kb, 3]``."""
    start_a, along_a = _columns(a.start_m[:, None]), _columns(a.along_m[:, None])
    s, t, apart = closest(start_a, along_a, _columns(b.start_m), _columns(b.along_m))
    return s, t, *_gap(apart, a.radius_m[:, None] + b.radius_m)


def _gap(apart: Vector, radius_m: Floats) -> tuple[Floats, Floats]:
    distance = np.sqrt(dot(apart, apart))
    scale = np.where(distance > NO_DISTANCE_M, 1.0 / np.maximum(distance, NO_DISTANCE_M), 0.0)
    normal = np.stack(apart, -1) * scale[..., None]
    return distance - radius_m, normal


def _points(a: Body, b: Body, s: Floats, t: Floats) -> tuple[Floats, Floats]:
    return a.start_m[:, None] + s[..., None] * a.along_m[:, None], b.start_m + t[..., None] * b.along_m


def _gradient(normal: Floats, share: Floats, arm: ArmBody) -> Floats:
    """``[8, K, 6]`` of points at ``share`` ``[8, K]`` of the axes along ``normal`` ``[8, K, 3]``."""
    still = normal @ np.swapaxes(arm.start_rates, 1, 2)
    return still + share[..., None] * (normal @ np.swapaxes(arm.along_rates, 1, 2))


def _columns(points: Floats) -> Vector:
    return points[..., 0], points[..., 1], points[..., 2]
