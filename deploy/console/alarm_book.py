"""Alarms as ANSI/ISA-18.2-2016 (IEC 62682) has them: states, priorities, shelving with an end, and how many there are.

Pure: it is told which conditions stand, and by whom it was acknowledged or shelved; it keeps no file and no clock.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...envs.errors import ConfigurationError

WINDOW_S = 600.0
FLOOD_BEGINS, FLOOD_ENDS = 10, 5
"""Annunciated in ten minutes: more is a flood, and fewer ends it (ISA-18.2, 16.5.3)."""
OFF_DELAY_S = 5.0
"""A condition must be gone so long until the alarm returns: what comes and goes is one alarm."""
LONGEST_SHELF_S = 8 * 3600.0


class Priority(enum.StrEnum):
    """Gravest first; each is shown by a word, a shape and a colour."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


MARKS: Mapping[Priority, str] = {Priority.HIGH: "■ 1", Priority.MEDIUM: "▲ 2", Priority.LOW: "▼ 3"}
"""Shape and number of a priority; colour comes on top."""


class AlarmState(enum.StrEnum):
    """Of an alarm that is not normal. ``RETURNED``: gone, and nobody has acknowledged it."""

    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned"


@dataclass(frozen=True)
class Condition:
    """What stands now. ``shelvable``: never for a trip of the shield or an emergency stop."""

    key: str
    priority: Priority
    text: str
    asset: str = ""
    shelvable: bool = True


@dataclass(frozen=True)
class Alarm:
    """One alarm that is not normal. ``gone_utc_s``: since when its condition is gone, None while it stands."""

    condition: Condition
    state: AlarmState
    raised_utc_s: float
    gone_utc_s: float | None = None
    acknowledged_by: str = ""


@dataclass(frozen=True)
class Shelf:
    """Hidden from the list of alarms by a person until a time."""

    by: str
    until_utc_s: float
    reason: str


