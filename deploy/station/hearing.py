"""Which processes beside control are heard, the live twin and the pages: by how old their latest sign of life is.

Control needs neither. Who looks at a station must know all the same that one of them is gone: a file that nobody writes
any more looks like one that was written just now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .folder import StationFolder

LIVE_TWIN, PAGES = "live twin", "pages"
SILENT_S = 15.0
"""From this age on a process counts as not heard; each gives a sign of life every five seconds at least."""
_LOOK_S = 1.0


class Heard(NamedTuple):
    """How long ago ``who`` gave a sign of life."""

    who: str
    age_s: float

    @property
    def is_silent(self) -> bool:
        return self.age_s > SILENT_S


def pages_beat(station: StationFolder) -> Path:
    """The pages' sign of life; they take it away when they end as they should."""
    return station.path / "console" / "beat.json"


class Hearing:
    """Looks at the files; those that were never there are not waited for. ``clock``: monotonic; ``utc``: of the day."""

    def __init__(
        self,
        station: StationFolder,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], float] = time.time,
    ) -> None:
        self._files = {LIVE_TWIN: station.twin / "verdict.json", PAGES: pages_beat(station)}
        self._clock, self._utc = clock, utc
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self) -> tuple[Heard, ...]:
        """Who was ever heard, and when last; a folder that can't be looked at changes nothing but ages."""
        now_s = self._clock()
        for who, path in self._files.items():
            try:
                written = path.stat()
            except FileNotFoundError:
                if path.parent.is_dir():  # it took its leave; else the station itself is out of reach
                    self._seen.pop(who, None)
                continue
            except OSError:
                continue
            if self._seen.get(who, (0, 0.0))[0] != written.st_mtime_ns:
                age_s = max(self._utc() - written.st_mtime, 0.0)
                self._seen[who] = written.st_mtime_ns, now_s - age_s
        return tuple(Heard(who, now_s - at_s) for who, (_, at_s) in self._seen.items())


class RollCall:
    """Tells control's own journal and terminal who stops being heard, and who is back: once each.

    A process that was not heard since control began is not missed.
    """

    def __init__(self, hearing: Hearing, clock: Callable[[], float] = time.monotonic) -> None:
        self._hearing, self._clock = hearing, clock
        self._next_s = clock()
        self._here: dict[str, bool] = {}

    def changes(self) -> list[Mapping[str, Any]]:
        """What changed since the last call: ``who``, ``heard``, ``silent_s``; looks at most once a second."""
        now_s = self._clock()
        if now_s < self._next_s:
            return []
        self._next_s = now_s + _LOOK_S
        found = list[Mapping[str, Any]]()
        heard = {one.who: one for one in self._hearing.look()}
        for who in self._here.keys() - heard.keys():
            del self._here[who]
        for who, one in heard.items():
            was_here = self._here.get(who)
            if was_here is None and one.is_silent:
                continue
            self._here[who] = not one.is_silent
            if was_here is not None and was_here == one.is_silent:
                found.append({"who": who, "heard": not one.is_silent, "silent_s": round(one.age_s, 1)})
        return found


def told(change: Mapping[str, Any]) -> str:
    """A change of :class:`RollCall` in words."""
    if change["heard"]:
        return f"{change['who']}: heard again"
    return f"{change['who']}: not heard for {change['silent_s']:.0f} s; control goes on without it"
