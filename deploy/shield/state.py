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
    name: (tuple(f"{name}/{field}" for field in kind.__annotations__), attrgetter(*kind.__annotations__))
    for name, kind in _PARTS.items()
}
_TABLES = ("applied", "before", "changed", "pending")
_NUMBERS = ("time_s", "clock_s", "confirmed", "landing_s")
_numbers = attrgetter(*_NUMBERS)
_MONITORS = "monitors"


def as_arrays(state: ShieldState) -> dict[str, NDArray[Any]]:
    """Every number of a state under its name, such as ``applied/turbine`` or ``inputs/good``; copies."""
    return {name: np.array(value) for name, value in named(state).items() if value is not None}


def named(state: ShieldState) -> dict[str, Any]:
    """What :func:`as_arrays` copies, as the state holds it: arrays, Python's numbers, None where there is none."""
    found = dict(zip(_NUMBERS, _numbers(state), strict=True))
    for part_name, (names, fields) in _FIELDS.items():
        part = getattr(state, part_name)
        if part is not None:
            found.update(zip(names, fields(part), strict=True))
    for name in _TABLES:
        for key, value in (getattr(state, name) or {}).items():
            found[f"{name}/{key}"] = value
    found[_MONITORS] = len(state.monitors)
    for number, memory in enumerate(state.monitors):
        for key, value in memory.items():
            found[f"{_MONITORS}/{number}/{key}"] = value
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
