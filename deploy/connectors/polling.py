"""Subscriptions for protocols that only answer: a thread that asks again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ...envs.errors import PlantError
from .contract import Listener, Readings


class Polling:
    """Calls ``listener`` each ``period_s`` with what ``read`` gives, or with the error; ends with :meth:`close`.

    A reading that comes late is not made up for. A listener that raises ends its own subscription, and no other.
    """

    def __init__(self, read: Callable[[], Readings], listener: Listener, period_s: float) -> None:
        self._read = read
        self._listener = listener
        self._period_s = period_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="polling", daemon=True)

    def start(self) -> Polling:
        self._thread.start()
        return self

    def close(self) -> None:
        """No call of the listener begins after this returns, save one that is closed from inside a call."""
        self._closing.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._closing.wait(max(due_s - time.monotonic(), 0.0)):
            try:
                told: Readings | PlantError = self._read()
            except PlantError as error:
                told = error
            if self._closing.is_set():
                return
            self._listener(told)
            due_s = max(due_s + self._period_s, time.monotonic())
