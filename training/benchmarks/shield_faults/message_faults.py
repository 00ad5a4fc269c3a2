"""Faults of whole readings and of the clock: what is missing, of another type, shape or order, replayed or spoofed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ....deploy.shield import Code, Source
from ....envs.plant import Telemetry
from .input_faults import HIDDEN, INPUT_CODES, VICTIM, with_tables
from .scene import ONSET, Case, Expect, Hook, Turn, agent_of, copied, not_told, quiet, site_of, source, told

LAST_BAD = 10
PERIODS = 18


def cases() -> Iterable[Case]:
    """All of them, for both sites."""
    for site in ("farm", "yard"):
        group = site_of(site).nameplate.groups[0].name
        agent = agent_of(site)
        back = (source(PERIODS - 1, agent, Source.POLICY), not_told(*INPUT_CODES, first=PERIODS - 1))
        for name, change, codes in _broken(group):
            expect: tuple[Expect, ...] = (
                quiet(3, ONSET - 1),
                told(ONSET, *codes, agent=agent),
                source(ONSET, agent, Source.SUBSTITUTED),
                source(ONSET + 2, agent, Source.FALLBACK),
                *back,
            )
            yield Case("message", f"{site}: {name}", site, _while(change), expect, periods=PERIODS)
        yield from _order(site, agent, back)
        yield from _clock(site, agent)
        yield from _confused(site, group, agent)


def _with(telemetry: Telemetry, **changes: Any) -> Telemetry:
    """The reading with other fields, of whatever type."""
    return replace(telemetry, **changes)


def _while(change: Callable[[Any], Any], first: int = ONSET, last: int = LAST_BAD) -> Hook:
    def hook(period: int, turn: Turn) -> None:
        if first <= period <= last:
            turn.telemetry = change(turn.telemetry)

    return hook


def _broken(group: str) -> Iterable[tuple[str, Callable[[Telemetry], Any], tuple[Code, ...]]]:
    """Readings that are none, of the first group or as a whole."""

    def table(field: str, change: Callable[[Any], Any]) -> Callable[[Telemetry], Any]:
        return lambda t: _with(t, **{field: {**getattr(t, field), group: change(getattr(t, field)[group])}})

    yield "no reading", lambda t: None, (Code.INPUT_MISSING,)
    yield "a dictionary", lambda t: {"values": t.values}, (Code.INPUT_TYPE,)
    yield "text", lambda t: "timeout", (Code.INPUT_TYPE,)
    yield "sequence of text", lambda t: _with(t, sequence=str(t.sequence)), (Code.INPUT_TYPE,)
    yield "sequence not a number", lambda t: _with(t, sequence=math.nan), (Code.INPUT_TYPE,)
    yield "no values", lambda t: _with(t, values=None), (Code.INPUT_MISSING,)
    yield "empty values", lambda t: _with(t, values={}), (Code.INPUT_MISSING,)
    yield "group under another name", lambda t: _with(t, values={f"{group}2": t.values[group]}), (Code.INPUT_MISSING,)
    yield "group of None", table("values", lambda a: None), (Code.INPUT_MISSING,)
    yield "no times", lambda t: _with(t, source_time_s=None), (Code.INPUT_MISSING,)
    yield "no qualities", lambda t: _with(t, quality={}), (Code.INPUT_MISSING,)
    yield "values as text", table("values", lambda a: a.astype(str)), (Code.INPUT_TYPE,)
    yield "values as objects", table("values", lambda a: a.astype(object)), (Code.INPUT_TYPE,)
    yield "complex values", table("values", lambda a: a + 0j), (Code.INPUT_TYPE,)
    yield "boolean values", table("values", lambda a: a > 0), (Code.INPUT_TYPE,)
    yield "masked values", table("values", np.ma.masked_invalid), (Code.INPUT_TYPE,)
    yield "ragged values", table("values", lambda a: [[1.0], [1.0, 2.0]]), (Code.INPUT_TYPE,)
    yield "an asset short", table("values", lambda a: a[:-1]), (Code.INPUT_SHAPE,)
    yield "an asset more", table("values", lambda a: np.vstack([a, a[:1]])), (Code.INPUT_SHAPE,)
    yield "a signal short", table("values", lambda a: a[:, :-1]), (Code.INPUT_SHAPE,)
    yield "a signal more", table("values", lambda a: np.hstack([a, a[:, :1]])), (Code.INPUT_SHAPE,)
    yield "batch axis left on", table("values", lambda a: a[None]), (Code.INPUT_SHAPE,)
    yield "no rows", table("values", lambda a: a[:0]), (Code.INPUT_SHAPE,)
    yield "a scalar", table("values", lambda a: 1.0), (Code.INPUT_SHAPE,)
    yield "times of another shape", table("source_time_s", lambda a: a[0]), (Code.INPUT_SHAPE,)
    yield "qualities as text", table("quality", lambda a: a.astype(str)), (Code.INPUT_TYPE,)


def _order(site: str, agent: str, back: tuple[Expect, ...]) -> Iterable[Case]:
    """What comes twice, late, or again."""
    kept: dict[int, Telemetry] = {}

    def remembering(change: Callable[[int, Telemetry], Any], last: int = LAST_BAD) -> Hook:
        def hook(period: int, turn: Turn) -> None:
            if period == 0:
                kept.clear()
            kept[period] = turn.telemetry
            if ONSET <= period <= last:
                turn.telemetry = change(period, turn.telemetry)

        return hook

    def case(name: str, change: Callable[[int, Telemetry], Any], code: Code, last: int = LAST_BAD) -> Case:
        expect = (quiet(3, ONSET - 1), told(ONSET, code, agent=agent), source(ONSET, agent, Source.SUBSTITUTED), *back)
        return Case("message", f"{site}: {name}", site, remembering(change, last), expect, periods=PERIODS)

    yield case("the same again and again", lambda k, t: kept[ONSET - 1], Code.INPUT_OUT_OF_ORDER)
    yield case("one that comes twice", lambda k, t: kept[ONSET - 1], Code.INPUT_OUT_OF_ORDER, ONSET)
    yield case("two that change places", lambda k, t: kept[ONSET - 2], Code.INPUT_OUT_OF_ORDER, ONSET)
    yield case(
        "an older one under a new number", lambda k, t: _with(kept[k - 4], sequence=t.sequence), Code.INPUT_REPLAYED
    )
    yield case(
        "an old recording with new times",
        lambda k, t: _with(t, values=kept[1].values, source_time_s=kept[1].source_time_s),
        Code.INPUT_REPLAYED,
    )
    yield case("numbers that begin again", lambda k, t: _with(t, sequence=k - ONSET), Code.INPUT_OUT_OF_ORDER, PERIODS)


def _clock(site: str, agent: str) -> Iterable[Case]:
    """The plant's clock lies; commands must stay within their rates all the same."""
    period_s = site_of(site).nameplate.period_s

    def case(name: str, change: Callable[[float, int], Any], *expect: Expect, monotonic: bool = False) -> Case:
        def hook(period: int, turn: Turn) -> None:
            if ONSET <= period <= LAST_BAD:
                now = change(turn.now_s, period)
                if monotonic:
                    turn.clock_s = now
                else:
                    turn.now_s = now

        back = (source(PERIODS - 1, agent, Source.POLICY),)
        # a clock that has come back shows no time: nothing may change, which a heater can't do without a jerk
        return Case(
            "message", f"{site}: clock {name}", site, hook, (*expect, *back), periods=PERIODS,
            known=lambda period: period not in (ONSET, LAST_BAD + 1),
        )  # fmt: skip

    wrong = told(ONSET, Code.INPUT_CLOCK, Code.CLOCK_WRONG)
    yield case("an hour back", lambda t, k: t - 3600.0, wrong)
    yield case("a period back", lambda t, k: t - 2.0 * period_s, wrong)
    yield case("not a number", lambda t, k: math.nan, wrong)
    yield case("infinite", lambda t, k: math.inf, told(ONSET, Code.INPUT_CLOCK, Code.CLOCK_WRONG, Code.INPUT_STALE))
    yield case("text", lambda t, k: "noon", told(ONSET, Code.SHIELD_FAILED, Code.INPUT_CLOCK))
    yield case("None", lambda t, k: None, told(ONSET, Code.SHIELD_FAILED, Code.INPUT_CLOCK))
    yield case("an hour ahead", lambda t, k: t + 3600.0, told(ONSET, Code.INPUT_STALE, agent=agent))
    yield case("standing still", lambda t, k: t - (k - ONSET + 1) * period_s, wrong)
    yield case("monotonic one back", lambda t, k: t - 3600.0, wrong, monotonic=True)
    yield case("monotonic one not a number", lambda t, k: math.nan, wrong, monotonic=True)


