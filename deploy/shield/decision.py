"""What the shield answers: the commands to send, and a reason for each change."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...envs.plant import Arrays
from .ladder import StoredPlan

if TYPE_CHECKING:
    from .command_memory import CommandMemory
    from .modes import ModeState

BoolArrays = Mapping[str, NDArray[np.bool_]]
Floats = NDArray[np.float64]
Counts = NDArray[np.int32]


class Code(enum.StrEnum):
    """Why something was changed; stands in journals, metrics and tables."""

    INPUT_MISSING = "input_missing"
    INPUT_TYPE = "input_type"
    INPUT_SHAPE = "input_shape"
    INPUT_NOT_FINITE = "input_not_finite"
    INPUT_RANGE = "input_range"
    INPUT_STALE = "input_stale"
    INPUT_FUTURE = "input_future"
    INPUT_BAD_QUALITY = "input_bad_quality"
    INPUT_OUT_OF_ORDER = "input_out_of_order"
    INPUT_FROZEN = "input_frozen"
    INPUT_LOST = "input_lost"
    COMMAND_MISSING = "command_missing"
    COMMAND_TYPE = "command_type"
    COMMAND_SHAPE = "command_shape"
    COMMAND_NOT_FINITE = "command_not_finite"
    COMMAND_RANGE = "command_range"
    COMMAND_RATE = "command_rate"
    COMMAND_LEVEL = "command_level"
    POLICY_LATE = "policy_late"
    POLICY_RAISED = "policy_raised"
    POLICY_TRIPPED = "policy_tripped"
    HAND_BACK = "hand_back"
    NOT_APPROVED = "not_approved"
    CONSTRAINT_ACCELERATION = "constraint_acceleration"
    CONSTRAINT_TRANSITION = "constraint_transition"
    CONSTRAINT_DWELL = "constraint_dwell"
    CONSTRAINT_SWITCHES = "constraint_switches"
    CONSTRAINT_EXCLUSIVE = "constraint_exclusive"
    CONSTRAINT_CONFLICT = "constraint_conflict"
    CONSTRAINT_DEADBAND = "constraint_deadband"
    CONSTRAINT_SUM = "constraint_sum"
    CONSTRAINT_SUM_RATE = "constraint_sum_rate"
    CONSTRAINT_SEPARATION = "constraint_separation"
    CONSTRAINT_BARRIER = "constraint_barrier"
    CONSTRAINT_LOOK_AHEAD = "constraint_look_ahead"
    CONSTRAINT_UNREACHABLE = "constraint_unreachable"
    LADDER_PLAN = "ladder_plan"
    LADDER_BACKUP = "ladder_backup"
    LADDER_SAFE_STATE = "ladder_safe_state"
    VERIFICATION_FAILED = "verification_failed"
    SHIELD_FAILED = "shield_failed"
    EMERGENCY_STOP = "emergency_stop"
    WATCHDOG_LOST = "watchdog_lost"
    HEARTBEAT_LOST = "heartbeat_lost"
    DEADLINE_MISSED = "deadline_missed"
    DEADLINES_MISSED = "deadlines_missed"
    CLOCK_WRONG = "clock_wrong"
    WRITE_UNCONFIRMED = "write_unconfirmed"
    READ_BACK_WRONG = "read_back_wrong"
    CONSTRAINT_INFEASIBLE = "constraint_infeasible"
    LEASE_LOST = "lease_lost"
    MONITOR_OUT_OF_DISTRIBUTION = "monitor_out_of_distribution"
    MONITOR_RESIDUAL = "monitor_residual"
    MONITOR_ROBUSTNESS = "monitor_robustness"
    MONITOR_INTERVENTIONS = "monitor_interventions"
    MODE_TAKEOVER_DENIED = "mode_takeover_denied"
    MODE_RESET_DENIED = "mode_reset_denied"
    ORDER_INVALID = "order_invalid"
    INPUT_JUMP = "input_jump"
    INPUT_UNIT = "input_unit"
    INPUT_SWAPPED = "input_swapped"
    INPUT_REPLAYED = "input_replayed"
    INPUT_STUCK = "input_stuck"
    INPUT_CLOCK = "input_clock"
    INPUT_SUBSTITUTED = "input_substituted"


class Mode(enum.StrEnum):
    """How much an asset leaves to its policy, from nothing to all and back down to its safe state.

    In the first two nothing is written; in ``APPROVED`` only what a person approved; ``AUTONOMOUS`` and ``DEGRADED``
    (with half the rates) send what the policy proposes; ``BACKUP`` what the fallback does; ``TRIPPED`` goes to the
    safe state and stays there until a person resets it.
    """

    SHADOW = "shadow"
    ADVISE = "advise"
    APPROVED = "approved"
    AUTONOMOUS = "autonomous"
    DEGRADED = "degraded"
    BACKUP = "backup"
    TRIPPED = "tripped"


class Source(enum.StrEnum):
    """Who decided for an asset this period.

    ``PLAN``: the stored plan's tail; ``SAFE_STATE``: the asset's own; ``NOBODY``: the asset is not ours to command, so
    that what it obeys already is repeated.
    """

    POLICY = "policy"
    SUBSTITUTED = "substituted"
    FALLBACK = "fallback"
    PLAN = "plan"
    SAFE_STATE = "safe_state"
    NOBODY = "nobody"


class Reason(NamedTuple):
    """One change. ``asset`` is ``group/asset``; ``signal`` is empty where a whole asset is meant.

    For an input, ``asked`` is what the plant sent and ``sent`` what the policy sees instead; for a command, what the
    policy proposed and what goes out. ``limit`` is the bound that decided, in the signal's unit, or None.
    ``constraint``: the declared constraint that decided, empty where none did; ``margin``: how far what was asked is
    inside it, below 0 beyond; ``multiplier``: the price of the constraint in the objective, where a program was solved.
    """

    asset: str
    signal: str
    code: Code
    asked: float | None = None
    sent: float | None = None
    limit: float | None = None
    constraint: str = ""
    margin: float | None = None
    multiplier: float | None = None


class InputState(NamedTuple):
    """What the input guard remembers, over all ``M`` measured signals of a site (:mod:`.input_layout`).

    ``[M]`` each: ``good``: last accepted value; ``ever``: whether there was one; ``source_time_s``: its time at the
    source; ``moved_s``: own clock when the source's time last moved on; ``bad_count``: periods since ``good``;
    ``reference``: where the value is believed to be, which is ``good`` unless it was seen in another place or unit;
    ``age``: periods since then; ``suspect``: place in the list of checks of a confusion that was found and not yet
    cleared, 0 for none; ``same_count``: readings in a row with an unchanged value; ``still_count``: those while most
    peers moved; ``gate``: how far it may move before it is asked whether it was swapped or is in another unit, learnt
    from its own steps. ``past`` ``[K, 3]``: marks of the last readings, ``n_read`` of them so far. ``sequence``: the
    newest accepted reading; ``utc_s``, ``clock_s``: both clocks at the last call. ``clean``: the last reading was good
    throughout; ``quiet``: every gate is as narrow as it gets.
    """

    good: Floats
    ever: NDArray[np.bool_]
    source_time_s: Floats
    moved_s: Floats
    bad_count: Counts
    reference: Floats
    age: Counts
    suspect: NDArray[np.int8]
    same_count: Counts
    still_count: Counts
    gate: Floats
    past: Floats
    n_read: int = 0
    sequence: int | None = None
    utc_s: float | None = None
    clock_s: float | None = None
    clean: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class ShieldState:
    """All that the shield remembers between two calls: plain data, so that a journal replays bit for bit.

    ``applied[g]``: ``[N, A]``, the commands that the plant last accepted; ``time_s``: when, None before the first, and
    ``clock_s`` by the caller's monotonic clock; ``confirmed``: False while it is unknown whether the last write
    arrived. ``before[g]``: ``[N, A]``, what was applied before those, and ``memory``: what the limits on change
    remember up to then (None: nothing has changed for ever). ``modes``: the mode machine's (None: at its start).
    ``plan``: the stored safe plan. ``monitors``: one memory a monitor. ``changed[g]``: ``[N]``, whether the shield
    changed the last proposal (None: of nobody). ``landing_s``: ``[agents]``, how long each asset has been on its way to
    its safe state, 0 while it is not (None: nobody is). ``pending``: by cause, the assets ``[agents]`` at which
    something was found after the modes were decided, which the next period's are decided by.
    """

    applied: Arrays
    inputs: InputState
    time_s: float | None = None
    confirmed: bool = True
    clock_s: float | None = None
    before: Arrays | None = None
    memory: CommandMemory | None = None
    modes: ModeState | None = None
    plan: StoredPlan | None = None
    monitors: tuple[Mapping[str, NDArray[Any]], ...] = ()
    changed: BoolArrays | None = None
    landing_s: NDArray[np.float64] | None = None
    pending: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """``commands[g]``: ``[N, A]``, safe to send; ``source`` and ``mode`` by agent name ``group/asset``.

    ``acts[g]``: ``[N]``, False where nothing is to be written: commands then repeat what is applied. ``advised[g]``:
    ``[N, A]``, what would be sent if every asset were autonomous.
    """

    commands: Arrays
    reasons: tuple[Reason, ...]
    source: Mapping[str, Source]
    state: ShieldState
    mode: Mapping[str, Mode]
    acts: BoolArrays
    advised: Arrays
    _stand_by: Callable[[], Arrays] = field(repr=False, compare=False)

    @cached_property
    def standby(self) -> Arrays:
        """Commands ``[N, A]`` a group for the next period, to be sent if nothing can be computed then.

        Worked out when first asked for, which is best done while there is time: after these commands are sent.
        """
        return self._stand_by()
