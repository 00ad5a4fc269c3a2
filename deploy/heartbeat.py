"""The control loop's side of the watchdog: starts it in a second process, tells it each period that the loop lives.

Lines of JSON go both ways over two pipes. To the watchdog: ``{"beat": 7, "standby": {...}, "stopped": false}`` each
period, another one at once when an emergency stop is carried out, and ``{"bye": true}`` at an orderly end. From it:
``{"ready": ...}`` once, ``{"heard": 7}`` for each beat, and ``{"acting": ...}`` when it takes over. Numbers grow by
one, so that a sender that is stuck and repeats itself is noticed on both sides.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..envs.errors import PlantError
from ..envs.plant import Arrays

_LOG = logging.getLogger(__name__)

DEFAULT_PERIODS = 2
"""Below the three periods after which the emulated equipment's own time-out acts, which knows no rates."""

LATE_PU = 0.5
"""Share of a period by which a beat may come late and still count for the period that it is due in."""

_START_S = 60.0
_END_S = 5.0


class Silence:
    """When a heartbeat has stopped: no new number for longer than ``periods`` and a half periods.

    So beats that come ``periods`` apart, each up to half a period late, keep it content, and a gap of one period more
    does not. The clock is the caller's, in seconds, and never steps back.
    """

    def __init__(self, period_s: float, periods: int) -> None:
        self.timeout_s = (periods + LATE_PU) * period_s
        self._number = -1
        self._heard_s: float | None = None

    def heard(self, number: Any, clock_s: float) -> bool:
        """Take note of a beat; False for one that is no news: an old number, or none at all."""
        if isinstance(number, bool) or not isinstance(number, int) or number <= self._number:
            return False
        self._number, self._heard_s = number, clock_s
        return True

    def left_s(self, clock_s: float) -> float:
        """Seconds until it has stopped, negative after; infinite before the first beat."""
        return float("inf") if self._heard_s is None else self._heard_s + self.timeout_s - clock_s

    def has_stopped(self, clock_s: float) -> bool:
        return self.left_s(clock_s) < 0.0


class Lines:
    """Whole lines of JSON out of a pipe that is never waited for."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""
        self.ended = False

    def read(self) -> list[dict[str, Any]]:
        """All that has come since the last call; what is no JSON object is left out."""
        while not self.ended:
            try:
                chunk = os.read(self._descriptor, 65536)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            self.ended = not chunk
            self._rest += chunk
        *whole, self._rest = self._rest.split(b"\n")
        found: list[dict[str, Any]] = []
        for line in whole:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                found.append(message)
        return found


class Watched:
    """A watchdog in a process of its own; a ``with`` block starts it, and says good-bye to it at the end.

    ``command``: what starts the watchdog, which reads heartbeats on its input. ``lost`` tells why nobody watches any
    more: its process ended, it has taken over, or it has confirmed no beat for its time-out. ``declaration_hash``: of
    the limits that it must walk by; one with others is not started. None: its own matter.
    """

    def __init__(
        self, command: Sequence[str], period_s: float, periods: int, declaration_hash: str | None = None
    ) -> None:
        self._command = list(command)
        self._silence = Silence(period_s, periods)
        self._declaration_hash = declaration_hash
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: Lines | None = None
        self._rest = b""
        self._number = 0
        self._lost = ""

    @property
    def timeout_s(self) -> float:
        return self._silence.timeout_s

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        # A session of its own: Ctrl-C in the terminal is for the loop, which then says good-bye.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin is not None  # both are pipes; narrows the types
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._lines = Lines(self._process.stdout.fileno())
        give_up_s = time.monotonic() + _START_S
        while time.monotonic() < give_up_s and not self._lines.ended:
            select.select([self._process.stdout], [], [], 0.2)
            for message in self._lines.read():
                if "ready" in message:
                    self._check(message.get("declaration"))
                    return self
        self._end()
        raise PlantError(
            "the watchdog did not start, so nothing would take the plant to its safe state if this process died; its "
            "own message stands above; --watchdog-periods 0 runs without one"
        )

    def _check(self, told: Any) -> None:
        if self._declaration_hash in (None, told):
            return
        self._end()
        raise PlantError(
            f"the watchdog walks by other limits ({str(told)[:12]}) than this process ({self._declaration_hash[:12]}); "
            "give both the same file and the same overrides, and leave the file alone meanwhile"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.stdin is not None and not self._rest:
            self._send(b'{"bye": true}\n')
        self._end()

    @property
    def lost(self) -> str:
        return self._lost

    def beat(self, standby: Arrays, stopped: bool = False) -> None:
        """Tell that the loop lives, and the commands ``[N, A]`` a group to send first should it not. Never blocks.

        ``stopped``: an emergency stop is carried out, so that no policy commands anything.
        """
        if self._process is None or self._lines is None or self._lost:
            return
        now_s = time.monotonic()
        for message in self._lines.read():
            if "acting" in message:
                self._lost = f"it has taken over: {message['acting']}"
                return
            self._silence.heard(message.get("heard"), now_s)
        status = self._process.poll()
        if status is not None or self._lines.ended:
            self._lost = "its process ended" if status is None else f"its process ended with status {status}"
        elif self._silence.has_stopped(now_s):
            self._lost = f"it has confirmed nothing for over {self.timeout_s:g} s"
        else:
            self._number += 1
            if self._number == 1:
                self._silence.heard(0, now_s)  # the time-out begins with the first beat
            if not self._rest:  # a beat that found the pipe full is completed before the next one begins
                told = {name: array.tolist() for name, array in standby.items()}
                beat = {"beat": self._number, "standby": told, "stopped": stopped}
                self._rest = json.dumps(beat).encode() + b"\n"
            self._rest = self._send(self._rest)

    def _send(self, line: bytes) -> bytes:
        """What did not fit into the pipe."""
        assert self._process is not None  # started; narrows the types
        assert self._process.stdin is not None
        try:
            return line[os.write(self._process.stdin.fileno(), line) :]
        except BlockingIOError:
            return line
        except OSError:
            return b""  # it is gone, which the next beat notices

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            _LOG.warning("the watchdog does not end; killed")
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def watchdog_command(
    endpoint: str,
    periods: int,
    timeout_period_s: float,
    plant_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    station: str | Path | None = None,
    security: str | Path | None = None,
    assets: str | None = None,
) -> list[str]:
    """What starts ``twinloop watchdog`` for a plant, with the interpreter that runs now.

    ``plant_file``, ``overrides``: where it takes the site's limits from, by the same checks as this process. So nothing
    that could run code goes over the pipe, and the hash of what it read shows whether it is the same. ``station``:
    where it looks for a stop, and ends this process if that is not carried out. ``security``: the client's folder of
    certificates; passwords are read from it there, and never stand on a command line. ``assets``: those that this
    process commands, separated by commas, None for all.
    """
    words = ["--endpoint", endpoint, "--periods", str(periods), "--period-s", repr(timeout_period_s)]
    words += [] if assets is None else ["--assets", assets]
    words += [] if security is None else ["--security", str(security)]
    words += [] if plant_file is None else ["--plant", str(plant_file)]
    words += [word for override in overrides for word in ("--set", override)]
    words += [] if station is None else ["--station", str(station), "--control-pid", str(os.getpid())]
    return [sys.executable, "-m", "twinloop", "watchdog", *words]
