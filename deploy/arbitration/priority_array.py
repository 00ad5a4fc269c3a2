"""Who commands what: sixteen slots a command, the smallest number wins, and silence gives control back by itself.

The model is BACnet's priority array (ANSI/ASHRAE 135, clause 19.2), used for every protocol. What is written stands in
its slot until it is released or expires; below all slots lies the relinquish default. Unlike BACnet's, every slot
expires: whoever stops speaking loses control after the time that it named itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

N_SLOTS = 16


class Slot(enum.IntEnum):
    """The slots in use, gravest first; the others are free for a site's own systems."""

    LIFE_SAFETY = 1
    EMERGENCY_STOP = 2
    INTERLOCK = 5
    OPERATOR = 8
    FALLBACK = 12
    APPROVED = 14
    AUTONOMOUS = 16


RELINQUISHED = 0
"""Stands for a slot where none holds a command."""


@dataclass(frozen=True)
class ArrayState:
    """``values``: ``[16, n]``, NaN where a slot is empty; ``until_s``: ``[16, n]``, when it expires, by the caller's
    monotonic clock."""

    values: Floats
    until_s: Floats


@dataclass(frozen=True)
class Effective:
    """``values``: ``[n]``, what is to be sent; ``slot``: ``[n]``, which slot says so, 0 for the relinquish default."""

    values: Floats
    slot: NDArray[np.int64]


class PriorityArray:
    """The rules over ``n`` commands; pure. ``default``: ``[n]``, what holds when every slot is empty."""

    def __init__(self, default: ArrayLike) -> None:
        self._default = np.array(default, dtype=np.float64)
        if self._default.ndim != 1 or not np.isfinite(self._default).all():
            raise ValueError(f"relinquish default {self._default.tolist()}; give one finite number a command")
        self.n = len(self._default)

    def start(self) -> ArrayState:
        """All slots empty, as after every start: nothing that stood before a restart counts."""
        return ArrayState(np.full((N_SLOTS, self.n), np.nan), np.full((N_SLOTS, self.n), -np.inf))

    def write(self, state: ArrayState, slot: int, values: ArrayLike, now_s: float, lasts_s: float) -> ArrayState:
        """Put ``values`` ``[n]`` into a slot for ``lasts_s`` seconds; a NaN leaves that command's slot as it is.

        Raises ``ValueError`` for a slot outside 1 to 16, an infinite value, or a time that is not positive and finite.
        """
        row = _row(slot)
        told = np.asarray(values, dtype=np.float64)
        if told.shape != (self.n,) or np.isinf(told).any():
            raise ValueError(f"slot {slot}: values {told.shape}; give {self.n} numbers, NaN to leave one as it is")
        if not (np.isfinite(now_s) and 0.0 < lasts_s < np.inf):
            raise ValueError(f"slot {slot}: lasts {lasts_s} s from {now_s}; give a positive number of seconds")
        said = ~np.isnan(told)
        values_after, until_after = state.values.copy(), state.until_s.copy()
        values_after[row, said] = told[said]
        until_after[row, said] = now_s + lasts_s
        return ArrayState(values_after, until_after)

    def release(self, state: ArrayState, slot: int, commands: ArrayLike | None = None) -> ArrayState:
        """Empty a slot, of ``commands`` (indices or a mask) or of all."""
        row = _row(slot)
        values = state.values.copy()
        values[row, slice(None) if commands is None else np.asarray(commands)] = np.nan
        return replace(state, values=values)

    def expired(self, state: ArrayState, now_s: float) -> ArrayState:
        """The state without what has run out; a clock that is no number lets everything run out."""
        alive = state.until_s > now_s
        return (
            state
            if alive[~np.isnan(state.values)].all()
            else replace(state, values=np.where(alive, state.values, np.nan))
        )

    def effective(self, state: ArrayState, now_s: float) -> Effective:
        """What is to be sent at ``now_s``: the value of the gravest slot that holds one."""
        held = ~np.isnan(state.values) & (state.until_s > now_s)
        row = held.argmax(axis=0)
        found = held.any(axis=0)
        values = np.where(found, state.values[row, np.arange(self.n)], self._default)
        return Effective(values, np.where(found, row + 1, RELINQUISHED))


def _row(slot: int) -> int:
    if not 1 <= slot <= N_SLOTS:
        raise ValueError(f"slot {slot}; allowed are 1 to {N_SLOTS}: {', '.join(f'{s} {s.name.lower()}' for s in Slot)}")
    return int(slot) - 1
