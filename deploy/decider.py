"""What is worked out each period, in one piece that can be given up: guard, ask, arbitrate, shield, record.

:meth:`Decider.decide` changes nothing but the journal: all that it learns is in its answer, so that one that comes too
late can be thrown away as if it had never been asked for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..agents.policy import Memory, Policy
from ..envs.errors import JournalError
from ..envs.nameplate import Nameplate
from ..envs.plant import Arrays, Telemetry
from ..envs.twin import Observation
from .arbitration.arbiter import Arbiter, Settled, Standing
from .arbitration.claims import Heard, read_claims
from .arbitration.reported import Slots, reported_slots
from .arbitration.request import Circumstances, Requester
from .bumpless import restarted
from .journal import Journal
from .leash import Leash, Outcome
from .record import arbitration_record, decision_record, given_record
from .shield import Code, Decision, Guarded, Mode, Shield, ShieldState
from .shield.causes import Cause
from .shield.modes import MODES
from .shield.orders import Orders
from .transition import has_timed_out

_LOG = logging.getLogger(__name__)


class Ticket:
    """Says whether an answer is still wanted; decided once, by whoever comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed: bool | None = None

    def claim(self) -> bool:
        """Called when the work is done and before it is recorded: whether it is still wanted."""
        return self._settle(True)

    def give_up(self) -> bool:
        """Called by who has waited long enough: True if nothing of the work will ever be recorded."""
        return not self._settle(False)

    def _settle(self, claimed: bool) -> bool:
        with self._lock:
            if self._claimed is None:
                self._claimed = claimed
            return self._claimed


@dataclass(frozen=True)
class PolicyState:
    """What is remembered of a policy: its own memory, how many turns in a row it failed, and whether it is out."""

    memory: Memory = field(default_factory=dict)
    failed_turns: int = 0
    tripped: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Question:
    """One period's inputs.

    ``previous``: how the plant answered the row before. ``handing_back``: leave the policy out, and all requesters.
    ``asked_s`` and ``begun_s``: when the plant was asked for the reading, and when the reading was there. ``standing``:
    what persons and proposals hold; ``monotonic_s``: the clock by which that expires.
    """

    number: int
    telemetry: Telemetry | None
    now_s: float
    clock_s: float | None
    state: ShieldState
    policy: PolicyState
    orders: Orders | str
    causes: frozenset[Cause]
    previous: Mapping[str, Any]
    handing_back: bool
    ticket: Ticket
    asked_s: float
    begun_s: float
    standing: Standing
    monotonic_s: float


@dataclass(frozen=True)
class Decided:
    """A decision, worked out and recorded. ``error``: why it could not be recorded; then nothing may be sent.

    ``standby``: for the next period, in the row too. ``values``: guarded measurements ``[N, O]`` a group. ``settled``:
    who asked for what; ``slots``: whose value each command is, None where all are the policy's.
    """

    decision: Decision
    standby: Arrays
    values: Arrays
    policy: PolicyState
    settled: Settled
    slots: Mapping[str, Slots] | None
    error: str = ""


