"""What lies between two periods: the time that passed, what the plant obeyed in it, what limits on change remember."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays
from .arrays import numeric, some
from .choice import SAFE_STATE
from .command_memory import CommandMemory
from .compiled import FlatCommands
from .decision import ShieldState
from .keeping import Keeping
from .modes import APPROVED, TRIPPED, ModeState

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PERIOD_JITTER = 1e-3
"""A period that is short by this share is still a whole period: UTC clocks resolve no better."""


class BetweenPeriods:
    """Compiled for one site; ``memory_at_start``: what limits on change remember before the first period."""

    def __init__(self, nameplate: Nameplate, flat: FlatCommands, keeping: Keeping) -> None:
        self._nameplate = nameplate
        self._flat = flat
        self._keeping = keeping
        self.memory_at_start = keeping.local.start()

    def passed_s(self, now_s: float, state: ShieldState, clock_s: float | None) -> float:
        """Seconds since the last period: at most one period, none on a clock that went wrong."""
        period_s = self._nameplate.period_s
        if state.time_s is None:
            return period_s
        passed_s = now_s - state.time_s
        if clock_s is not None and state.clock_s is not None:
            passed_s = min(passed_s, clock_s - state.clock_s)
        if passed_s >= period_s * (1.0 - PERIOD_JITTER):
            return period_s
        return passed_s if passed_s > 0.0 else 0.0  # so asked, a NaN is nothing

    def applied(self, state: ShieldState) -> Floats:
        """What the plant obeys, ``[n]``; neutral where that is no number."""
        applied = self._flat.flat(state.applied)
        if not math.isfinite(applied.dot(applied)):
            applied = np.where(np.isfinite(applied), applied, self._flat.neutral)
        return applied

    def remembered(self, state: ShieldState, applied: Floats, passed_s: float) -> CommandMemory:
        """What the limits on change remember, once what is applied has stood until now."""
        memory = state.memory or self.memory_at_start
        if state.before is None or not self._keeping.local.remembers:
            return memory
        before = applied if state.before is state.applied else self._flat.flat(state.before)
        return self._keeping.local.after(memory, before, applied, passed_s)

    def memory(self, state: ShieldState, now_s: float, clock_s: float | None) -> CommandMemory:
        """The same by these clocks."""
        return self.remembered(state, self.applied(state), self.passed_s(now_s, state, clock_s))

    def obeying(self, state: ShieldState, accepted: Any) -> ShieldState:
        """``state`` with what the plant obeys; what ``accepted`` does not say, or says wrongly, stays."""
        applied: dict[str, Floats] = {}
        for group in self._nameplate.groups:
            try:
                told = numeric(accepted.get(group.name), (group.n_assets, len(group.commanded)))
            except Exception:  # noqa: BLE001 - a driver is foreign code: an answer that can't be read tells nothing
                told = "type"
            known = state.applied[group.name]
            applied[group.name] = known if isinstance(told, str) else np.where(np.isfinite(told), told, known)
        if state.confirmed:
            return replace(state, applied=applied)
        # what is told only now is a change of its own, after those that were known before
        memory = self.remembered(state, self.applied(state), 0.0)
        return replace(state, applied=applied, before=state.applied, memory=memory, confirmed=True)

    def undecided(
        self, state: ShieldState, sent: Arrays, modes: ModeState, now_s: float, clock_s: float | None
    ) -> ShieldState:
        """The state after a period in which ``sent`` went out and nothing was decided but ``modes``."""
        stood = replace(
            state,
            before=state.applied,
            memory=self.memory(state, now_s, clock_s),
            modes=modes,
            time_s=now_s,
            clock_s=clock_s,
            confirmed=True,
            plan=None,
        )
        return self.obeying(stood, sent)


def acting(modes: ModeState) -> Bools:
    """Which assets ``[N]`` were ours to command in the last period."""
    return np.where(modes.mode == TRIPPED, modes.held, modes.mode >= APPROVED)


def landing_s(state: ShieldState, source: NDArray[np.int8], passed_s: float) -> Floats | None:
    """How long each asset ``[agents]`` has been on its way to its safe state; ``source``: codes of what is sent."""
    landing = source == SAFE_STATE
    if not some(landing):
        return None
    before = 0.0 if state.landing_s is None else state.landing_s
    return np.where(landing, before + passed_s, 0.0)


def seconds(raw: Any) -> float:
    """A clock's time; NaN, which every comparison refuses, for whatever is no finite number."""
    try:
        is_number = isinstance(raw, int | float | np.integer | np.floating) and not isinstance(raw, bool)
        return float(raw) if is_number and math.isfinite(raw) else math.nan
    except Exception:  # noqa: BLE001 - whole numbers beyond all floats, and types that only look like numbers
        return math.nan
