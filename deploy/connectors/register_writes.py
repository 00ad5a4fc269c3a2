"""The holding registers of an emulated plant: what a client may write into them, and when it counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from . import modbus_wire as wire
from . import register_map as rm
from .register_map import Entry, RegisterMap

Commands = Mapping[str, NDArray[np.float64]]


class CommandRegisters:
    """Judges each write whole, then stores it; knows whether anybody's heartbeat lives.

    ``held``: all holding registers. ``beat``: the last heartbeat taken. ``taken``: the sequence number with which
    commands were last taken. ``is_tripped``: the heartbeat stopped, and commands are neutral. Not for several threads.
    """

    def __init__(self, register_map: RegisterMap, watchdog_periods: int) -> None:
        self._map = register_map
        self._watchdog_periods = watchdog_periods
        self._at = {entry.register: entry for entry in register_map.commanded}
        self.held = [0] * register_map.n_holding
        self.beat = 0
        self.taken = 0
        self.is_tripped = True  # nobody has shown to live yet: the equipment is on its own control
        self._silent_periods = watchdog_periods
        self._in_force: dict[str, NDArray[np.float64]] = {}

    @property
    def is_open(self) -> bool:
        """A batch of several requests is under way: the plant keeps the commands before it."""
        return bool(self.held[rm.SEQUENCE] & 1)

    def write(self, register: int, words: list[int]) -> None:
        """Take a client's write, or raise :class:`~.modbus_wire.RefusalError` and keep all as it was."""
        at, end = register, register + len(words)
        is_beating = False
        is_commanding = False
        while at < end:
            if at == rm.HEARTBEAT:
                if words[at - register] != (self.beat + 1) & 0xFFFF:
                    raise wire.RefusalError(wire.ILLEGAL_VALUE)
                is_beating, at = True, at + 1
            elif at == rm.SEQUENCE:
                at += 1
            else:
                entry = self._at.get(at)
                if entry is None or entry.end > end:
                    raise wire.RefusalError(wire.ILLEGAL_ADDRESS)
                if judged(entry, words[at - register : entry.end - register]) is None:
                    raise wire.RefusalError(wire.ILLEGAL_VALUE)
                is_commanding, at = True, entry.end
        if is_commanding and not is_beating and self._silent_periods >= self._watchdog_periods:
            raise wire.RefusalError(wire.DEVICE_FAILURE)
        self.held[register:end] = words
        if is_beating:
            self.beat = self.held[rm.HEARTBEAT]
            self._silent_periods = 0

    def begin_period(self) -> bool:
        """Count a period; True when the watchdog trips in it."""
        trips = self._silent_periods >= self._watchdog_periods and not self.is_tripped
        if trips:
            self.neutralise()
        self.is_tripped = self._silent_periods >= self._watchdog_periods
        self._silent_periods = min(self._silent_periods + 1, self._watchdog_periods)
        return trips

    def neutralise(self) -> None:
        """Hold neutral, and no open batch."""
        self.held[rm.SEQUENCE] = 0
        for entry in self._map.commanded:
            self._store(entry, entry.signal.neutral)
        self._take()

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Commands for the plant, ``[N, A]`` a group: those held, or while a batch is open those before it."""
        if not self.is_open:
            self._take()
        return {name: array.copy() for name, array in self._in_force.items()}

    def replace(self, asked: Commands, accepted: Commands) -> None:
        """Hold what the plant accepted, where it differs from what it was asked and nobody has written since."""
        for entry in self._map.commanded:
            place = (entry.row, entry.column)
            wanted, value = float(asked[entry.group][place]), float(accepted[entry.group][place])
            if value != wanted and judged(entry, self.held[entry.register : entry.end]) == wanted:
                self._store(entry, value)
                self._in_force[entry.group][place] = value

    def _take(self) -> None:
        groups = self._map.nameplate.groups
        found = {g.name: np.repeat(g.neutral()[None], g.n_assets, axis=0) for g in groups}
        for entry in self._map.commanded:
            value = judged(entry, self.held[entry.register : entry.end])
            if value is not None:  # what a plant accepted may lie between two steps of an int16, at a limit
                found[entry.group][entry.row, entry.column] = value
        self._in_force, self.taken = found, self.held[rm.SEQUENCE]

    def _store(self, entry: Entry, value: float) -> None:
        self.held[entry.register : entry.end] = entry.codec.encode(value)


def judged(entry: Entry, words: list[int]) -> float | None:
    """The command that registers ask for, inside the nameplate's limits; None for one that is refused."""
    signal, value = entry.signal, entry.number(words)
    is_known = signal.levels is None or value in signal.levels
    return value if is_known and signal.minimum <= value <= signal.maximum else None  # NaN is not between them
