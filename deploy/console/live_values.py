"""A state as short texts by key: what a page shows, what the stream sends when it changes, what a terminal prints.

Keys name an element of a page: ``mode:ASSET``, ``value:SIGNAL``, ``sent:SIGNAL`` and so on, with full names
``group/asset`` and ``group/asset/signal``. Keys of the topic ``site`` are on every page; those of an asset's topic on
its own page and in the table of all signals.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..shield import Mode
from .sheet import NONE, Sheet, main_signal, number_text
from .words import QUALITY_WORDS, Change, code_words, slot_words

Live = dict[str, dict[str, str]]
"""Texts by key, by topic."""

SITE = "site"
BAR = 100.0
"""Width of an analog bar, in its own units."""

ABNORMAL_MODES: Mapping[str, str] = {Mode.DEGRADED: "low", Mode.BACKUP: "medium", Mode.TRIPPED: "high"}
"""Modes that are no person's choice, and how grave they are."""


def live_values(sheet: Sheet, state: Mapping[str, Any]) -> Live:
    """All texts of one ``state.json``."""
    live: Live = {SITE: _site(state)}
    inputs, commands = _changes(state.get("reasons") or ())
    for group in sheet.nameplate.groups:
        found = state.get("groups", {}).get(group.name)
        if found is None:
            continue
        main = main_signal(group)
        for row, asset in enumerate(group.assets):
            agent = f"{group.name}/{asset}"
            detail: dict[str, str] = {}
            for signal in group.measured:
                name = f"{agent}/{signal.name}"
                value = _at(found["measured"], signal.name, row)
                quality = _at(found["quality"], signal.name, row)
                where = live[SITE] if signal is main else detail
                where[f"value:{name}"] = number_text(value, signal)
                where[f"quality:{name}"] = QUALITY_WORDS[quality] if quality in (0, 1, 2) else "unknown"
                detail[f"heed:{name}"] = inputs.get((agent, signal.name), "")
                where[f"bar:{name}"] = bar_place(value, signal.minimum, signal.maximum)
            slots = [0]
            for signal in group.commanded:
                name = f"{agent}/{signal.name}"
                for what in ("asked", "sent", "accepted"):
                    detail[f"{what}:{name}"] = number_text(_at(found.get(what), signal.name, row), signal)
                slot = _at(found.get("slot"), signal.name, row) or 0
                slots.append(slot)
                detail[f"slot:{name}"] = slot_words(slot)
                why = commands.get((agent, signal.name)) or commands.get((agent, ""))
                detail[f"why:{name}"] = why or ""
            live[SITE].update(_asset(state, agent, min((s for s in slots if s), default=0)))
            live[agent] = detail
    return live


def _site(state: Mapping[str, Any]) -> dict[str, str]:
    cycle = state.get("cycle") or {}
    ended = state.get("ended")
    if state.get("stop"):
        status = "EMERGENCY STOP HELD"
    elif ended:
        status = f"run ended: {ended}"
    else:
        status = "handing back" if state.get("handing_back") else "running"
    modes = list((state.get("modes") or {}).values())
    return {
        "site:status": status,
        "site:status-state": "high" if state.get("stop") else "low" if ended else "normal",
        "site:number": str(state.get("number", "")),
        "site:clock": clock_text(state.get("utc_s")),
        "site:plant-clock": clock_text(state.get("plant_time_s")),
        "site:ceiling": str(state.get("ceiling") or ""),
        "site:modes": ", ".join(f"{modes.count(m)} {m.value}" for m in Mode if m.value in modes),
        "site:cycle": _ms(cycle.get("p50_ms")) + " / " + _ms(cycle.get("p99_ms")) + " / " + _ms(cycle.get("p999_ms")),
        "site:jitter": _ms(cycle.get("jitter_p99_ms")),
        "site:misses": f"{cycle.get('misses', 0)} of {cycle.get('periods', 0)}",
    }


def _asset(state: Mapping[str, Any], agent: str, slot: int) -> dict[str, str]:
    mode = (state.get("modes") or {}).get(agent, "unknown")
    cause = (state.get("causes") or {}).get(agent)
    return {
        f"mode:{agent}": mode,
        f"mode-state:{agent}": ABNORMAL_MODES.get(mode, "normal"),
        f"cause:{agent}": code_words(cause) if cause else "",
        f"slot:{agent}": slot_words(slot),
        f"who:{agent}": str((state.get("who") or {}).get(agent) or ""),
        f"source:{agent}": str((state.get("sources") or {}).get(agent) or "").replace("_", " "),
    }


def _changes(rows: Sequence[Sequence[Any]]) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    """Words by asset and signal, of inputs and of commands; the first of several is the one that decided."""
    inputs: dict[tuple[str, str], str] = {}
    commands: dict[tuple[str, str], str] = {}
    for row in rows:
        change = Change.of(row)
        found = inputs if change.code.startswith("input_") else commands
        found.setdefault((change.asset, change.signal), change.words)
    return inputs, commands


def _at(table: Any, signal: str, row: int) -> Any:
    column = table.get(signal) if isinstance(table, Mapping) else None
    return column[row] if isinstance(column, Sequence) and row < len(column) else None


def bar_place(value: Any, low: float, high: float) -> str:
    """Where a value stands on its analog bar, 0 to :data:`BAR`, or off it where there is none."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "-9"
    return f"{BAR * min(max((value - low) / (high - low), 0.0), 1.0):.1f}"


def clock_text(utc_s: Any) -> str:
    """UTC to the second."""
    if not isinstance(utc_s, (int, float)) or not math.isfinite(utc_s):
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(utc_s))
    except (OverflowError, ValueError, OSError):
        return f"{utc_s:.0f} s"


def _ms(value: Any) -> str:
    return f"{value:.1f} ms" if isinstance(value, (int, float)) else NONE
