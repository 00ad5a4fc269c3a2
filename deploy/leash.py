"""A function on a leash: it runs in its own thread, and what is late or raises costs its turn, not the loop.

Why a thread and not checks between the stages of the work: a check is reached only after a stage has ended, and the
stage that hangs (a policy, a solver, a disk that does not answer) never gets there. The thread that owns the plant
waits for an answer with a time-out instead and is free when it passes. Python's threads share one interpreter, so what
hangs in native code without releasing it stops this process; against that stands the watchdog in a second process.
"""

from __future__ import annotations

import enum
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Outcome(enum.StrEnum):
    """How a turn went."""

    ANSWERED = "answered"
    LATE = "late"
    RAISED = "raised"


@dataclass(frozen=True)
class Answer(Generic[T]):
    """``value`` is what the function returned, unchecked; None unless it answered. ``raised``: what it raised."""

    outcome: Outcome
    value: T | None = None
    error: str = ""
    raised: Exception | None = None


class Leash(Generic[P, T]):
    """Calls ``function`` under a deadline.

    A call that hangs keeps the thread, so every later turn is late until it comes back; its belated answer is thrown
    away. The thread is a daemon: it never keeps the program from ending.
    """

    def __init__(self, function: Callable[P, T], name: str) -> None:
        self._function = function
        self._name = name
        self._turns: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer[T]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    def ask(self, budget_s: float, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """Return the function's answer, or that it took longer than ``budget_s`` seconds, or what it raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        give_up_s = time.monotonic() + budget_s
        if self._busy and not self._discard_belated(budget_s):
            return Answer(Outcome.LATE, error="still busy with an earlier period")
        self._busy = True
        self._turns.put(lambda: self._function(*args, **kwargs))
        try:
            answer = self._answers.get(timeout=max(give_up_s - time.monotonic(), 0.0))
        except queue.Empty:
            return Answer(Outcome.LATE, error=f"no answer within {budget_s:.3g} s")
        self._busy = False
        return answer

    def close(self) -> None:
        """Let the thread end as soon as the function lets it."""
        self._turns.put(None)

    def _discard_belated(self, budget_s: float) -> bool:
        """True once the thread is free again."""
        try:
            self._answers.get(timeout=budget_s)
        except queue.Empty:
            return False
        self._busy = False
        return True

    def _work(self) -> None:
        while (turn := self._turns.get()) is not None:
            try:
                answer = Answer(Outcome.ANSWERED, turn())
            except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises, the loop goes on
                answer = Answer(Outcome.RAISED, error=f"{type(error).__name__}: {error}", raised=error)
            self._answers.put(answer)
