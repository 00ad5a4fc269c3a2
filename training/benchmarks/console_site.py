"""A site of mills that runs in real time in this process: a whole station, with its loop, for pages to be looked at."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...agents.controllers.reference import NeutralPolicy
from ...deploy.arbitration import Slot
from ...deploy.journal import Journal
from ...deploy.proposals.folder import ProposalFolder
from ...deploy.proposals.proposal import Gain, Proposal, SignedProposal, StageCheck, TwinStand
from ...deploy.runtime import Runtime, RuntimeSettings
from ...deploy.shield import Mode, Shield
from ...deploy.station.control_sheet import write_control
from ...deploy.station.desk import StationDesk
from ...deploy.station.folder import StationFolder
from ...deploy.station.order import new_id
from ...deploy.station.people import People, Role
from ...deploy.station.period_state import PeriodState
from ...envs.constraint import declare
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.plant import Arrays, Telemetry

PASSWORD = "a password of mills"
CREW: tuple[tuple[str, Role], ...] = (
    ("chief", "admin"),
    ("vera", "viewer"),
    ("olga", "operator"),
    ("anna", "approver"),
    ("ben", "approver"),
)
_PATIENT = RuntimeSettings(deadline_pu=0.6, decision_pu=0.9, trip_after=1000, hand_back_periods=0)
"""The loop is not what is looked at: on a busy machine it should rather be late than tripped."""


def mills(n_assets: int, n_measured: int, period_s: float) -> Nameplate:
    """``n_assets`` mills of ``n_measured`` signals each, the first of them a power."""
    measured: tuple[Signal, ...] = (Signal("power_kw", "kW", 0.0, 500.0, "active power"),)
    measured += tuple(Signal(f"sensor{i}_degc", "degC", -20.0, 180.0, f"sensor {i}") for i in range(1, n_measured))
    speed = Signal("speed_pu", "pu", 0.0, 1.0, "speed set-point", neutral=0.5, rate_limit_per_s=0.2)
    names = tuple(f"M{i:02d}" for i in range(1, n_assets + 1))
    return Nameplate("mills", period_s, (Group("mill", names, measured, (speed,)),))


class Mills:
    """The plant. Powers follow the speeds; all readings move every period. ``bad``: assets whose sensors are bad."""

    def __init__(self, nameplate: Nameplate) -> None:
        self.nameplate = nameplate
        self.bad: set[int] = set()
        self.leaves = threading.Event()
        self._group = nameplate.groups[0]
        self._speed = np.full((self._group.n_assets, 1), 0.5)
        self._period = 0
        self._next_s = time.monotonic()

    @property
    def clock_s(self) -> float:
        """UTC seconds."""
        return time.time()

    def read(self) -> Telemetry:
        n, m = self._group.n_assets, len(self._group.measured)
        now_s = time.time()
        phase = 0.1 * self._period + np.arange(n * m).reshape(n, m)
        values = 60.0 + 10.0 * np.sin(phase)
        values[:, 0] = 400.0 * self._speed[:, 0] + 5.0 * np.sin(phase[:, 0])
        quality = np.zeros((n, m), dtype=np.int8)
        for asset in self.bad:
            values[asset], quality[asset] = math.nan, 2
        name = self._group.name
        return Telemetry({name: values}, {name: np.full((n, m), now_s)}, {name: quality}, now_s, self._period + 1)

    def write(self, commands: Arrays) -> Arrays:
        self._speed = np.array(commands[self._group.name], dtype=np.float64)
        return {self._group.name: self._speed.copy()}

    def advance(self) -> None:
        """Wait for the next period; ends the run when it is to leave."""
        self._period += 1
        self._next_s = max(self._next_s + self.nameplate.period_s, time.monotonic())
        if self.leaves.wait(max(self._next_s - time.monotonic(), 0.0)):
            raise KeyboardInterrupt

    def close(self) -> None:
        """Nothing is open."""


class LiveStation:
    """A station and the loop that runs it; ``plant.leaves`` ends the loop, and the last state stays as it is."""

    def __init__(self, folder: StationFolder, plant: Mills) -> None:
        self.folder, self.plant = folder, plant

    @property
    def nameplate(self) -> Nameplate:
        return self.plant.nameplate

    def propose(self, by: str, *, valid_s: float = 600.0, speed_pu: float = 0.7) -> Proposal:
        """File a proposal of two writes, signed by ``by``; its promises are made up."""
        agents = self.nameplate.agents[:2]
        utc_s = time.time()
        period_s = self.nameplate.period_s
        proposal = Proposal(
            id=new_id(), kind="writes", by=by, reason="mill faster while power is cheap", created_utc_s=utc_s - 1.0,
            valid_until_utc_s=utc_s + valid_s, site=self.nameplate.site, nameplate_hash=self.nameplate.hash,
            limits_hash=declare(self.nameplate).hash, writes={f"{a}/speed_pu": speed_pu for a in agents},
            lasts_s=3600.0, rollback={f"{a}/speed_pu": 0.5 for a in agents},
            twin=TwinStand(state_sha256="0" * 64, time_s=utc_s, open=True, nis=1.02, coverage=0.95),
            measured={f"{a}/power_kw": 200.0 for a in agents}, tolerance={f"{a}/power_kw": 50.0 for a in agents},
            horizon_s=600.0, n_replicas=64,
            gain=Gain(
                signal="power_kw", unit="kW", today=400.0, mean=160.0, low=120.0, high=200.0, surely_low=130.0,
                surely_high=190.0,
            ),
            margins={"speed range": 0.3}, stages=tuple(StageCheck(agents=(a,), low=40.0, high=120.0) for a in agents),
            stage_s=10.0 * period_s, measure_s=10.0 * period_s,
        )  # fmt: skip
        key = People.read(self.folder.people).unlock(by, PASSWORD)
        ProposalFolder(self.folder, proposal.id).file_proposal(SignedProposal.of(proposal, key))
        return proposal


def make_people(path: Path) -> None:
    """A file of :data:`CREW`, all with :data:`PASSWORD`."""
    people = People.read(path)
    for name, role in CREW:
        people = people.add(name, role, PASSWORD, by="chief", by_password=PASSWORD)


@contextmanager
def running_station(
    path: Path, *, n_assets: int = 3, n_measured: int = 3, period_s: float = 0.2, mode: Mode = Mode.AUTONOMOUS
) -> Iterator[LiveStation]:
    """Inside, a loop runs the mills at ``path``, which is made, in a thread, and follows the station's orders."""
    folder = StationFolder(path)
    folder.make()
    nameplate = mills(n_assets, n_measured, period_s)
    declaration, plant, policy = declare(nameplate), Mills(nameplate), NeutralPolicy(nameplate)
    desk = StationDesk(folder, nameplate, mode, period_s)
    state = PeriodState(folder, nameplate, mode, desk)
    live = LiveStation(folder, plant)
    write_control(
        folder, declaration, policy, ceiling=mode, wall_period_s=period_s, journal=folder.journal, endpoint=None,
        watchdog_pid=None, policy_path=None,
    )  # fmt: skip
    with Journal(folder.journal) as journal:
        runtime = Runtime(
            plant, policy, Shield(declaration), journal, _PATIENT, mode=mode,
            desk=desk, requesters={Slot.OPERATOR: desk}, wall_period_s=period_s,
        )  # fmt: skip
        thread = threading.Thread(target=runtime.run, args=(None, state.show), name="control", daemon=True)
        thread.start()
        try:
            yield live
        finally:
            plant.leaves.set()
            thread.join(30.0)
            state.close("interrupted")
