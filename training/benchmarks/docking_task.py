"""The two-dimensional docking task of run-time assurance, from its published equations.

A deputy of 12 kg near a chief on a circular orbit, in Hill's frame (Clohessy & Wiltshire 1960, with mean motion n):

    x'' = 3 n^2 x + 2 n y' + F_x / m,    y'' = -2 n x' + F_y / m,    |F_x|, |F_y| <= 1 N

Its speed must stay below ``0.2 m/s + 2 n |r|``, and each component below 10 m/s (Dunlap, Hibbard, Mote & Hobbs 2021,
arXiv 2110.11120; numbers: run-time-assurance 1.18.6). What wants to dock is a linear quadratic regulator that knows
nothing of these limits.

Commands stand still for a second, so the rows are made for held commands. With a gain of 1 / period a row asks that
``value + period * derivative >= period * margin``, and three things make this true of the value after a period, and of
all between:

* speed is no linear function of thrust. Let ``p`` be the speed after a period along today's direction of flight and
  ``q`` across it, where ``|q| <= s``, all that thrust and orbit can add. With ``sin 2 t = s / limit``, ``p + |q| tan t
  <= limit`` implies ``p^2 + q^2 <= limit^2``: a chord of the circle. So the row comes twice, tilted to either side;
* speed is convex along straight changes of velocity, and the limit is convex along straight flight, so that what
  happens in between is no worse than the ends and the tangent;
* what bends these lines, the change of the orbit's acceleration and the curve of the path, is paid for by the margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import BarrierConstraint, BarrierTerms, Declaration, SafeState, declare
from ...envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]

MEAN_MOTION_RADPS = 0.001027
MASS_KG = 12.0
FORCE_N = 1.0
SPEED_MPS = 0.2
SPEED_PER_M = 2.0 * MEAN_MOTION_RADPS
AXIS_SPEED_MPS = 10.0
PERIOD_S = 1.0
DOCKED_M = 1.0
FARTHEST_M = 20_000.0
FASTEST_MPS = 20.0

_N, _M = MEAN_MOTION_RADPS, MASS_KG
_THRUST = FORCE_N / MASS_KG
# Most that the acceleration of the orbit changes in a second at 20 m/s, and the acceleration itself within 20 km.
_JERK = 3.0 * _N**2 * FASTEST_MPS + 2.0 * _N * (math.sqrt(2.0) * _THRUST + 0.1)
_ACCELERATION = math.sqrt(2.0) * _THRUST + 3.0 * _N**2 * FARTHEST_M + 2.0 * _N * FASTEST_MPS
# Half a period of what the derivative loses: the second-order term of Taylor's theorem.
AXIS_MARGIN = 0.5 * PERIOD_S * _JERK
APPROACH_MARGIN = (
    0.5 * PERIOD_S * (1.5 * _JERK + SPEED_PER_M * _ACCELERATION)
)  # 1.5 bounds 1 / cos t: t is at most 45 degrees


def approach_left(measured: Floats, /) -> BarrierTerms:
    """Speed below what the distance allows, for thrust to the left of the flight: ``measured`` ``[N, 4]`` (m, m, m/s,
    m/s), value in m/s, derivatives in m/s2."""
    return _terms([_approach(x, y, vx, vy, 1.0) for x, y, vx, vy in measured.tolist()])


def approach_right(measured: Floats, /) -> BarrierTerms:
    """The same for thrust to the right."""
    return _terms([_approach(x, y, vx, vy, -1.0) for x, y, vx, vy in measured.tolist()])


def along_x(measured: Floats, /) -> BarrierTerms:
    """Speed along x below its limit; terms as of :func:`approach_left`."""
    found = []
    for x, _, vx, vy in measured.tolist():
        sign = -1.0 if vx < 0 else 1.0
        found.append((AXIS_SPEED_MPS - sign * vx, -sign * _orbit(x, vx, vy)[0], sign / -_M, 0.0))
    return _terms(found)


def along_y(measured: Floats, /) -> BarrierTerms:
    """Speed along y below its limit; terms as of :func:`approach_left`."""
    found = []
    for x, _, vx, vy in measured.tolist():
        sign = -1.0 if vy < 0 else 1.0
        found.append((AXIS_SPEED_MPS - sign * vy, -sign * _orbit(x, vx, vy)[1], 0.0, sign / -_M))
    return _terms(found)


def _terms(rows: list[tuple[float, float, float, float]]) -> BarrierTerms:
    """Of value, drift and the two controls of each deputy."""
    table = np.array(rows)
    return BarrierTerms(table[:, 0], table[:, 1], table[:, 2:])


def _approach(x: float, y: float, vx: float, vy: float, side: float) -> tuple[float, float, float, float]:
    # numbers one by one: for a deputy or two that is many times faster than arrays of them
    distance, speed = math.hypot(x, y), math.hypot(vx, vy)
    some = max(speed, 1e-9)
    ex, ey = vx / some, vy / some
    ax, ay = _orbit(x, vx, vy)
    limit = SPEED_MPS + SPEED_PER_M * distance
    across = PERIOD_S * (_THRUST * (abs(ex) + abs(ey)) + abs(ex * ay - ey * ax) + PERIOD_S * _JERK)
    least = limit - PERIOD_S * SPEED_PER_M * (speed + PERIOD_S * _ACCELERATION)
    tilt = side * math.tan(0.5 * math.asin(min(across / least, 1.0))) if least > 0 else side
    ex, ey = ex - tilt * ey, ey + tilt * ex
    receding = (x * vx + y * vy) / max(distance, 1e-9)
    return limit - speed, SPEED_PER_M * receding - (ex * ax + ey * ay), ex / -_M, ey / -_M


def _orbit(x: float, vx: float, vy: float) -> tuple[float, float]:
    return 3.0 * _N**2 * x + 2.0 * _N * vy, -2.0 * _N * vx


def docking(n_deputies: int = 1) -> Declaration:
    """Nameplate and constraints of ``n_deputies``, each with the chief for itself; in doubt they drift without
    thrust."""
    measured = (
        Signal("x_m", "m", -FARTHEST_M, FARTHEST_M, "radial position"),
        Signal("y_m", "m", -FARTHEST_M, FARTHEST_M, "along-track position"),
        Signal("vx_mps", "m/s", -FASTEST_MPS, FASTEST_MPS),
        Signal("vy_mps", "m/s", -FASTEST_MPS, FASTEST_MPS),
    )
    commanded = (Signal("fx_n", "N", -FORCE_N, FORCE_N), Signal("fy_n", "N", -FORCE_N, FORCE_N))
    assets = tuple(f"D{i + 1}" for i in range(n_deputies))
    plate = Nameplate("docking", PERIOD_S, (Group("deputy", assets, measured, commanded),))
    gain_per_s = 1.0 / PERIOD_S
    return declare(
        plate,
        (
            BarrierConstraint("approach, left", "deputy", approach_left, gain_per_s, margin=APPROACH_MARGIN),
            BarrierConstraint("approach, right", "deputy", approach_right, gain_per_s, margin=APPROACH_MARGIN),
            BarrierConstraint("speed along x", "deputy", along_x, gain_per_s, margin=AXIS_MARGIN),
            BarrierConstraint("speed along y", "deputy", along_y, gain_per_s, margin=AXIS_MARGIN),
        ),
        {"deputy": SafeState("neutral")},
    )


def published_values(states: Floats) -> Floats:
    """What must stay >= 0, as published, ``[..., 3]`` of states ``[..., 4]``: the speed that the distance allows less
    the speed, and the squares of the axes' limits less those of the speeds."""
    distance, speed = np.hypot(states[..., 0], states[..., 1]), np.hypot(states[..., 2], states[..., 3])
    squares = AXIS_SPEED_MPS**2 - states[..., 2:] ** 2
    return np.concatenate([(SPEED_MPS + SPEED_PER_M * distance - speed)[..., None], squares], axis=-1)


