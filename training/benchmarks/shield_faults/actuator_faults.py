"""Equipment that does not do what it is told: what it obeys is read back, and rates count from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Code, Mode
from .plants import Actuator
from .scene import ONSET, Case, Expect, Played, agent_of, mode, not_told, told

Floats = NDArray[np.float64]
Part = dict[str, Floats]
LAST_BAD = 14
PERIODS = 24
LATE = "two periods late"
_UNWANTED = {Code.SHIELD_FAILED, Code.VERIFICATION_FAILED}
IN_A_ROW, DWELL = 3, 3
"""Patience and dwell of ``read_back_wrong`` in the table of causes, in periods."""


def cases() -> Iterable[Case]:
    """All of them, for both sites."""
    for site in ("farm", "yard"):
        for name, actuator, is_wrong in _actuators():
            limited = "within reach" in name
            # late commands change faster than an oven may; from there the two looks give up another limit first
            unwanted = {Code.SHIELD_FAILED} if (site, name) == ("yard", LATE) else _UNWANTED
            yield Case(
                "actuator", f"{site}: {name}", site, plant={"actuator": _from_onset(actuator)}, periods=PERIODS,
                expect=(not_told(*unwanted), _reads_back, _ever(site, is_wrong)),
                # equipment that moves by itself breaks limits that nothing of ours keeps
                known=lambda period: period <= ONSET or period > LAST_BAD + 1, safe=limited,
            )  # fmt: skip
        for name, answer in _answers():
            yield Case(
                "actuator", f"{site}: reads back {name}", site, plant={"answer": answer}, periods=PERIODS,
                expect=(not_told(Code.SHIELD_FAILED, Code.VERIFICATION_FAILED), not_told(Code.READ_BACK_WRONG)),
            )  # fmt: skip
        for name, deaf, back in _deaf():
            agent = agent_of(site)
            expect = [not_told(Code.SHIELD_FAILED, Code.VERIFICATION_FAILED), _repeats]
            if back > 3:
                expect.append(mode(ONSET + 3, agent, Mode.BACKUP))
                expect.append(told(ONSET + 3, Code.WRITE_UNCONFIRMED))
            expect.append(mode(PERIODS - 1, agent, Mode.AUTONOMOUS))
            yield Case("actuator", f"{site}: {name}", site, plant={"deaf": deaf}, expect=tuple(expect), periods=PERIODS)


def _reads_back(played: Played) -> Iterable[str]:
    """An asset that obeys something else for three periods in a row is on its fallback in the next, and told of; no
    other is told of. It stands until it was gone for its dwell."""
    in_a_row: dict[str, int] = {}
    stands: dict[str, int] = {}
    for k, record in enumerate(played.records[:-1]):
        decision, then = record.decision, played.records[k + 1].decision
        for group in played.declaration.nameplate.groups:
            span = np.array([s.maximum - s.minimum for s in group.commanded])
            for i, asset in enumerate(group.assets):
                agent = f"{group.name}/{asset}"
                obeyed = None if record.obeyed is None else np.asarray(record.obeyed[group.name])[i]
                sent = decision.commands[group.name][i]
                is_wrong = obeyed is not None and bool((np.abs(obeyed - sent) > 1e-3 * span).any())
                in_a_row[agent] = in_a_row.get(agent, 0) + 1 if is_wrong else 0
                is_due, is_told = in_a_row[agent] >= IN_A_ROW, Code.READ_BACK_WRONG in played.codes(k + 1, agent)
                if is_due and then.mode[agent] is not Mode.BACKUP:
                    yield f"period {k + 1}: {agent} is {then.mode[agent]}, but obeyed something else {IN_A_ROW} times"
                if is_due and decision.mode[agent] is not Mode.BACKUP and not is_told:
                    yield f"period {k + 1}: expected {Code.READ_BACK_WRONG} for {agent}"
                stands[agent] = DWELL + 1 if is_due else stands.get(agent, 0) - 1
                if is_told and stands[agent] <= 0:
                    yield f"period {k + 1}: {Code.READ_BACK_WRONG} was not called for at {agent}"


def _ever(site: str, is_wrong: bool) -> Expect:
    """Whether it is told at all; at the yard a wrong command shows only where the second pump is to move."""

    def expect(played: Played) -> Iterable[str]:
        is_told = any(Code.READ_BACK_WRONG in played.codes(k) for k in range(len(played.records)))
        if is_told and not is_wrong:
            yield f"{Code.READ_BACK_WRONG} was not called for"
        if is_wrong and not is_told and site == "farm":
            yield f"{Code.READ_BACK_WRONG} was never told"

    return expect


def _from_onset(actuator: Actuator) -> Actuator:
    def act(period: int, before: Part, told_: Part) -> Part:
        return actuator(period, before, told_) if ONSET <= period <= LAST_BAD else told_

    return act


def _first(change: Callable[[Floats, Floats], Floats]) -> Actuator:
    """A fault of the first group's second asset."""

    def act(period: int, before: Part, told_: Part) -> Part:
        name = next(iter(told_))
        found = {n: c.copy() for n, c in told_.items()}
        found[name][1] = change(before[name][1], told_[name][1])
        return found

    return act


