"""The control process of the run: a station's runtime, journal, desk and shield, started again after each end."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ....agents.controllers.reference import NeutralPolicy
from ....agents.policy import Commands, Memory
from ....deploy.arbitration.priority_array import Slot
from ....deploy.journal import Journal
from ....deploy.order_desk import OrderDesk
from ....deploy.runtime import Period, Runtime, RuntimeSettings
from ....deploy.shield import Mode, Shield
from ....deploy.shield.monitors.monitor import Alarms, Seen
from ....deploy.shield.monitors.monitor import Memory as MonitorMemory
from ....deploy.station.control_sheet import write_control
from ....deploy.station.desk import StationDesk
from ....deploy.station.folder import StationFolder
from ....deploy.station.lock import sole_control
from ....deploy.station.period_state import PeriodState
from ....envs.constraint import Declaration
from ....envs.errors import PlantError
from ....envs.nameplate import Nameplate
from ....envs.plant import Arrays, Telemetry
from ....envs.twin import Observation
from .schedule import Schedule

WALL_PERIOD_S = 1.0
"""Budgets are shares of this: 0.2 s for a policy, 0.5 s for all that is decided."""
LATE_POLICY_S, LATE_DECISION_S = 0.25, 0.6
REPORT_PERIODS = 100
SHEET = "sheet.json"
"""The orders file, in the station's folder."""
HAND_BACK_PERIODS = 3
"""The farm's neutral lies beyond its cap, so that a walk there never ends."""


class RemotePlant:
    """The plant at the other end of a pipe. ``period``: the plant's, as its last answer told it."""

    def __init__(self, pipe: Connection, nameplate: Nameplate) -> None:
        self._pipe, self._nameplate = pipe, nameplate
        self.period, self._clock_s = 0, 0.0

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def clock_s(self) -> float:
        return self._clock_s

    def read(self) -> Telemetry:
        found: Telemetry = self._ask("read")
        return found

    def write(self, commands: Arrays) -> Arrays:
        found: Arrays = self._ask("write", commands)
        return found

    def advance(self) -> None:
        self._ask("advance")

    def begin(self) -> None:
        """Ask for period and time, before anything is read."""
        self._ask("begin")

    def tell(self, what: str, told: Any) -> None:
        """Say something that needs no answer."""
        self._pipe.send((what, told))

    def close(self) -> None:
        """The pipe is not ours to close."""

    def _ask(self, what: str, told: Any = None) -> Any:
        self._pipe.send((what, told))
        answer, self.period, self._clock_s, error = self._pipe.recv()
        if error:
            raise PlantError(error)
        return answer


class FaultyPolicy(NeutralPolicy):
    """Steers the wakes slowly and asks for all the power there is, but for what the schedule makes of it."""

    def __init__(self, plant: RemotePlant, schedule: Schedule) -> None:
        super().__init__(plant.nameplate, name="endurance")
        self._plant, self._cursor, self._first = plant, schedule.cursor(), plant.period

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        acting, period = self._cursor.at(self._plant.period), self._plant.period
        if "policy raises" in acting or "policy fails for good" in acting:
            raise RuntimeError("the policy fails as the schedule has it")
        if "policy late" in acting:
            time.sleep(LATE_POLICY_S)
        if "policy tells nonsense" in acting:
            return "nonsense", memory  # type: ignore[return-value]  # whatever a policy may answer
        group = self.nameplate.groups[0]
        asked = np.tile(group.neutral(), (1, group.n_assets, 1))
        asked[..., 0] = 22.0 * np.sin(2.0 * np.pi * (period / 90.0 + np.arange(group.n_assets) / group.n_assets))
        if (fault := acting.get("policy is hostile")) is not None:
            rng = np.random.default_rng((int(1e9 * fault.share), period))
            asked = rng.uniform(-1e3, 1e3, asked.shape) if fault.share < 0.5 else asked * (-1e9) ** (period % 2)
        if (fault := acting.get("policy tells no number")) is not None:
            asked[0, fault.asset, 0] = np.nan
        return {group.name: asked}, memory


