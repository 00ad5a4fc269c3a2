"""Who is told to have commanded each signal, once the shield has decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shield import Decision, Mode, Source
from ..shield.causes import TABLE, Cause
from ..shield.compiled import FlatCommands
from .priority_array import RELINQUISHED, Slot

Slots = NDArray[np.int64]

_STOP_ROW = next(i for i, row in enumerate(TABLE) if row.cause is Cause.EMERGENCY_STOP)
_AUTONOMOUS, _FALLBACK = int(Slot.AUTONOMOUS), int(Slot.FALLBACK)  # plain numbers, which numpy compares faster
_ON_POLICY = frozenset({Source.POLICY})
_ASKED = frozenset({Source.POLICY, Source.SUBSTITUTED})


def reported_slots(
    decision: Decision, asked: Slots | None, interlocked: bool, flat: FlatCommands, agents: tuple[str, ...]
) -> dict[str, Slots] | None:
    """By group ``[N, A]``; None where all commands are the policy's.

    ``asked``: ``[n]`` of :class:`~.arbiter.Settled`. An asset that the emergency stop trips is in slot 2; all are in
    slot 5 while the equipment's own watchdog holds them (``interlocked``), in 12 where the shield chose a fallback, a
    plan or a safe state, and in 0 where nobody of ours acts.
    """
    if asked is None and not interlocked and _ON_POLICY.issuperset(decision.source.values()):
        return None
    of_asset: list[int] = []
    for name, *_ in flat.parts:
        for acts in decision.acts[name].tolist():
            place = len(of_asset)
            of_asset.append(_slot_of(decision, agents[place], place) if acts else RELINQUISHED)
    slot = np.array(of_asset, dtype=np.int64)[flat.asset]
    if asked is not None:
        slot = np.where(slot == _AUTONOMOUS, asked, slot)
    if interlocked:
        slot = np.where(slot == Slot.EMERGENCY_STOP, slot, Slot.INTERLOCK)
    if bool((slot == _AUTONOMOUS).all()):
        return None
    return {
        name: slot[first : first + n_assets * n_signals].reshape(n_assets, n_signals)
        for name, first, n_assets, n_signals in flat.parts
    }


def slots_row(slots: Mapping[str, Slots] | None) -> Any:
    """As the journal keeps them: one number for a group where all are equal."""
    if slots is None:
        return None
    return {name: int(a.flat[0]) if a.size and (a == a.flat[0]).all() else a for name, a in slots.items()}


def _slot_of(decision: Decision, agent: str, place: int) -> int:
    source = decision.source[agent]
    if decision.mode[agent] is Mode.TRIPPED:
        modes = decision.state.modes
        if modes is not None and bool(modes.latched[_STOP_ROW, place]):
            return Slot.EMERGENCY_STOP
    if source is Source.NOBODY:
        return RELINQUISHED
    return _AUTONOMOUS if source in _ASKED else _FALLBACK
