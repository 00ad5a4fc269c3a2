"""A judge with its own account of stops and resets, and the plant and desk that tell it what is sent and reset."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ...deploy.arbitration import Slot
from ...deploy.runtime import Period
from ...deploy.shield import ShieldState
from ...deploy.shield.orders import Orders
from ...deploy.station.desk import StationDesk
from ...envs.plant import Arrays, Telemetry
from .arbitration_site import KettlePlant, neutral

PERSON = "after_stop_"
"""Whoever orders is named after the number of stops so far."""
_ASKING = frozenset({int(Slot.OPERATOR), int(Slot.APPROVED), int(Slot.AUTONOMOUS)})
_MOST_SHOWN = 20


class Judge:
    """Knows when the stop was pressed and when a reset was followed, by itself, and looks at every write in between."""

    def __init__(self) -> None:
        self.presses = 0
        self.presses_at_begin = 0
        self.held = self.begun_held = self.released = False
        self.held_periods = self.stops = self.releases = 0
        self.violations: list[str] = []
        self.slots: Counter[int] = Counter()
        self.presses_at_placing: dict[str, int] = {}
        self.sent: list[tuple[dict[str, NDArray[np.float64]], Arrays]] = []

    def press(self) -> None:
        self.stops += not self.held
        self.presses += 1
        self.held = True

    def begin(self) -> None:
        """A period begins: what was pressed until now has to be heeded in it."""
        self.begun_held, self.released, self.presses_at_begin = self.held, False, self.presses
        self.sent.clear()

    def reset_followed(self, id: str) -> None:
        """Only what was pressed before the reset was asked for is over."""
        self.released = True
        was_held, self.held = self.held, self.presses > self.presses_at_placing.get(id, -1)
        self.releases += was_held and not self.held

    def judge(self, period: Period, number: int) -> None:
        slots = (
            [16] if period.slots is None else np.concatenate([a.reshape(-1) for a in period.slots.values()]).tolist()
        )
        self.slots.update(slots)
        for who in period.who.values():
            if who.startswith(PERSON) and int(who.removeprefix(PERSON)) < self.presses_at_begin:
                self._violated(number, f"what {who} asked before a stop came back after it")
        if not self.begun_held or self.released:
            return
        self.held_periods += 1
        if _ASKING & set(slots):
            self._violated(number, f"slots {sorted(set(slots))}")
        believed = period.decision.state.before or period.decision.state.applied
        for obeyed, commands in self.sent:
            for name, safe in neutral().items():
                reach = np.maximum(np.abs(obeyed[name] - safe), np.abs(believed[name] - safe)) + 1e-9
                if not (np.abs(commands[name] - safe) <= reach).all():
                    self._violated(number, f"{name} sent {commands[name].tolist()} from {obeyed[name].tolist()}")

    def _violated(self, number: int, what: str) -> None:
        if len(self.violations) < _MOST_SHOWN:
            self.violations.append(f"period {number}: {what}")
        else:
            self.violations.append("")


class JudgedPlant(KettlePlant):
    """Tells the judge when a period begins, and every command that arrives with what was obeyed before it."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._judge = judge

    def read(self) -> Telemetry:
        self._judge.begin()
        return super().read()

    def write(self, commands: Arrays) -> Arrays:
        self._answer("write")
        self._judge.sent.append(({n: c.copy() for n, c in self.commands.items()}, dict(commands)))
        self.log.clear()
        return super().write(commands)


class JudgedDesk(StationDesk):
    """Tells ``judge``, which is set after the making, of every reset that was followed."""

    judge: Judge

    def orders(self, number: int, now_s: float, state: ShieldState) -> Orders:
        known = len(self.latest), self.latest[-1].id if self.latest else ""
        before = {result.id for result in self.latest}
        found = super().orders(number, now_s, state)
        if known != (len(self.latest), self.latest[-1].id if self.latest else ""):
            for result in self.latest:
                if result.id not in before and result.kind == "reset" and result.accepted:
                    self.judge.reset_followed(result.id)
        return found
