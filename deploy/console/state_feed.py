"""The latest state of a station, looked for again and again, and how old it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ...envs.errors import ConfigurationError
from ..station.folder import StationFolder, read_whole
from .sheet import FRESH_S, Sheet, read_sheet

LOOK_S = 0.025
"""Seconds between two looks at the file; a look is one ``stat``."""

_MOST_AHEAD_S = 1.0


class StateFeed:
    """Reads ``state.json`` and ``control.json`` when they change. ``clock``: monotonic seconds; ``utc``: of the day."""

    def __init__(
        self,
        station: StationFolder,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], float] = time.time,
    ) -> None:
        self.station = station
        self.sheet: Sheet | None = None
        self.state: Mapping[str, Any] | None = None
        self.trouble = "no run yet: `twinloop run --station` writes the first state"
        """Why there is nothing to show, in words; empty while there is."""
        self._clock, self._utc = clock, utc
        self._seen: dict[str, tuple[int, int]] = {}
        self._at_s = clock()
        self._was_s = 0.0

    def look(self) -> bool:
        """Read what is new; True where there is a new state."""
        try:
            if self._moved("control", self.station.control):
                self.sheet = read_sheet(self.station)
            if not self._moved("state", self.station.state):
                return False
            state = read_whole(self.station.state)
            if state is None or self.sheet is None:
                return False
            if state.get("format") != 1:
                raise ConfigurationError(f"{self.station.state}: of format {state.get('format')!r}, not 1")
        except (ConfigurationError, ValueError, OSError) as error:
            self.trouble = str(error)
            return False
        told_s = state.get("utc_s")
        age_s = self._utc() - told_s if isinstance(told_s, (int, float)) else 0.0
        self._at_s, self._was_s = self._clock(), max(age_s, 0.0)
        self.state = state
        self.trouble = ""
        if age_s < -_MOST_AHEAD_S:
            self.trouble = (
                f"the state is {-age_s:.0f} s ahead of this clock; set the clocks of both processes' machines"
            )
        return True

    @property
    def age_s(self) -> float:
        """Of the state: what it was when it was found, and the time since; a step of the clock changes nothing."""
        return self._was_s + self._clock() - self._at_s

    @property
    def stale_after_s(self) -> float:
        return self.sheet.stale_after_s if self.sheet else FRESH_S

    @property
    def is_stale(self) -> bool:
        return self.state is None or self.age_s > self.stale_after_s

    def _moved(self, name: str, path: Any) -> bool:
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen == self._seen.get(name):
            return False
        self._seen[name] = seen
        return True
