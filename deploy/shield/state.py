"""The shield's memory as named arrays and back, exactly: for a twin's snapshot and for replaying a journal.

What is None has no name here. Numbers become arrays without a dimension, and Python numbers again.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .command_memory import CommandMemory
from .decision import InputState, ShieldState
from .ladder import StoredPlan
from .modes import ModeState

Named = Mapping[str, NDArray[Any]]

_PARTS: dict[str, type] = {"inputs": InputState, "memory": CommandMemory, "modes": ModeState, "plan": StoredPlan}
_FIELDS = {
    name: (tuple(f"{name}/{field}" for field in fields), attrgetter(*fields))
    for name, fields in ((name, sorted(kind.__annotations__)) for name, kind in _PARTS.items())
}
_TABLES = ("applied", "before", "changed", "pending")
_NUMBERS = ("time_s", "clock_s", "confirmed", "landing_s")
_MONITORS = "monitors"
_ORDER = sorted((*_PARTS, *_TABLES, *_NUMBERS, _MONITORS))


def as_arrays(state: ShieldState) -> dict[str, NDArray[Any]]:
    """Every number of a state under its name, such as ``applied/turbine`` or ``inputs/good``; copies."""
    return {name: np.array(value) for name, value in named(state) if value is not None}


def named(state: ShieldState) -> list[tuple[str, Any]]:
    """What :func:`as_arrays` copies, in the order of names: arrays, Python's numbers, None where there is none."""
    found: list[tuple[str, Any]] = []
    for part in _ORDER:
        value = getattr(state, part)
        if value is None:
            continue
        if part in _FIELDS:
            names, fields = _FIELDS[part]
            found += zip(names, fields(value), strict=True)
        elif part in _TABLES:
            found += [(f"{part}/{key}", value[key]) for key in sorted(value)]
        elif part == _MONITORS:
            found.append((part, len(value)))
            for number in sorted(range(len(value)), key=str):
                memory = value[number]
                found += [(f"{part}/{number}/{key}", memory[key]) for key in sorted(memory)]
        else:
            found.append((part, value))
    return found


def from_arrays(arrays: Named) -> ShieldState:
    """The inverse of :func:`as_arrays`. Raises ``KeyError`` or ``TypeError`` for arrays of another make."""

    def under(name: str) -> dict[str, Any]:
        prefix = name + "/"
        return {key.removeprefix(prefix): _plain(value) for key, value in arrays.items() if key.startswith(prefix)}

    told: dict[str, Any] = {name: _plain(arrays[name]) for name in _NUMBERS if name in arrays}
    for name, kind in _PARTS.items():
        values = under(name)
        told[name] = kind(**values) if values else None
    for name in _TABLES:
        values = under(name)
        told[name] = values if values or name == "pending" else None
    told[_MONITORS] = tuple(under(f"{_MONITORS}/{number}") for number in range(int(arrays[_MONITORS])))
    return ShieldState(**told)


def _plain(value: NDArray[Any]) -> Any:
    return value.item() if value.ndim == 0 else value.copy()
