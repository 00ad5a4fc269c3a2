"""Equipment that does not do what it is told: what it obeys is read back, and rates count from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Code, Mode
from .plants import Actuator
from .scene import ONSET, Case, Played, agent_of, mode, not_told, told

Floats = NDArray[np.float64]
Part = dict[str, Floats]
LAST_BAD = 14
PERIODS = 24


def cases() -> Iterable[Case]:
    """All of them, for both sites."""
    for site in ("farm", "yard"):
        for name, actuator in _actuators():
            limited = "within reach" in name
            yield Case(
                "actuator", f"{site}: {name}", site, plant={"actuator": _from_onset(actuator)}, periods=PERIODS,
                expect=(not_told(Code.SHIELD_FAILED, Code.VERIFICATION_FAILED),),
                # equipment that moves by itself breaks limits that nothing of ours keeps
                known=lambda period: period <= ONSET or period > LAST_BAD + 1, safe=limited,
            )  # fmt: skip
        for name, answer in _answers():
            yield Case(
                "actuator", f"{site}: reads back {name}", site, plant={"answer": answer}, periods=PERIODS,
                expect=(not_told(Code.SHIELD_FAILED, Code.VERIFICATION_FAILED),),
            )  # fmt: skip
        for name, deaf, back in _deaf():
            agent = agent_of(site)
            expect = [not_told(Code.SHIELD_FAILED, Code.VERIFICATION_FAILED), _repeats]
            if back > 3:
                expect.append(mode(ONSET + 3, agent, Mode.BACKUP))
                expect.append(told(ONSET + 3, Code.WRITE_UNCONFIRMED))
            expect.append(mode(PERIODS - 1, agent, Mode.AUTONOMOUS))
            yield Case("actuator", f"{site}: {name}", site, plant={"deaf": deaf}, expect=tuple(expect), periods=PERIODS)


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


def _actuators() -> Iterable[tuple[str, Actuator]]:
    yield "stuck", _first(lambda before, sent: before)
    yield "all of them stuck", lambda period, before, sent: {n: c.copy() for n, c in before.items()}
    yield "half the way", _first(lambda before, sent: before + 0.5 * (sent - before))
    yield "a third too far", _first(lambda before, sent: before + 1.3 * (sent - before))
    yield "sign flipped", _first(lambda before, sent: before - (sent - before))
    yield (
        "rejects every second command",
        lambda k, before, sent: {n: c.copy() for n, c in (before if k % 2 else sent).items()},
    )
    yield "back to neutral by itself", lambda k, before, sent: {n: c * (k % 3 != 0) for n, c in sent.items()}
    yield "reads back a little else", lambda k, before, sent: {n: c + 1e-3 for n, c in sent.items()}
    yield (
        "reads back in single precision",
        lambda k, b, sent: {n: c.astype(np.float32).astype(float) for n, c in sent.items()},
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


def _repeats(played: Played) -> Iterable[str]:
    """After a write without an answer nothing but the last known commands is sent."""
    last = None
    for k, record in enumerate(played.records):
        if k and played.records[k - 1].obeyed is None and last is not None:
            for n, c in record.decision.commands.items():
                if not np.allclose(c, last[n], rtol=0, atol=1e-9):
                    yield f"period {k}: {n} was changed while it is unknown what the plant obeys"
        last = record.obeyed or last
