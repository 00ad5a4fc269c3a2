"""One period: read, decide, write, advance; and how a run begins and ends.

All that is worked out in a period (:mod:`.decider`) runs in a thread of its own, under one budget (:mod:`.leash`). When
it is late, :mod:`.stand_in` has the commands that go out instead, and the late answer is thrown away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..envs.errors import JournalError
from ..envs.plant import Arrays, Telemetry
from .arbitration.reported import Slots, reported_slots
from .cycle_clock import CycleClock
from .decider import Decided, Decider, PolicyState, Question, Ticket
from .desk_link import DeskLink
from .leash import Leash
from .own_assets import OwnAssets
from .plant_link import PlantLink
from .record import missed_record, start_record
from .shield import Decision, ShieldState
from .shield.causes import Cause
from .shield.orders import Orders
from .stand_in import READ_BACK_TOLERANCE, StandIn
from .summary import Ending, RunSummary, Tally
from .transition import has_timed_out, observed
from .unheeded import heeding

if TYPE_CHECKING:
    from .runtime import Runtime

_LOG = logging.getLogger(__name__)
_UNKNOWN: Mapping[str, Any] = {"written": "unknown"}
_THROWN_AWAY: Mapping[str, Any] = {"written": False, "thrown_away": True}
"""What became of a decision, as its journal tells it in the next row (:func:`~.transition.answered`)."""
OUTAGE_PU = 0.5
"""Share of a period that the loop's own period lasts while a plant that does not answer is waited for, before the
fallback."""
_SHORT_S = 0.5
"""Periods on the wall below which a plant's absence is counted in seconds too."""
_HAND_BACK_FAILURES = 3
"""Periods in a row in which the plant may fail while assets walk back to neutral."""


@dataclass(frozen=True)
class Period:
    """What ``on_period`` is told: the period's number from 1, what was decided on, and the counts so far.

    ``accepted`` is None where the plant did not answer or was not asked; ``handing_back`` marks the walk to neutral at
    the end, which the counts leave out. ``cycle`` has the timing of all periods before this one. ``plant_time_s``: the
    plant's clock. ``values``: guarded measurements ``[N, O]`` a group, None where nothing was decided. ``asked``: what
    was proposed to the shield, whatever it is. ``slots``: ``[N, A]`` a group, whose value each command is, None where
    all are the policy's; ``who``: by agent, the person or proposal that commands it.
    """

    number: int
    telemetry: Telemetry | None
    decision: Decision
    accepted: Arrays | None
    latency_ms: float
    tally: Tally
    handing_back: bool = False
    cycle: CycleClock = field(default_factory=CycleClock)
    plant_time_s: float = float("nan")
    values: Arrays | None = None
    asked: Any = None
    slots: Mapping[str, Slots] | None = None
    who: Mapping[str, str] = field(default_factory=dict)


