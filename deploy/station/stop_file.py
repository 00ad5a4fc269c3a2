"""The emergency stop of a station: held from the moment that anybody presses it, until a reset order.

It is pressed by a key, a signal, an order, or by putting the stop file there; however it was pressed, the file then
says so, so that a control process that dies and starts again is still stopped.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

_LOG = logging.getLogger(__name__)
_LONGEST_TEXT = 500
_RESOLUTION_S = 0.02
"""Times of files are ticks of the kernel, up to 10 ms old; nobody resets what was pressed so shortly before."""


class StopFile:
    """``utc_s``: the clock that orders are stamped by. :meth:`press` may be called from a signal handler."""

    def __init__(self, path: Path, utc_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._utc_s = utc_s
        self._pressed_by = ""
        self._pressed_utc_s = float("-inf")
        self._is_unwritable = False

    @property
    def pressed_by(self) -> str:
        """Who stopped it; empty while nobody has."""
        return self._pressed_by

    def press(self, by: str, utc_s: float | None = None) -> None:
        """Stop, until :meth:`release`, at once on disk. ``utc_s``: when it was asked for, if that was before now."""
        now_s = self._utc_s()
        self._pressed_utc_s = max(self._pressed_utc_s, now_s if utc_s is None else min(utc_s, now_s))
        self._pressed_by = self._pressed_by or by or "somebody"
        self._write()

    def look(self) -> bool:
        """Once a period: take note of the file, or write it. Returns whether the stop is held; never raises."""
        try:
            pressed_utc_s = os.stat(self._path).st_mtime
        except FileNotFoundError:
            if self._pressed_by:
                self._write()
            return bool(self._pressed_by)
        except OSError as error:  # whoever hides the file must not undo the stop
            self.press(f"a stop file that can't be looked at ({error.strerror})")
            return True
        self._pressed_utc_s = max(self._pressed_utc_s, pressed_utc_s)
        if not self._pressed_by:
            self._pressed_by = self._text() or "a stop file"
        return True

    def release(self, asked_utc_s: float) -> str:
        """Let go of a stop that was pressed before ``asked_utc_s``, and remove the file; else, in words, why not."""
        if self._pressed_by and self._pressed_utc_s > asked_utc_s - _RESOLUTION_S:
            return "the emergency stop was pressed after this reset was asked for, or just before; see why, reset again"
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            return (
                f"{self._path} can't be removed ({error.strerror}), so the stop is still held; remove it, reset again"
            )
        self._pressed_by, self._pressed_utc_s = "", float("-inf")
        return ""

    def _write(self) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660)
            try:
                os.write(descriptor, f"{self._pressed_by}\n".encode())
            finally:
                os.close(descriptor)
            # Pressed then, and not now: a reset that was asked for in between is for this stop.
            os.utime(self._path, (self._pressed_utc_s, self._pressed_utc_s))
        except FileExistsError:
            return
        except OSError as error:
            if not self._is_unwritable:
                _LOG.error("%s can't be written (%s): the stop is held by this process alone", self._path, error)
            self._is_unwritable = True

    def _text(self) -> str:
        try:
            with self._path.open("rb") as file:
                return file.read(_LONGEST_TEXT).decode("utf-8", "replace").strip().splitlines()[0]
        except (OSError, IndexError):
            return ""
