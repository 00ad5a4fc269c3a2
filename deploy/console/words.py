"""Codes in words: why the shield changed something, which mode, which slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..arbitration import RELINQUISHED, Slot
from ..shield import Code
from ..shield.causes import TABLE
from ..station.hearing import Heard

CODE_WORDS: dict[str, str] = {
    Code.INPUT_MISSING: "not in the reading",
    Code.INPUT_TYPE: "no numbers in the reading",
    Code.INPUT_SHAPE: "reading of another shape",
    Code.INPUT_NOT_FINITE: "not a number",
    Code.INPUT_RANGE: "outside its range",
    Code.INPUT_STALE: "too old",
    Code.INPUT_FUTURE: "from the future: clocks differ",
    Code.INPUT_BAD_QUALITY: "marked bad by the equipment",
    Code.INPUT_OUT_OF_ORDER: "older than the reading before",
    Code.INPUT_FROZEN: "does not move any more",
    Code.INPUT_LOST: "bad for too long",
    Code.INPUT_JUMP: "jumped further than it can",
    Code.INPUT_UNIT: "looks like another unit",
    Code.INPUT_SWAPPED: "looks like another asset's",
    Code.INPUT_REPLAYED: "repeats an earlier reading",
    Code.INPUT_STUCK: "stands still while its peers move",
    Code.INPUT_CLOCK: "its clock is wrong",
    Code.INPUT_SUBSTITUTED: "an estimate stands in for it",
    Code.COMMAND_MISSING: "the policy proposed nothing",
    Code.COMMAND_TYPE: "the policy proposed no numbers",
    Code.COMMAND_SHAPE: "the policy proposed another shape",
    Code.COMMAND_NOT_FINITE: "the policy proposed what is no number",
    Code.COMMAND_RANGE: "kept within its range",
    Code.COMMAND_RATE: "kept to its rate of change",
    Code.COMMAND_LEVEL: "moved to an allowed level",
    Code.POLICY_LATE: "the policy did not answer in time",
    Code.POLICY_RAISED: "the policy failed",
    Code.POLICY_TRIPPED: "the policy was late or failed too often",
    Code.HAND_BACK: "being handed back to its own controller",
    Code.NOT_APPROVED: "nobody approved it",
    Code.CONSTRAINT_ACCELERATION: "kept to its change of rate",
    Code.CONSTRAINT_TRANSITION: "this change is not allowed from here",
    Code.CONSTRAINT_DWELL: "must stay longer before it changes",
    Code.CONSTRAINT_SWITCHES: "changed often enough for now",
    Code.CONSTRAINT_EXCLUSIVE: "excluded by another command",
    Code.CONSTRAINT_CONFLICT: "limits contradict each other",
    Code.CONSTRAINT_DEADBAND: "too small a change",
    Code.CONSTRAINT_SUM: "kept within a shared limit",
    Code.CONSTRAINT_SUM_RATE: "kept to a shared rate",
    Code.CONSTRAINT_SEPARATION: "kept apart from another asset",
    Code.CONSTRAINT_BARRIER: "kept inside a safe region",
    Code.CONSTRAINT_LOOK_AHEAD: "would leave what is safe within the look-ahead",
    Code.CONSTRAINT_UNREACHABLE: "no command within reach keeps this limit",
    Code.LADDER_PLAN: "follows the stored safe plan",
    Code.LADDER_BACKUP: "follows the backup controller",
    Code.LADDER_SAFE_STATE: "goes to its safe state",
    Code.VERIFICATION_FAILED: "the independent check refused it",
    Code.SHIELD_FAILED: "the shield failed; its last resort answered",
    Code.EMERGENCY_STOP: "emergency stop",
    Code.WATCHDOG_LOST: "the watchdog does not answer",
    Code.HEARTBEAT_LOST: "the equipment does not take the heartbeat",
    Code.DEADLINE_MISSED: "the period's deadline was missed",
    Code.DEADLINES_MISSED: "deadlines were missed in a row",
    Code.CLOCK_WRONG: "a clock is wrong",
    Code.WRITE_UNCONFIRMED: "the plant does not confirm writes",
    Code.READ_BACK_WRONG: "the plant obeys something else",
    Code.CONSTRAINT_INFEASIBLE: "no commands keep every hard limit",
    Code.LEASE_LOST: "no lease on shared room",
    Code.MONITOR_OUT_OF_DISTRIBUTION: "unlike what the policy was trained on",
    Code.MONITOR_RESIDUAL: "the plant departs from the twin",
    Code.MONITOR_ROBUSTNESS: "a monitored requirement is broken",
    Code.MONITOR_INTERVENTIONS: "the shield intervenes more often than it used to",
    Code.MODE_TAKEOVER_DENIED: "more authority refused while a cause stands",
    Code.MODE_RESET_DENIED: "reset refused while its cause stands",
    Code.ORDER_INVALID: "an order was not valid",
}
"""One phrase a code; a test holds the table complete."""

_CAUSE_WORDS: dict[str, str] = {row.code.value: row.text for row in reversed(TABLE) if row.of is row.cause}
SITE_CODES = frozenset(row.code.value for row in TABLE if row.site)
"""Of causes that, raised for one asset, hold for all."""

SLOT_WORDS: dict[int, str] = {
    RELINQUISHED: "nobody",
    Slot.LIFE_SAFETY: "life safety",
    Slot.EMERGENCY_STOP: "emergency stop",
    Slot.INTERLOCK: "equipment interlock",
    Slot.OPERATOR: "operator",
    Slot.FALLBACK: "fallback",
    Slot.APPROVED: "approved proposal",
    Slot.AUTONOMOUS: "policy",
}
QUALITY_WORDS = ("good", "uncertain", "bad")


class Change(NamedTuple):
    """A reason as it stands in ``state.json``; all but the first three may be missing."""

    asset: str
    signal: str
    code: str
    asked: float | None = None
    sent: float | None = None
    limit: float | None = None
    constraint: str = ""
    margin: float | None = None
    multiplier: float | None = None

    @classmethod
    def of(cls, row: Sequence[Any]) -> Change:
        return cls(*row[: len(cls._fields)])

    @property
    def words(self) -> str:
        """Why, with the limit and the constraint that decided, where one did."""
        said = CODE_WORDS.get(self.code, self.code.replace("_", " "))
        if self.constraint:
            said += f" ({self.constraint})"
        if isinstance(self.limit, (int, float)):
            said += f", limit {self.limit:g}"
        return said


def code_words(code: str) -> str:
    """What a code means as the cause of a mode."""
    return _CAUSE_WORDS.get(code) or CODE_WORDS.get(code) or code.replace("_", " ")


def slot_words(slot: int) -> str:
    """Who commands, with the slot's number."""
    return f"{slot} {SLOT_WORDS.get(slot, 'site')}" if slot else "nobody"


def duration_words(seconds: float) -> str:
    """A span of time in the largest unit that fits."""
    if seconds < 120.0:
        return f"{max(seconds, 0.0):.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"


def heard_words(heard: Heard) -> str:
    """Since when a process beside control is heard, or is not."""
    span = duration_words(heard.age_s)
    return f"{heard.who}: not heard for {span}" if heard.is_silent else f"{heard.who}: heard {span} ago"
