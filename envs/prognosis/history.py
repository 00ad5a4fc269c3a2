"""Condition signals of machines from new to their failure, or to now; and their reader for CSV files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError

Floats = NDArray[np.float64]
UNIT, CYCLE, FAILED = "unit", "cycle", "failed"


@dataclass(frozen=True)
class UnitHistory:
    """One machine: ``signals`` ``[T, S]``, a row a cycle from its first; ``failed``: in the last one."""

    name: str
    signals: Floats
    failed: bool

    @property
    def n_cycles(self) -> int:
        return len(self.signals)


@dataclass(frozen=True)
class Fleet:
    """Machines of one kind with the same ``signals``; time goes in ``unit``."""

    signals: tuple[str, ...]
    units: tuple[UnitHistory, ...]
    unit: str = "cycles"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(u.name for u in self.units)

    @property
    def lives(self) -> NDArray[np.int64]:
        """Cycles that each was seen, ``[n]``."""
        return np.array([u.n_cycles for u in self.units], dtype=np.int64)

    def failed(self) -> Fleet:
        """Those that were seen to fail."""
        return Fleet(self.signals, tuple(u for u in self.units if u.failed), self.unit)

    def pick(self, rows: Sequence[int] | NDArray[np.int64]) -> Fleet:
        """Those machines, by place."""
        return Fleet(self.signals, tuple(self.units[int(k)] for k in rows), self.unit)

    def with_signals(self, names: tuple[str, ...]) -> Fleet:
        """The same machines with those signals, in that order; raises :class:`ConfigurationError` for one it lacks."""
        lacking = [name for name in names if name not in self.signals]
        if lacking:
            raise ConfigurationError(f"signals: {', '.join(lacking)} not there; there are {', '.join(self.signals)}")
        columns = [self.signals.index(name) for name in names]
        units = tuple(UnitHistory(u.name, u.signals[:, columns], u.failed) for u in self.units)
        return Fleet(names, units, self.unit)


def read_csv(path: Path) -> Fleet:
    """Read a CSV file with a heading: ``unit``, ``cycle`` (1, 2, ... of each unit), condition signals, and, where some
    have failed, ``failed``: 1 in the row in which a unit did, else 0. Raises :class:`ConfigurationError`."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        heading = next(rows, [])
        if UNIT not in heading or CYCLE not in heading:
            raise ConfigurationError(
                f"{path}: heading {heading}; give columns {UNIT!r}, {CYCLE!r} and condition signals"
            )
        names = tuple(h for h in heading if h not in (UNIT, CYCLE, FAILED))
        if not names or len(set(heading)) != len(heading):
            raise ConfigurationError(f"{path}: heading {heading}; give condition signals, each column once")
        at = {name: k for k, name in enumerate(heading)}
        found: dict[str, list[list[float]]] = {}
        failed: dict[str, bool] = {}
        for row in rows:
            where = f"{path}: line {rows.line_num}"
            if len(row) != len(heading):
                raise ConfigurationError(f"{where}: {len(row)} cells under {len(heading)} columns")
            unit, cycle = row[at[UNIT]], _number(row[at[CYCLE]], CYCLE, where)
            lines = found.setdefault(unit, [])
            if failed.get(unit):
                raise ConfigurationError(f"{where}: unit {unit!r} goes on after it failed; give it a new name")
            if cycle != len(lines) + 1:
                raise ConfigurationError(f"{where}: cycle {cycle:g} of unit {unit!r}; expected {len(lines) + 1}")
            lines.append([_number(row[at[name]], name, where) for name in names])
            failed[unit] = FAILED in at and _number(row[at[FAILED]], FAILED, where) != 0
    if not found:
        raise ConfigurationError(f"{path}: no rows under its heading")
    units = tuple(UnitHistory(u, np.array(lines, dtype=np.float64), failed[u]) for u, lines in found.items())
    return Fleet(names, units)


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ConfigurationError(f"{where}: {name} is {text!r}; give a finite number")
    return value
