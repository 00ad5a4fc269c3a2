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
        self._turns: queue.SimpleQueue[tuple[int, Callable[[], T]] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, Answer[T]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked = 0
        self._finished = 0

    def ask(self, budget_s: float, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """Return the function's answer, or that it took longer than ``budget_s`` seconds, or what it raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        give_up_s = time.monotonic() + budget_s
        # Turns have numbers, because a signal may interrupt this method anywhere, and the next call must know its own.
        while self._finished < self._asked:
            if self._next(give_up_s) is None and self._finished < self._asked:
                return Answer(Outcome.LATE, error="still busy with an earlier period")
        self._asked += 1
        self._turns.put((self._asked, lambda: self._function(*args, **kwargs)))
        while (told := self._next(give_up_s)) is not None:
            if told[0] == self._asked:
                return told[1]
        return Answer(Outcome.LATE, error=f"no answer within {budget_s:.3g} s")

    def close(self) -> None:
        """Let the thread end as soon as the function lets it."""
        self._turns.put(None)

    def _next(self, give_up_s: float) -> tuple[int, Answer[T]] | None:
        try:
            return self._answers.get(timeout=max(give_up_s - time.monotonic(), 0.0))
        except queue.Empty:
            return None

    def _work(self) -> None:
        while (turn := self._turns.get()) is not None:
            number, call = turn
            try:
                answer = Answer(Outcome.ANSWERED, call())
            except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises, the loop goes on
                answer = Answer(Outcome.RAISED, error=f"{type(error).__name__}: {error}", raised=error)
            self._finished = number
            self._answers.put((number, answer))
