"""Make every decision of a journal again, from what its rows say, and compare bit for bit.

The shield is a pure function of its arguments and of a state that follows from row to row, so that a journal alone
shows whether a decision came from this shield, with these limits, and from nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..envs.nameplate import Nameplate
from ..envs.plant import Telemetry
from .arbitration.arbiter import Arbiter, Standing
from .arbitration.claims import claims_of
from .arbitration.reported import reported_slots, slots_row
from .journal import rows
from .record import decision_record, described, state_digest
from .row_text import plain
from .shield import Code, Mode, Shield, ShieldState
from .shield.causes import Cause
from .shield.orders import Orders
from .transition import OBEYED, WATCHDOG_TRIPPED, answered, has_timed_out, observed

_NUMBERS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_COMPARED = ("sent", "sources", "modes", "idle", "advised", "reasons")
_MOST_DIFFERENCES = 20


class Difference(NamedTuple):
    """``part`` of the row with this ``number`` in the run: what the journal has, and what came out again."""

    number: int
    part: str
    recorded: str
    replayed: str


@dataclass(frozen=True)
class Replay:
    """How a replay went: ``differences`` are the first few; none where every decision came out again bit for bit."""

    runs: int
    decisions: int
    missed: int
    differences: tuple[Difference, ...]

    @property
    def is_same(self) -> bool:
        return not self.differences


class _Undecided(NamedTuple):
    """A decision whose outcome the next row tells."""

    number: int
    before: ShieldState
    after: ShieldState
    stood: Standing
    stands: Standing


def replay(path: Path, shield_of: Callable[[Mapping[str, Any]], Shield]) -> Replay:
    """Replay all runs of a journal. ``shield_of`` gives the shield for a run's start row.

    Memory does not grow with the journal. Raises :class:`~twinloop.envs.errors.JournalError` if there is no such file.
    """
    runs = decisions = missed = 0
    found: list[Difference] = []
    run: _Run | None = None
    for row in rows(path):
        kind = row.get("kind")
        if kind == "start":
            runs += 1
            run = _Run(shield_of(row), row, found)
        elif run is None:
            continue
        elif kind == "decision":
            decisions += 1
            run.decide(row)
        elif kind == "missed":
            missed += 1
            run.miss(row)
        if len(found) >= _MOST_DIFFERENCES:
            break
    return Replay(runs, decisions, missed, tuple(found))


class _Run:
    """One run's state, from row to row."""

    def __init__(self, shield: Shield, start: Mapping[str, Any], found: list[Difference]) -> None:
        self._shield, self._found = shield, found
        self._state = shield.start(mode=Mode(start["mode"]), assets=start.get("assets"))
        self._arbiter = Arbiter(shield.flat, shield.nameplate.agents)
        self._standing = self._arbiter.start()
        self._tells_slots = "arbitration" in start
        self._undecided: _Undecided | None = None
        self._compare(0, "declaration", start["declaration_hash"], shield.declaration.hash)
        self._compare(0, "state", start["state_sha256"], state_digest(self._state))

    def decide(self, row: Mapping[str, Any]) -> None:
        number, shield = int(row["number"]), self._shield
        self._settle(row["previous"])
        telemetry = telemetry_of(row["telemetry"], shield.nameplate)
        state = observed(shield, self._state, telemetry)
        self._compare(number, "state", row["state_sha256"], state_digest(state))
        absent, orders = Code(row["absent"]), orders_of(row["orders"])
        told = row.get("arbitration", {"heard": {}, "policy": row["proposed"], "monotonic_s": 0.0})
        settled = self._arbiter.settle(
            self._standing,
            claims_of(told["heard"], shield.flat.n),
            _table(told["policy"]),
            absent,
            orders,
            state,
            told["monotonic_s"],
        )
        if "arbitration" in row:
            self._compare(number, "proposed", row["proposed"], described(settled.proposed))
            self._compare(number, "who", told["who"], settled.who)
        decision = shield.filter(
            telemetry,
            settled.proposed,
            _number(row["plant_time_s"]),
            state,
            absent=absent,
            orders=settled.orders,
            clock_s=_number(row["clock_s"]),
            causes=frozenset(Cause(c) for c in row["causes"]),
        )
        again = decision_record(number, None, decision, {}, {})
        for part in _COMPARED:
            self._compare(number, part, row[part], again[part])
        self._compare(number, "standby", row["standby"], decision.standby)
        if self._tells_slots:
            interlocked = has_timed_out(telemetry)
            slots = reported_slots(decision, settled.slot, interlocked, shield.flat, shield.nameplate.agents)
            self._compare(number, "slots", row.get("slots"), slots_row(slots))
        self._undecided = _Undecided(number, state, decision.state, self._standing, settled.standing)

    def miss(self, row: Mapping[str, Any]) -> None:
        """A period without a decision; one of the same number was recorded too late, and thrown away."""
        if self._undecided is not None and self._undecided.number == row["number"]:
            self._state, self._standing = self._undecided.before, self._undecided.stood
            self._undecided = None
        else:
            self._settle(row["previous"])
        shield = self._shield
        notes = {OBEYED: _table(row["obeyed"]), WATCHDOG_TRIPPED: row["watchdog_tripped"]}
        before = observed(shield, self._state, Telemetry({}, {}, {}, 0.0, 0, notes))
        outcome = row["outcome"]
        if outcome.get("written") is True:
            after = shield.stood_in(before, _table(row["sent"]), _number(row["plant_time_s"]), _number(row["clock_s"]))
            self._state = shield.accepted(after, _table(outcome["accepted"]))
        else:
            lost = outcome.get("written") == "unknown" or row["is_asleep"]
            self._state = shield.unconfirmed(before, before) if lost else before

    def _settle(self, previous: Mapping[str, Any]) -> None:
        """Take over what the plant answered to the decision before."""
        if self._undecided is not None:
            _, before, after, stood, stands = self._undecided
            self._state = answered(self._shield, before, after, previous, _table(previous.get("accepted")) or {})
            self._standing = stood if previous.get("thrown_away") else stands
            self._undecided = None

    def _compare(self, number: int, part: str, recorded: Any, replayed: Any) -> None:
        told, again = (json.dumps(plain(value), sort_keys=True) for value in (recorded, replayed))
        if told != again:
            self._found.append(Difference(number, part, told, again))


