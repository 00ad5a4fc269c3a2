"""Commands for property tests (hypothesis), drawn where a declaration hurts: at its limits and around them.

    @given(commands_near(declaration))
    def test_the_shield_keeps_everything(commands): ...

Not imported by the package: hypothesis is for those who test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ..constraint import Constraint, Declaration, Limit, RangeConstraint, SumConstraint, effective_limits
from ..nameplate import Group

Floats = NDArray[np.float64]
NOT_A_COMMAND = (math.nan, math.inf, -math.inf, 1e30, -1e30)


def commands_near(declaration: Declaration, *, finite: bool = False) -> st.SearchStrategy[dict[str, Floats]]:
    """Draw commands ``[N, A]`` a group; ``finite`` leaves out what is no command at all (NaN, infinities, 1e30).

    Each is at a limit, a hair or a step beside it, at a level, at neutral, at the equal share of a sum's limit, or
    anywhere up to twice the range.
    """
    limits = effective_limits(declaration.nameplate, declaration.constraints)
    groups = {g.name: _group(g, limits, declaration.constraints, finite) for g in declaration.nameplate.groups}
    return st.fixed_dictionaries(groups)


def applied_within(declaration: Declaration) -> st.SearchStrategy[dict[str, Floats]]:
    """Draw what a plant may obey now: commands ``[N, A]`` a group inside the hard ranges and at levels."""
    limits = effective_limits(declaration.nameplate, declaration.constraints)

    def inside(limit: Limit) -> st.SearchStrategy[float]:
        if limit.levels is not None:
            return st.sampled_from([v for v in limit.levels if limit.minimum <= v <= limit.maximum])
        return st.floats(limit.minimum, limit.maximum)

    return st.fixed_dictionaries(
        {g.name: _rows(g, [inside(limits[g.name, s.name]) for s in g.commanded]) for g in declaration.nameplate.groups}
    )


def _group(
    group: Group, limits: dict[tuple[str, str], Limit], constraints: Sequence[Constraint], finite: bool
) -> st.SearchStrategy[Floats]:
    columns = []
    for signal in group.commanded:
        limit = limits[group.name, signal.name]
        marks = {signal.neutral, signal.minimum, signal.maximum, limit.minimum, limit.maximum, *(limit.levels or ())}
        for c in constraints:
            if isinstance(c, RangeConstraint | SumConstraint) and (c.group, c.signal) == (group.name, signal.name):
                n = 1.0 if isinstance(c, RangeConstraint) else abs(sum(c.weights or (1.0,) * group.n_assets)) or 1.0
                marks |= {end / n for end in (c.minimum, c.maximum) if end is not None}
        columns.append(_near(sorted(marks), limit, finite))
    return _rows(group, columns)


def _near(marks: Sequence[float], limit: Limit, finite: bool) -> st.SearchStrategy[float]:
    span = limit.maximum - limit.minimum
    beside = (0.0, 1e-12, -1e-12, 1e-6 * span, -1e-6 * span, 0.1 * span, -0.1 * span)
    at = st.builds(lambda mark, by: mark + by, st.sampled_from(marks), st.sampled_from(beside))
    anywhere = st.floats(limit.minimum - span / 2, limit.maximum + span / 2)
    return st.one_of(at, anywhere) if finite else st.one_of(at, anywhere, st.sampled_from(NOT_A_COMMAND))


def _rows(group: Group, columns: Sequence[st.SearchStrategy[float]]) -> st.SearchStrategy[Floats]:
    rows = st.lists(st.tuples(*columns), min_size=group.n_assets, max_size=group.n_assets)
    return rows.map(lambda drawn: np.array(drawn, dtype=np.float64).reshape(group.n_assets, len(columns)))
