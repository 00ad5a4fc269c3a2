"""The hard limits of each command: the tightest of all that were declared, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from ..nameplate import Nameplate
from .kinds import Constraint
from .local import AccelerationConstraint, RangeConstraint, RateConstraint, TransitionConstraint


class Limit(NamedTuple):
    """Of one command: range, change per second and per second squared (infinite if free), levels, legal changes."""

    minimum: float
    maximum: float
    per_second: float = math.inf
    per_second2: float = math.inf
    levels: tuple[float, ...] | None = None
    legal: frozenset[tuple[float, float]] | None = None

    def time_s(self, distance: float, period_s: float) -> float:
        """Seconds to go ``distance`` from rest to rest, in whole periods, at least one.

        The profile is a trapezoid of speed: ``d / v + v / a``, or a triangle, ``2 sqrt(d / a)``, where ``d < v^2 / a``.
        """
        distance = max(distance, 0.0)
        v, a = self.per_second, self.per_second2
        if a == math.inf:
            least_s = distance / v  # 0 where the rate is free
        elif v == math.inf or distance < v * v / a:
            least_s = 2.0 * math.sqrt(distance / a)
        else:
            least_s = distance / v + v / a
        return max(1.0, math.ceil(least_s / period_s - 1e-9)) * period_s

    def stranded(self, target: float, period_s: float) -> tuple[float, ...]:
        """Levels from which ``target`` can't be reached by steps that rate and legal changes allow."""
        allowed = [v for v in self.levels or () if self.minimum <= v <= self.maximum]
        arrived, front = {target}, [target]
        while front:
            there = front.pop()
            near = [v for v in allowed if v not in arrived and self._may(v, there, period_s)]
            arrived.update(near)
            front += near
        return tuple(v for v in allowed if v not in arrived)

    def _may(self, before: float, after: float, period_s: float) -> bool:
        legal = self.legal is None or (before, after) in self.legal
        return legal and abs(after - before) <= self.per_second * period_s * (1.0 + 1e-9)


def effective_limits(nameplate: Nameplate, constraints: Iterable[Constraint]) -> dict[tuple[str, str], Limit]:
    """``{(group, signal): limit}`` of the nameplate and all hard constraints together; soft ones limit nothing."""
    found: dict[tuple[str, str], Limit] = {}
    for group in nameplate.groups:
        for s in group.commanded:
            rate = math.inf if s.rate_limit_per_s is None else s.rate_limit_per_s
            found[group.name, s.name] = Limit(s.minimum, s.maximum, rate, levels=s.levels)
    for c in constraints:
        if c.priority is not None:
            continue
        match c:
            case RangeConstraint():
                now = found[c.group, c.signal]
                low, high = max(now.minimum, c.minimum), min(now.maximum, c.maximum)
                found[c.group, c.signal] = now._replace(minimum=low, maximum=high)
            case RateConstraint():
                now = found[c.group, c.signal]
                found[c.group, c.signal] = now._replace(per_second=min(now.per_second, c.per_second))
            case AccelerationConstraint():
                now = found[c.group, c.signal]
                found[c.group, c.signal] = now._replace(per_second2=min(now.per_second2, c.per_second2))
            case TransitionConstraint():
                now = found[c.group, c.signal]
                legal = frozenset(c.legal) if now.legal is None else now.legal & frozenset(c.legal)
                found[c.group, c.signal] = now._replace(legal=legal)
    return found
