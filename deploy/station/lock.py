"""One control process a station: a plant has one master."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ...envs.errors import ConfigurationError
from .folder import StationFolder


@contextmanager
def sole_control(station: StationFolder) -> Iterator[None]:
    """Inside, this process alone controls the station; the lock ends with the process, however it ends.

    Raises :class:`ConfigurationError` that names the process that controls it already.
    """
    path = station.path / "control.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = os.read(descriptor, 64).decode("ascii", "replace").strip()
            raise ConfigurationError(
                f"{station.path}: process {told or 'unknown'} controls it already; end that one first (kill -TERM "
                f"{told or 'PID'}), or give this one a station of its own"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
