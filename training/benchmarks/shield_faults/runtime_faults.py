"""The loop under faults: late and failing policies, decisions, plants, journals and people."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....agents.controllers.reference import NeutralPolicy
from ....deploy.journal import Journal
from ....deploy.runtime import Runtime
from ....deploy.shield import Code, Mode, Shield
from ....deploy.shield.orders import Orders
from ....deploy.summary import Ending, RunSummary
from ....envs.errors import ContractError
from ....envs.nameplate import Nameplate
from .plants import FarmPlant
from .runtime_scene import (
    LATE_DECISION_S,
    LATE_POLICY_S,
    ONSET,
    PERIODS,
    RunCase,
    Watched,
    ends,
    in_mode,
    misses,
    says,
)
from .scene import make_shield, site_of


def _at(*turns: int, seconds: float) -> Callable[[int], float]:
    return lambda period: seconds if period in turns else 0.0


def _sleeping(seconds: float, *turns: int) -> Callable[[int], Any]:
    def prank(turn: int) -> Any:
        if turn in turns:
            time.sleep(seconds)
        return None

    return prank


def _raising(error: type[Exception], *turns: int) -> Callable[[int], Any]:
    def prank(turn: int) -> Any:
        if turn in turns:
            raise error("a prank")
        return None

    return prank


def _interrupting(turn: int) -> None:
    """Ctrl-C, as the process itself would get it."""
    if turn == ONSET:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)


def _answering(junk: Any) -> Callable[[int], Any]:
    return lambda turn: junk if turn == ONSET else None


def _collecting(turn: int) -> None:
    """Much garbage with cycles, and a collection of it."""
    rings: list[Any] = [[] for _ in range(20_000)]
    for ring in rings:
        ring.append(ring)
    del rings, ring
    gc.collect()


def cases() -> Iterable[RunCase | RefusedCase]:
    """All of them."""
    done = ends(Ending.COMPLETED)
    always = range(ONSET, PERIODS + 1)
    for site in ("farm", "yard"):
        yield RunCase("runtime", f"{site}: nothing goes wrong", site, expect=(done, misses(0)))
        yield RunCase(
            "runtime",
            f"{site}: policy late once",
            site,
            prank=_sleeping(LATE_POLICY_S, ONSET),
            expect=(done, says(ONSET, Code.POLICY_LATE), misses(0)),
        )
        yield RunCase(
            "runtime",
            f"{site}: policy raises once",
            site,
            prank=_raising(ValueError, ONSET),
            expect=(done, says(ONSET, Code.POLICY_RAISED)),
        )
        yield RunCase(
            "runtime",
            f"{site}: decision late once",
            site,
            slow=_at(ONSET, seconds=LATE_DECISION_S),
            expect=(done, says(ONSET, Code.DEADLINE_MISSED), misses(1)),
        )
    tripped = ends(Ending.COMPLETED, tripped=True)
    yield RunCase(
        "runtime",
        "policy late three times in a row",
        prank=_sleeping(LATE_POLICY_S, *range(ONSET, ONSET + 3)),
        expect=(tripped, says(ONSET + 3, Code.POLICY_TRIPPED)),
    )
    yield RunCase(
        "runtime",
        "policy late every second time",
        prank=_sleeping(LATE_POLICY_S, *range(2, PERIODS, 2)),
        expect=(ends(Ending.COMPLETED, tripped=False), says(2, Code.POLICY_LATE), says(4, Code.POLICY_LATE)),
    )
    yield RunCase(
        "runtime",
        "policy hangs",
        prank=_sleeping(0.5, ONSET),
        expect=(done, says(ONSET, Code.POLICY_LATE), says(ONSET + 1, Code.POLICY_LATE)),
    )
    yield RunCase(
        "runtime",
        "policy raises for ever",
        prank=_raising(RuntimeError, *always),
        expect=(tripped, says(ONSET + 3, Code.POLICY_TRIPPED)),
    )
    yield RunCase(
        "runtime",
        "policy out of memory",
        prank=_raising(MemoryError, ONSET),
        expect=(done, says(ONSET, Code.POLICY_RAISED)),
    )
    yield RunCase(
        "runtime",
        "policy recurses",
        prank=_raising(RecursionError, ONSET),
        expect=(done, says(ONSET, Code.POLICY_RAISED)),
    )
    for name, junk in (("text", "left"), ("a number", 3), ("an empty answer", ()), ("three parts", ({}, {}, {}))):
        yield RunCase(
            "runtime",
            f"policy returns {name}",
            prank=_answering(junk),
            expect=(done, says(ONSET, Code.POLICY_RAISED, Code.COMMAND_MISSING)),
        )
    yield RunCase(
        "runtime",
        "policy returns nonsense and a memory",
        prank=_answering(("left", {})),
        expect=(done, says(ONSET, Code.COMMAND_MISSING)),
    )
    yield RunCase("runtime", "a collection in every turn", prank=_collecting, expect=(done,))
    yield RunCase(
        "runtime",
        "decision late every third time",
        slow=_at(3, 6, 9, seconds=LATE_DECISION_S),
        expect=(done, misses(3), says(3, Code.DEADLINE_MISSED), in_mode(8, Mode.AUTONOMOUS)),
    )
    yield RunCase(
        "runtime",
        "decision late three times in a row",
        slow=_at(*range(ONSET, ONSET + 3), seconds=LATE_DECISION_S),
        expect=(
            misses(3, 2),
            in_mode(PERIODS - 1, Mode.TRIPPED),
            in_mode(PERIODS, Mode.TRIPPED),
            ends(Ending.COMPLETED, handed_back=None),
        ),
    )
    yield from _plants()
    yield from _journals()
    yield from _people()
    yield from (RefusedCase(name, change) for name, change in _strangers())


def _plants() -> Iterable[RunCase]:
    lost = Ending.PLANT_LOST
    yield RunCase("runtime", "plant silent for a period", dead=lambda k: k == ONSET, expect=(ends(Ending.COMPLETED),))
    yield RunCase(
        "runtime",
        "plant silent for five periods",
        dead=lambda k: ONSET <= k < ONSET + 5,
        periods=16,
        expect=(ends(Ending.COMPLETED), in_mode(ONSET + 4, Mode.BACKUP), in_mode(16, Mode.AUTONOMOUS)),
    )
    yield RunCase(
        "runtime",
        "plant silent every second period",
        dead=lambda k: k % 2 == 1,
        periods=16,
        expect=(ends(Ending.COMPLETED, handed_back=None),),
    )
    yield RunCase(
        "runtime",
        "plant gone",
        dead=lambda k: k >= ONSET,
        settings={"max_plant_failures": 4, "plant_patience_s": 0.0},
        periods=50,
        expect=(ends(lost, handed_back=False),),
    )
    yield RunCase(
        "runtime",
        "plant never there",
        dead=lambda k: True,
        settings={"max_plant_failures": 4, "plant_patience_s": 0.0},
        periods=50,
        expect=(ends(lost, handed_back=None),),
    )


def _journals() -> Iterable[RunCase]:
    """Cannot log means cannot write."""

    def silent(summary: RunSummary, seen: Watched) -> Iterable[str]:
        last = max(seen.written, default=0)
        if not seen.written or summary.periods < 1:
            yield "nothing was written before the disk was full"
        if last >= 200:
            yield "it went on without a journal"

    yield RunCase(
        "runtime",
        "journal's disk full",
        most_pages=24,
        periods=200,
        expect=(ends(Ending.JOURNAL_LOST, handed_back=False), silent),
    )


def _people() -> Iterable[RunCase]:
    def stop_at(period: int) -> Callable[[], Orders]:
        asked = iter(range(1, 10_000))
        return lambda: Orders(stop=next(asked) >= period)

    yield RunCase(
        "runtime",
        "emergency stop",
        orders=stop_at(ONSET),
        expect=(
            says(ONSET, Code.EMERGENCY_STOP),
            in_mode(ONSET, Mode.TRIPPED),
            ends(Ending.COMPLETED, handed_back=None),
        ),
    )
    yield RunCase(
        "runtime",
        "orders of text",
        orders=lambda: "stop",
        expect=(says(ONSET, Code.ORDER_INVALID), ends(Ending.COMPLETED)),
    )

    def broken() -> Orders:
        raise OSError("the desk is on fire")

    yield RunCase("runtime", "orders can't be read", orders=broken, expect=(ends(Ending.COMPLETED),))
    yield RunCase(
        "runtime",
        "nobody hears the heartbeat",
        lost=lambda n: "its process ended" if n >= ONSET else "",
        expect=(
            says(ONSET, Code.WATCHDOG_LOST),
            in_mode(ONSET, Mode.TRIPPED),
            in_mode(PERIODS, Mode.TRIPPED),
            ends(Ending.COMPLETED, handed_back=None),
        ),
    )
    yield RunCase("runtime", "no period at all", periods=0, expect=(ends(Ending.COMPLETED),))
    yield RunCase("runtime", "interrupted in mid-run", prank=_interrupting, expect=(ends(Ending.INTERRUPTED),))


@dataclass(frozen=True)
class RefusedCase:
    """A policy or a shield of another site is refused before the first period."""

    name: str
    change: Callable[[Nameplate], Nameplate]
    family: str = "runtime"

    def run(self) -> list[str]:
        """What is wrong, in words; empty for a case that is passed."""
        declaration = site_of("farm")
        other = self.change(declaration.nameplate)
        found: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            for who, policy, shield in (
                ("policy", NeutralPolicy(other), make_shield(declaration)),
                ("shield", NeutralPolicy(declaration.nameplate), Shield(other)),
            ):
                plant = FarmPlant(declaration)
                try:
                    Runtime(plant, policy, shield, Journal(Path(folder) / who)).run(1)
                    found.append(f"a {who} of another site was taken")
                except ContractError:
                    if plant.history:
                        found.append(f"something was written before the {who} was refused")
        return found


def _strangers() -> Iterable[tuple[str, Callable[[Nameplate], Nameplate]]]:
    def with_group(plate: Nameplate, **changes: Any) -> Nameplate:
        return replace(plate, groups=(replace(plate.groups[0], **changes),))

    yield "of a site with other assets", lambda p: with_group(p, assets=("A", "B", "C"), static_values=())
    yield "of a site with another order of signals", lambda p: with_group(p, measured=p.groups[0].measured[::-1])
    yield (
        "of a site with wider limits",
        lambda p: with_group(p, commanded=(replace(p.groups[0].commanded[0], maximum=90.0), p.groups[0].commanded[1])),
    )
