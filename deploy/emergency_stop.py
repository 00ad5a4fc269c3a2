"""The emergency stop of a running loop: the signal SIGUSR1, and one key in its terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

STOP_KEYS = (b"s", b"S", b" ")
_LOOK_S = 0.1


@contextmanager
def stop_on_signal(stop: Callable[[str], None]) -> Iterator[None]:
    """Inside, SIGUSR1 calls ``stop``. Only the main thread can hear signals; in any other one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, lambda number, frame: stop("signal SIGUSR1"))
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def stop_on_key(stop: Callable[[str], None], descriptor: int | None = None) -> Iterator[bool]:
    """Inside, ``s`` or the space bar in the terminal calls ``stop``; gives False where there is no terminal.

    ``descriptor``: the terminal, the standard input without it.
    """
    with on_keys(dict.fromkeys(STOP_KEYS, stop), descriptor) as is_terminal:
        yield is_terminal


@contextmanager
def on_keys(acts: Mapping[bytes, Callable[[str], None]], descriptor: int | None = None) -> Iterator[bool]:
    """Inside, each key of ``acts`` calls what it stands for, from a thread; gives False where there is no terminal."""
    fd = _terminal() if descriptor is None else descriptor
    if fd is None or not os.isatty(fd):
        yield False
        return
    before = termios.tcgetattr(fd)
    over = threading.Event()
    listener = threading.Thread(target=_listen, args=(fd, acts, over), name="keys", daemon=True)
    # Keys come at once and are not shown; Ctrl-C stays what it is.
    tty.setcbreak(fd, termios.TCSANOW)
    listener.start()
    try:
        yield True
    finally:
        over.set()
        listener.join(1.0)
        if _in_foreground(fd):
            termios.tcsetattr(fd, termios.TCSANOW, before)


def _terminal() -> int | None:
    """The standard input, if it is a terminal and this program is the one that people type to."""
    try:
        fd = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # no standard input, or one that is no file
        return None
    return fd if os.isatty(fd) and _in_foreground(fd) else None


def _in_foreground(fd: int) -> bool:
    """Reading or setting a terminal from the background would stop this process."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not our controlling terminal: nobody stops us there
        return True


def _listen(fd: int, acts: Mapping[bytes, Callable[[str], None]], over: threading.Event) -> None:
    while not over.is_set():
        ready, _, _ = select.select([fd], [], [], _LOOK_S)
        if not ready or not _in_foreground(fd):
            over.wait(_LOOK_S)
            continue
        try:
            key = os.read(fd, 1)
        except OSError:  # the terminal is gone
            return
        if not key:
            return
        if key in acts:
            acts[key]("key")
