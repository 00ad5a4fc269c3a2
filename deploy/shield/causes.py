"""Why an asset leaves its policy: one row a cause, gravest first, with the mode it forces and how it clears.

Pure data. The mode machine (:mod:`.modes`) is compiled from :data:`TABLE`, and ``docs/shield_modes.md`` is held to it
by a test. The form follows PX4's failsafe table: severity, action, clear rule, take-over.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .decision import Code, Mode


class Cause(enum.StrEnum):
    """What can force a mode. Those that end in ``_lasting`` or say "again" follow from their ``of``, by patience."""

    EMERGENCY_STOP = "emergency_stop"
    WATCHDOG_LOST = "watchdog_lost"
    HEARTBEAT_LOST = "heartbeat_lost"
    SHIELD_FAILED_AGAIN = "shield_failed_again"
    VERIFICATION_FAILED_AGAIN = "verification_failed_again"
    DEADLINE_MISSED_AGAIN = "deadline_missed_again"
    SHIELD_FAILED = "shield_failed"
    VERIFICATION_FAILED = "verification_failed"
    DEADLINE_MISSED = "deadline_missed"
    ROBUSTNESS = "robustness"
    CONSTRAINT_INFEASIBLE = "constraint_infeasible"
    READ_BACK_WRONG = "read_back_wrong"
    WRITE_UNCONFIRMED = "write_unconfirmed"
    POLICY_TRIPPED = "policy_tripped"
    POLICY_LATE = "policy_late"
    POLICY_RAISED = "policy_raised"
    PROPOSAL_UNUSABLE = "proposal_unusable"
    INPUT_LOST = "input_lost"
    HAND_BACK = "hand_back"
    OUT_OF_DISTRIBUTION_LASTING = "out_of_distribution_lasting"
    RESIDUAL_LASTING = "residual_lasting"
    CLOCK_WRONG = "clock_wrong"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    RESIDUAL = "residual"
    INTERVENTION_DRIFT = "intervention_drift"
    LEASE_LOST = "lease_lost"
    INPUT_SUBSTITUTED = "input_substituted"


class Clears(enum.StrEnum):
    """How a cause stops forcing its mode.

    ``WHEN_GONE``: in the first period without it; ``AFTER_DWELL``: after that many periods without it;
    ``MANUAL_RESET``: when a person resets, and not before the cause was gone for its dwell.
    """

    WHEN_GONE = "when_gone"
    AFTER_DWELL = "after_dwell"
    MANUAL_RESET = "manual_reset"


@dataclass(frozen=True, slots=True)
class CauseRow:
    """One cause.

    ``mode``: what it forces; ``site``: raised for one asset, it holds for all; ``of``: the cause by whose report it is
    raised (most: its own); ``patience``: reports in a row, one a period, until it forces; ``dwell``: periods without it
    until it clears, or may be reset; ``code``: what reasons say; ``told``: True where the inputs' or commands' own
    reasons say it already, so that a change of mode says nothing more.
    """

    cause: Cause
    mode: Mode
    site: bool
    clears: Clears
    code: Code
    text: str
    of: Cause
    patience: int = 1
    dwell: int = 0
    told: bool = False


def _row(
    cause: Cause, mode: Mode, reach: str, clears: Clears, code: Code, text: str, *,
    of: Cause | None = None, patience: int = 1, dwell: int = 0, told: bool = False,
) -> CauseRow:  # fmt: skip
    return CauseRow(cause, mode, reach == "site", clears, code, text, of or cause, patience, dwell, told)


_GONE, _DWELL, _RESET = Clears.WHEN_GONE, Clears.AFTER_DWELL, Clears.MANUAL_RESET

# The order is the severity; modes never rise down the table. A fault of one period costs one period; what says that the
# safety functions themselves are gone, or what happens again and again, latches.
TABLE: tuple[CauseRow, ...] = (
    _row(Cause.EMERGENCY_STOP, Mode.TRIPPED, "site", _RESET, Code.EMERGENCY_STOP,
         "the emergency stop is held"),
    _row(Cause.WATCHDOG_LOST, Mode.TRIPPED, "site", _RESET, Code.WATCHDOG_LOST,
         "the watchdog process no longer answers"),
    _row(Cause.HEARTBEAT_LOST, Mode.TRIPPED, "site", _RESET, Code.HEARTBEAT_LOST,
         "the equipment no longer takes the heartbeat"),
    _row(Cause.SHIELD_FAILED_AGAIN, Mode.TRIPPED, "site", _RESET, Code.SHIELD_FAILED,
         "the shield itself failed in several periods in a row", of=Cause.SHIELD_FAILED, patience=3),
    _row(Cause.VERIFICATION_FAILED_AGAIN, Mode.TRIPPED, "asset", _RESET, Code.VERIFICATION_FAILED,
         "the independent check refused the filter's commands in several periods in a row",
         of=Cause.VERIFICATION_FAILED, patience=3),
    _row(Cause.DEADLINE_MISSED_AGAIN, Mode.TRIPPED, "site", _RESET, Code.DEADLINES_MISSED,
         "the period's deadline was missed in several periods in a row", of=Cause.DEADLINE_MISSED, patience=3),
    _row(Cause.SHIELD_FAILED, Mode.BACKUP, "site", _DWELL, Code.SHIELD_FAILED,
         "the shield itself failed; its last resort answered", dwell=5, told=True),
    _row(Cause.VERIFICATION_FAILED, Mode.BACKUP, "asset", _DWELL, Code.VERIFICATION_FAILED,
         "the independent check refused the filter's commands", dwell=5, told=True),
    _row(Cause.DEADLINE_MISSED, Mode.BACKUP, "site", _GONE, Code.DEADLINE_MISSED,
         "the period's deadline was missed; the standby commands went out"),
    _row(Cause.ROBUSTNESS, Mode.BACKUP, "asset", _DWELL, Code.MONITOR_ROBUSTNESS,
         "a monitored requirement is broken (robustness below 0)", dwell=5),
    _row(Cause.CONSTRAINT_INFEASIBLE, Mode.BACKUP, "asset", _DWELL, Code.CONSTRAINT_INFEASIBLE,
         "no commands within reach keep every hard constraint", dwell=3),
    _row(Cause.READ_BACK_WRONG, Mode.BACKUP, "asset", _DWELL, Code.READ_BACK_WRONG,
         "the plant obeys other commands than those sent", patience=3, dwell=3),
    _row(Cause.WRITE_UNCONFIRMED, Mode.BACKUP, "site", _DWELL, Code.WRITE_UNCONFIRMED,
         "the plant does not say whether writes arrive", patience=3, dwell=1),
    _row(Cause.POLICY_TRIPPED, Mode.BACKUP, "asset", _RESET, Code.POLICY_TRIPPED,
         "the policy was late or failed in several turns in a row", told=True),
    _row(Cause.POLICY_LATE, Mode.BACKUP, "asset", _GONE, Code.POLICY_LATE,
         "the policy did not answer in time", told=True),
    _row(Cause.POLICY_RAISED, Mode.BACKUP, "asset", _GONE, Code.POLICY_RAISED,
         "the policy raised an error", told=True),
    _row(Cause.PROPOSAL_UNUSABLE, Mode.BACKUP, "asset", _GONE, Code.COMMAND_NOT_FINITE,
         "the proposal is missing, of a wrong type or shape, or not finite", told=True),
    _row(Cause.INPUT_LOST, Mode.BACKUP, "asset", _DWELL, Code.INPUT_LOST,
         "a measured signal was bad for longer than anything may stand in for it", told=True),
    _row(Cause.HAND_BACK, Mode.BACKUP, "asset", _GONE, Code.HAND_BACK,
         "the asset is being handed back to its own controller", told=True),
    _row(Cause.OUT_OF_DISTRIBUTION_LASTING, Mode.BACKUP, "asset", _DWELL, Code.MONITOR_OUT_OF_DISTRIBUTION,
         "the policy's input stays unlike all it was trained on", of=Cause.OUT_OF_DISTRIBUTION, patience=10, dwell=10),
    _row(Cause.RESIDUAL_LASTING, Mode.BACKUP, "asset", _DWELL, Code.MONITOR_RESIDUAL,
         "the plant keeps departing from the twin", of=Cause.RESIDUAL, patience=10, dwell=10),
    _row(Cause.CLOCK_WRONG, Mode.DEGRADED, "site", _DWELL, Code.CLOCK_WRONG,
         "a clock stepped back, stood still or is no number", dwell=3),
    _row(Cause.OUT_OF_DISTRIBUTION, Mode.DEGRADED, "asset", _DWELL, Code.MONITOR_OUT_OF_DISTRIBUTION,
         "the policy's input is unlike what it was trained on", dwell=5),
    _row(Cause.RESIDUAL, Mode.DEGRADED, "asset", _DWELL, Code.MONITOR_RESIDUAL,
         "the plant departs from the twin", dwell=5),
    _row(Cause.INTERVENTION_DRIFT, Mode.DEGRADED, "asset", _DWELL, Code.MONITOR_INTERVENTIONS,
         "the shield intervenes more often than it used to", dwell=20),
    _row(Cause.LEASE_LOST, Mode.DEGRADED, "asset", _GONE, Code.LEASE_LOST,
         "no lease on shared room; the asset keeps to its own share"),
    _row(Cause.INPUT_SUBSTITUTED, Mode.DEGRADED, "asset", _DWELL, Code.INPUT_SUBSTITUTED,
         "an estimate or a held value stands in for a measured signal", told=True),
)  # fmt: skip

CAUSE_OF_CODE: dict[Code, Cause] = {
    Code.COMMAND_MISSING: Cause.PROPOSAL_UNUSABLE,
    Code.COMMAND_TYPE: Cause.PROPOSAL_UNUSABLE,
    Code.COMMAND_SHAPE: Cause.PROPOSAL_UNUSABLE,
    Code.COMMAND_NOT_FINITE: Cause.PROPOSAL_UNUSABLE,
    Code.POLICY_LATE: Cause.POLICY_LATE,
    Code.POLICY_RAISED: Cause.POLICY_RAISED,
    Code.POLICY_TRIPPED: Cause.POLICY_TRIPPED,
    Code.HAND_BACK: Cause.HAND_BACK,
    Code.DEADLINE_MISSED: Cause.DEADLINE_MISSED,
}
"""Which cause a code for a proposal that can't be used stands for."""
