"""The emergency stop as pages and the terminal overview press it: a file, and nothing in its way."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime

from ..station.folder import StationFolder


def press(station: StationFolder, by: str) -> str:
    """Order the stop in the name of ``by``; returns what was done. Raises OSError where nothing can be written.

    That the file exists is what counts; its text says who. Control looks each period, and the watchdog too.
    """
    words = " ".join(by.split())[:200] or "somebody"
    text = f"{words}, {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
    beside = station.stop.with_name(f".STOP.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(station.stop)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        station.stop.touch()
    return f"emergency stop ordered by {words}"