def _confused(site: str, group: str, agent: str) -> Iterable[Case]:
    """Good numbers in the wrong place or unit."""
    plate = site_of(site).nameplate.group(group)

    def case(
        name: str, change: Callable[[Any, int], None], *codes: Code, group: str = group, victim: str = agent
    ) -> Case:
        def hook(period: int, turn: Turn) -> None:
            if ONSET <= period <= LAST_BAD:
                tables = copied(turn.telemetry)
                change(tables["values"][group], period)
                turn.telemetry = with_tables(turn.telemetry, tables)

        expect = (quiet(3, ONSET - 1), told(ONSET, *codes, agent=victim), source(ONSET, victim, Source.SUBSTITUTED))
        return Case("message", f"{site}: {name}", site, hook, expect, periods=PERIODS)

    def scaled(column: int, factor: float, offset: float = 0.0) -> Callable[[Any, int], None]:
        def change(values: Any, period: int) -> None:
            values[VICTIM, column] = values[VICTIM, column] * factor + offset

        return change

    def swapped(a: int, b: int) -> Callable[[Any, int], None]:
        def change(values: Any, period: int) -> None:
            values[VICTIM, [a, b]] = values[VICTIM, [b, a]]

        return change

    if site == "farm":
        at = {s.name: k for k, s in enumerate(plate.measured)}
        yield case("watts for kilowatts", scaled(at["power_kw"], 1e3), Code.INPUT_UNIT)
        yield case("radians for degrees", scaled(at["wind_direction_deg"], math.pi / 180.0), Code.INPUT_UNIT)
        yield case("km/h for m/s", scaled(at["wind_speed_mps"], 3.6), Code.INPUT_UNIT, *HIDDEN)
        yield case("sign flipped", scaled(at["power_kw"], -1.0), *HIDDEN)
        yield case("wind and power swapped", swapped(at["wind_speed_mps"], at["power_kw"]), *HIDDEN)
        yield case("direction and power swapped", swapped(at["wind_direction_deg"], at["power_kw"]), *HIDDEN)
        yield case("all zero", lambda values, period: values[VICTIM].fill(0.0), *HIDDEN)
    else:
        from .sites import CART, OVEN

        oven, cart = agent_of(site, OVEN), agent_of(site, CART)
        yield case("kelvin for degC", scaled(0, 1.0, 273.15), Code.INPUT_UNIT, group=OVEN, victim=oven)
        yield case("degF for degC", scaled(0, 1.8, 32.0), Code.INPUT_UNIT, *HIDDEN, group=OVEN, victim=oven)
        yield case("mm for m", scaled(0, 1e3), Code.INPUT_UNIT, group=CART, victim=cart)
        yield case("sign flipped", scaled(0, -1.0), *HIDDEN, group=CART, victim=cart)

        def spoofed(values: Any, period: int) -> None:
            values[[1, 2]] = values[[2, 1]]

        yield case("one cart speaks for another", spoofed, Code.INPUT_SWAPPED, *HIDDEN, group=CART, victim=cart)
