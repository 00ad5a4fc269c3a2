"""The stop file as the watchdog sees it: whether control carries it out, and the end of a control that does not."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

from .heartbeat import LATE_PU
from .leash import Leash, Outcome

_LOG = logging.getLogger(__name__)
_GONE_WITHIN_S = 1.0
_LOOK_PU, _AGAIN_PU = 0.25, 0.02
"""Shares of a period that a look may take, the second while an earlier one still hangs."""
BLIND_PERIODS, BLIND_S = 6.0, 10.0
"""When no look has come back for both, that is taken as a stop: twice what control itself waits."""


class HeldStop:
    """Counts for how long the stop file has stood without a heartbeat that says that it is carried out.

    ``file``: the station's stop file; while it exists, no policy and no person may command anything. ``control_pid``:
    the process that sends the heartbeats, which must be this one's parent, so that its number can't have become
    somebody else's; None for one that nobody told of, which can't be ended. The clock is the caller's, in seconds, and
    never steps back. The file is looked at in a thread of its own: a folder that hangs may take control along, and then
    this process is what is left.
    """

    def __init__(self, file: Path, control_pid: int | None, period_s: float) -> None:
        self.control_pid = control_pid
        self.patience_s = (1.0 + LATE_PU) * period_s
        self.look_s = period_s / 10.0
        """How often the file is to be looked for."""
        self._file = file
        self._follows: bool | None = None
        self._ignored_since_s: float | None = None
        self._leash = Leash(self._look, "stop file")
        self._period_s = period_s
        self._stood = False
        self._blind_since_s: float | None = None

    def told(self, is_stopped: object) -> None:
        """Take note of a beat. Before the first one control commands nothing."""
        self._follows = is_stopped is True

    def is_ignored(self, clock_s: float) -> bool:
        """Look for the file; whether it has been ignored for longer than a period, and half of one for being late."""
        if self._follows is not False or not self._stands(clock_s):
            self._ignored_since_s = None
            return False
        if self._ignored_since_s is None:
            self._ignored_since_s = clock_s
        return clock_s - self._ignored_since_s > self.patience_s

    def end_control(self) -> bool:
        """Kill the control process, hung or not: a plant has one master. False if it is gone, or not known."""
        if self.control_pid is None or os.getppid() != self.control_pid:
            return False
        _LOG.error("process %d does not carry out the stop in %s: killed", self.control_pid, self._file)
        try:
            os.kill(self.control_pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        give_up_s = time.monotonic() + _GONE_WITHIN_S
        while os.getppid() == self.control_pid and time.monotonic() < give_up_s:
            time.sleep(0.01)
        return True

    def _stands(self, clock_s: float) -> bool:
        """Whether the file is there; as it was at the last look that came back, until that is too long ago."""
        answer = self._leash.ask((_LOOK_PU if self._blind_since_s is None else _AGAIN_PU) * self._period_s)
        if answer.outcome is Outcome.ANSWERED and answer.value is not None:
            self._blind_since_s, self._stood = None, answer.value
            return self._stood
        if self._blind_since_s is None:
            self._blind_since_s = clock_s
        elif clock_s - self._blind_since_s > max(BLIND_PERIODS * self._period_s, BLIND_S) and not self._stood:
            _LOG.error("%s can't be looked at, its folder hangs; taken as a stop", self._file)
            self._stood = True
        return self._stood

    def _look(self) -> bool:
        try:
            self._file.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            # Whoever hides the file must not undo the stop.
            _LOG.warning("%s can't be looked at (%s); taken as a stop", self._file, error)
        return True
