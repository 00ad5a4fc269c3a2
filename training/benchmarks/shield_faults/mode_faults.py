"""Modes: every cause forces what the table says and clears as it says, people win at once, and nothing nonsensical is
obeyed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ....deploy.shield import Code, Mode, Source
from ....deploy.shield.causes import TABLE, Cause, CauseRow, Clears
from ....deploy.shield.orders import Orders
from .scene import ONSET, Case, Expect, Hook, Played, Turn, agent_of, mode, not_told, source, told
from .sites import POWER_CAP

RESET_AT = ONSET + 30
RETURN_AT = RESET_AT + 2
PERIODS = RETURN_AT + 4
GIVEN = (Mode.SHADOW, Mode.ADVISE, Mode.APPROVED, Mode.AUTONOMOUS)
FORCED = {
    Mode.DEGRADED: Cause.OUT_OF_DISTRIBUTION,
    Mode.BACKUP: Cause.CONSTRAINT_INFEASIBLE,
    Mode.TRIPPED: Cause.WATCHDOG_LOST,
}


def cases() -> Iterable[Case]:
    """All of them, for both sites."""
    for site in ("farm", "yard"):
        agent = agent_of(site)
        for row in TABLE:
            yield _by_the_table(site, agent, row)
            if row.clears is Clears.MANUAL_RESET:
                yield _persisting(site, agent, row)
            yield _takeover(site, agent, row)
        for start in (*GIVEN, *FORCED):
            yield _stop(site, agent, start)
        for start in (Mode.SHADOW, Mode.ADVISE):
            yield _unwritten(site, start)
        yield _approved(site, agent)
        for start in (Mode.APPROVED, Mode.AUTONOMOUS, Mode.DEGRADED, Mode.BACKUP):
            yield _leaving(site, agent, start)
        for name, orders, expect in _nonsense(agent):
            yield _ordered(site, name, orders, expect)
    for name, limits, code in _limits():
        yield _limited(name, limits, code)


def _raising(cause: Cause, first: int, n: int) -> Hook:
    def hook(period: int, turn: Turn) -> None:
        if first <= period < first + n:
            turn.causes = (cause,)

    return hook


def _both(*hooks: Hook) -> Hook:
    def hook(period: int, turn: Turn) -> None:
        for one in hooks:
            one(period, turn)

    return hook


def _giving(orders: Any, first: int, last: int | None = None) -> Hook:
    def hook(period: int, turn: Turn) -> None:
        if first <= period <= (first if last is None else last):
            turn.orders = orders

    return hook


def _by_the_table(site: str, agent: str, row: CauseRow) -> Case:
    """Raised for as long as it needs, then gone: the mode comes at once and goes by the table."""
    at = ONSET + row.patience - 1
    gone = at + row.dwell + 1
    hooks = [_raising(row.of, ONSET, row.patience)]
    expect: list[Expect] = [mode(at, agent, row.mode), mode(ONSET - 1, agent, Mode.AUTONOMOUS)]
    if not row.told:
        expect.append(told(at, row.code))
    if row.clears is Clears.MANUAL_RESET:
        hooks += [_giving(Orders(reset=True), RESET_AT), _giving(Orders(mode=Mode.AUTONOMOUS), RETURN_AT)]
        tripped = row.mode is Mode.TRIPPED
        expect += [
            mode(RESET_AT - 1, agent, row.mode),
            mode(RESET_AT, agent, Mode.SHADOW if tripped else Mode.AUTONOMOUS),
            mode(RETURN_AT, agent, Mode.AUTONOMOUS),
            source(PERIODS - 1, agent, Source.POLICY),
        ]
    else:
        expect += [mode(gone - 1, agent, row.mode), mode(gone, agent, *_milder(row))]
        expect += [mode(PERIODS - 1, agent, Mode.AUTONOMOUS), source(PERIODS - 1, agent, Source.POLICY)]
    return Case("mode", f"{site}: {row.cause.value}", site, _both(*hooks), tuple(expect), periods=PERIODS)


def _milder(row: CauseRow) -> tuple[Mode, ...]:
    """What may stand once a cause is gone: less than it forced, as another row of the same report may stand longer."""
    modes = list(Mode)
    return tuple(modes[modes.index(Mode.AUTONOMOUS) : modes.index(row.mode)]) or (Mode.AUTONOMOUS,)


def _persisting(site: str, agent: str, row: CauseRow) -> Case:
    """A reset while the cause is still there is denied, and nothing is given back."""
    hooks = (_raising(row.of, ONSET, PERIODS), _giving(Orders(reset=True, mode=Mode.AUTONOMOUS), RESET_AT))
    expect = (
        told(RESET_AT, Code.MODE_RESET_DENIED),
        mode(RESET_AT, agent, row.mode),
        mode(PERIODS - 1, agent, row.mode),
    )
    return Case("mode", f"{site}: reset while {row.cause.value}", site, _both(*hooks), expect, periods=PERIODS)


def _takeover(site: str, agent: str, row: CauseRow) -> Case:
    """Nobody can be given authority while a cause stands."""
    at = ONSET + row.patience
    hooks = (_raising(row.of, ONSET, row.patience + 1), _giving(Orders(mode=Mode.AUTONOMOUS), at))
    expected = Mode.TRIPPED if row.mode is Mode.TRIPPED else Mode.SHADOW
    expect = (told(at, Code.MODE_TAKEOVER_DENIED), mode(at, agent, expected), _nothing_written)
    name = f"{site}: taking over while {row.cause.value}"
    return Case("mode", name, site, _both(*hooks), expect, periods=at + 1, start_mode=Mode.SHADOW)


def _nothing_written(played: Played) -> Iterable[str]:
    for k, record in enumerate(played.records):
        # what trips on an emergency stop is commanded from every mode; all else was never ours
        if any(acts.any() for acts in record.decision.acts.values()) and Code.EMERGENCY_STOP not in played.codes(k):
            stop = any(r.decision.mode[a] is Mode.TRIPPED for r in played.records for a in r.decision.mode)
            if not stop or not _stopped(played):
                yield f"period {k}: commands were written"


def _stopped(played: Played) -> bool:
    return any(Code.EMERGENCY_STOP in played.codes(k) for k in range(len(played.records)))


def _stop(site: str, agent: str, start: Mode) -> Case:
    """The emergency stop works in one period from every mode, and its release gives nothing back."""
    hooks = [_giving(Orders(stop=True), ONSET, ONSET + 8)]
    if start in FORCED:
        hooks.append(_raising(FORCED[start], ONSET - 2, 2))
    released = ONSET + 9
    expect: tuple[Expect, ...] = (
        mode(ONSET - 1, agent, start),
        mode(ONSET, agent, Mode.TRIPPED),
        source(ONSET, agent, Source.SAFE_STATE),
        told(ONSET, Code.EMERGENCY_STOP, Code.WATCHDOG_LOST),
        mode(released, agent, Mode.TRIPPED),
        mode(PERIODS - 1, agent, Mode.TRIPPED),
        _arrived,
    )
    given = start if start in GIVEN else Mode.AUTONOMOUS
    if start is Mode.TRIPPED:  # it was tripped already, which the first reason has told
        expect = tuple(e for k, e in enumerate(expect) if k != 3)
    name = f"{site}: emergency stop in {start.value}"
    return Case("mode", name, site, _both(*hooks), expect, periods=PERIODS, start_mode=given)


def _arrived(played: Played) -> Iterable[str]:
    """All assets are in their declared safe states at the end."""
    plate = played.declaration.nameplate
    for group in plate.groups:
        for i, asset in enumerate(group.assets):
            target = played.declaration.safe_states[f"{group.name}/{asset}"].target(group)
            sent = played.records[-1].decision.commands[group.name][i]
            if target is not None and not np.allclose(sent, target, atol=1e-6):
                yield f"{group.name}/{asset} ends at {sent.tolist()}, its safe state is {list(target)}"


def _unwritten(site: str, start: Mode) -> Case:
    """In shadow and advise nothing goes out, and what would go out is told."""

    def expect(played: Played) -> Iterable[str]:
        for k, record in enumerate(played.records):
            if any(acts.any() for acts in record.decision.acts.values()):
                yield f"period {k}: commands were written"
        advised, sent = (getattr(played.records[ONSET].decision, name) for name in ("advised", "commands"))
        if all(np.array_equal(advised[n], sent[n]) for n in advised):
            yield "what would be sent is not told"

    return Case("mode", f"{site}: {start.value}", site, expect=(expect,), start_mode=start)


def _approved(site: str, agent: str) -> Case:
    """Only what a person approved goes out, for the period for which it was approved."""

    def hook(period: int, turn: Turn) -> None:
        if ONSET <= period < ONSET + 3:
            turn.orders = Orders(approved=frozenset({agent}))

    other = agent_of(site, number=0)
    expect = (
        source(ONSET - 1, agent, Source.NOBODY),
        source(ONSET, agent, Source.POLICY),
        source(ONSET, other, Source.NOBODY),
        told(ONSET, Code.NOT_APPROVED, agent=other),
        source(ONSET + 3, agent, Source.NOBODY),
    )
    return Case("mode", f"{site}: one asset approved", site, hook, expect, start_mode=Mode.APPROVED)


def _leaving(site: str, agent: str, start: Mode) -> Case:
    """Leaving autonomy needs nothing and works at once."""
    hooks = [_giving(Orders(mode=Mode.SHADOW), ONSET)]
    if start in FORCED:
        hooks.append(_raising(FORCED[start], ONSET - 2, 2))
    given = start if start in GIVEN else Mode.AUTONOMOUS

    def expect(played: Played) -> Iterable[str]:
        for k in range(ONSET, len(played.records)):
            if any(acts.any() for acts in played.records[k].decision.acts.values()):
                yield f"period {k}: commands were written"

    checks = (mode(ONSET - 1, agent, start), mode(ONSET, agent, Mode.SHADOW), expect)
    return Case("mode", f"{site}: leaving {start.value}", site, _both(*hooks), checks, start_mode=given)


def _nonsense(agent: str) -> Iterable[tuple[str, Any, tuple[Expect, ...]]]:
    """Orders that make no sense; the safe side wins."""
    invalid = told(ONSET, Code.ORDER_INVALID)
    stays = (invalid, mode(ONSET, agent, Mode.AUTONOMOUS))
    yield "orders of text", "stop", stays
    yield "orders of a number", 1, stays
    yield "an unknown mode", Orders(mode="full"), stays  # type: ignore[arg-type]  # the fault
    yield "a mode that only causes force", Orders(mode=Mode.TRIPPED), stays
    yield "a stop that is no truth value", Orders(stop="yes"), (invalid, mode(ONSET, agent, Mode.TRIPPED))  # type: ignore[arg-type]  # the fault
    yield "a stop of None", Orders(stop=None), (invalid, mode(ONSET, agent, Mode.TRIPPED))  # type: ignore[arg-type]  # the fault
    yield "a reset that is no truth value", Orders(reset="now"), stays  # type: ignore[arg-type]  # the fault
    yield "an approval of text", Orders(approved=agent), stays  # type: ignore[arg-type]  # the fault
    yield "an approval of a stranger", Orders(approved=frozenset({"turbine/WT99"})), stays
    yield "limits of text", Orders(limits="low"), stays  # type: ignore[arg-type]  # the fault
    yield "a limit without a name", Orders(limits={"": (None, 1.0)}), stays
    yield "assets that are none", Orders(mode=Mode.SHADOW, assets=3), (invalid,)  # type: ignore[arg-type]  # the fault


def _ordered(site: str, name: str, orders: Any, expect: tuple[Expect, ...]) -> Case:
    return Case("mode", f"{site}: {name}", site, _giving(orders, ONSET), expect)


def _limits() -> Iterable[tuple[str, Any, Code | None]]:
    """Ends of the farm's power cap at run time, and what must be told of them."""
    yield "tightened", {POWER_CAP: (None, 2.0)}, None
    yield "widened", {POWER_CAP: (None, 30.0)}, None
    yield "inverted", {POWER_CAP: (2.5, 1.0)}, Code.ORDER_INVALID
    yield "not a number", {POWER_CAP: (None, math.nan)}, Code.ORDER_INVALID
    yield "infinite", {POWER_CAP: (None, math.inf)}, Code.ORDER_INVALID
    yield "minus infinite", {POWER_CAP: (None, -math.inf)}, Code.ORDER_INVALID
    yield "text", {POWER_CAP: (None, "2")}, Code.ORDER_INVALID
    yield "one end", {POWER_CAP: (2.0,)}, Code.ORDER_INVALID
    yield "a number", {POWER_CAP: 2.0}, Code.ORDER_INVALID
    yield "of an unknown sum", {"price cap": (None, 2.0)}, Code.ORDER_INVALID
    yield "below all that is possible", {POWER_CAP: (None, 0.0)}, None


def _limited(name: str, limits: Any, code: Code | None) -> Case:
    def hook(period: int, turn: Turn) -> None:
        if period >= ONSET:
            turn.orders = Orders(limits=limits)

    expect: list[Expect] = [not_told(Code.SHIELD_FAILED)]
    expect += [] if code is None else [told(ONSET, code)]
    if name == "tightened":
        expect.append(lambda played: _sums(played, 2.0))
    if name == "below all that is possible":
        expect.append(lambda played: _sums(played, 0.3))
    return Case("mode", f"farm: a limit {name}", "farm", hook, tuple(expect), periods=20)


def _sums(played: Played, most: float) -> Iterable[str]:
    total = float(played.records[-1].decision.commands["turbine"][:, 1].sum())
    if total > most + 1e-9:
        yield f"the power limits sum up to {total} at the end, ordered were {most}"
