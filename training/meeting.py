"""Several learners that each step "the environment", on one twin that takes the commands of all of them at once.

Each learner's gathering runs in a thread of its own, but one at a time and in a fixed order: a learner that wants a
step leaves its group's commands and lets the next one run; the last steps the twin. So the draws from global
generators come in the same order every time, and a run is as exact as with one learner.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.adapters.episodes import Episodes, Outcome
from ..envs.errors import ContractError
from ..envs.twin import Readings
from .workers import one_thread


class _AbandonedError(Exception):
    """Another learner failed, so that this one's step never comes."""


class Meeting:
    """Episodes that ``groups`` step together; :meth:`face` is what one of them sees."""

    def __init__(self, episodes: Episodes, groups: Sequence[str]) -> None:
        self.episodes = episodes
        self._groups = list(groups)
        self._gates = [threading.Semaphore(0) for _ in groups]
        self._finished: set[int] = set()
        self._errors: list[BaseException] = []
        self._commands: dict[str, NDArray[np.float64]] = {}
        self._outcome: Outcome | None = None
        self._begun: set[bytes | None] = set()

    def face(self, group: str) -> Face:
        """The episodes as the learner of ``group`` sees them."""
        return Face(self, self._groups.index(group), group)

    def run(self, functions: Sequence[Callable[[], None]]) -> None:
        """Run one function a group, which step as often as each other; raises the first error of any of them."""
        self._finished, self._errors = set(), []
        threads = [
            threading.Thread(target=self._work, args=(k, function), daemon=True) for k, function in enumerate(functions)
        ]
        for thread in threads:
            thread.start()
        self._gates[0].release()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:  # Ctrl-C: nobody may go on stepping behind the caller's back
            self._errors.append(error)
            for gate in self._gates:
                gate.release()
            for thread in threads:
                thread.join()
            raise
        finally:
            self._gates = [threading.Semaphore(0) for _ in self._groups]
        if self._errors:
            raise next(e for e in self._errors if not isinstance(e, _AbandonedError))

    def _work(self, number: int, function: Callable[[], None]) -> None:
        self._gates[number].acquire()
        try:
            if not self._errors:
                with one_thread():
                    function()
        except BaseException as error:  # noqa: BLE001 - handed to the caller of run, whatever it is
            self._errors.append(error)
        self._finished.add(number)
        self._next(number)

    def _next(self, number: int) -> None:
        """Let the next learner run that is not through."""
        n = len(self._groups)
        for k in range(1, n + 1):
            if (number + k) % n not in self._finished:
                self._gates[(number + k) % n].release()
                return

    def step(self, number: int, commands: NDArray[np.float64]) -> Outcome:
        """Leave the commands of a group, and return what all of them led to."""
        if self._finished:
            raise ContractError(
                "learners of several groups gathered different numbers of steps; give them the same options"
            )
        self._commands[self._groups[number]] = commands
        if number == len(self._groups) - 1:
            self._outcome = self.episodes.step(self._commands)
            self._begun = set()
        self._next(number)
        self._gates[number].acquire()
        if self._errors or self._outcome is None:
            raise _AbandonedError
        return self._outcome

    def begin(self, rows: NDArray[np.int64] | None, seeds: Sequence[int | None] | None) -> Readings:
        """Reset rows, once for all groups: they see the same ends."""
        key = None if rows is None else rows.tobytes()
        if key not in self._begun:
            self._begun.add(key)
            return self.episodes.begin(rows, seeds)
        return self.episodes.readings

    def fill(self, commands: Mapping[str, NDArray[np.float64]]) -> None:
        """Commands of groups that nobody learns."""
        for name, values in commands.items():
            if name not in self._groups:
                self._commands[name] = values


class Face:
    """The episodes of a meeting for one group."""

    def __init__(self, meeting: Meeting, number: int, group: str) -> None:
        self._meeting, self._number, self._group = meeting, number, group

    @property
    def readings(self) -> Readings:
        return self._meeting.episodes.readings

    def begin(self, rows: NDArray[np.int64] | None = None, seeds: Sequence[int | None] | None = None) -> Readings:
        return self._meeting.begin(rows, seeds)

    def step(self, commands: Mapping[str, NDArray[np.float64]]) -> Outcome:
        self._meeting.fill(commands)
        return self._meeting.step(self._number, commands[self._group])

    def snapshot(self) -> dict[str, Any]:
        return self._meeting.episodes.snapshot()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._meeting.episodes.restore(state)