class Decider:
    """Makes one run's decisions. ``belated`` holds rows that are to be written before the next one."""

    def __init__(
        self,
        policy: Policy,
        shield: Shield,
        journal: Journal,
        nameplate: Nameplate,
        *,
        policy_budget_s: float,
        trip_after: int,
        requesters: Mapping[int, Requester] | None = None,
    ) -> None:
        self._policy, self._shield, self._journal = policy, shield, journal
        self._budget_s, self._trip_after = policy_budget_s, trip_after
        self._nameplate = nameplate
        self._statics = {g.name: g.statics_array()[None] for g in nameplate.groups}
        self._leash = Leash(policy.act, "policy")
        self._start_memory: Memory = {}
        self.arbiter = Arbiter(shield.flat, nameplate.agents)
        self._requesters = dict(requesters or {})
        self._failing: set[int] = set()
        self._modes: tuple[Any, Mapping[str, Mode]] = (None, {})
        self.belated: deque[Mapping[str, Any]] = deque(maxlen=1000)

    def start(self) -> PolicyState:
        """The policy's state before its first turn."""
        try:
            self._start_memory = self._policy.start(1)
            return PolicyState(self._start_memory)
        except Exception as error:  # noqa: BLE001 - a policy is foreign code: whatever it raises, the loop goes on
            return _tripped(PolicyState(), f"policy could not start: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Let the policy's thread end."""
        self._leash.close()

    def decide(self, asked: Question) -> Decided | None:
        """The decision, or None when its ticket was given up meanwhile; then nothing was recorded."""
        guarded = self._shield.guard(asked.telemetry, asked.now_s, asked.state, clock_s=asked.clock_s)
        if asked.handing_back:
            proposed, absent, turn, policy = None, Code.HAND_BACK, {"outcome": "handing back"}, asked.policy
        else:
            is_reset = asked.policy.tripped and isinstance(asked.orders, Orders) and asked.orders.reset is True
            proposed, absent, turn, policy = self._ask(guarded, self.start() if is_reset else asked.policy)
        heard = self._hear(asked, guarded)
        settled = self.arbiter.settle(
            asked.standing, heard, proposed, absent, asked.orders, asked.state, asked.monotonic_s
        )
        decision = self._shield.filter(
            asked.telemetry,
            settled.proposed,
            asked.now_s,
            asked.state,
            absent=absent,
            orders=settled.orders,
            clock_s=asked.clock_s,
            causes=asked.causes,
        )
        if turn["outcome"] == Outcome.ANSWERED.value:
            kept = restarted(policy.memory, self._start_memory, decision.source, self._nameplate, settled.others)
            policy = replace(policy, memory=kept)
        standby = decision.standby
        slots = reported_slots(
            decision, settled.slot, has_timed_out(asked.telemetry), self._shield.flat, self._nameplate.agents
        )
        record = {
            **decision_record(asked.number, asked.telemetry, decision, turn, asked.previous),
            **given_record(
                asked.now_s, asked.clock_s, asked.state, settled.proposed, absent, asked.orders, asked.causes
            ),
            **arbitration_record(asked.standing, heard, settled, slots, proposed, asked.monotonic_s),
            "standby": standby,
            "decided_in_ms": round(1e3 * (time.perf_counter() - asked.begun_s), 3),
        }
        # Taken before the claim: a row that the loop adds once it has waited long enough tells of this very period.
        before = tuple(self.belated)
        if not asked.ticket.claim():
            return None
        error = ""
        try:
            self._append((*before, record), len(before))
        except JournalError as failure:
            error = str(failure)
        return Decided(decision, standby, guarded.values, policy, settled, slots, error)

    def flush(self) -> None:
        """Write what could not be written when it happened; raises :class:`JournalError`."""
        rows = tuple(self.belated)
        if rows:
            self._append(rows, len(rows))

    def _append(self, rows: tuple[Mapping[str, Any], ...], n_belated: int) -> None:
        """In one go: a disk takes as long for twenty orders and a decision as for one row."""
        if len(rows) > 1:
            self._journal.append_all(rows)
        else:
            self._journal.append(rows[0])
        for row in rows[:n_belated]:
            if self.belated and self.belated[0] is row:  # it may have been the oldest of too many meanwhile
                self.belated.popleft()

    def _hear(self, asked: Question, guarded: Guarded) -> Heard:
        """What requesters want, by slot; None for one that failed, whose earlier requests stand until they expire."""
        if not self._requesters:
            return {}
        if asked.handing_back:
            return dict.fromkeys(self._requesters, ())
        seen = Circumstances(
            asked.number, asked.now_s, guarded.values, guarded.trusted, asked.state, self.modes_of(asked.state)
        )
        heard: dict[int, Any] = {}
        for slot, requester in self._requesters.items():
            try:
                heard[slot], refused = read_claims(requester.requests(seen), slot, self._shield.flat)
            except Exception as error:  # noqa: BLE001 - whoever asks must not end the control of a plant
                heard[slot], refused = None, [f"{type(error).__name__}: {error}"]
            if refused and slot not in self._failing:
                _LOG.error("slot %d: not followed: %s", slot, "; ".join(refused))
            (self._failing.add if refused else self._failing.discard)(slot)
        return heard

    def modes_of(self, state: ShieldState) -> Mapping[str, Mode]:
        """The modes that ``state`` holds, by agent."""
        known, named = self._modes
        if state.modes is not None and state.modes is not known:
            named = {a: MODES[code] for a, code in zip(self._nameplate.agents, state.modes.mode.tolist(), strict=True)}
            self._modes = state.modes, named
        return named

    def _ask(self, guarded: Guarded, policy: PolicyState) -> tuple[Any, Code, dict[str, Any], PolicyState]:
        """The policy's proposal ``[N, A]`` per group, or None with the reason why there is none, and how it went."""
        if policy.tripped:
            return None, Code.POLICY_TRIPPED, {"outcome": "tripped"}, policy
        observation = Observation(
            measured={n: v[None].copy() for n, v in guarded.values.items()},
            statics=self._statics,
            present={n: t[None].copy() for n, t in guarded.trusted.items()},
            dt_s=self._nameplate.period_s,
        )
        begun_s = time.perf_counter()
        answer = self._leash.ask(self._budget_s, observation, policy.memory)
        turn: dict[str, Any] = {
            "outcome": answer.outcome.value,
            "took_ms": round(1e3 * (time.perf_counter() - begun_s), 3),
        }
        error = answer.error
        if answer.outcome is Outcome.ANSWERED:
            try:
                commands, memory = answer.value  # type: ignore[misc]  # whatever a policy returned
                return _without_rows(commands), Code.COMMAND_MISSING, turn, PolicyState(memory)
            except (TypeError, ValueError) as wrong:
                error = f"{type(wrong).__name__}: {wrong}"
                turn["outcome"] = Outcome.RAISED.value
        _LOG.warning("policy %s: %s", turn["outcome"], error)
        failed = replace(policy, failed_turns=policy.failed_turns + 1)
        if failed.failed_turns >= self._trip_after:
            failed = _tripped(failed, f"policy tripped after {failed.failed_turns} turns in a row: {error}")
        code = Code.POLICY_LATE if answer.outcome is Outcome.LATE else Code.POLICY_RAISED
        return None, code, {**turn, "error": error}, failed


def _tripped(policy: PolicyState, why: str) -> PolicyState:
    _LOG.error("%s; fallback until a reset", why)
    return replace(policy, tripped=True, detail=why)


def _without_rows(commands: Any) -> Any:
    """Drop the leading axis of one row; anything of another form is left for the shield to judge."""
    if not isinstance(commands, Mapping):
        return commands
    return {n: c[0] if isinstance(c, np.ndarray) and c.ndim == 3 and len(c) == 1 else c for n, c in commands.items()}