def _actuators() -> Iterable[tuple[str, Actuator, bool]]:
    """Each with whether what is read back is wrong for three periods in a row."""
    yield "stuck", _first(lambda before, sent: before), True
    yield "all of them stuck", lambda period, before, sent: {n: c.copy() for n, c in before.items()}, True
    yield "half the way", _first(lambda before, sent: before + 0.5 * (sent - before)), True
    yield "a third too far", _first(lambda before, sent: before + 1.3 * (sent - before)), True
    yield "sign flipped", _first(lambda before, sent: before - (sent - before)), True
    yield LATE, _late(2), True
    yield (
        "rejects every second command",
        lambda k, before, sent: {n: c.copy() for n, c in (before if k % 2 else sent).items()},
        False,
    )
    yield "back to neutral by itself", lambda k, before, sent: {n: c * (k % 3 != 0) for n, c in sent.items()}, False
    yield "reads back a little else", lambda k, before, sent: {n: c + 5e-4 for n, c in sent.items()}, False
    yield "reads back something else", lambda k, before, sent: {n: c + 0.05 for n, c in sent.items()}, True
    yield (
        "reads back in single precision",
        lambda k, b, sent: {n: c.astype(np.float32).astype(float) for n, c in sent.items()},
        False,
    )


def _answers() -> Iterable[tuple[str, Callable[[int, Part], Any]]]:
    """What is obeyed is what was sent, and what is told of it makes no sense."""

    def each(wrong: Callable[[Floats], Any]) -> Callable[[int, Part], Any]:
        return lambda k, obeyed: {n: wrong(c) if ONSET <= k <= LAST_BAD else c for n, c in obeyed.items()}

    yield "NaN", each(lambda c: c * np.nan)
    yield "infinity", each(lambda c: c + np.inf)
    yield "text", each(lambda c: c.astype(str))
    yield "another shape", each(lambda c: c[0])
    yield "None", each(lambda c: None)
    yield "no mapping", lambda k, obeyed: 7 if ONSET <= k <= LAST_BAD else obeyed


def _deaf() -> Iterable[tuple[str, Callable[[int], bool], int]]:
    yield "one write unanswered", lambda period: period == ONSET, 1
    yield "every second write unanswered", lambda period: ONSET <= period <= LAST_BAD and period % 2 == 0, 1
    yield "writes unanswered", lambda period: ONSET <= period <= LAST_BAD, LAST_BAD - ONSET + 1


def _late(periods: int) -> Actuator:
    """Obeys what was written so many periods ago, as far as that is known."""
    written: dict[int, Part] = {}

    def act(period: int, before: Part, told_: Part) -> Part:
        written[period] = {n: c.copy() for n, c in told_.items()}
        return {n: c.copy() for n, c in written.get(period - periods, told_).items()}

    return act


def _repeats(played: Played) -> Iterable[str]:
    """After a write without an answer nothing but the last known commands is sent."""
    last = None
    for k, record in enumerate(played.records):
        if k and played.records[k - 1].obeyed is None and last is not None:
            for n, c in record.decision.commands.items():
                if not np.allclose(c, last[n], rtol=0, atol=1e-9):
                    yield f"period {k}: {n} was changed while it is unknown what the plant obeys"
        last = record.obeyed or last
