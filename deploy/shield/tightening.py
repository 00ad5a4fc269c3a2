"""Constraints that were written without looking at the nameplate, narrowed to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...envs.constraint import Constraint, RangeConstraint, RateConstraint
from ...envs.nameplate import Nameplate


def tightened(nameplate: Nameplate, constraints: Iterable[Constraint]) -> tuple[Constraint, ...]:
    """The same constraints, ranges and rates no wider than the nameplate's.

    A declaration refuses wider ones, since a person who writes them is mistaken; where constraints are given beside a
    nameplate, the tighter of the two holds. What names no signal, or another unit, is left for the declaration to
    refuse.
    """
    signals = {(g.name, s.name): s for g in nameplate.groups for s in g.commanded}
    found: list[Constraint] = []
    for c in constraints:
        signal = signals.get((c.group, c.signal)) if isinstance(c, RangeConstraint | RateConstraint) else None
        if signal is not None and isinstance(c, RangeConstraint) and c.unit == signal.unit:
            low, high = max(c.minimum, signal.minimum), min(c.maximum, signal.maximum)
            found.append(replace(c, minimum=low, maximum=high))
        elif signal is not None and isinstance(c, RateConstraint) and signal.rate_limit_per_s is not None:
            found.append(replace(c, per_second=min(c.per_second, signal.rate_limit_per_s)))
        else:
            found.append(c)
    return tuple(found)
