"""Ranges, rates and levels of commands in closed form, for all assets of a group at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Constraint, MeasuredConstraint, RangeConstraint, RateConstraint
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate
from .decision import Code

Floats = NDArray[np.float64]

UNCHANGED = 1e-9
"""A command that moves by no more than this, relative to its size, counts as sent unchanged."""


@dataclass(frozen=True)
class GroupLimits:
    """Limits of one group's commands, each ``[A]``; ``rate`` is per second, infinite where there is none."""

    lower: Floats
    upper: Floats
    rate: Floats
    neutral: Floats
    levels: tuple[tuple[float, ...] | None, ...]

    def reach(self, applied: Floats, dt_s: float) -> tuple[Floats, Floats]:
        """Lowest and highest command ``[N, A]`` that keeps range and rate together.

        Where the command applied before is outside the range, the range wins: its nearest end is the only answer.
        """
        step = np.where(np.isinf(self.rate), np.inf, self.rate * dt_s)
        low = np.maximum(self.lower, np.minimum(applied - step, self.upper))
        high = np.minimum(self.upper, np.maximum(applied + step, self.lower))
        return low, high

    def limit(self, asked: Floats, applied: Floats, dt_s: float) -> Floats:
        """The nearest command ``[N, A]`` to ``asked`` that keeps range, rate and levels."""
        low, high = self.reach(applied, dt_s)
        sent = np.clip(asked, low, high)
        for column, levels in enumerate(self.levels):
            if levels is not None:
                for i in range(sent.shape[0]):
                    sent[i, column] = self._level(
                        levels, sent[i, column], low[i, column], high[i, column], applied[i, column]
                    )
        return sent

    def _level(self, levels: tuple[float, ...], asked: float, low: float, high: float, applied: float) -> float:
        reachable = [v for v in levels if low - UNCHANGED <= v <= high + UNCHANGED]
        target, choice = (asked, reachable) if reachable else (applied, list(levels))
        return min(choice, key=lambda v: (abs(v - target), v))

    def code(self, column: int, asked: float, applied: float) -> tuple[Code, float | None]:
        """Which limit changed ``asked``, and its value: the range if that alone forbids it, else the rate."""
        if asked < self.lower[column]:
            return Code.COMMAND_RANGE, float(self.lower[column])
        if asked > self.upper[column]:
            return Code.COMMAND_RANGE, float(self.upper[column])
        levels = self.levels[column]
        if levels is not None and asked not in levels:
            return Code.COMMAND_LEVEL, None
        return Code.COMMAND_RATE, float(self.rate[column])


def group_limits(nameplate: Nameplate, constraints: Iterable[Constraint]) -> dict[str, GroupLimits]:
    """Gather the tightest limits of each group.

    Raises :class:`ConfigurationError` for a constraint in another unit than its signal, for ranges that leave
    nothing, for a neutral command (the fallback) that the limits themselves forbid, and for a kind of constraint that
    the shield doesn't keep. Limits on measured signals are the monitor's.
    """
    lower = {g.name: g.lower("commanded") for g in nameplate.groups}
    upper = {g.name: g.upper("commanded") for g in nameplate.groups}
    rate = {g.name: np.full(len(g.commanded), np.inf) for g in nameplate.groups}
    for c in constraints:
        if isinstance(c, MeasuredConstraint):
            continue
        if not isinstance(c, RangeConstraint | RateConstraint) or c.priority is not None:
            how = "hard" if c.priority is None else "soft"
            raise ConfigurationError(
                f"constraint {c.name!r}: the shield can't keep {how} constraints of kind {c.kind!r} yet, only hard "
                "ranges and rates; leave it out, or don't let a policy act on this site"
            )
        group = nameplate.group(c.group)
        column = group.index("commanded", c.signal)
        unit = group.commanded[column].unit
        if c.unit != unit:
            raise ConfigurationError(
                f"constraint on {c.group}/{c.signal}: unit {c.unit!r}, the signal is in {unit!r}; convert the limit"
            )
        if isinstance(c, RangeConstraint):
            lower[c.group][column] = max(lower[c.group][column], c.minimum)
            upper[c.group][column] = min(upper[c.group][column], c.maximum)
        else:
            rate[c.group][column] = min(rate[c.group][column], c.per_second)
    found: dict[str, GroupLimits] = {}
    for group in nameplate.groups:
        n, neutral = group.name, group.neutral()
        for column, signal in enumerate(group.commanded):
            low, high, where = lower[n][column], upper[n][column], f"commands {n}/{signal.name}"
            if not low <= high:
                raise ConfigurationError(f"{where}: no value is both >= {low} and <= {high}; widen a constraint")
            if not low <= neutral[column] <= high:
                raise ConfigurationError(
                    f"{where}: the neutral command {neutral[column]} is outside [{low}, {high}]; "
                    "the fallback must be allowed at all times"
                )
            if not rate[n][column] > 0:
                raise ConfigurationError(f"{where}: rate {rate[n][column]} must be positive")
            if signal.levels is not None and signal.neutral not in signal.levels:
                raise ConfigurationError(f"{where}: the neutral command {signal.neutral} is none of {signal.levels}")
        found[n] = GroupLimits(lower[n], upper[n], rate[n], neutral, tuple(s.levels for s in group.commanded))
    return found
