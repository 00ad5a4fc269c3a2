"""Faults of single measured signals: MAVLink's seven types of failure, numbers that are none, and times that lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Code, Source
from ....envs.nameplate import Signal
from ....envs.plant import Quality, Telemetry
from .scene import (
    CONSTANT,
    ONSET,
    STUCK_AFTER,
    Case,
    Expect,
    Hook,
    Played,
    Turn,
    agent_of,
    copied,
    not_told,
    quiet,
    site_of,
    source,
    told,
)

Floats = NDArray[np.float64]
VICTIM = 1
LAST_BAD = 11
PERIODS = 20
INPUT_CODES = tuple(c for c in Code if c.startswith("input_"))
HIDDEN = (Code.INPUT_JUMP, Code.INPUT_RANGE, Code.INPUT_UNIT, Code.INPUT_SWAPPED)
"""A wrong value is told by where it lies; which of these fits depends on the signal."""

Edit = Callable[[int, float, float], tuple[float, float, int]]
"""From the periods since the onset, the value and its time, to what is said instead, with a quality."""


def cases() -> Iterable[Case]:
    """All of them, for every measured signal of both sites."""
    for site in ("farm", "yard"):
        for group in site_of(site).nameplate.groups:
            for signal in group.measured:
                for name, edit, expect in _table(site, group.name, signal):
                    hook = _hook(group.name, group.index("measured", signal.name), edit)
                    yield Case("input", f"{site}/{signal.name}: {name}", site, hook, expect, periods=PERIODS)
                for name, value in (("denormal", 5e-324), ("minus zero", -0.0)):
                    yield _like_zero(site, group.name, signal, name, value)


def _table(site: str, group: str, signal: Signal) -> Iterable[tuple[str, Edit, tuple[Expect, ...]]]:
    agent = agent_of(site, group)
    period_s = site_of(site).nameplate.period_s
    span, good = signal.maximum - signal.minimum, int(Quality.GOOD)
    back = (source(PERIODS - 1, agent, Source.POLICY), not_told(*INPUT_CODES, first=PERIODS - 1))
    lost = (
        source(ONSET, agent, Source.SUBSTITUTED),
        source(ONSET + 1, agent, Source.SUBSTITUTED),
        source(ONSET + 2, agent, Source.FALLBACK),
        told(ONSET + 2, Code.INPUT_LOST, agent=agent),
    )

    def at_once(*codes: Code) -> tuple[Expect, ...]:
        return (quiet(3, ONSET - 1), told(ONSET, *codes, agent=agent), *lost, *back)

    stuck_at: list[float] = []

    def stuck(since: int, value: float, time_s: float) -> tuple[float, float, int]:
        if since == 0:
            stuck_at[:] = [value]
        return stuck_at[0], time_s, good

    def slow(since: int, value: float, time_s: float) -> tuple[float, float, int]:
        if since % 5 == 0:
            stuck_at[:] = [value, time_s]
        return stuck_at[0], stuck_at[1], good

    def biased(since: int, value: float, time_s: float) -> tuple[float, float, int]:
        if signal.name == CONSTANT:
            return 100.0 * value, time_s, good
        return value + (0.45 if value < signal.minimum + 0.5 * span else -0.45) * span, time_s, good

    def said(value: float) -> Edit:
        return lambda since, _, time_s: (value, time_s, good)

    late = ONSET + STUCK_AFTER
    yield "off", lambda since, v, t: (v, t, int(Quality.BAD)), at_once(Code.INPUT_BAD_QUALITY)
    yield "garbage", lambda since, v, t: ((-1.0) ** since * 10.0 ** (7 + since), t, good), at_once(*HIDDEN)
    # a jump that lasts is believed in the end: what changed for good is no fault of the signal
    held = (source(ONSET, agent, Source.SUBSTITUTED), source(ONSET + 1, agent, Source.SUBSTITUTED))
    yield "wrong", biased, (quiet(3, ONSET - 1), told(ONSET, *HIDDEN, agent=agent), *held, *back)
    yield "slow", slow, (told(ONSET + 3, Code.INPUT_STALE, agent=agent), source(ONSET + 2, agent, Source.POLICY), *back)
    yield "delayed", lambda since, v, t: (v, t - 4.0 * period_s, good), at_once(Code.INPUT_STALE)
    yield (
        "intermittent",
        lambda since, v, t: (v, t, good) if since % 2 else (math.nan, t, good),
        (told(ONSET, Code.INPUT_NOT_FINITE, agent=agent), not_told(Code.INPUT_LOST), *back),
    )
    if signal.name != CONSTANT:
        yield "stuck", stuck, (told(late, Code.INPUT_STUCK, agent=agent), not_told(*INPUT_CODES, last=late - 2), *back)
        yield (
            "quantised",
            lambda since, v, t: (signal.minimum + 0.05 * span * round((v - signal.minimum) / (0.05 * span)), t, good),
            (told(late + 1, Code.INPUT_STUCK, agent=agent), not_told(*INPUT_CODES, first=3, last=ONSET), *back),
        )
        yield (
            "spike",
            lambda since, v, t: biased(since, v, t) if since == 0 else (v, t, good),
            (told(ONSET, *HIDDEN, agent=agent), held[0], source(ONSET + 1, agent, Source.POLICY)),
        )
        yield (
            "drift",
            lambda since, v, t: (v + 0.004 * span * (since if v < signal.minimum + 0.5 * span else -since), t, good),
            (quiet(3),),
        )
    yield "not a number", said(math.nan), at_once(Code.INPUT_NOT_FINITE)
    yield "infinite", said(math.inf), at_once(Code.INPUT_NOT_FINITE)
    yield "minus infinite", said(-math.inf), at_once(Code.INPUT_NOT_FINITE)
    yield "1e30", said(1e30), at_once(*HIDDEN)
    yield (
        "frozen time",
        lambda since, v, t: (v, t - since * period_s, good),
        (quiet(3, ONSET + 2), told(ONSET + 3, Code.INPUT_STALE, agent=agent), *back),
    )
    yield "future", lambda since, v, t: (v, t + 3600.0, good), at_once(Code.INPUT_FUTURE)
    yield "no time", lambda since, v, t: (v, math.nan, good), at_once(Code.INPUT_STALE)
    yield "unknown quality", lambda since, v, t: (v, t, 77), at_once(Code.INPUT_BAD_QUALITY)


def _hook(group: str, column: int, edit: Edit, last: int = LAST_BAD) -> Hook:
    def hook(period: int, turn: Turn) -> None:
        if not ONSET <= period <= last:
            return
        tables = copied(turn.telemetry)
        at = (VICTIM, column)
        value, time_s, quality = edit(
            period - ONSET, float(tables["values"][group][at]), float(tables["source_time_s"][group][at])
        )
        tables["values"][group][at] = value
        tables["source_time_s"][group][at] = time_s
        tables["quality"][group][at] = quality
        turn.telemetry = with_tables(turn.telemetry, tables)

    return hook


def with_tables(telemetry: Telemetry, tables: dict[str, Any]) -> Telemetry:
    """The reading with other values, times and qualities."""
    return replace(telemetry, values=tables["values"], source_time_s=tables["source_time_s"], quality=tables["quality"])


def _like_zero(site: str, group: str, signal: Signal, name: str, value: float) -> Case:
    """A number that is as good as zero is judged and answered like zero."""
    column = site_of(site).nameplate.group(group).index("measured", signal.name)

    def says(number: float) -> Hook:
        return _hook(group, column, lambda since, _, time_s: (number, time_s, int(Quality.GOOD)))

    def expect(played: Played) -> Iterable[str]:
        plain = Case("input", "zero", site, says(0.0), periods=PERIODS).play()
        for k, (ours, theirs) in enumerate(zip(played.records, plain.records, strict=True)):
            codes = [[(r.asset, r.signal, r.code) for r in x.decision.reasons] for x in (ours, theirs)]
            if codes[0] != codes[1]:
                yield f"period {k}: {codes[0]} instead of {codes[1]}, which zero gives"
            for n, c in ours.decision.commands.items():
                if not np.array_equal(c, theirs.decision.commands[n]):
                    yield f"period {k}: {n} is sent other commands than for zero"

    return Case("input", f"{site}/{signal.name}: {name}", site, says(value), (expect,), periods=PERIODS)