def brake(measured: Mapping[str, Floats]) -> dict[str, Floats]:
    """The fallback: thrust against the flight, as much as stops it in a period or as there is."""
    velocity = measured["deputy"][:, 2:]
    return {"deputy": np.clip(-velocity * MASS_KG / PERIOD_S, -FORCE_N, FORCE_N)}


def matrices() -> tuple[Floats, Floats]:
    """``A`` ``[4, 4]``, ``B`` ``[4, 2]`` of ``state' = A state + B force``."""
    a = np.zeros((4, 4))
    a[0, 2] = a[1, 3] = 1.0
    a[2, 0], a[2, 3], a[3, 2] = 3.0 * _N**2, 2.0 * _N, -2.0 * _N
    b = np.zeros((4, 2))
    b[2, 0] = b[3, 1] = 1.0 / _M
    return a, b


def held(dt_s: float) -> tuple[Floats, Floats]:
    """The exact step under a held force: ``state -> F state + G force``."""
    from scipy.linalg import expm

    a, b = matrices()
    block = np.zeros((6, 6))
    block[:4, :4], block[:4, 4:] = a, b
    step: Any = expm(block * dt_s)
    return np.array(step[:4, :4]), np.array(step[:4, 4:])


def regulator() -> Floats:
    """The gain ``[2, 4]`` of what wants to dock: ``force = gain @ state``, clipped to the range."""
    from scipy.linalg import solve_continuous_are

    a, b = matrices()
    riccati: Any = solve_continuous_are(a, b, 0.05 * np.eye(4), 1000.0 * np.eye(2))
    return np.array(-b.T @ riccati / 1000.0)
