"""Faults at work in the emulated line: stops of one machine, and sensors that lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .nameplate import MEASURED
from .scenarios import FastWear, Fault, FrozenCounter, FrozenLevel, Jam, LostCounts, MicroStops, SlowRepairs

Floats = NDArray[np.float64]
_HOUR_S = 3600.0
_AT = {signal.name: k for k, signal in enumerate(MEASURED)}


class Troubles:
    """Of one machine, ``place`` from 0: which stops come when, and how much longer or faster things go than declared.

    Micro-stops come with running time, jams at their hour; ``rng`` is the machine's own.
    """

    def __init__(self, faults: Sequence[Fault], place: int, rng: np.random.Generator) -> None:
        mine = [f for f in faults if f.machine in (0, place + 1)]
        self._rng = rng
        self._stops = [f for f in mine if isinstance(f, MicroStops)]
        self._in_s = [self._gap_s(f) for f in self._stops]
        self._jams = sorted((f.at_h * _HOUR_S, f.lasts_s) for f in mine if isinstance(f, Jam))
        self.repair_factor = math.prod(f.factor for f in mine if isinstance(f, SlowRepairs))
        self.wear_factor = math.prod(f.factor for f in mine if isinstance(f, FastWear))

    def due_s(self, now_s: float) -> float:
        """Seconds of running until the next stop; infinite where none comes."""
        jam_s = max(0.0, self._jams[0][0] - now_s) if self._jams else math.inf
        return min([jam_s, *self._in_s])

    def ran(self, run_s: float) -> None:
        """The machine has run for so long."""
        self._in_s = [left - run_s for left in self._in_s]

    def stop_s(self, now_s: float) -> float:
        """How long the machine stands still now; 0 where no stop is due."""
        lasts_s = 0.0
        if self._jams and self._jams[0][0] <= now_s + 1e-9:
            lasts_s += self._jams.pop(0)[1]
        for k, fault in enumerate(self._stops):
            if self._in_s[k] <= 1e-9:
                lasts_s += float(self._rng.exponential(fault.mean_s))
                self._in_s[k] = self._gap_s(fault)
        return lasts_s

    def _gap_s(self, fault: MicroStops) -> float:
        return float(self._rng.exponential(_HOUR_S / fault.per_hour))


class Sensors:
    """What is told of a line ``[M, O]`` where some of its sensors do not work."""

    def __init__(self, faults: Sequence[Fault], rng: np.random.Generator) -> None:
        self._faults = [f for f in faults if isinstance(f, FrozenCounter | LostCounts | FrozenLevel)]
        self._rng = rng
        self._held: dict[tuple[int, int], float] = {}

    def told(self, values: Floats, now_s: float) -> Floats:
        """``values`` as they are told at ``now_s`` from the plant's start."""
        told = values.copy()
        for fault in self._faults:
            if not fault.from_h * _HOUR_S <= now_s < fault.to_h * _HOUR_S:
                continue
            row = fault.machine - 1
            if isinstance(fault, FrozenCounter):
                told[row, _AT["parts"]] = 0.0
            elif isinstance(fault, LostCounts):
                told[row, _AT["parts"]] = float(self._rng.binomial(int(told[row, _AT["parts"]]), 1.0 - fault.lost_pu))
            else:
                self._hold(told, row, "parts_before")
                self._hold(told, row, "room_behind")
                if row > 0:
                    self._hold(told, row - 1, "room_behind")
                if row < len(told) - 1:
                    self._hold(told, row + 1, "parts_before")
        return told

    def _hold(self, told: Floats, row: int, name: str) -> None:
        column = _AT[name]
        told[row, column] = self._held.setdefault((row, column), float(told[row, column]))
