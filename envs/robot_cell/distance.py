"""Closest points of segments in closed form, hence distances of capsules; numpy and torch.

Ericson 2005, "Real-Time Collision Detection", section 5.1.9, without branches: parallel segments and those of no length
are cases of the same lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .kinematics import Array, Value, Vector

Floats = NDArray[np.float64]

NO_DISTANCE_M = 1e-12
_NUMPY = (np.ndarray, np.generic)
_NO_LENGTH_M2 = 1e-18  # its square is still a float32


def closest(
    start_a: Vector, along_a: Vector, start_b: Vector, along_b: Vector, steady: float = 0.0
) -> tuple[Value, Value, Vector]:
    """Where two segments are nearest: shares ``s``, ``t`` of their lengths, and the vector from b's point to a's.

    Arguments are components, arrays of shapes that broadcast; ``along`` is end less start, m. Where segments are nearly
    parallel (squared sine below ``steady``), many points are as near, and rounding would choose; ``steady`` draws the
    choice to the middle of a, at the price of a distance that is no longer exact there.
    """
    away = (start_a[0] - start_b[0], start_a[1] - start_b[1], start_a[2] - start_b[2])
    aa, bb = at_least(dot(along_a, along_a), _NO_LENGTH_M2), at_least(dot(along_b, along_b), _NO_LENGTH_M2)
    ab, ca, cb = dot(along_a, along_b), dot(along_a, away), dot(along_b, away)
    # Parallel segments have no unique s; any does, since s is found again from t.
    above, below = _less(ab * cb, ca, bb), at_least(_less(aa * bb, ab, ab), _NO_LENGTH_M2**2)
    if steady > 0.0:
        pull = steady * aa * bb
        above, below = above + 0.5 * pull, below + pull
    s = _ratio(above, below)
    t = _ratio(_plus(ab * s, cb), bb)
    s = _ratio(_plus(ab * t, ca, -1.0), aa)
    x, y, z = (_less(_moved(w, s, a), t, b) for w, a, b in zip(away, along_a, along_b, strict=True))
    return s, t, (x, y, z)


def closest_of_few(a: Floats, b: Floats, steady: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """:func:`closest` of P pairs, few of them, in half as many steps: shares ``[P]`` each, and vectors ``[3, P]``.

    ``a``, ``b``: ``[6, P]``, start and, from there, the way to the end.
    """
    ways = np.empty((3, 3, a.shape[1]))
    ways[0], ways[1] = a[3:], b[3:]
    away = np.subtract(a[:3], b[:3], out=ways[2])
    products = np.einsum("icp,jcp->ijp", ways, ways)
    aa, bb = np.maximum(products[0, 0], _NO_LENGTH_M2), np.maximum(products[1, 1], _NO_LENGTH_M2)
    ab, ca, cb = products[0, 1], products[0, 2], products[1, 2]
    both = aa * bb
    above, below = ab * cb - ca * bb, np.maximum(both - ab * ab, _NO_LENGTH_M2**2)
    if steady > 0.0:
        both *= steady
        above += 0.5 * both
        below += both
    s = _bounded(above / below)
    t = _bounded((ab * s + cb) / bb)
    s = _bounded((ab * t - ca) / aa)
    return s, t, away + s * ways[0] - t * ways[1]


def _bounded(share: Floats) -> Floats:
    """Kept in [0, 1], in place."""
    return np.minimum(np.maximum(share, 0.0, out=share), 1.0, out=share)


def segment_distance(ends_a: Array, ends_b: Array) -> Array:
    """Distance of segments ``[.., 2, 3]`` and ``[.., 2, 3]``, which broadcast, ``[..]`` m."""
    apart = closest(*_segment(ends_a), *_segment(ends_b))[2]
    return at_least(dot(apart, apart), NO_DISTANCE_M**2) ** 0.5


def dot(v: Vector, w: Vector) -> Value:
    """Scalar product of vectors given by components."""
    return _more(_more(v[0] * w[0], v[1], w[1]), v[2], w[2])


def at_least(value: Value, least: float) -> Value:
    """The larger of an array and a number."""
    return np.maximum(value, least) if isinstance(value, _NUMPY) else value.clamp(min=least)


# Where nobody else holds the first argument, torch writes over it, which spares the processor's cache; autograd keeps
# what it needs. np.clip takes several times as long as two bounds on few numbers.


def _more(value: Value, factor: Value, other: Value) -> Value:
    """``value + factor * other``, over ``value``."""
    return value + factor * other if isinstance(value, _NUMPY) else value.addcmul_(factor, other)


def _less(value: Value, factor: Value, other: Value) -> Value:
    """``value - factor * other``, over ``value``."""
    return value - factor * other if isinstance(value, _NUMPY) else value.addcmul_(factor, other, value=-1.0)


def _moved(value: Value, factor: Value, other: Value) -> Value:
    """``value + factor * other``."""
    return value + factor * other if isinstance(value, _NUMPY) else value.addcmul(factor, other)


def _plus(value: Value, other: Value, sign: float = 1.0) -> Value:
    """``value + sign * other``, over ``value``."""
    return value + sign * other if isinstance(value, _NUMPY) else value.add_(other, alpha=sign)


def _ratio(above: Value, below: Value) -> Value:
    """``above / below`` kept in [0, 1], over ``above``."""
    if isinstance(above, _NUMPY):
        return np.minimum(np.maximum(above / below, 0.0), 1.0)
    return above.div_(below).clamp_(0.0, 1.0)


def _segment(ends: Array) -> tuple[Vector, Vector]:
    start, along = ends[..., 0, :], ends[..., 1, :] - ends[..., 0, :]
    return (start[..., 0], start[..., 1], start[..., 2]), (along[..., 0], along[..., 1], along[..., 2])
