"""What *safe* means for a site: data, no solver.

One declaration becomes the shield's rows, the training cost, the runtime monitor and the table in the docs.
"""

from __future__ import annotations

from dataclasses import dataclass

from .nameplate import Nameplate


@dataclass(frozen=True)
class RangeConstraint:
    """``minimum <= command <= maximum`` in ``unit``, for every asset of a group."""

    group: str
    signal: str
    minimum: float
    maximum: float
    unit: str


@dataclass(frozen=True)
class RateConstraint:
    """``|command - applied before| <= per_second * dt``, ``per_second`` in ``unit`` per second."""

    group: str
    signal: str
    per_second: float
    unit: str


Constraint = RangeConstraint | RateConstraint


def constraints_of(nameplate: Nameplate) -> tuple[Constraint, ...]:
    """Ranges and rates that the nameplate itself implies, ranges first."""
    found: list[Constraint] = []
    for group in nameplate.groups:
        for s in group.commanded:
            found.append(RangeConstraint(group.name, s.name, s.minimum, s.maximum, s.unit))
        for s in group.commanded:
            if s.rate_limit_per_s is not None:
                found.append(RateConstraint(group.name, s.name, s.rate_limit_per_s, s.unit))
    return tuple(found)
