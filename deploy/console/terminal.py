"""The overview for a terminal: what the first page shows, as text; works over a slow line and without a browser."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group as Rows
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..station.folder import read_whole
from ..station.hearing import Heard, Hearing
from .alarm_book import MARKS, AlarmBook, Priority
from .alarm_conditions import conditions_of, missed_pages, silent_condition
from .live_values import SITE, live_values
from .sheet import Sheet, main_signal, unit_text
from .site_warnings import SiteWarnings
from .state_feed import StateFeed
from .words import heard_words

_BAR_CELLS = 12
_STYLES: Mapping[str, str] = {"high": "bold white on red", "medium": "bold black on yellow", "low": "bold"}
_MOST_ALARMS = 6
_BESIDE_S = 0.5
"""Between two looks at what the live twin and the pages write."""


class TerminalOverview:
    """Draws what the feed has; its alarms are its own, and are acknowledged and shelved on the pages."""

    def __init__(self, feed: StateFeed) -> None:
        self._feed = feed
        self._book = AlarmBook()
        self._site = SiteWarnings()
        self._hearing = Hearing(feed.station)
        self._heard: tuple[Heard, ...] = ()
        self._verdict: Mapping[str, Any] | None = None
        self._beside_s = -_BESIDE_S
        self.said = ""
        """The last thing that was done from here, in words."""

    def draw(self) -> RenderableType:
        """All of it, as the feed was when it last looked."""
        sheet, state = self._feed.sheet, self._feed.state
        if sheet is None or state is None:
            return Text(self._feed.trouble or "no state yet")
        live = live_values(sheet, state)[SITE]
        rows: list[RenderableType] = [self._heading(sheet, live)]
        if self._feed.is_stale and not state.get("ended"):
            rows.append(Text(f"■ STALE: the newest state is {self._feed.age_s:.0f} s old", _STYLES["high"]))
        if self._feed.trouble:
            rows.append(Text(f"▲ {self._feed.trouble}", _STYLES["medium"]))
        if self._feed.station.stop.exists() and not state.get("stop"):
            rows.append(Text("■ emergency stop ordered, not seen to be carried out yet", _STYLES["high"]))
        if not state.get("ended"):
            self._look_beside()
            rows += [Text(heard_words(one), _STYLES["medium"] if one.is_silent else "") for one in self._heard]
        rows += self._alarms(sheet, state)
        rows += [_assets(sheet, state, live, group.name) for group in sheet.nameplate.groups]
        rows.append(
            Text(
                f"cycle p50 / p99 / p99.9 {live['site:cycle']}, jitter {live['site:jitter']}, "
                f"missed {live['site:misses']}"
            )
        )
        if self.said:
            rows.append(Text(self.said, "bold"))
        return Rows(*rows)

    def _heading(self, sheet: Sheet, live: Mapping[str, str]) -> Text:
        text = Text(f"{sheet.nameplate.site}  ", "bold")
        text.append(live["site:status"], _STYLES.get(live["site:status-state"], ""))
        text.append(f"  period {live['site:number']}, {live['site:clock']}; {live['site:modes']}", "not bold")
        return text

    def _look_beside(self) -> None:
        """At the live twin and the pages."""
        now_s = time.monotonic()
        if now_s - self._beside_s < _BESIDE_S:
            return
        self._beside_s, self._heard = now_s, self._hearing.look()
        try:
            self._verdict = read_whole(self._feed.station.twin / "verdict.json")
        except (OSError, ValueError):
            self._verdict = None

    def _alarms(self, sheet: Sheet, state: Mapping[str, Any]) -> list[RenderableType]:
        conditions = conditions_of(sheet, state, self._verdict) + self._site.conditions(sheet, state)
        conditions += [] if state.get("ended") else missed_pages(self._heard)
        if self._feed.is_stale and not state.get("ended"):
            conditions.append(silent_condition(self._feed.age_s, self._feed.stale_after_s))
        self._book.update(conditions, time.time())
        standing = {c.key for c in conditions}
        shown = [a for a in self._book.shown() if a.condition.key in standing]
        found: list[RenderableType] = [
            Text(f"{MARKS[a.condition.priority]} {a.condition.asset} {a.condition.text}".replace("  ", " "),
                 _STYLES[a.condition.priority.value])
            for a in shown[:_MOST_ALARMS]
        ]  # fmt: skip
        if len(shown) > _MOST_ALARMS:
            found.append(Text(f"and {len(shown) - _MOST_ALARMS} more alarms"))
        return found or [Text("no alarms")]


def _assets(sheet: Sheet, state: Mapping[str, Any], live: Mapping[str, str], name: str) -> Table:
    group = sheet.nameplate.group(name)
    main = main_signal(group)
    table = Table(show_edge=False, pad_edge=False, box=None)
    unit = unit_text(main) if main else ""
    shown = (f"{main.name}{', ' if unit else ''}{unit}", "") if main else ()
    for heading in (name, "mode", "who commands", *shown, "why"):
        table.add_column(heading, justify="left", no_wrap=heading != "why")
    for asset in group.assets:
        agent = f"{name}/{asset}"
        style = _STYLES.get(live[f"mode-state:{agent}"], "")
        grave = live[f"mode-state:{agent}"]
        mark = f"{MARKS[Priority(grave)]} " if grave != "normal" else ""
        cells: list[RenderableType] = [asset, Text(mark + live[f"mode:{agent}"], style)]
        cells.append(f"{live[f'slot:{agent}']} {live[f'who:{agent}']}".strip())
        if main is not None:
            full = f"{agent}/{main.name}"
            quality = live[f"quality:{full}"]
            cells += [f"{live[f'value:{full}']}{'' if quality == 'good' else f' {quality}'}", _bar(live[f"bar:{full}"])]
        table.add_row(*cells, live[f"cause:{agent}"])
    return table


def _bar(place: str) -> str:
    at = float(place)
    if at < 0.0:
        return "·" * _BAR_CELLS
    filled = round(at / 100.0 * _BAR_CELLS)
    return "█" * filled + "·" * (_BAR_CELLS - filled)
