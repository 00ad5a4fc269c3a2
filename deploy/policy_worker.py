"""A policy on a leash: it runs in its own thread, and what is late or raises costs its turn, not the loop."""

from __future__ import annotations

import enum
import queue
import threading
from dataclasses import dataclass
from typing import Any

from ..agents.policy import Memory, Policy
from ..envs.twin import Observation


class Outcome(enum.StrEnum):
    """How a policy's turn went."""

    ANSWERED = "answered"
    LATE = "late"
    RAISED = "raised"


@dataclass(frozen=True)
class Answer:
    """``commands`` and ``memory`` are what the policy returned, unchecked; both None unless it answered."""

    outcome: Outcome
    commands: Any = None
    memory: Any = None
    error: str = ""


class PolicyWorker:
    """Asks a policy under a deadline.

    A policy that hangs keeps its thread, so every later turn is late at once until it comes back; its belated answer is
    thrown away. The thread is a daemon: it never keeps the program from ending. A policy that hangs inside native code
    without releasing the interpreter stops this process; only the equipment's own time-out helps against that.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._turns: queue.SimpleQueue[tuple[Observation, Memory] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    def ask(self, observation: Observation, memory: Memory, budget_s: float) -> Answer:
        """Return the policy's answer, or that it took longer than ``budget_s`` seconds, or what it raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
            self._thread.start()
        if self._busy and not self._discard_belated():
            return Answer(Outcome.LATE, error="still busy with an earlier period")
        self._busy = True
        self._turns.put((observation, memory))
        try:
            answer = self._answers.get(timeout=budget_s)
        except queue.Empty:
            return Answer(Outcome.LATE, error=f"no answer within {budget_s:.3g} s")
        self._busy = False
        return answer

    def close(self) -> None:
        """Let the thread end as soon as the policy lets it."""
        self._turns.put(None)

    def _discard_belated(self) -> bool:
        """True once the thread is free again."""
        try:
            self._answers.get_nowait()
        except queue.Empty:
            return False
        self._busy = False
        return True

    def _work(self) -> None:
        while (turn := self._turns.get()) is not None:
            try:
                commands, memory = self._policy.act(*turn)
                answer = Answer(Outcome.ANSWERED, commands, memory)
            except Exception as error:  # noqa: BLE001 - a policy is foreign code: whatever it raises, the loop goes on
                answer = Answer(Outcome.RAISED, error=f"{type(error).__name__}: {error}")
            self._answers.put(answer)
