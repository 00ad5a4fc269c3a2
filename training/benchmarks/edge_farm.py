"""Turbines with a shield each, coordinators, and a network and programs that fail: one shared power cap over all."""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...deploy.leases import Assignment, Coordinator, Edge, LeaseTerms, Ledger, Report, alone, leased_row
from ...deploy.shield import Shield, ShieldState
from ...envs.constraint import SafeState, SumConstraint, declare
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.plant import Quality, Telemetry

PERIOD_S = 1.0
RATED_MW = 5.0
RATE_MW_PER_S = 1.25
# Much worse than quartz, so that drift matters within a run.
DRIFT = 0.01
TERMS = LeaseTerms(grant_s=20.0, pledge_s=60.0, drift=DRIFT)
CAP = "farm cap"
GOOD = np.full((1, 1), int(Quality.GOOD), np.int8)


@dataclass(frozen=True)
class Faults:
    """What happens to messages and programs; ``judged``: whether the row counts as "with communication".

    ``restart_every_s``: mean time between two restarts of one turbine's controller.
    """

    name: str
    judged: bool
    loss: float = 0.0
    delay_s: int = 0
    repeat: float = 0.0
    garble: float = 0.0
    cut_every_s: int = 0
    crash_every_s: int = 0
    twice: bool = False
    restart_every_s: int = 0


class EdgeFarm:
    """Turbine ``i`` decides with its own shield, its own clock and what the network brings; all chance is ``rng``."""

    def __init__(self, faults: Faults, cap_mw: float, n_turbines: int, rng: np.random.Generator) -> None:
        self.faults, self.rng, self.n_turbines = faults, rng, n_turbines
        power = Signal("power_mw", "MW", 0.0, RATED_MW, rate_limit_per_s=RATE_MW_PER_S)
        available = Signal("available_mw", "MW", 0.0, RATED_MW)
        group = Group("turbine", tuple(f"T{i:02d}" for i in range(n_turbines)), (available,), (power,))
        cap = SumConstraint(CAP, "turbine", "power_mw", "MW", maximum=cap_mw)
        site = declare(Nameplate("capped_farm", PERIOD_S, (group,)), (cap,), {"turbine": SafeState("neutral")})
        self.row = leased_row(site, CAP)
        self.shields = [Shield(alone(site, self.row, asset)) for asset in group.assets]
        # A command stays until the next period, on a clock that may run fast.
        self.edges = [Edge(self.row, i, TERMS, PERIOD_S * (1.0 + DRIFT)) for i in range(n_turbines)]
        self.coordinator = Coordinator(Ledger(self.row.shares, TERMS), self.row.floors)
        self.clocks = rng.uniform(0.0, 1e6, n_turbines)
        self.paces = 1.0 + rng.uniform(-DRIFT, DRIFT, n_turbines)
        self.commands = 0.5 * np.array(self.row.shares)
        self.ceilings = np.array(self.row.shares)
        self.memories: list[ShieldState] = [self._begun(i) for i in range(n_turbines)]
        self.boots = itertools.count(1)
        self.states = [
            edge.start(next(self.boots), self._clock(i, 0), float(self.commands[i]))
            for i, edge in enumerate(self.edges)
        ]
        self.terms = itertools.count(1)
        self.seats = [self.coordinator.begin(next(self.terms)) for _ in range(2 if faults.twice else 1)]
        self.seat_paces = 1.0 + rng.uniform(-DRIFT, DRIFT, len(self.seats))
        self.queue: list[tuple[int, int, int, Report | Assignment]] = []
        self.order = itertools.count()

    def second(self, now: int, available_mw: NDArray[np.float64]) -> None:
        """Deliver what is due, restart what fails, let every shield decide, and let every turbine report."""
        self._fail(now)
        while self.queue and self.queue[0][0] <= now:
            _, _, seat, message = heapq.heappop(self.queue)
            if isinstance(message, Report):
                self._coordinate(now, seat, message)
            elif not self._cut(now, message.asset):
                own = message.asset
                told = self._nonsense(message) if self.rng.random() < self.faults.garble else message
                self.states[own] = self.edges[own].take(self.states[own], told, self._clock(own, now))
        for i in range(self.n_turbines):
            self._decide(i, now, float(available_mw[i]))

    def _decide(self, i: int, now: int, available_mw: float) -> None:
        edge, clock_s = self.edges[i], self._clock(i, now)
        orders = edge.orders(self.states[i], clock_s)
        seen, taken_s = {"turbine": np.array([[available_mw]])}, {"turbine": np.array([[float(now)]])}
        telemetry = Telemetry(seen, taken_s, {"turbine": GOOD}, float(now), now)
        decision = self.shields[i].filter(
            telemetry,
            {"turbine": seen["turbine"].copy()},
            float(now),
            self.memories[i],
            orders=orders,
            clock_s=clock_s,
            causes=edge.causes(self.states[i], clock_s),
        )
        self.memories[i] = decision.state
        self.commands[i] = decision.commands["turbine"][0, 0]
        self.ceilings[i] = edge.ceiling(self.states[i], clock_s)
        self.states[i], report = edge.report(self.states[i], clock_s, float(self.commands[i]), available_mw)
        for seat in range(len(self.seats)) if report is not None else ():
            if report is not None and not self._cut(now, i):
                self._send(now, seat, report)

    def _coordinate(self, now: int, seat: int, report: Report) -> None:
        clock_s = now * float(self.seat_paces[seat])
        self.seats[seat], answer = self.coordinator.answer(self.seats[seat], report, clock_s)
        if answer is not None:
            self._send(now, seat, answer)

    def _send(self, now: int, seat: int, message: Report | Assignment) -> None:
        faults, rng = self.faults, self.rng
        for _ in range(2 if rng.random() < faults.repeat else 1):
            if rng.random() >= faults.loss:
                due = now + int(rng.integers(0, faults.delay_s + 1)) + isinstance(message, Report)
                heapq.heappush(self.queue, (due, next(self.order), seat, message))

    def _nonsense(self, message: Assignment) -> object:
        """What may be left of a message whose frame broke on its way."""
        choices: tuple[object, ...] = (
            None,
            "lease",
            message._replace(limit=math.nan),
            message._replace(limit=math.inf, number=message.number + 1000),
            message._replace(limit=-1e9, number=message.number + 1000),
            message._replace(duration_s=1e12),
            message._replace(sent_s=math.nan),
            message._replace(asset=message.asset + 1),
            tuple(message),
        )
        return choices[int(self.rng.integers(len(choices)))]

    def _fail(self, now: int) -> None:
        faults = self.faults
        if faults.crash_every_s and now and now % faults.crash_every_s == 0:
            seat = int(self.rng.integers(len(self.seats)))
            self.seats[seat] = self.coordinator.begin(next(self.terms))
        if faults.restart_every_s:
            for own in np.flatnonzero(self.rng.random(self.n_turbines) < PERIOD_S / faults.restart_every_s):
                self.memories[own] = self._begun(own)
                command = float(self.commands[own])
                self.states[own] = self.edges[own].start(next(self.boots), self._clock(own, now), command)

    def _begun(self, i: int | np.intp) -> ShieldState:
        """A shield's memory after a start, with what the turbine obeys now read back."""
        return self.shields[i].start({"turbine": self.commands[i : i + 1, None].copy()})

    def _cut(self, now: int, asset: int) -> bool:
        every = self.faults.cut_every_s
        return bool(every) and now % every < every // 2 and (asset + now // every) % 3 == 0

    def _clock(self, asset: int | np.intp, now: int) -> float:
        return float(self.clocks[asset] + now * self.paces[asset])
