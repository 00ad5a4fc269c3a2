"""The second look at separation: whether two assets close no faster than the distance between them allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any, NamedTuple

from ...envs.constraint import Declaration, SeparationConstraint
from .command_table import Asset, Command
from .verify_reach import Reach, nearest


class Apart(NamedTuple):
    """Pairs of one group: measured columns of the position, and by asset the commands that move it."""

    name: str
    group: str
    positions: tuple[int, ...]
    velocities: tuple[tuple[int, ...], ...]
    distance: float
    closing_per_s: float
    braking: float
    period_s: float
    pairs: tuple[tuple[int, int], ...]
    carefree: float
    """Beyond this distance squared no command in range can come too near."""


def separations(
    declaration: Declaration, commands: Sequence[Command], place: Mapping[tuple[str, int], Asset]
) -> list[Apart]:
    """Compile the hard separations of a declaration."""
    found: list[Apart] = []
    period_s = declaration.nameplate.period_s
    for c in declaration.hard:
        if not isinstance(c, SeparationConstraint):
            continue
        group = declaration.nameplate.group(c.group)
        columns = [group.index("commanded", name) for name in c.velocities]
        velocities = tuple(tuple(place[c.group, i].first + k for k in columns) for i in range(group.n_assets))
        positions = tuple(group.index("measured", name) for name in c.positions)
        fastest = max(
            math.sqrt(sum(max(abs(commands[k].minimum), abs(commands[k].maximum)) ** 2 for k in at))
            for at in velocities
        )
        gain = min(c.gain_per_s, 1.0 / period_s)
        braking = math.inf if c.braking is None else c.braking
        stop = 0.0 if c.braking is None else 2.0 * fastest * period_s + (2.0 * fastest) ** 2 / (2.0 * c.braking)
        far = c.distance + max(2.0 * fastest / gain, stop)
        pairs = tuple(itertools.combinations(range(group.n_assets), 2))
        found.append(
            Apart(c.name, c.group, positions, velocities, c.distance, gain, braking, period_s, pairs, far * far)
        )
    return found


def separation_kept(
    a: Apart, values: Sequence[float], before: Sequence[float], reach: Reach,
    measured: Mapping[str, Any] | None,
) -> bool:  # fmt: skip
    """Whether no two assets of the group close too fast where they are measured. Raises for a reading that is none."""
    rows = _rows(measured, a.group)
    if len(rows) != len(a.velocities):
        return False
    squares = [0.0] * len(a.pairs)
    for k in a.positions:
        x = [row[k] for row in rows]
        squares = [square + (x[i] - x[j]) * (x[i] - x[j]) for square, (i, j) in zip(squares, a.pairs, strict=True)]
    near = [(pair, s) for pair, s in zip(a.pairs, squares, strict=True) if not s >= a.carefree]  # NaN is near
    for (i, j), square in near:
        p, q = ([float(rows[m][k]) for k in a.positions] for m in (i, j))
        if not _pair_kept(a, i, j, p, q, square, values, before, reach):
            return False
    return True


def _pair_kept(
    a: Apart, i: int, j: int, p: Sequence[float], q: Sequence[float], square: float,
    values: Sequence[float], before: Sequence[float], reach: Reach,
) -> bool:  # fmt: skip
    """Whether two assets close no faster than the distance left allows."""
    far = math.sqrt(square)
    if not math.isfinite(far):
        return False
    if far <= 1e-9 * a.distance:  # at one place: they part along the first axis, the earlier one downwards
        toward = [1.0] + [0.0] * (len(p) - 1)
    else:
        toward = [(y - x) / far for x, y in zip(p, q, strict=True)]
    left = far - a.distance
    most: float = a.closing_per_s * left
    if left > 0.0 and a.braking < math.inf:
        # closing at c for a period and then braking, by one of them if need be: c T + c^2 / (2 b) = left
        b = a.braking
        most = min(most, math.sqrt((b * a.period_s) ** 2 + 2.0 * b * left) - b * a.period_s)
    at = (*a.velocities[i], *a.velocities[j])
    weights = (*toward, *(-x for x in toward))
    closing: float = sum(map(mul, weights, [values[k] for k in at]))
    slack = 1e-8 * (1.0 + abs(most) + abs(closing))
    if closing <= most + slack:
        return True
    return nearest(weights, at, values, before, reach, most, -math.inf, slack)


def _rows(measured: Mapping[str, Any] | None, group: str) -> list[list[float]]:
    if measured is None:
        return []
    table = measured[group]
    return list(table.tolist() if hasattr(table, "tolist") else table)
