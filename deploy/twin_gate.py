"""May anything be proposed from the live twin? Its consistency, its silence and its drift alarm, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..envs.estimation.consistency import Band, Consistency

if TYPE_CHECKING:
    from ..envs.estimation.contract import Assimilated
    from .live_twin import LiveTwinSettings


_NONE = "no proposal may be made"


@dataclass(frozen=True)
class GateVerdict:
    """``open``: a proposal may be made; else ``why`` says what stands against it. ``alarm``: the drift alarm in words,
    empty where there is none. ``nis`` a degree of freedom and ``coverage`` over ``n`` periods."""

    open: bool
    why: str
    alarm: str
    nis: float
    coverage: float
    n: int


def closed_by(verdict: GateVerdict, objection: str) -> GateVerdict:
    """The verdict where something else stands against a proposal too, said in words; unchanged where nothing does."""
    if not objection:
        return verdict
    why = f"{verdict.why}; {objection}" if verdict.why else f"{_NONE}: {objection}"
    return replace(verdict, open=False, why=why)


class TwinGate:
    """Watches what readings say of the forecasts made before them."""

    def __init__(self, settings: LiveTwinSettings) -> None:
        self._settings = settings
        self._consistency = Consistency(settings.window, Band(settings.nis_band, settings.coverage_band))
        self.forget()

    def forget(self) -> None:
        """As before the first reading."""
        self._consistency.clear()
        self._out, self._silent, self._alarmed = 0, 0, False

    def period(self) -> None:
        """A period has passed; :meth:`add` follows where it had a reading."""
        self._silent += 1

    def add(self, found: Assimilated) -> None:
        """What assimilating the period's reading told."""
        n = len(found.inside)
        if found.idle:
            self._silent = 0
        if found.n == 0:
            return
        self._silent = 0
        # NIS is of the values used, coverage of all that were judged; both weigh the period by the latter.
        self._consistency.add(found.nis * n / found.n, found.inside)
        # A forecast that is too wide closes the gate, but no plant has drifted, and recalibration would not narrow it.
        self._out = self._out + 1 if self._consistency.verdict().drifted else 0
        self._alarmed = self._out >= self._settings.alarm_periods or (self._alarmed and self._out > 0)

    def verdict(self) -> GateVerdict:
        """The answer now."""
        told = self._consistency.verdict()
        faults = [told.why] if told.why else []
        if self._silent > self._settings.silence_periods:
            faults.append(f"no usable reading for {self._silent} periods")
        alarm = ""
        if self._alarmed:
            alarm = (
                f"the twin has been out of its band for {self._out} periods ({told.why}): the plant has drifted from "
                "it, or a sensor has; recalibrate"
            )
            faults.append("drift alarm")
        why = f"{_NONE}: {'; '.join(faults)}" if faults else ""
        return GateVerdict(not faults, why, alarm, told.nis, told.coverage, told.n)

    def memory(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays; :meth:`recall` is the exact inverse."""
        rows = np.array(self._consistency.memory(), dtype=np.float64).reshape(-1, 3)
        return {"window": rows, "counts": np.array([self._out, self._silent, int(self._alarmed)], dtype=np.int64)}

    def recall(self, memory: Mapping[str, NDArray[Any]]) -> None:
        self._consistency.recall((float(nis), int(n), int(c)) for nis, n, c in memory["window"] if not math.isnan(n))
        self._out, self._silent = int(memory["counts"][0]), int(memory["counts"][1])
        self._alarmed = bool(memory["counts"][2])