class SlowStage:
    """A stage of the shield that stands still when the schedule says so, as a stopped process would."""

    name = "slow"

    def __init__(self, plant: RemotePlant, schedule: Schedule) -> None:
        self._plant, self._cursor = plant, schedule.cursor()

    def start(self) -> MonitorMemory:
        return {}

    def step(self, memory: MonitorMemory, seen: Seen) -> tuple[MonitorMemory, Alarms]:
        if "decision late" in self._cursor.at(self._plant.period):
            time.sleep(LATE_DECISION_S)
        return memory, {}


class Unhurried:
    """The same stage where nothing stands still: for a replay, which asks what was decided and not when."""

    name = SlowStage.name

    def start(self) -> MonitorMemory:
        return {}

    def step(self, memory: MonitorMemory, seen: Seen) -> tuple[MonitorMemory, Alarms]:
        return memory, {}


class Beats:
    """A heartbeat that somebody hears, but when the schedule says otherwise."""

    def __init__(self, plant: RemotePlant, schedule: Schedule) -> None:
        self._plant, self._cursor = plant, schedule.cursor()
        self.n_beats = 0

    @property
    def lost(self) -> str:
        return "as the schedule has it" if "watchdog lost" in self._cursor.at(self._plant.period) else ""

    def beat(self, standby: Arrays, *more: Any) -> None:
        """Somebody hears it."""
        self.n_beats += 1


def control(pipe: Connection, declaration: Declaration, schedule: Schedule, folder: Path, until: int) -> None:
    """Run a station's control, and run it again, until the plant's period ``until``; then say so and end."""
    logging.disable(logging.CRITICAL)  # faults are expected by the thousand
    plant, station = RemotePlant(pipe, declaration.nameplate), StationFolder(folder)
    station.make()
    plant.begin()
    with sole_control(station):
        while plant.period < until:
            plant.tell("ended", _run(plant, declaration, schedule, station, until))
    plant.tell("done", None)


def _run(plant: RemotePlant, declaration: Declaration, schedule: Schedule, station: StationFolder, until: int) -> str:
    """One run, as `twinloop run --station` makes it; returns how it ended."""
    ends = {kind: schedule.within(kind, plant.period + 1) for kind in ("restart", "interrupt")}
    due = min([*ends["restart"], *ends["interrupt"], until])
    policy = FaultyPolicy(plant, schedule)
    sheet = OrderDesk(Mode.AUTONOMOUS, station.path / SHEET)
    desk = StationDesk(station, declaration.nameplate, Mode.AUTONOMOUS, WALL_PERIOD_S, sheet=sheet)
    state = PeriodState(station, declaration.nameplate, Mode.AUTONOMOUS, desk)
    write_control(
        station,
        declaration,
        policy,
        ceiling=Mode.AUTONOMOUS,
        wall_period_s=WALL_PERIOD_S,
        journal=station.journal,
        endpoint=None,
        watchdog_pid=None,
        policy_path=None,
    )
    runtime = Runtime(
        plant,
        policy,
        Shield(declaration, monitors=(SlowStage(plant, schedule),)),
        Journal(station.journal),
        RuntimeSettings(retry_wait_s=0.0, hand_back_periods=HAND_BACK_PERIODS),
        mode=Mode.AUTONOMOUS,
        heartbeat=Beats(plant, schedule),
        wall_period_s=WALL_PERIOD_S,
        desk=desk,
        requesters={Slot.OPERATOR: desk},
    )
    ending = "failed"
    try:
        told = _told(plant, state, due if due in ends["interrupt"] else None)
        ending = runtime.run(due - plant.period, told).ending.value
    finally:
        state.close(ending)
    return ending


def _told(plant: RemotePlant, state: PeriodState, interrupt_at: int | None) -> Callable[[Period], None]:
    """Tell the other side what each period was, and end the run by Ctrl-C where asked."""

    def told(period: Period) -> None:
        state.show(period)
        decision = period.decision
        codes = sorted({reason.code.value for reason in decision.reasons})
        modes = sorted({mode.value for mode in decision.mode.values()})
        sources = sorted({source.value for source in decision.source.values()})
        plant.tell("period", (codes, modes, sources, period.latency_ms, period.accepted is not None))
        if plant.period % REPORT_PERIODS == 0:
            gc.collect()
            plant.tell("blocks", sys.getallocatedblocks())
        if interrupt_at is not None and plant.period >= interrupt_at - 1 and not period.handing_back:
            raise KeyboardInterrupt

    return told
