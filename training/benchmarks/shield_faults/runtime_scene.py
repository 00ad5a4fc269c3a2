"""One run of the real loop: threads, budgets and a journal on disk, before a plant in this process."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....agents.controllers.reference import NeutralPolicy
from ....agents.policy import Commands, Memory
from ....deploy.journal import Journal, verify
from ....deploy.runtime import Period, Runtime, RuntimeSettings
from ....deploy.shield import Code, Mode
from ....deploy.shield.monitors.monitor import Alarms, Seen
from ....deploy.shield.monitors.monitor import Memory as MonitorMemory
from ....deploy.summary import Ending, RunSummary
from ....envs.constraint import Declaration
from ....envs.errors import PlantError
from ....envs.plant import Telemetry
from ....envs.twin import Observation
from .judge import Judge
from .plants import EPOCH_S, FarmPlant, SmallPlant, YardPlant, policy_of
from .scene import agent_of, make_shield, site_of

Floats = NDArray[np.float64]
WALL_PERIOD_S = 0.4
"""Budgets are shares of this: 80 ms for a policy, 200 ms for all that is decided."""

LATE_POLICY_S, LATE_DECISION_S = 0.11, 0.26
PERIODS = 10
ONSET = 4


class PrankPolicy(NeutralPolicy):
    """Asks what the suite's sound policy asks, and does ``prank`` with the turn's number first."""

    def __init__(self, declaration: Declaration, prank: Callable[[int], Any]) -> None:
        super().__init__(declaration.nameplate, name="prank")
        self._declaration, self._prank = declaration, prank
        self._turn = 0

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        self._turn += 1
        told = self._prank(self._turn)
        if told is not None:
            return told  # type: ignore[no-any-return]  # whatever a prank makes of an answer
        commands = policy_of(self._declaration, self._turn)
        return {n: c[None] for n, c in commands.items()}, memory


class SlowMonitor:
    """A stage of the shield that stands still in some periods, as a stopped process or a collection would make it."""

    name = "slow"

    def __init__(self, slow: Callable[[int], float], period_s: float) -> None:
        self._slow, self._period_s = slow, period_s

    def start(self) -> MonitorMemory:
        return {}

    def step(self, memory: MonitorMemory, seen: Seen) -> tuple[MonitorMemory, Alarms]:
        if seen.clock_s >= EPOCH_S:  # the loop also decides once at its start, before there is a plant's time
            time.sleep(self._slow(1 + round((seen.clock_s - EPOCH_S) / self._period_s)))
        return memory, {}


class FullJournal(Journal):
    """A real journal on a disk that is full after ``most_pages``: SQLite's own limit stands for it."""

    def __init__(self, path: Path, most_pages: int) -> None:
        super().__init__(path)
        self._most_pages = most_pages

    def _open(self) -> sqlite3.Connection:
        connection = super()._open()
        connection.execute(f"PRAGMA max_page_count={self._most_pages}")
        return connection


@dataclass
class Watched:
    """What a run was seen to do: codes and modes by period, and whether it wrote."""

    codes: dict[int, set[Code]] = field(default_factory=dict)
    modes: dict[int, Mapping[str, Mode]] = field(default_factory=dict)
    written: dict[int, bool] = field(default_factory=dict)

    def __call__(self, period: Period) -> None:
        """The runtime's ``on_period``."""
        self.codes[period.number] = {r.code for r in period.decision.reasons}
        self.modes[period.number] = period.decision.mode
        self.written[period.number] = period.accepted is not None


RunExpect = Callable[[RunSummary, Watched], Iterable[str]]


@dataclass(frozen=True)
class RunCase:
    """One run of the real loop; what the plant obeyed is judged change by change afterwards."""

    family: str
    name: str
    site: str = "farm"
    prank: Callable[[int], Any] = lambda turn: None
    slow: Callable[[int], float] = lambda period: 0.0
    dead: Callable[[int], bool] = lambda period: False
    orders: Callable[[], Any] | None = None
    lost: Callable[[int], str] | None = None
    most_pages: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    periods: int = PERIODS
    expect: tuple[RunExpect, ...] = ()

    def run(self) -> list[str]:
        """What is wrong, in words; empty for a case that is passed."""
        declaration = site_of(self.site)
        kind = {"farm": _DyingFarm, "yard": _DyingYard}[self.site]
        plant = kind(declaration, self.dead)
        shield = make_shield(declaration, monitors=(SlowMonitor(self.slow, declaration.nameplate.period_s),))
        seen = Watched()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal"
            journal = Journal(path) if self.most_pages is None else FullJournal(path, self.most_pages)
            runtime = Runtime(
                plant, PrankPolicy(declaration, self.prank), shield, journal,
                RuntimeSettings(**{"retry_wait_s": 0.0, **self.settings}),
                orders=self.orders, wall_period_s=WALL_PERIOD_S,
                heartbeat=None if self.lost is None else _Beats(self.lost),
            )  # fmt: skip
            summary = runtime.run(self.periods, seen)
            report = verify(path, summary.journal_head)
        found = [f"journal: {text}" for text in report.problems]
        found += _judged(declaration, plant)
        return found + [text for expect in self.expect for text in expect(summary, seen)]


