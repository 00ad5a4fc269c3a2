"""The second look at what assets keep together: sums, their ramps, conflicts, separation and barriers.

Plain floats and own formulas. A row that no command in reach can keep counts as kept by commands that go back towards
it (:mod:`.verify_reach`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ...envs.constraint import ConflictConstraint, Declaration
from .command_table import LEVEL_TOLERANCE, Asset, Command
from .verify_reach import Reach
from .verify_separation import separation_kept, separations
from .verify_state_rows import own_rows, own_rows_kept, wall_kept, walls
from .verify_sums import Limits, SumCheck


class Pairs(NamedTuple):
    """Levels of two commands that never stand together."""

    name: str
    pairs: tuple[tuple[int, float, int, float], ...]


class CoupledCheck:
    """Compiled once from a declaration; a call is pure and does not raise."""

    def __init__(
        self, declaration: Declaration, commands: Sequence[Command], place: Mapping[tuple[str, int], Asset]
    ) -> None:
        self._sums = SumCheck(declaration, commands, place)
        self._pairs = tuple(_pairs(declaration, place))
        self._apart = tuple(separations(declaration, commands, place))
        self._walls = tuple(walls(declaration, place))
        self._own_rows = tuple(own_rows(declaration, place))

    def broken(
        self, values: Sequence[float], before: Sequence[float], reach: Reach, elapsed_s: float,
        measured: Mapping[str, Any] | None, seen: Mapping[str, Any] | None, limits: Limits | None,
    ) -> tuple[str, ...]:  # fmt: skip
        """Names of the constraints that ``values`` (all commands of the site) break, in the order of declaration; a
        site's own rows are judged at ``seen``, which is NaN where nothing is known."""
        found = self._sums.broken(values, before, reach, elapsed_s, limits)
        for p in self._pairs:
            if not all(_apart_levels(pair, values, before, reach) for pair in p.pairs):
                found.append(p.name)
        for a in self._apart:
            if not _guarded(partial(separation_kept, a, values, before, reach, measured)):
                found.append(a.name)
        for w in self._walls:
            if not _guarded(partial(wall_kept, w, values, before, reach, measured)):
                found.append(w.constraint.name)
        for r in self._own_rows:
            if not _guarded(partial(own_rows_kept, r, values, before, reach, seen)):
                found.append(r.constraint.name)
        return tuple(found)


def _pairs(declaration: Declaration, place: Mapping[tuple[str, int], Asset]) -> list[Pairs]:
    found: list[Pairs] = []
    for c in declaration.hard:
        if isinstance(c, ConflictConstraint):
            group = declaration.nameplate.group(c.group)
            where = {
                (asset, s.name): place[c.group, i].first + k
                for i, asset in enumerate(group.assets)
                for k, s in enumerate(group.commanded)
            }
            found.append(Pairs(c.name, tuple((where[a[:2]], a[2], where[b[:2]], b[2]) for a, b in c.pairs)))
    return found


def _apart_levels(
    pair: tuple[int, float, int, float], values: Sequence[float], before: Sequence[float], reach: Reach
) -> bool:
    """Whether two levels do not stand together, or stood together already and neither command may leave its own."""
    i, first, j, second = pair
    if not (_at(values[i], first) and _at(values[j], second)):
        return True
    stood = _at(before[i], first) and _at(before[j], second)
    return stood and all(_at(v, first) for v in reach(i)) and all(_at(v, second) for v in reach(j))


def _at(value: float, level: float) -> bool:
    return abs(value - level) <= LEVEL_TOLERANCE * (1.0 + abs(level))


def _guarded(check: Callable[[], bool]) -> bool:
    """A check that fails in itself (a barrier that raises, a reading that is none) is not passed."""
    try:
        return check()
    except Exception:  # noqa: BLE001 - a site's barrier is foreign code
        return False