class Loop:
    """The moving parts of one run of a :class:`~.runtime.Runtime`."""

    def __init__(self, runtime: Runtime, on_period: Callable[[Period], None] | None) -> None:
        self._policy, self._shield, self._journal = runtime.policy, runtime.shield, runtime.journal
        self._settings, self._on_period = runtime.settings, on_period
        self._orders, self._heartbeat, self._clock = runtime.orders, runtime.heartbeat, runtime.clock_s
        self._monotonic = runtime.monotonic_s
        self._nameplate, settings = runtime.plant.nameplate, runtime.settings
        self._wall_period_s = runtime.wall_period_s or self._nameplate.period_s
        self._desk = None if runtime.desk is None else DeskLink(runtime.desk, self._wall_period_s)
        self._budget_s = min(settings.decision_pu * self._wall_period_s, settings.decision_max_s)
        self._cycle, self._stepped = CycleClock(runtime.wall_period_s), runtime.wall_period_s is None
        plant = runtime.plant if runtime.assets is None else OwnAssets(runtime.plant, runtime.assets)
        self._link = PlantLink(plant)
        self._decider = Decider(
            runtime.policy,
            runtime.shield,
            runtime.journal,
            self._nameplate,
            policy_budget_s=min(settings.deadline_pu * self._wall_period_s, settings.deadline_max_s),
            trip_after=settings.trip_after,
            requesters=runtime.requesters,
        )
        self._standing = self._decider.arbiter.start()
        self._unheeded: Orders | None = None
        self._leash = Leash(self._decider.decide, "decision")
        self._tally = Tally(self._nameplate)
        self._mode, self._assets = runtime.mode, runtime.assets
        self._state: ShieldState = self._shield.start(mode=runtime.mode, assets=runtime.assets)
        self._neutral = self._state.applied
        self._stand_in = StandIn(self._shield, self._state)
        self._policy_state = PolicyState()
        self._rows_lost = 0
        self._number = 0
        self._has_written = self._is_commanding = False
        self._answered_s = time.perf_counter()
        self._outcome: Mapping[str, Any] = {"written": False}
        self._detail = ""

    def run(self, n_periods: int | None) -> RunSummary:
        """Run as :meth:`~.runtime.Runtime.run` says."""
        ending: Ending | None = None
        try:
            self._start()
            while ending is None:
                ending = Ending.COMPLETED if self._number == n_periods else self._period()
        except KeyboardInterrupt:
            ending = Ending.INTERRUPTED
        except JournalError as error:
            ending, self._detail = Ending.JOURNAL_LOST, str(error)
        except BaseException as error:
            self._detail = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._decider.close()
            try:
                ending = self._hand_back(ending)
            finally:
                self._close(ending or Ending.FAILED)
        return self._summary(ending)

    def _close(self, ending: Ending) -> None:
        """The journal's last row, however the run ended."""
        self._leash.close()
        if self._desk is not None:
            self._desk.close()
            self._belate()
        try:
            self._decider.flush()
            self._journal.append(
                {"kind": "end", "utc_s": time.time(), "previous": self._outcome, **self._counts(ending)}
            )
        except JournalError as error:
            self._detail = str(error)
        self._journal.close()

    def _start(self) -> None:
        self._journal.append(
            start_record(
                self._nameplate, self._policy, self._shield, self._settings, self._mode, self._state, self._assets
            )
        )
        self._policy_state = self._decider.start()
        self._detail = self._policy_state.detail

    def _period(self, *, handing_back: bool = False) -> Ending | None:
        """One period; returns how the run ends, or None to go on."""
        self._cycle.begin()
        stopped = self._stand_in.has_stopped
        if self._heartbeat is not None:
            self._heartbeat.beat(self._stand_in.standby, stopped)
        asked_s, self._is_commanding = time.perf_counter(), False
        telemetry = self._link.read()
        begun_s = time.perf_counter()
        now_s = self._link.now_s()
        clock_s = None if self._clock is None else self._clock()
        self._state = observed(self._shield, self._state, telemetry)
        self._number += 1
        question = Question(
            number=self._number,
            telemetry=telemetry,
            now_s=now_s,
            clock_s=clock_s,
            state=self._state,
            policy=self._policy_state,
            orders=self._asked(now_s),
            causes=self._causes(),
            previous=self._outcome,
            handing_back=handing_back,
            ticket=Ticket(),
            asked_s=asked_s,
            begun_s=begun_s,
            standing=self._standing,
            monotonic_s=self._monotonic(),
        )
        try:
            decided, late = self._decide(question)
            if decided is None:
                self._miss(question, late)
            else:
                self._carry_out(question, decided)
        except BaseException:
            # Its row may be on disk, or on the way there, and nothing came of it.
            if not question.ticket.give_up() and self._outcome is question.previous:
                self._outcome = _THROWN_AWAY
            raise
        if self._heartbeat is not None and self._stand_in.has_stopped and not stopped:
            self._heartbeat.beat(self._stand_in.standby, True)  # the watchdog waits for it, and not a period longer
        self._cycle.end()
        self._link.advance(in_control=self._is_commanding)
        self._link.finish_period(self._pause_s(asked_s))
        if self._rows_lost >= self._settings.max_journal_failures:
            return Ending.JOURNAL_LOST
        if self._is_plant_lost(asked_s):
            self._detail = self._link.last_error
            return Ending.PLANT_LOST
        return None

    def _is_plant_lost(self, asked_s: float) -> bool:
        """Whether the plant has been gone for so long that the run ends: a link that drops comes back in seconds."""
        if not self._link.lost_periods:
            self._answered_s = asked_s
            return False
        if self._link.lost_periods < self._settings.max_plant_failures:
            return False
        hurries = not self._stepped and self._wall_period_s < _SHORT_S
        return not hurries or time.perf_counter() - self._answered_s >= self._settings.plant_patience_s

    def _pause_s(self, asked_s: float) -> float:
        """How long to wait before a plant that failed is asked again: into the next period, never beyond it.

        At first less than the rest of this one: of the three periods until the fallback, waiting in vain may take one
        and a half already. Once everything is on its fallback there is no hurry.
        """
        hurries = self._link.lost_periods <= self._shield.settings.hold_periods
        rest_s = asked_s + (OUTAGE_PU if hurries else 1.0) * self._wall_period_s - time.perf_counter()
        return self._settings.retry_wait_s if self._stepped else min(self._settings.retry_wait_s, max(rest_s, 0.0))

    def _asked(self, now_s: float) -> Orders | str:
        """What people ask, or in words what came instead, which the shield refuses and tells of."""
        if self._orders is None and self._desk is None:
            return Orders()
        try:
            if self._desk is not None:
                found: Any = self._desk.orders(self._number, now_s, self._state)
                self._belate()
            elif self._orders is not None:
                found = self._orders()
        except Exception as error:  # noqa: BLE001 - whatever brings orders must not end the control of a plant
            _LOG.error("orders can't be read: %s", error)
            return f"{type(error).__name__}: {error}"
        if not isinstance(found, Orders):
            return found if isinstance(found, str) else f"{type(found).__name__} instead of orders"
        heeded: Orders = found
        if self._unheeded is not None:
            heeded, self._unheeded = heeding(self._unheeded, heeded)
        return heeded

    def _belate(self) -> None:
        """Rows of the desk's for the journal, before the next decision's."""
        if self._desk is not None:
            self._decider.belated.extend(self._desk.rows)
            self._desk.rows.clear()

    def _causes(self) -> frozenset[Cause]:
        """What only the loop knows."""
        lost = "" if self._heartbeat is None else self._heartbeat.lost
        if not lost:
            return frozenset()
        if not self._detail.startswith("watchdog"):
            self._detail = f"watchdog lost: {lost}"
            _LOG.error("%s; all assets go to their safe states", self._detail)
        return frozenset({Cause.WATCHDOG_LOST})

    def _decide(self, question: Question) -> tuple[Decided | None, str]:
        """What was worked out within the budget; else None, and why."""
        answer = self._leash.ask(self._budget_s, question)
        # The clock is asked again: this whole process may have stood still while it waited.
        late_s = time.perf_counter() - question.begun_s - self._budget_s
        if answer.value is not None and late_s <= 0.0 and not self._stood_still(question):
            return answer.value, ""
        waits_for_disk = not question.ticket.give_up()
        why = answer.error or f"decided {late_s:.3g} s after the budget of {self._budget_s:.3g} s"
        if answer.value is None and waits_for_disk:
            why += "; it was decided, but the journal had not taken its row"
        return None, why

    def _stood_still(self, question: Question) -> bool:
        """Whether the reading is so old that somebody else, such as the watchdog, may have taken over since."""
        return time.perf_counter() - question.asked_s > max(self._wall_period_s, 2.0 * self._budget_s)

    def _carry_out(self, question: Question, decided: Decided) -> None:
        """Send what was decided, unless it could not be recorded: without a row the plant keeps what it has."""
        before, decision = self._state, decided.decision
        self._policy_state = decided.policy
        self._detail = decided.policy.detail or self._detail
        if decided.error:
            _LOG.error("period %d: %s", self._number, decided.error)
            self._rows_lost += 1
            self._detail = decided.error
            self._unheeded = question.orders if isinstance(question.orders, Orders) else self._unheeded
            return
        # From here until the plant has answered, an interruption leaves open which commands it obeys.
        unconfirmed = self._shield.unconfirmed(before, decision.state)
        self._rows_lost, self._outcome, self._state, self._standing = 0, _UNKNOWN, unconfirmed, decided.settled.standing
        latency_ms = 1e3 * (time.perf_counter() - question.begun_s)
        accepted: Arrays | None = None
        if any(a.any() for a in decision.acts.values()):
            accepted = self._write(decision.commands, decision.state)
        else:
            unsent = self._shield.unsent(before, decision.state)
            self._outcome, self._state = {"written": False}, unsent
        self._stand_in.follow(decided)
        if not question.handing_back:
            values = None if question.telemetry is None else decided.values
            self._tally.count(decision, values, latency_ms)
        self._tell(question, decision, accepted, latency_ms, decided)

    def _miss(self, question: Question, why: str) -> None:
        """The period has no decision: what stands in for it goes out, and a row is kept for the journal."""
        before = self._state
        instead = self._stand_in.instead(before, question.now_s, question.clock_s, asleep=self._stood_still(question))
        _LOG.warning("period %d: %s: %s", self._number, why, instead.told)
        previous, self._outcome = self._outcome, {"written": False}
        self._unheeded = question.orders if isinstance(question.orders, Orders) else self._unheeded
        if instead.writes or instead.is_asleep:
            self._state = self._shield.unconfirmed(before, before)
        latency_ms = 1e3 * (time.perf_counter() - question.begun_s)
        accepted: Arrays | None = None
        try:
            if instead.writes:
                after = self._shield.stood_in(before, instead.decision.commands, question.now_s, question.clock_s)
                accepted = self._write(instead.decision.commands, after)
        finally:
            self._decider.belated.append(missed_record(question, instead, why, previous, self._outcome))
            self._outcome = _THROWN_AWAY
        if not question.handing_back:
            self._tally.count(instead.decision, None, latency_ms)
        self._tell(question, instead.decision, accepted, latency_ms)

    def _write(self, commands: Arrays, after: ShieldState) -> Arrays | None:
        """Send, and take over what the plant says it accepted."""
        self._outcome = _UNKNOWN
        self._is_commanding = self._has_written = True
        accepted = self._link.write(commands)
        if accepted is None:
            self._outcome = {"written": "unknown", "error": self._link.last_error}
            return None
        state = self._shield.accepted(after, accepted)
        as_sent = all(
            np.allclose(state.applied[n], c, rtol=READ_BACK_TOLERANCE, atol=READ_BACK_TOLERANCE)
            for n, c in commands.items()
        )
        outcome = {"written": True, "accepted": state.applied, "as_sent": as_sent}
        self._state, self._outcome = state, outcome
        self._tally.rejected_periods += not as_sent
        return state.applied

    def _tell(
        self,
        question: Question,
        decision: Decision,
        accepted: Arrays | None,
        latency_ms: float,
        decided: Decided | None = None,
    ) -> None:
        if self._on_period is None:
            return
        if decided is not None:
            slots = decided.slots
        else:
            interlocked = has_timed_out(question.telemetry)
            slots = reported_slots(decision, None, interlocked, self._shield.flat, self._nameplate.agents)
        period = Period(
            question.number,
            question.telemetry,
            decision,
            accepted,
            latency_ms,
            self._tally,
            question.handing_back,
            self._cycle,
            question.now_s,
            None if decided is None else decided.values,
            None if decided is None else decided.settled.proposed,
            slots,
            {} if decided is None else decided.settled.who,
        )
        try:
            self._on_period(period)
        except Exception:  # noqa: BLE001 - a display that fails must not stop the control of a plant
            _LOG.exception("on_period failed in period %d", period.number)

    def _hand_back(self, ending: Ending | None) -> Ending:
        """Walk all assets to neutral behind the shield; returns the ending, which an interruption may change."""
        found = Ending.FAILED if ending is None else ending
        patience = 1 if found is Ending.PLANT_LOST else _HAND_BACK_FAILURES
        self._link.lost_periods = 0
        try:
            for _ in range(self._settings.hand_back_periods):
                if self._is_handed_back() or self._rows_lost or found is Ending.JOURNAL_LOST:
                    break
                before = self._state.applied
                self._period(handing_back=True)
                if self._stand_in.is_tripped and self._state.confirmed and _equal(before, self._state.applied):
                    break  # in its safe state, which only a person's reset leaves
                if self._link.lost_periods >= patience:
                    break
        except KeyboardInterrupt:
            found = Ending.INTERRUPTED
        return found

    def _is_handed_back(self) -> bool:
        """Whether nothing of ours stands at the plant: all assets are at neutral, or nothing was ever sent."""
        return not self._has_written or (self._state.confirmed and _equal(self._neutral, self._state.applied))

    def _counts(self, ending: Ending) -> dict[str, Any]:
        tally = self._tally
        return {
            "ending": ending.value,
            "detail": self._detail,
            "periods": tally.periods,
            "interventions": dict(tally.interventions),
            "fallback_periods": tally.fallback_periods,
            "substituted_periods": tally.substituted_periods,
            "rejected_periods": tally.rejected_periods,
            "missed_periods": self._stand_in.misses,
            "plant_errors": self._link.errors,
            "tripped": self._policy_state.tripped or self._stand_in.is_tripped,
            "handed_back": self._is_handed_back(),
            "energy_kwh": tally.energy_kwh,
        }

    def _summary(self, ending: Ending) -> RunSummary:
        return RunSummary(
            **{**self._counts(ending), "ending": ending},
            latency_p50_ms=self._tally.latency_ms(50.0),
            latency_p99_ms=self._tally.latency_ms(99.0),
            latency_counts=self._tally.latency_counts,
            journal_head=self._journal.head,
        )


def _equal(some: Arrays, others: Arrays) -> bool:
    return all(np.allclose(others[name], array) for name, array in some.items())
