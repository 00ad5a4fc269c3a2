"""All kinds of constraints, and those that a nameplate implies."""

from __future__ import annotations

from ..nameplate import Nameplate
from .coupled import CoupledConstraint
from .local import LocalConstraint, RangeConstraint, RateConstraint
from .state import StateConstraint

Constraint = LocalConstraint | CoupledConstraint | StateConstraint


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
