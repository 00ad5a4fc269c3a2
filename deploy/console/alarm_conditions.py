"""Which alarms stand in a state: few, each with a thing to do, none twice for one cause.

A cause that holds for the whole site is one alarm, not one an asset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..shield import Mode
from ..station.hearing import PAGES, SILENT_S, Heard
from .alarm_book import Condition, Priority
from .sheet import Sheet
from .words import SITE_CODES, code_words

_BAD = 2
_TWIN_SILENT_S, _TWIN_SILENT_PERIODS = 30.0, 10.0
"""Where the twin's process does not tell itself from when on it counts as silent."""
_GRAVITY = {Mode.TRIPPED: Priority.HIGH, Mode.BACKUP: Priority.MEDIUM, Mode.DEGRADED: Priority.LOW}


def silent_condition(age_s: float, limit_s: float) -> Condition:
    """Control has said nothing for too long."""
    return Condition(
        "site/silent", Priority.HIGH,
        f"control has been silent for more than {limit_s:.1f} s: see to its process; the watchdog takes the plant",
        shelvable=False,
    )  # fmt: skip


def missed_pages(heard: Sequence[Heard]) -> list[Condition]:
    """The pages are gone without having taken their leave; told by who is not one of them."""
    text = f"the pages have given no sign for more than {SILENT_S:.0f} s: see to `twinloop console`"
    return [Condition("site/pages-silent", Priority.LOW, text) for one in heard if one.who == PAGES and one.is_silent]


def conditions_of(
    sheet: Sheet, state: Mapping[str, Any], verdict: Mapping[str, Any] | None = None, misses_before: int | None = None
) -> list[Condition]:
    """All that stand in a state. ``verdict``: the live twin's; ``misses_before``: the count some minutes ago."""
    found = [] if state.get("ended") else _of_modes(state)
    if state.get("stop"):
        found.append(
            Condition("site/stop", Priority.HIGH, "emergency stop is held; reset it when it is safe", shelvable=False)
        )
    if state.get("ended"):
        found.append(Condition("site/ended", Priority.MEDIUM, f"the run has ended: {state['ended']}"))
    found += _of_readings(sheet, state)
    misses = (state.get("cycle") or {}).get("misses", 0)
    if misses_before is not None and misses > misses_before:
        found.append(
            Condition("site/misses", Priority.LOW, "periods were missed in the last ten minutes: unload the machine")
        )
    found += _of_twin(state, verdict)
    found += _of_executions(state)
    return found


def _of_modes(state: Mapping[str, Any]) -> list[Condition]:
    found: dict[str, Condition] = {}
    causes = state.get("causes") or {}
    for agent, mode in (state.get("modes") or {}).items():
        priority = _GRAVITY.get(mode)
        cause = causes.get(agent) or ""
        if priority is None or cause == "emergency_stop":  # the stop is an alarm of its own
            continue
        trips = priority is Priority.HIGH
        why = code_words(cause) if cause else "no cause is told"
        if cause in SITE_CODES:
            text, key, asset = f"{mode}, the whole site: {why}", f"site/{cause}", ""
        else:
            text, key, asset = f"{mode}: {why}", f"{agent}/mode", agent
        if key not in found or trips:
            found[key] = Condition(key, priority, text, asset, shelvable=not trips)
    return list(found.values())


def _of_readings(sheet: Sheet, state: Mapping[str, Any]) -> list[Condition]:
    found = []
    for group in sheet.nameplate.groups:
        quality = (state.get("groups") or {}).get(group.name, {}).get("quality") or {}
        for row, asset in enumerate(group.assets):
            bad = [name for name, column in quality.items() if row < len(column) and column[row] == _BAD]
            if bad:
                agent = f"{group.name}/{asset}"
                text = f"bad readings: {', '.join(sorted(bad))}"
                found.append(Condition(f"{agent}/readings", Priority.LOW, text, agent))
    return found


def _of_twin(state: Mapping[str, Any], verdict: Mapping[str, Any] | None) -> list[Condition]:
    if verdict is None or state.get("ended"):
        return []
    found = []
    at_s, told_s = state.get("utc_s"), verdict.get("utc_s")
    behind_s = at_s - told_s if isinstance(at_s, (int, float)) and isinstance(told_s, (int, float)) else 0.0
    limit_s = float(verdict.get("stale_after_s") or 0.0)
    limit_s = limit_s or max(_TWIN_SILENT_S, _TWIN_SILENT_PERIODS * float(verdict.get("period_s") or 0.0))
    if behind_s > limit_s:
        text = f"the live twin has said nothing for more than {limit_s:.0f} s: see to its process; no proposals"
        found.append(Condition("site/twin-silent", Priority.LOW, text))
    elif verdict.get("open") is False:
        why = verdict.get("why") or "it does not follow the plant"
        found.append(Condition("site/twin", Priority.LOW, f"the live twin is out of its band, so no proposals: {why}"))
    if verdict.get("alarm"):
        found.append(Condition("site/drift", Priority.LOW, f"the plant drifts from the live twin: {verdict['alarm']}"))
    return found


def _of_executions(state: Mapping[str, Any]) -> list[Condition]:
    found = []
    for proposal, execution in (state.get("executions") or {}).items():
        status, why = execution.get("status"), execution.get("why") or ""
        if status in ("rolling back", "rolled back"):
            key, priority = f"proposal/{proposal}", Priority.MEDIUM
        elif status == "paused":
            key, priority = f"proposal/{proposal}", Priority.LOW
        else:
            continue
        found.append(Condition(key, priority, f"proposal {proposal} {status}: {why}"))
    return found
