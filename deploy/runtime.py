"""The control loop: read, guard, act, shield, verify, journal, write, read back, advance.

Whatever fails costs its part of one period. A plant that gives no reading is held and then sent to fallback; a policy
that is late or raises loses its turn, and after some turns the rest of the run; a journal that cannot be written
stops all writing. A run always says how it ended, and hands the assets back to their own controllers when it can.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ..agents.policy import Memory, Policy
from ..envs.configuration import Strict
from ..envs.errors import ContractError, JournalError
from ..envs.plant import Arrays, Plant, Telemetry
from ..envs.twin import Observation
from .journal import Journal
from .plant_link import PlantLink
from .policy_worker import Outcome, PolicyWorker
from .record import decision_record
from .shield import Code, Decision, Guarded, Shield, ShieldState
from .summary import Ending, RunSummary, Tally

_LOG = logging.getLogger(__name__)
_READ_BACK_TOLERANCE = 1e-6
_HAND_BACK_FAILURES = 3
"""Periods in a row in which the plant may fail while assets walk back to neutral."""


class RuntimeSettings(Strict):
    """How patient the loop is."""

    deadline_pu: PositiveFloat = Field(default=0.2, le=1.0, description="share of a period that the policy may take")
    deadline_max_s: PositiveFloat = Field(default=5.0, description="longest wait for a policy, however long the period")
    trip_after: PositiveInt = Field(default=3, description="late or failed turns in a row that end the policy's part")
    max_plant_failures: PositiveInt = Field(default=30, description="periods in a row without plant before giving up")
    max_journal_failures: PositiveInt = Field(default=3, description="periods in a row without a row before giving up")
    retry_wait_s: NonNegativeFloat = Field(default=1.0, description="pause before asking a failed plant again")
    hand_back_periods: NonNegativeInt = Field(
        default=200, description="most periods of walking back to neutral at the end; 0 leaves the last commands"
    )


@dataclass(frozen=True)
class Period:
    """What ``on_period`` is told: the period's number from 1, what was decided on, and the counts so far.

    ``accepted`` is None where the plant did not answer; ``handing_back`` marks the walk to neutral at the end, which
    the counts leave out.
    """

    number: int
    telemetry: Telemetry | None
    decision: Decision
    accepted: Arrays | None
    latency_ms: float
    tally: Tally
    handing_back: bool = False


class Runtime:
    """Runs one policy on one plant behind one shield; everything is journalled before it is sent.

    At the start the plant is taken to obey its neutral commands, and again when a reading's notes say that its watchdog
    tripped (``watchdog_tripped``). The runtime never resets or closes the plant.
    """

    def __init__(
        self, plant: Plant, policy: Policy, shield: Shield, journal: Journal, settings: RuntimeSettings | None = None
    ) -> None:
        self.plant = plant
        self.policy = policy
        self.shield = shield
        self.journal = journal
        self.settings = settings or RuntimeSettings()

    def run(self, n_periods: int | None, on_period: Callable[[Period], None] | None = None) -> RunSummary:
        """Control the plant for ``n_periods`` (None: until interrupted) and say how it went.

        Ctrl-C (KeyboardInterrupt) ends the run in order: the shield walks all assets to neutral within their rate
        limits, and the journal gets its end row. A second Ctrl-C leaves the walk. Raises :class:`ContractError` before
        the first period when policy, shield and plant are not of one site.
        """
        plate = self.plant.nameplate
        for who, other in (("policy", self.policy.nameplate), ("shield", self.shield.nameplate)):
            differences = other.differences(plate, interface_only=True)
            if not differences and other.agents != plate.agents:
                differences = [f"assets {list(other.agents)} here, {list(plate.agents)} there"]
            if differences:
                raise ContractError(
                    f"the {who} is made for {other.site!r} (here), the plant is {plate.site!r} (there); they differ: "
                    f"{'; '.join(differences)}; build it from the plant's nameplate"
                )
        return _Run(self, on_period).run(n_periods)


class _Run:
    """The moving parts of one run."""

    def __init__(self, runtime: Runtime, on_period: Callable[[Period], None] | None) -> None:
        self._policy, self._shield, self._journal = runtime.policy, runtime.shield, runtime.journal
        self._settings, self._on_period = runtime.settings, on_period
        self._nameplate = runtime.plant.nameplate
        self._statics = {g.name: g.statics_array()[None] for g in self._nameplate.groups}
        self._budget_s = min(self._settings.deadline_pu * self._nameplate.period_s, self._settings.deadline_max_s)
        self._link = PlantLink(runtime.plant)
        self._worker = PolicyWorker(runtime.policy)
        self._tally = Tally(self._nameplate)
        self._state: ShieldState = self._shield.start()
        self._neutral = self._state.applied
        self._memory: Memory = {}
        self._failed_turns = 0
        self._tripped = False
        self._rows_lost = 0
        self._number = 0
        self._outcome: Mapping[str, Any] = {"written": False}
        self._head = ""
        self._detail = ""

    def run(self, n_periods: int | None) -> RunSummary:
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
            self._worker.close()
            try:
                ending = self._hand_back(ending)
            finally:
                self._close(ending or Ending.FAILED)
        return self._summary(ending)

    def _close(self, ending: Ending) -> None:
        """The journal's last row, however the run ended."""
        try:
            self._append({"kind": "end", "utc_s": time.time(), "previous": self._outcome, **self._counts(ending)})
        except JournalError as error:
            self._detail = str(error)
        self._journal.close()

    def _start(self) -> None:
        self._append(
            {
                "kind": "start",
                "utc_s": time.time(),
                "site": self._nameplate.site,
                "nameplate_hash": self._nameplate.hash,
                "policy": self._policy.name,
                "policy_hash": getattr(self._policy, "hash", None),
                "shield": self._shield.settings.model_dump(),
                "runtime": self._settings.model_dump(),
            }
        )
        try:
            self._memory = self._policy.start(1)
        except Exception as error:  # noqa: BLE001 - a policy is foreign code: whatever it raises, the loop goes on
            self._trip(f"policy could not start: {type(error).__name__}: {error}")

    def _period(self, *, handing_back: bool = False) -> Ending | None:
        """One period; returns how the run ends, or None to go on."""
        telemetry = self._link.read()
        begun_s = time.perf_counter()
        now_s = self._link.now_s()
        if _watchdog_tripped(telemetry):  # the plant has put its commands to neutral since the last write
            self._state = self._shield.accepted(self._state, self._neutral)
        guarded = self._shield.guard(telemetry, now_s, self._state)
        if handing_back:
            proposed, absent, turn = None, Code.HAND_BACK, {"outcome": "handing back"}
        else:
            proposed, absent, turn = self._ask(guarded)
        decision = self._shield.filter(telemetry, proposed, now_s, self._state, absent=absent)
        # From here until the plant has answered, an interruption leaves open which commands it obeys.
        before, self._state = self._state, self._shield.unconfirmed(self._state, decision.state)
        self._number += 1
        record = decision_record(self._number, now_s, telemetry, proposed, decision, turn, self._outcome)
        record["decided_in_ms"] = round(1e3 * (time.perf_counter() - begun_s), 3)
        accepted: Arrays | None = None
        if self._journalled(record, before, decision):
            latency_ms = 1e3 * (time.perf_counter() - begun_s)
            accepted = self._write(decision)
            if not handing_back:
                self._tally.count(decision, None if telemetry is None else guarded.values, latency_ms)
            self._tell(Period(self._number, telemetry, decision, accepted, latency_ms, self._tally, handing_back))
        self._link.advance()
        self._link.finish_period(self._settings.retry_wait_s)
        if self._rows_lost >= self._settings.max_journal_failures:
            return Ending.JOURNAL_LOST
        if self._link.lost_periods >= self._settings.max_plant_failures:
            self._detail = self._link.last_error
            return Ending.PLANT_LOST
        return None

    def _ask(self, guarded: Guarded) -> tuple[Any, Code, dict[str, Any]]:
        """The policy's proposal ``[N, A]`` per group, or None with the reason why there is none, and how it went."""
        if self._tripped:
            return None, Code.POLICY_TRIPPED, {"outcome": "tripped"}
        observation = Observation(
            measured={n: v[None].copy() for n, v in guarded.values.items()},
            statics=self._statics,
            present={n: t[None].copy() for n, t in guarded.trusted.items()},
            dt_s=self._nameplate.period_s,
        )
        begun_s = time.perf_counter()
        answer = self._worker.ask(observation, self._memory, self._budget_s)
        turn = {"outcome": answer.outcome.value, "took_ms": round(1e3 * (time.perf_counter() - begun_s), 3)}
        if answer.outcome is Outcome.ANSWERED:
            self._failed_turns = 0
            self._memory = answer.memory
            return _without_rows(answer.commands), Code.COMMAND_MISSING, turn
        self._failed_turns += 1
        _LOG.warning("policy %s: %s", answer.outcome.value, answer.error)
        if self._failed_turns >= self._settings.trip_after:
            self._trip(f"policy tripped after {self._failed_turns} turns in a row: {answer.error}")
        code = Code.POLICY_LATE if answer.outcome is Outcome.LATE else Code.POLICY_RAISED
        return None, code, {**turn, "error": answer.error}

    def _trip(self, why: str) -> None:
        self._tripped, self._detail = True, why
        _LOG.error("%s; fallback until the end of the run", why)

    def _journalled(self, record: Mapping[str, Any], before: ShieldState, decision: Decision) -> bool:
        """Whether the record is on disk. Cannot log means cannot write: without it the plant keeps what it has."""
        self._outcome = {"written": False}
        try:
            self._append(record)
        except JournalError as error:
            _LOG.error("period %d: %s", self._number, error)
            self._state = replace(decision.state, applied=before.applied, confirmed=before.confirmed)
            self._rows_lost += 1
            self._detail = str(error)
            return False
        self._rows_lost = 0
        return True

    def _write(self, decision: Decision) -> Arrays | None:
        """Send, and take over what the plant says it accepted."""
        self._outcome = {"written": "unknown"}
        accepted = self._link.write(decision.commands)
        if accepted is None:
            self._outcome = {"written": "unknown", "error": self._link.last_error}
            return None
        self._state = self._shield.accepted(decision.state, accepted)
        as_sent = all(
            np.allclose(self._state.applied[n], c, rtol=_READ_BACK_TOLERANCE, atol=_READ_BACK_TOLERANCE)
            for n, c in decision.commands.items()
        )
        self._tally.rejected_periods += not as_sent
        self._outcome = {"written": True, "accepted": self._state.applied, "as_sent": as_sent}
        return self._state.applied

    def _tell(self, period: Period) -> None:
        if self._on_period is None:
            return
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
                self._period(handing_back=True)
                if self._link.lost_periods >= patience:
                    break
        except KeyboardInterrupt:
            found = Ending.INTERRUPTED
        return found

    def _is_handed_back(self) -> bool:
        return self._state.confirmed and all(np.allclose(self._state.applied[n], c) for n, c in self._neutral.items())

    def _append(self, record: Mapping[str, Any]) -> None:
        self._head = self._journal.append(record)

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
            "plant_errors": self._link.errors,
            "tripped": self._tripped,
            "handed_back": self._is_handed_back(),
            "energy_kwh": tally.energy_kwh,
        }

    def _summary(self, ending: Ending) -> RunSummary:
        return RunSummary(
            **{**self._counts(ending), "ending": ending},
            latency_p50_ms=self._tally.latency_ms(50.0),
            latency_p99_ms=self._tally.latency_ms(99.0),
            journal_head=self._head,
        )


def _watchdog_tripped(telemetry: Any) -> bool:
    notes = getattr(telemetry, "notes", None)
    return isinstance(notes, Mapping) and notes.get("watchdog_tripped") is True


def _without_rows(commands: Any) -> Any:
    """Drop the leading axis of one row; anything of another form is left for the shield to judge."""
    if not isinstance(commands, Mapping):
        return commands
    return {n: c[0] if isinstance(c, np.ndarray) and c.ndim == 3 and len(c) == 1 else c for n, c in commands.items()}
