"""What each command may be, as plain floats: the tables of the second look and of the limiter of last resort.

Gathered from the declaration alone, by code that the filter does not use, in the nameplate's order: groups, in each its
assets, in each its commanded signals.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ...envs.constraint import (
    AccelerationConstraint,
    Declaration,
    DwellConstraint,
    ExclusiveConstraint,
    RangeConstraint,
    RateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
)

LEVEL_TOLERANCE = 1e-6
"""Read-backs in single precision are this far from the level that was sent, relative to its size."""


class Dwell(NamedTuple):
    """A value stays for ``minimum_s``; with ``level`` only that one."""

    minimum_s: float
    level: float | None
    name: str


class Command(NamedTuple):
    """Hard limits of one command; infinite or None where it is free.

    ``safe``: where the asset goes when in doubt, None to hold. ``hops``: from each level the next one on a legal way to
    ``safe``. ``names``: the constraint by its kind. ``switches``: most changes an hour, and the constraint's name.
    ``counted``: its row in the memory of changes, -1 without one. ``looks_back``: a constraint needs that memory.
    """

    signal: str
    minimum: float
    maximum: float
    per_second: float
    per_second2: float
    neutral: float
    safe: float | None
    levels: tuple[float, ...] | None
    legal: frozenset[tuple[float, float]] | None
    hops: tuple[tuple[float, float], ...]
    dwells: tuple[Dwell, ...]
    switches: tuple[tuple[int, str], ...]
    counted: int
    names: dict[str, str]

    @property
    def looks_back(self) -> bool:
        return self.per_second2 < math.inf or bool(self.dwells) or bool(self.switches)

    @property
    def plain(self) -> bool:
        """Whether range and rate are all there is."""
        return self.levels is None and not self.looks_back and self.legal is None

    @property
    def curved(self) -> bool:
        """Whether acceleration is all there is beside range and rate."""
        return self.per_second2 < math.inf and self.levels is None and not self.dwells and not self.switches

    def level(self, value: float) -> float | None:
        """The level at which ``value`` stands, None between levels."""
        for level in self.levels or ():
            if abs(value - level) <= LEVEL_TOLERANCE * (1.0 + abs(level)):
                return level
        return None


class Together(NamedTuple):
    """Commands of one asset, by their place among all, of which at most one may be off neutral."""

    columns: tuple[int, ...]
    name: str


class Asset(NamedTuple):
    """One asset: its group, its number there, and where its commands stand among all of them."""

    group: str
    number: int
    first: int
    n: int
    exclusive: tuple[Together, ...]


def command_table(declaration: Declaration) -> tuple[tuple[Command, ...], tuple[Asset, ...]]:
    """All commands and all assets of a site."""
    commands: list[Command] = []
    assets: list[Asset] = []
    counted = {(c.group, c.signal) for c in declaration.constraints if isinstance(c, SwitchesConstraint)}
    n_counted = 0
    for group in declaration.nameplate.groups:
        for number, asset in enumerate(group.assets):
            first = len(commands)
            target = declaration.safe_states[f"{group.name}/{asset}"].target(group)
            for column, s in enumerate(group.commanded):
                place = -1
                if (group.name, s.name) in counted:
                    place, n_counted = n_counted, n_counted + 1
                safe = None if target is None else target[column]
                commands.append(_command(declaration, group.name, s.name, safe, place))
            columns = {s.name: first + k for k, s in enumerate(group.commanded)}
            exclusive = tuple(
                Together(tuple(columns[name] for name in c.signals), c.name)
                for c in declaration.hard
                if isinstance(c, ExclusiveConstraint) and c.group == group.name
            )
            assets.append(Asset(group.name, number, first, len(group.commanded), exclusive))
    return tuple(commands), tuple(assets)


def _command(declaration: Declaration, group: str, signal: str, safe: float | None, counted: int) -> Command:
    plate = declaration.nameplate.group(group)
    s = plate.commanded[plate.index("commanded", signal)]
    low, high = s.minimum, s.maximum
    rate, rate2 = (math.inf if s.rate_limit_per_s is None else s.rate_limit_per_s), math.inf
    legal: frozenset[tuple[float, float]] | None = None
    dwells: list[Dwell] = []
    switches: list[tuple[int, str]] = []
    full = f"{group}/{signal}"
    names = {"range": f"{full} range", "rate": f"{full} rate"}
    for c in declaration.hard:
        if getattr(c, "group", None) != group or getattr(c, "signal", None) != signal:
            continue
        names[c.kind] = c.name
        match c:
            case RangeConstraint():
                low, high = max(low, c.minimum), min(high, c.maximum)
            case RateConstraint():
                rate = min(rate, c.per_second)
            case AccelerationConstraint():
                rate2 = min(rate2, c.per_second2)
            case DwellConstraint():
                dwells.append(Dwell(c.minimum_s, c.level, c.name))
            case SwitchesConstraint():
                switches.append((c.per_hour, c.name))
            case TransitionConstraint():
                legal = frozenset(c.legal) if legal is None else legal & frozenset(c.legal)
    levels = None if s.levels is None else tuple(v for v in s.levels if low <= v <= high)
    hops = () if levels is None or safe is None else _hops(levels, legal, safe, rate * declaration.nameplate.period_s)
    return Command(
        full, low, high, rate, rate2, s.neutral, safe, levels, legal, hops,
        tuple(dwells), tuple(switches), counted, names,
    )  # fmt: skip


def _hops(
    levels: tuple[float, ...], legal: frozenset[tuple[float, float]] | None, safe: float, step: float
) -> tuple[tuple[float, float], ...]:
    """From each level that can reach ``safe``, the next one on a shortest way; found backwards from ``safe``."""
    found: dict[float, float] = {safe: safe}
    front = [safe]
    while front:
        there = front.pop(0)
        for v in levels:
            near = abs(there - v) <= step * (1.0 + 1e-9)
            if v not in found and near and (legal is None or (v, there) in legal):
                found[v] = there
                front.append(v)
    return tuple(found.items())
