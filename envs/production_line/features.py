"""What encoders of a line are made of; runs on numpy and on torch alike."""

from __future__ import annotations

import sys
from typing import Any

Array = Any


def bounded(x: Array, usual: float) -> Array:
    """0 at 0, 0.5 at ``usual``, below 1 for any number that is not negative."""
    size = abs(x)
    return size / (size + usual)


def share(xp: Any, parts: Array, capacity: Array) -> Array:
    """Parts over capacity, 1 where there is no buffer."""
    there = (capacity > 0.5) & (parts < 1e5)
    safe = xp.where(there, capacity, xp.ones_like(capacity))
    return xp.where(there, xp.clip(parts / safe, 0.0, 1.0), xp.ones_like(parts))


def moved(xp: Any, column: Array, away: int) -> Array:
    """The column of the machine ``away`` places down the line, zero beyond the ends."""
    n, out = column.shape[1], xp.zeros_like(column)
    if abs(away) >= n:
        return out
    if away > 0:
        out[:, : n - away] = column[:, away:]
    else:
        out[:, -away:] = column[:, : n + away]
    return out


def module_of(array: Array) -> Any:
    """The module of an array's functions."""
    return sys.modules[type(array).__module__.split(".")[0]]
