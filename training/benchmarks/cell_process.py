"""One arm's process without its clock: the parts of ``twinloop run``, called one after the other and timed by part.

What is timed is CPU time. A decision runs in two threads (decision, policy): its whole is the CPU time of both from the
reading's bytes to the row on disk. That of all threads adds the one that now and then folds the journal's log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...agents.artifact import load_artifact
from ...deploy.decider import Decider, PolicyState, Question, Ticket
from ...deploy.drivers import local_wire as wire
from ...deploy.journal import Journal
from ...deploy.shield import Decision, Mode, Shield, ShieldSettings
from ...deploy.shield.monitors import Monitor
from ...deploy.shield.orders import Orders
from ...deploy.transition import observed
from ...deploy.watching import watch
from ...envs.constraint import RowsConstraint, RowTerms, declare
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays
from ...envs.robot_cell.config import RobotCellConfig
from ...envs.robot_cell.constraints import cell_rows, cell_safe_states
from ...envs.robot_cell.guard import CellRows
from ...envs.robot_cell.nameplate import ARM

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 60.0


@dataclass
class Parts:
    """CPU ms of each part in the decision that is being made, where it is ``on``: looking costs a fiftieth."""

    ms: dict[str, float] = field(default_factory=dict)
    on: bool = False

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        begun_ns = time.thread_time_ns()
        yield
        self.ms[part] = self.ms.get(part, 0.0) + 1e-6 * (time.thread_time_ns() - begun_ns)


class ArmProcess:
    """Arm ``seat`` (from 1) of a cell: ``decide`` takes the bytes of a reading and returns what it would send."""

    def __init__(self, config: RobotCellConfig, nameplate: Nameplate, artifact: Path, journal: Path) -> None:
        assert config.seat is not None  # an arm's process has one
        self.arm = config.seat - 1
        self.parts = Parts()
        self._nameplate = nameplate
        self.rows = cell_rows(config)
        timed = _TimedRows(self.rows, self.parts)
        safe = cell_safe_states(config)
        self._own = frozenset({nameplate.agents[self.arm]})
        policy = load_artifact(artifact, nameplate, own=self._own)
        policy.encoders = {name: _TimedEncoder(e, self.parts) for name, e in policy.encoders.items()}
        declaration = declare(nameplate, (RowsConstraint("gaps", ARM, timed),), safe)
        self._shield = _TimedShield(declaration, self.parts, watch(declaration, policy, lambda _: None))
        self._journal = _TimedJournal(journal, self.parts)
        self._acting = _TimedPolicy(policy, self.parts)
        self._decider = Decider(
            self._acting, self._shield, self._journal, nameplate,
            policy_budget_s=PATIENCE_S, trip_after=3,
        )  # fmt: skip
        self._state = self._shield.start(mode=Mode.AUTONOMOUS, assets=self._own)
        self._standing = self._decider.arbiter.start()
        self._policy: PolicyState = self._decider.start()
        self._outcome: Mapping[str, Any] = {"written": False}
        self._number = 0
        self.took_ms = self.all_threads_ms = 0.0

    def decide(self, frame: bytes, orders: Orders | None = None) -> Decision:
        """Work a reading out; ``took_ms``, ``all_threads_ms`` and ``parts`` tell what it cost."""
        self.parts.ms.clear()
        begun_ns, both_ns = time.process_time_ns(), time.thread_time_ns() + self._acting.thread_ns()
        if self.parts.on:
            with self.parts.of("reading from bytes"):
                telemetry = wire.unpack_telemetry(self._nameplate, frame).telemetry
        else:
            telemetry = wire.unpack_telemetry(self._nameplate, frame).telemetry
        self._number += 1
        now_s = telemetry.received_time_s
        self._state = observed(self._shield, self._state, telemetry)
        wall_s = time.perf_counter()
        decided = self._decider.decide(
            Question(
                number=self._number, telemetry=telemetry, now_s=now_s, clock_s=now_s, state=self._state,
                policy=self._policy, orders=orders or Orders(), causes=frozenset(), previous=self._outcome,
                handing_back=False, ticket=Ticket(), asked_s=wall_s, begun_s=wall_s, standing=self._standing,
                monotonic_s=now_s,
            )
        )  # fmt: skip
        self.took_ms = 1e-6 * (time.thread_time_ns() + self._acting.thread_ns() - both_ns)
        self.all_threads_ms = 1e-6 * (time.process_time_ns() - begun_ns)
        assert decided is not None  # nobody gives its ticket up
        if decided.error:
            raise RuntimeError(decided.error)
        self._policy, self._standing = decided.policy, decided.settled.standing
        self._after = decided.decision
        return decided.decision

    def obeyed(self, accepted: Arrays) -> None:
        """What the plant answered."""
        self._state = self._shield.accepted(self._after.state, accepted)
        self._outcome = {"written": True, "accepted": self._state.applied, "as_sent": True}

    def row(self) -> Any:
        """Commands ``[N, 6]`` of the last decision, NaN for other arms."""
        found = np.full_like(self._after.commands[ARM], np.nan)
        found[self.arm] = self._after.commands[ARM][self.arm]
        return found

    def close(self) -> None:
        self._decider.close()
        with suppress(Exception):  # the folder goes away with it
            self._journal.close()


class _TimedPolicy:
    def __init__(self, policy: Any, parts: Parts) -> None:
        self._policy, self._parts = policy, parts
        self._clock: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def thread_ns(self) -> int:
        """CPU time of the policy's thread, 0 before its first turn."""
        return 0 if self._clock is None else time.clock_gettime_ns(self._clock)

    def act(self, observation: Any, memory: Any) -> Any:
        if self._clock is None:
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        if not self._parts.on:
            return self._policy.act(observation, memory)
        with self._parts.of("policy"):
            return self._policy.act(observation, memory)


class _TimedEncoder:
    def __init__(self, encoder: Any, parts: Parts) -> None:
        self._encoder, self._parts = encoder, parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_some(self, *seen: Any) -> Any:
        if not self._parts.on:
            return self._encoder.encode_some(*seen)
        with self._parts.of("encoder"):
            return self._encoder.encode_some(*seen)


@dataclass(frozen=True)
class _TimedRows:
    rows: CellRows
    parts: Parts = field(compare=False, repr=False)

    def __call__(self, measured: Mapping[str, Any], applied: Any, /) -> RowTerms:
        if not self.parts.on:
            return self.rows(measured, applied)
        with self.parts.of("rows"):
            return self.rows(measured, applied)

    def margin(self, measured: Mapping[str, Any], /) -> Any:
        return self.rows.margin(measured)


class _TimedShield(Shield):
    def __init__(self, declaration: Any, parts: Parts, monitors: Sequence[Monitor]) -> None:
        self._parts = parts
        # as `run --assets` has it
        super().__init__(declaration, settings=ShieldSettings(advises=False), monitors=monitors)

    def guard(self, *told: Any, **more: Any) -> Any:
        if not self._parts.on:
            return super().guard(*told, **more)
        with self._parts.of("guard of inputs"):
            return super().guard(*told, **more)

    def filter(self, *told: Any, **more: Any) -> Any:
        if not self._parts.on:
            return super().filter(*told, **more)
        with self._parts.of("shield"):
            return super().filter(*told, **more)


class _TimedJournal(Journal):
    def __init__(self, path: Path, parts: Parts) -> None:
        super().__init__(path)
        self._parts = parts

    def append_all(self, records: Sequence[Mapping[str, Any]]) -> str:
        if not self._parts.on:
            return super().append_all(records)
        with self._parts.of("journal"):
            return super().append_all(records)
