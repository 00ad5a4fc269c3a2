"""The emergency stop of a station: held from the moment that anybody presses it, until a reset order.

It is pressed by a key, a signal, an order, or by putting the stop file there; however it was pressed, the file then
says so, so that a control process that dies and starts again is still stopped.

When it was pressed is told by a clock that never steps: were it the wall's, a step back by an hour would let nobody
reset for an hour.
"""

from __future__ import annotations

import _thread
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LOG = logging.getLogger(__name__)
_LONGEST_TEXT = 500
_RESOLUTION_S = 0.02
"""Times of files are ticks of the kernel, up to 10 ms old; nobody resets what was pressed so shortly before."""
_WRITE_WAIT_S = 0.05
_MOST_PRESSES = 1000


class StopFile:
    """``utc_s``: the clock that files and orders are stamped by; ``steady_s``: one in seconds that never steps.

    :meth:`press_here` may be called from a signal handler and from any thread, all else from one at a time.
    """

    def __init__(
        self,
        path: Path,
        utc_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._utc, self._steady = utc_s, steady_s
        # Who pressed it and when. Added at the end and taken from the front, each in one go, so that a press which
        # comes while a reset is carried out is still there after it, without a lock that a signal could wait for.
        self._presses: list[tuple[str, float]] = []
        self._seen_utc_s: float | None = None
        self._is_unwritable = False

    @property
    def pressed_by(self) -> str:
        """Who stopped it; empty while nobody has."""
        return next((by for by, _ in tuple(self._presses)), "")

    def press(self, by: str, utc_s: float | None = None) -> None:
        """Stop, until :meth:`release`, at once on disk. ``utc_s``: when it was asked for, if that was before now."""
        self._note(by, 0.0 if utc_s is None else max(self._utc() - utc_s, 0.0))
        self._write()

    def press_here(self, by: str) -> None:
        """Stop, and have the file written beside: a disk that hangs keeps neither the signal nor the key waiting."""
        self._note(by, 0.0)
        done = _thread.allocate_lock()
        done.acquire()

        def write() -> None:
            self._write()
            done.release()

        with suppress(RuntimeError):  # no thread to be had: the next look writes it
            _thread.start_new_thread(write, ())
            done.acquire(timeout=_WRITE_WAIT_S)

    def look(self) -> bool:
        """Once a period: take note of the file, or write it. Returns whether the stop is held; never raises."""
        try:
            pressed_utc_s = os.stat(self._path).st_mtime
        except FileNotFoundError:
            self._seen_utc_s = None
            if self._presses:
                self._write()
            return bool(self._presses)
        except OSError as error:  # whoever hides the file must not undo the stop
            self._note(f"a stop file that can't be looked at ({error.strerror})", 0.0)
            return True
        if pressed_utc_s != self._seen_utc_s or not self._presses:
            self._seen_utc_s = pressed_utc_s
            self._note(self._text() or "a stop file", max(self._utc() - pressed_utc_s, 0.0))
        return True

    def release(self, asked_utc_s: float) -> str:
        """Let go of a stop that was pressed before ``asked_utc_s``, and remove the file; else, in words, why not."""
        presses = tuple(self._presses)
        asked_s = self._steady() - (self._utc() - asked_utc_s)
        if any(at_s > asked_s - _RESOLUTION_S for _, at_s in presses):
            return _TOO_EARLY
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}.released")
        try:
            # Taken aside in one go: one that is put there from now on is another stop, and stays.
            os.rename(self._path, aside)
            if os.stat(aside).st_mtime != self._seen_utc_s:  # put there since the period's look
                os.rename(aside, self._path)
                return _TOO_EARLY
            with suppress(OSError):
                os.unlink(aside)
        except FileNotFoundError:
            pass
        except OSError as error:
            return (
                f"{self._path} can't be removed ({error.strerror}), so the stop is still held; remove it, reset again"
            )
        del self._presses[: len(presses)]
        self._seen_utc_s = None
        return _TOO_EARLY if self._presses else ""

    def _note(self, by: str, age_s: float) -> None:
        press = by or "somebody", self._steady() - age_s
        if len(self._presses) < _MOST_PRESSES:
            self._presses.append(press)
        else:  # a key that is held down, or a file that can't be looked at for long
            self._presses[-1:] = [press]

    def _write(self) -> None:
        presses = tuple(self._presses)
        if not presses:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660)
            try:
                os.write(descriptor, f"{presses[0][0]}\n".encode())
            finally:
                os.close(descriptor)
            # Pressed then, and not now: a reset that was asked for in between is for this stop.
            pressed_utc_s = self._utc() - (self._steady() - max(at_s for _, at_s in presses))
            os.utime(self._path, (pressed_utc_s, pressed_utc_s))
            self._seen_utc_s = os.stat(self._path).st_mtime
        except FileExistsError:
            return
        except OSError as error:
            if not self._is_unwritable:
                _LOG.error("%s can't be written (%s): the stop is held by this process alone", self._path, error)
            self._is_unwritable = True

    def _text(self) -> str:
        try:
            # Should somebody have put a pipe there, it is not waited for.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                return (file.read(_LONGEST_TEXT) or b"").decode("utf-8", "replace").strip().splitlines()[0]
        except (OSError, IndexError):
            return ""


_TOO_EARLY = "the emergency stop was pressed after this reset was asked for, or just before; see why, reset again"
