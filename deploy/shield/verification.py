"""The second look: every command once more, one float at a time, by code that the filter does not use.

Nothing here is shared with the filter but the declaration itself: no array arithmetic, own tables, own clock
arithmetic. What fails is replaced by the limiter of last resort, which walks from the command applied before
towards neutral.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ...envs.constraint import Constraint, MeasuredConstraint, RangeConstraint, RateConstraint
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate

TOLERANCE = 1e-9
CLOCK_SLACK = 1.002
"""Clocks in UTC seconds resolve no better; a period read 0.2 % long is still one period."""


class Bounds(NamedTuple):
    """What one command may be: range, change per second (infinite if free), neutral value, allowed levels."""

    minimum: float
    maximum: float
    per_second: float
    neutral: float
    levels: tuple[float, ...] | None


class Verifier:
    """Checks that commands are finite, in range, in rate and at an allowed level."""

    def __init__(self, nameplate: Nameplate, constraints: Iterable[Constraint]) -> None:
        table: dict[tuple[str, str], Bounds] = {}
        for group in nameplate.groups:
            for s in group.commanded:
                table[group.name, s.name] = Bounds(s.minimum, s.maximum, math.inf, s.neutral, s.levels)
        for c in constraints:
            if isinstance(c, MeasuredConstraint):
                continue
            if not isinstance(c, RangeConstraint | RateConstraint) or c.priority is not None:
                raise ConfigurationError(f"constraint {c.name!r}: kind {c.kind!r} can't be verified yet; leave it out")
            b = table[c.group, c.signal]
            if isinstance(c, RangeConstraint):
                b = b._replace(minimum=max(b.minimum, c.minimum), maximum=min(b.maximum, c.maximum))
            else:
                b = b._replace(per_second=min(b.per_second, c.per_second))
            table[c.group, c.signal] = b
        self._rows = {g.name: [table[g.name, s.name] for s in g.commanded] for g in nameplate.groups}
        self._n_assets = {g.name: g.n_assets for g in nameplate.groups}
        self._period_s = nameplate.period_s

    def elapsed_s(self, before_s: float | None, now_s: float, confirmed: bool) -> float:
        """Seconds of change that are allowed: none after an unconfirmed write, at most one period."""
        if not confirmed:
            return 0.0
        if before_s is None:
            return self._period_s
        passed = now_s - before_s
        if not passed > 0.0:  # backwards, standing still or NaN
            return 0.0
        return self._period_s if passed * CLOCK_SLACK >= self._period_s else passed

    def failures(
        self, commands: Mapping[str, Any], applied: Mapping[str, Any], elapsed_s: float
    ) -> dict[tuple[str, int], int]:
        """Return ``{(group, asset index): first command column that fails}``; empty when all is well."""
        found: dict[tuple[str, int], int] = {}
        for name, rows in self._rows.items():
            for i in range(self._n_assets[name]):
                for a, bounds in enumerate(rows):
                    try:
                        fine = _fine(float(commands[name][i][a]), float(applied[name][i][a]), bounds, elapsed_s)
                    except (TypeError, ValueError, KeyError, IndexError):
                        fine = False
                    if not fine:
                        found[name, i] = a
                        break
        return found

    def last_resort(self, applied: Mapping[str, Any], group: str, asset: int, elapsed_s: float) -> list[float]:
        """A safe command for one asset: from the last applied one towards neutral, as fast as the rate allows."""
        row: list[float] = []
        for a, b in enumerate(self._rows[group]):
            try:
                before = float(applied[group][asset][a])
            except (TypeError, ValueError, KeyError, IndexError):
                before = math.nan
            if not math.isfinite(before):
                row.append(b.neutral)
                continue
            start = min(max(before, b.minimum), b.maximum)
            if start != before:  # the range wins: its nearest end
                row.append(start if b.levels is None else b.neutral)
                continue
            if b.levels is not None:  # one jump to neutral if the rate allows it, else stay
                near = b.per_second == math.inf or abs(b.neutral - before) <= b.per_second * elapsed_s
                row.append(b.neutral if near or before not in b.levels else before)
                continue
            step = b.per_second * elapsed_s if b.per_second < math.inf else math.inf
            row.append(min(max(b.neutral, start - step), start + step))
        return row


def _fine(value: float, before: float, b: Bounds, elapsed_s: float) -> bool:
    if not math.isfinite(value) or not b.minimum <= value <= b.maximum:
        return False
    if b.levels is not None and value not in b.levels:
        return False
    if b.per_second == math.inf or not math.isfinite(before):
        return True
    start = min(max(before, b.minimum), b.maximum)
    slack = TOLERANCE * (1.0 + abs(value) + abs(start))
    return abs(value - start) <= b.per_second * elapsed_s + slack or (b.levels is not None and value == before)