class AlarmBook:
    """All alarms that are not normal, and what is shelved."""

    def __init__(self) -> None:
        self.alarms: dict[str, Alarm] = {}
        self.shelves: dict[str, Shelf] = {}
        self.version = 0
        """Rises with each change that a page must show."""
        self.in_flood = False
        self._announced: deque[float] = deque()

    def update(self, conditions: Iterable[Condition], utc_s: float) -> list[dict[str, Any]]:
        """Take the conditions that stand now; returns what happened, as rows for the audit."""
        standing = {c.key: c for c in conditions}
        events = self._unshelve_overdue(utc_s)
        for key, condition in standing.items():
            events += self._stands(key, condition, utc_s)
        for key in [k for k in self.alarms if k not in standing]:
            events += self._is_gone(key, utc_s)
        self._count(utc_s)
        self.version += bool(events)
        return events

    def acknowledge(self, key: str, by: str, utc_s: float) -> None:
        """A person has seen it; one that was seen before stays as it is. Raises :class:`ConfigurationError`."""
        alarm = self._known(key)
        if alarm.state is AlarmState.RETURNED:
            del self.alarms[key]
        elif alarm.state is AlarmState.UNACKNOWLEDGED:
            self.alarms[key] = replace(alarm, state=AlarmState.ACKNOWLEDGED, acknowledged_by=by)
        self.version += 1

    def shelve(self, key: str, by: str, lasts_s: float, reason: str, utc_s: float) -> None:
        """Hide an alarm for a while; raises :class:`ConfigurationError` where that is not allowed."""
        self.check_shelving(key, lasts_s, reason)
        self.shelves[key] = Shelf(by, utc_s + lasts_s, reason.strip())
        self.version += 1

    def check_shelving(self, key: str, lasts_s: float, reason: str) -> None:
        """Raise :class:`ConfigurationError` where this may not be shelved so."""
        alarm = self._known(key)
        if not alarm.condition.shelvable:
            raise ConfigurationError(f"alarm {alarm.condition.text!r}: a trip or an emergency stop is never shelved")
        if not 0.0 < lasts_s <= LONGEST_SHELF_S:
            raise ConfigurationError(f"shelving for {lasts_s:g} s: give more than 0 and at most {LONGEST_SHELF_S:g}")
        if not reason.strip():
            raise ConfigurationError("shelving: give a reason; whoever comes next must know why this is hidden")

    def unshelve(self, key: str) -> None:
        """Show it again. Raises :class:`ConfigurationError` where it is not shelved."""
        if key not in self.shelves:
            raise ConfigurationError(f"alarm {key!r}: is not shelved")
        del self.shelves[key]
        self.version += 1

    def shown(self) -> list[Alarm]:
        """What is not shelved: gravest first, unacknowledged before the rest, newest first."""
        order = {p: i for i, p in enumerate(Priority)}
        found = [a for key, a in self.alarms.items() if key not in self.shelves]
        found.sort(key=lambda a: a.raised_utc_s, reverse=True)
        return sorted(found, key=lambda a: (order[a.condition.priority], a.state is AlarmState.ACKNOWLEDGED))

    def of_asset(self, agent: str) -> Priority | None:
        """The gravest alarm of an asset that is shown."""
        return next((a.condition.priority for a in self.shown() if a.condition.asset == agent), None)

    def announced(self, utc_s: float) -> int:
        """How many were raised in the last ten minutes."""
        return sum(utc_s - at_s <= WINDOW_S for at_s in self._announced)

    def to_dict(self) -> dict[str, Any]:
        """For a file, so that what was acknowledged and shelved outlives the process."""
        return {
            "format": 1,
            "alarms": {k: asdict(a) for k, a in self.alarms.items()},
            "shelves": {k: asdict(s) for k, s in self.shelves.items()},
            "announced": list(self._announced),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AlarmBook:
        """Inverse of :meth:`to_dict`; raises ValueError, KeyError or TypeError for anything else."""
        book = cls()
        for key, a in data["alarms"].items():
            condition = Condition(**{**a["condition"], "priority": Priority(a["condition"]["priority"])})
            book.alarms[key] = Alarm(**{**a, "condition": condition, "state": AlarmState(a["state"])})
        book.shelves = {key: Shelf(**s) for key, s in data["shelves"].items()}
        book._announced = deque(float(t) for t in data["announced"])
        return book

    def _known(self, key: str) -> Alarm:
        if key not in self.alarms:
            raise ConfigurationError(f"alarm {key!r}: does not stand any more; look at the list again")
        return self.alarms[key]

    def _stands(self, key: str, condition: Condition, utc_s: float) -> list[dict[str, Any]]:
        before = self.alarms.get(key)
        if before is None or before.state is AlarmState.RETURNED:
            self.alarms[key] = Alarm(condition, AlarmState.UNACKNOWLEDGED, utc_s)
            if key not in self.shelves:
                self._announced.append(utc_s)
            return [_event("alarm_raised", condition)]
        # An acknowledged alarm that became graver is a new one to look at.
        worse = list(Priority).index(condition.priority) < list(Priority).index(before.condition.priority)
        state = AlarmState.UNACKNOWLEDGED if worse else before.state
        self.alarms[key] = replace(before, condition=condition, state=state, gone_utc_s=None)
        if not condition.shelvable:
            self.shelves.pop(key, None)
        return [_event("alarm_changed", condition)] if condition != before.condition else []

    def _is_gone(self, key: str, utc_s: float) -> list[dict[str, Any]]:
        alarm = self.alarms[key]
        if alarm.state is AlarmState.RETURNED:
            return []
        if alarm.gone_utc_s is None:
            self.alarms[key] = replace(alarm, gone_utc_s=utc_s)
            return []
        if utc_s - alarm.gone_utc_s < OFF_DELAY_S:
            return []
        if alarm.state is AlarmState.ACKNOWLEDGED:
            del self.alarms[key]
        else:
            self.alarms[key] = replace(alarm, state=AlarmState.RETURNED)
        return [_event("alarm_returned", alarm.condition)]

    def _unshelve_overdue(self, utc_s: float) -> list[dict[str, Any]]:
        over = [key for key, shelf in self.shelves.items() if utc_s >= shelf.until_utc_s]
        for key in over:
            del self.shelves[key]
        return [{"kind": "alarm_unshelved", "alarm": key, "by": "its time was over"} for key in over]

    def _count(self, utc_s: float) -> None:
        while self._announced and utc_s - self._announced[0] > WINDOW_S:
            self._announced.popleft()
        n = len(self._announced)
        flood = n > FLOOD_BEGINS or (self.in_flood and n >= FLOOD_ENDS)
        self.version += flood != self.in_flood
        self.in_flood = flood


def _event(kind: str, condition: Condition) -> dict[str, Any]:
    return {"kind": kind, "alarm": condition.key, "priority": condition.priority.value, "text": condition.text}
