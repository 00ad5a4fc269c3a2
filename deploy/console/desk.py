"""All that the pages hold of one station, and the round that keeps it fresh; knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...envs.errors import ConfigurationError, JournalError
from ..journal import Journal
from ..station.folder import StationFolder, read_whole, write_whole
from ..station.hearing import LIVE_TWIN, Hearing, pages_beat
from ..station.people import People
from .alarm_book import MARKS, WINDOW_S, AlarmBook, Condition, Priority
from .alarm_conditions import conditions_of, silent_condition
from .asking import Asking
from .chain_watch import ChainWatch
from .live_values import SITE, live_values
from .sessions import Sessions, Tries
from .site_warnings import SiteWarnings
from .state_feed import LOOK_S, StateFeed
from .stream import Broadcast
from .trend import Trend
from .words import heard_words

_LOG = logging.getLogger(__name__)

_SLOW_S = 0.5
"""Between two looks at what changes seldom: alarms' clocks, proposals, the live twin's verdict."""
_CHAIN_S = 2.0
_BEAT_S = 5.0


class Desk:
    """Opened by :meth:`open`; :meth:`keep` runs as long as the pages do."""

    def __init__(self, station: StationFolder) -> None:
        self.station = station
        self.feed = StateFeed(station)
        self.broadcast = Broadcast()
        self.asking = Asking(station)
        self.sessions = Sessions()
        self.tries = Tries()
        self.alarms = AlarmBook()
        self._site = SiteWarnings()
        self.chain = ChainWatch(station.journal)
        self.trend: Trend | None = None
        self.verdict: Mapping[str, Any] | None = None
        self._hearing, self._beside, self._beat_s = Hearing(station), "", -_BEAT_S
        self.is_logging = True
        folder = station.path / "console"
        self.own_journal = folder / "journal.sqlite"
        self._log = Journal(self.own_journal)
        self._alarm_file = folder / "alarms.json"
        self._saved_version = 0
        self._misses: deque[tuple[float, int]] = deque()
        self._version_of_proposals = ""
        self._people: People | None = None
        self._people_seen = (0, 0, 0)
        self._events: list[Mapping[str, Any]] = []
        self.checking = asyncio.Semaphore(2)
        """Passwords that are checked at a time: each takes 32 MiB and a tenth of a second."""

    def open(self) -> None:
        """Check the station and read what an earlier process left; raises :class:`ConfigurationError`."""
        self.station.check()
        self._alarm_file.parent.mkdir(mode=0o770, exist_ok=True)
        self.people()
        try:
            if (found := read_whole(self._alarm_file)) is not None:
                self.alarms = AlarmBook.from_dict(found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("%s: cannot be read (%s); alarms begin anew", self._alarm_file, error)
        self.note({"kind": "console_start"})
        self.round(slow=True)

    def close(self) -> None:
        """Take leave: pages that end as they should are not missed."""
        with suppress(OSError):  # a station out of reach: then they count as gone, which they are
            pages_beat(self.station).unlink(missing_ok=True)
        self._log.close()

    def people(self) -> People:
        """Those whom an administrator of this station vouches for, as their file is now."""
        try:
            stat = self.station.people.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            seen = (0, 0, 0)
        if self._people is None or seen != self._people_seen:
            found = People.read(self.station.people)
            self._people, self._people_seen = found.vouched(found.administrators()), seen
        return self._people

    def note(self, record: Mapping[str, Any]) -> None:
        """Append to the pages' own chained journal; raises :class:`JournalError`: what can't be recorded isn't done."""
        try:
            self._log.append({"utc_s": time.time(), **record})
            self.is_logging = True
        except JournalError:
            self.is_logging = False
            raise

    async def record(self, record: Mapping[str, Any]) -> None:
        """:meth:`note`, without keeping the pages while the disk takes it."""
        await asyncio.to_thread(self.note, record)

    async def keep(self) -> None:
        """Look for what is new until cancelled."""
        slow_s = chain_s = 0.0
        while True:
            now_s = time.monotonic()
            is_slow = now_s - slow_s >= _SLOW_S
            if is_slow:
                slow_s = now_s
            try:
                self.round(slow=is_slow)
                if now_s - chain_s >= _CHAIN_S:
                    chain_s = now_s
                    if self.chain.path != self.journal:
                        self.chain = ChainWatch(self.journal)
                    await asyncio.to_thread(self.chain.check)
                if self._events:
                    events, self._events = self._events, []
                    await asyncio.to_thread(self._note_events, events)
            except Exception:  # noqa: BLE001 - the pages must go on: one wrong file may not end them
                _LOG.exception("console: a round failed")
            await asyncio.sleep(LOOK_S)

    def round(self, *, slow: bool) -> None:
        """Read a new state if there is one, and tell viewers what changed."""
        is_new = self.feed.look()
        sheet, state = self.feed.sheet, self.feed.state
        if slow:
            self._look_around()
        if sheet is None or state is None or not (is_new or slow):
            if slow:
                self.broadcast.tell({SITE: self._told()}, None)
            return
        utc_s = time.time()
        if is_new:
            if self.trend is None or self.trend.sheet is not sheet:
                self.trend, self._misses = Trend(sheet), deque()
            self.trend.add(state)
        self._update_alarms(utc_s)
        live = live_values(sheet, state) if is_new else {SITE: dict(self.broadcast.live.get(SITE, {}))}
        live.setdefault(SITE, {}).update(self._told())
        self.broadcast.tell(live, state.get("utc_s"))

    def _update_alarms(self, utc_s: float) -> None:
        sheet, state = self.feed.sheet, self.feed.state
        if sheet is None or state is None:
            return
        misses = int((state.get("cycle") or {}).get("misses", 0))
        self._misses.append((utc_s, misses))
        while utc_s - self._misses[0][0] > WINDOW_S:
            self._misses.popleft()
        conditions = conditions_of(sheet, state, self.verdict, self._misses[0][1])
        conditions += self._site.conditions(sheet, state)
        if self.feed.is_stale and not state.get("ended"):
            conditions.append(silent_condition(self.feed.age_s, self.feed.stale_after_s))
        if self.chain.state.fault:
            text = f"the journal is not as it was: {self.chain.state.fault}; keep it, and look with `twinloop audit`"
            conditions.append(Condition("site/journal", Priority.HIGH, text, shelvable=False))
        self._events += self.alarms.update(conditions, utc_s)
        if self.alarms.version != self._saved_version:
            self.save_alarms()

    def save_alarms(self) -> None:
        """Keep what is acknowledged and shelved for the next process."""
        self._saved_version = self.alarms.version
        write_whole(self._alarm_file, self.alarms.to_dict(), durable=False)

    def _note_events(self, events: list[Mapping[str, Any]]) -> None:
        try:
            for event in events:
                self.note(event)
        except JournalError as error:  # an alarm is shown whether or not it can be recorded
            _LOG.error("console: %s", error)

    def _beat(self) -> None:
        """A sign of life, for who looks at the station from elsewhere."""
        if time.monotonic() - self._beat_s < _BEAT_S:
            return
        self._beat_s = time.monotonic()
        with suppress(OSError):  # its age tells
            write_whole(pages_beat(self.station), {"utc_s": time.time(), "pid": os.getpid()}, durable=False)

    def _look_around(self) -> None:
        self._beat()
        self._beside = "; ".join(heard_words(one) for one in self._hearing.look() if one.who == LIVE_TWIN)
        try:
            self.verdict = read_whole(self.station.twin / "verdict.json")
        except (OSError, ValueError):
            self.verdict = None
        newest = 0
        n = 0
        try:
            for folder in self.station.proposals.iterdir():
                n += 1
                newest = max(newest, folder.stat().st_mtime_ns)
        except OSError:
            pass
        executions = (self.feed.state or {}).get("executions") or {}
        stages = [(k, e.get("status"), e.get("stage")) for k, e in sorted(executions.items())]
        self._version_of_proposals = f"{n} {newest} {stages}"

    def _told(self) -> dict[str, str]:
        """Texts of every page that are not the state's."""
        shown = self.alarms.shown()
        told = {f"alarms:{p.value}": str(sum(a.condition.priority is p for a in shown)) for p in Priority}
        fresh = [a for a in shown if a.state.value == "unacknowledged"]
        told["alarms:unacknowledged"] = str(len(fresh))
        told["alarms:text"] = shown[0].condition.text if shown else "no alarms"
        told["alarms:mark"] = MARKS[shown[0].condition.priority] if shown else ""
        told["alarms:state"] = shown[0].condition.priority.value if shown else "normal"
        told["alarms:version"] = str(self.alarms.version)
        told["proposals:version"] = self._version_of_proposals
        told["console:log"] = "" if self.is_logging else "the pages cannot record what is done: no action but the stop"
        told["console:trouble"] = self.feed.trouble
        told["console:beside"] = self._beside
        fault = self.chain.state.fault
        told["journal:fault"] = f"the journal is not as it was: {fault}" if fault else ""
        told["stop:ordered"] = "ordered" if self.station.stop.exists() else ""
        for agent in self.feed.sheet.nameplate.agents if self.feed.sheet else ():
            told[f"mark:{agent}"] = ""
        for alarm in reversed(shown):
            if alarm.condition.asset:
                told[f"mark:{alarm.condition.asset}"] = MARKS[alarm.condition.priority]
        return told

    @property
    def journal(self) -> Path:
        """The control process' journal, where it says that it is."""
        told = self.feed.sheet.raw.get("journal") if self.feed.sheet else None
        return Path(told) if isinstance(told, str) and told else self.station.journal

    def now_utc_s(self) -> float:
        """The time of the day that approvals and alarms carry."""
        return time.time()

    def require_sheet(self) -> None:
        """Raise :class:`ConfigurationError` while there is no run to show."""
        if self.feed.sheet is None or self.feed.state is None:
            raise ConfigurationError(self.feed.trouble or "no run yet")