def telemetry_of(row: Any, nameplate: Nameplate) -> Any:
    """The reading of a row; what was no :class:`Telemetry` comes back as its type's name, which is none either."""
    if not isinstance(row, Mapping):
        return row
    values = _table(row["values"])
    times, quality = (_like(_table(row[name]), values) for name in ("source_time_s", "quality"))
    notes = {WATCHDOG_TRIPPED: row["watchdog_tripped"]}
    obeyed = _table(row["obeyed"])
    if obeyed is not None:
        notes[OBEYED] = obeyed
    return Telemetry(values, times, quality, _number(row["received_time_s"]), row["sequence"], notes)


def orders_of(row: Mapping[str, Any]) -> Orders | str:
    """The orders of a row, or in words what came instead."""
    if "unreadable" in row:
        return str(row["unreadable"])
    told: dict[str, Any] = dict(row)
    for name in ("approved", "assets", "manual"):
        if name in told:
            told[name] = frozenset(told[name])
    if "mode" in told:
        told["mode"] = Mode(told["mode"])
    limits = {name: (_number(low), _number(high)) for name, (low, high) in told.get("limits", {}).items()}
    return Orders(**{**told, "limits": limits})


def _table(told: Any) -> Any:
    """Arrays by group; a type's name or None stays what it is."""
    if not isinstance(told, Mapping):
        return told
    return {name: _array(value) for name, value in told.items()}


def _array(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value not in _NUMBERS):
        return value
    return np.array(_number(value))


def _number(value: Any) -> Any:
    """Numbers, nested in lists or alone; those that JSON has no number for stand there as text."""
    if isinstance(value, list):
        return [_number(part) for part in value]
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def _like(table: Any, values: Any) -> Any:
    """Give each number that stands for a whole array the shape of the group's values."""
    if not isinstance(table, Mapping) or not isinstance(values, Mapping):
        return table
    return {
        name: np.full(values[name].shape, array)
        if isinstance(array, np.ndarray) and array.ndim == 0 and isinstance(values.get(name), np.ndarray)
        else array
        for name, array in table.items()
    }
