"""How far a command moves on before it can stand still, in whole periods.

A change per period ``c`` may differ from the one before by at most ``A = a dt^2``. From ``c`` on, the shortest stop is
``c - A``, ``c - 2A``, ... down to 0. With the change itself the command covers

    T(c) = c + sum_{k=1..n} (c - kA) = (n + 1) c - A n (n + 1) / 2,    n = floor(c / A),

piecewise linear, increasing and convex, with ``T(nA) = A n (n + 1) / 2``. The largest change that leaves room to stop
within a distance ``d`` is its inverse, ``c = (d + A n (n + 1) / 2) / (n + 1)`` on the piece where ``T(nA) <= d``.

Room stays room: where ``T(c) <= d``, braking by ``A`` gives ``T(max(c - A, 0)) = T(c) - c <= d - c``, which is the
distance then left. So whoever keeps the rule can always keep it again, and never leaves the range.
"""

from __future__ import annotations

import numpy as np

from .compiled import Floats


def stopping_distance(change: Floats, brake: Floats) -> Floats:
    """Distance ``[k]`` covered by changes ``change`` >= 0 and the shortest stop after it; ``brake``: ``A`` > 0."""
    n = np.floor(change / brake)
    return np.asarray((n + 1.0) * change - brake * n * (n + 1.0) / 2.0)


def largest_change(distance: Floats, brake: Floats) -> Floats:
    """The largest change ``[k]`` >= 0 that can be stopped within ``distance`` >= 0; the inverse of the above."""
    n = np.floor((np.sqrt(1.0 + 8.0 * distance / brake) - 1.0) / 2.0)
    return np.asarray((distance + brake * n * (n + 1.0) / 2.0) / (n + 1.0))


def changes_within_reach(
    start: Floats,
    change: Floats,
    lower: Floats,
    upper: Floats,
    step: Floats,
    brake: Floats,
    slowed: tuple[Floats, Floats, float] | None = None,
) -> tuple[Floats, Floats]:
    """Least and most change ``[k]`` of this period from ``start``, which is inside ``lower`` to ``upper``.

    ``change``: that of the period before; ``step``: the rate times a whole period. ``slowed``: where less is allowed,
    the step of now, the step that the time alone allows (a rate that is reduced at run time may not demand harder
    braking than ``A``), and the part of a period that has passed, in which a change grows by that part of ``A`` and
    brakes by all of it. Range comes before rate, rate before acceleration: each takes from what the earlier ones leave
    what breaks it least.
    """
    top, bottom = largest_change(upper - start, brake), -largest_change(start - lower, brake)
    least, most = change - brake, change + brake
    rate = step
    if slowed is not None:
        now, full, share = slowed
        rate = np.maximum(now, np.minimum(full, np.abs(change) - brake))
        least = np.minimum(change - brake * share, np.maximum(least, 0.0))
        most = np.maximum(change + brake * share, np.minimum(most, 0.0))
    low, high = np.maximum(bottom, -rate), np.minimum(top, rate)
    return np.minimum(np.maximum(least, low), high), np.minimum(np.maximum(most, low), high)