class _Mortal(SmallPlant):
    """A plant that does not answer in some periods."""

    def __init__(self, declaration: Declaration, dead: Callable[[int], bool]) -> None:
        super().__init__(declaration)
        self._dead = dead
        self.told: list[tuple[int, dict[str, Floats], dict[str, Floats]]] = []

    def read(self) -> Telemetry:
        self._answers()
        return super().read()

    def write(self, commands: Any) -> Any:
        self._answers()
        before = {n: c.copy() for n, c in self.commands.items()}
        answer = super().write(commands)
        self.told.append((self.period, before, self.commands))
        return answer

    def _answers(self) -> None:
        if self._dead(self.period):
            raise PlantError(f"no answer in period {self.period}")


class _DyingFarm(_Mortal, FarmPlant):
    """A farm that may die."""


class _DyingYard(_Mortal, YardPlant):
    """A yard that may die."""


class _Beats:
    """A heartbeat that somebody hears, until it is lost."""

    def __init__(self, lost: Callable[[int], str]) -> None:
        self._lost, self._n = lost, 0

    @property
    def lost(self) -> str:
        return self._lost(self._n)

    def beat(self, standby: Any, stopped: bool = False) -> None:
        self._n += 1


def _judged(declaration: Declaration, plant: _Mortal) -> list[str]:
    """Every write, against what the plant obeyed before it."""
    judge, found, last = Judge(declaration), [], -1
    for period, before, sent in plant.told:
        now_s = _time_s(period, plant)
        dt_s = (period - last) * plant.nameplate.period_s if last >= 0 else plant.nameplate.period_s
        found += [f"period {period}: {t}" for t in judge.complaints(before, sent, now_s, dt_s)]
        judge.follow(before, sent, now_s)
        last = period
    return found


def _time_s(period: int, plant: SmallPlant) -> float:
    """The plant's time in that period."""
    return plant.clock_s + (period - plant.period) * plant.nameplate.period_s


def ends(ending: Ending, *, handed_back: bool | None = True, tripped: bool | None = None) -> RunExpect:
    """The run ended so."""

    def expect(summary: RunSummary, seen: Watched) -> Iterable[str]:
        if summary.ending is not ending:
            yield f"ended as {summary.ending}, expected {ending}: {summary.detail}"
        if handed_back is not None and summary.handed_back is not handed_back:
            yield f"handed back: {summary.handed_back}, expected {handed_back}"
        if tripped is not None and summary.tripped is not tripped:
            yield f"tripped: {summary.tripped}, expected {tripped}"

    return expect


def says(period: int, *codes: Code) -> RunExpect:
    """In that period at least one of the codes is given."""

    def expect(summary: RunSummary, seen: Watched) -> Iterable[str]:
        if not seen.codes.get(period, set()) & set(codes):
            yield f"period {period}: expected {' or '.join(codes)}, found {sorted(seen.codes.get(period, ()))}"

    return expect


def in_mode(period: int, *modes: Mode, site: str = "farm") -> RunExpect:
    """In that period the suite's victim is in one of the modes."""

    def expect(summary: RunSummary, seen: Watched) -> Iterable[str]:
        found = seen.modes[period][agent_of(site)]
        if found not in modes:
            yield f"period {period}: {found}, expected {' or '.join(modes)}"

    return expect


def misses(n: int, more: int = 0) -> RunExpect:
    """``more``: as many periods as an answer that is late may keep its thread from the next one."""

    def expect(summary: RunSummary, seen: Watched) -> Iterable[str]:
        if not n <= summary.missed_periods <= n + more:
            yield f"{summary.missed_periods} periods missed, expected {n} to {n + more}"

    return expect
