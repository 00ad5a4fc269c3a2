"""Random events against the real loop of a station, with a judge of what the plant is sent while the stop is held."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.arbitration import Slot
from ...deploy.journal import Journal
from ...deploy.replay import replay
from ...deploy.runtime import Period, Runtime, RuntimeSettings
from ...deploy.shield import Mode, Shield
from ...deploy.station.folder import StationFolder
from ...deploy.station.order import new_id
from ...envs.errors import JournalError
from .arbitration_faults import FaultyExecutor, FaultyPolicy
from .arbitration_judge import PERSON, Judge, JudgedDesk, JudgedPlant
from .arbitration_site import KETTLES, neutral

WALL_PERIOD_S = 0.5
"""Budgets are shares of this; nobody waits for it."""

_MODES = ("shadow", "advise", "approved", "autonomous")
_ORDERLY, _AT_ONCE = (RuntimeSettings(retry_wait_s=0.0, hand_back_periods=n) for n in (30, 0))


class Fuzz:
    """One station that lives through ``n_events`` random events, over as many control processes as it takes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._station = StationFolder(folder / "station")
        self._station.make()
        self.judge = Judge()
        self.plant = JudgedPlant(self.judge)
        self.policy = FaultyPolicy(self._rng, self._during)
        self.executor = FaultyExecutor(self._rng)
        self.events: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.periods = self.replayed = self.differences = self.starts = self.refused = self.followed = 0
        self._clock_s = 0.0
        self._left = 0
        self._kill = self._end = False
        self._later: list[Callable[[], None]] = []
        self._placed: list[tuple[str, str]] = []
        self._desk: JudgedDesk
        self._known: set[str] = set()
        self._lost_for = 0
        self._kinds: dict[str, tuple[float, Callable[[], None]]] = {
            "stop by file": (1.0, self._stop_by_file),
            "stop by signal": (1.0, lambda: self._pressed(lambda: self._desk.stop("signal SIGUSR1"))),
            "stop by order": (1.0, lambda: self._pressed(lambda: self._order("stop"))),
            "reset": (14.0, lambda: self._order("reset", **self._assets(0.2))),
            "mode": (24.0, lambda: self._order("mode", mode=self._one(_MODES, (1, 1, 3, 6)), **self._assets(0.3))),
            "manual": (16.0, self._manual),
            "release": (4.0, lambda: self._order("release", **self._assets(0.5))),
            "execute": (8.0, lambda: self._order("execute", proposal="P-1")),
            "rollback": (3.0, lambda: self._order("rollback", proposal="P-1")),
            "wrong order": (3.0, self._wrong),
            "order again": (4.0, self._again),
            "time passes": (6.0, self._time_passes),
            "policy fails": (2.0, self._policy_fails),
            "policy works": (6.0, self._policy_works),
            "policy late": (0.2, self._policy_late),
            "decision late": (0.1, self._decision_late),
            "executor fails": (1.0, self._executor_fails),
            "executor works": (2.0, self._executor_works),
            "plant lost": (1.0, self._plant_lost),
            "another hand": (1.0, self._another_hand),
            "equipment holds": (0.7, self._equipment_holds),
            "equipment lets go": (3.0, self._equipment_lets_go),
            "control killed": (0.3, self._control_killed),
            "control ended": (0.3, self._control_ended),
        }
        weights = np.array([w for w, _ in self._kinds.values()])
        self._chances = weights / weights.sum()

    def run(self, n_events: int, tell: Callable[[int], None] = lambda n: None) -> None:
        """Live through them; ``tell`` gets how many are over."""
        self._left = n_events
        while self._left > 0:
            self._control()
            tell(n_events - self._left)

    def _control(self) -> None:
        """One control process, until it is killed or ended."""
        self.starts += 1
        self._kill = self._end = False
        journal = self._station.path / f"{self.starts}.sqlite"
        mode = Mode(self._one(_MODES, (1, 1, 2, 8)))
        self._desk = JudgedDesk(
            self._station, KETTLES, Mode.AUTONOMOUS, WALL_PERIOD_S, executor=self.executor, monotonic_s=self._clock
        )
        self._desk.judge = self.judge
        with Journal(journal) as rows:
            rows._open().execute("PRAGMA synchronous=OFF")  # the disk's speed is not what is tested
            # Killed means that nothing is handed back; that it really is dead, a test of the whole command shows.
            orderly = bool(self._rng.random() < 0.5)
            runtime = Runtime(
                self.plant,
                self.policy,
                Shield(KETTLES),
                rows,
                _ORDERLY if orderly else _AT_ONCE,
                mode=mode,
                desk=self._desk,
                requesters={Slot.OPERATOR: self._desk, Slot.APPROVED: self.executor},
                monotonic_s=self._clock,
                wall_period_s=WALL_PERIOD_S,
            )
            runtime.run(None, self._between)
        if self.starts % 5 == 1:
            try:
                found = replay(journal, lambda start: Shield(KETTLES))
                self.replayed += found.decisions + found.missed
                self.differences += len(found.differences)
            except JournalError:
                self.differences += 1
        journal.unlink(missing_ok=True)
        for later in self._later:
            later()
        self._later.clear()

    def _clock(self) -> float:
        return self._clock_s

    def _between(self, period: Period) -> None:
        """After each period: judge it, then let things happen."""
        self.periods += 1
        self._clock_s += 1.0
        self.judge.judge(period, self.periods)
        self.modes.update(mode.value for mode in period.decision.mode.values())
        for result in self._desk.latest:
            if result.id not in self._known:
                self._known.add(result.id)
                self.followed += result.accepted
                self.refused += not result.accepted
        self._lost_for -= 1
        self.plant.is_lost = self._lost_for > 0
        for later in self._later:
            later()
        self._later.clear()
        for _ in range(int(self._rng.integers(0, 4))):
            self._happen()
        if not period.handing_back and (self._kill or self._end or self._left <= 0):
            raise KeyboardInterrupt

    def _happen(self) -> None:
        if self._left <= 0:
            return
        name = str(self._rng.choice(list(self._kinds), p=self._chances))
        act = self._kinds[name][1]
        self.events[name] += 1
        self._left -= 1
        if name.startswith("stop") and self._rng.random() < 0.5:
            self._during_next = act  # in the midst of the next decision, after its orders were read
        else:
            act()

    _during_next: Callable[[], None] | None = None

    def _during(self) -> None:
        act, self._during_next = self._during_next, None
        if act is not None:
            act()

    def _one(self, names: Sequence[str], weights: Sequence[float]) -> str:
        chances = np.array(weights, dtype=np.float64)
        return str(self._rng.choice(list(names), p=chances / chances.sum()))

    def _assets(self, chance: float) -> dict[str, Any]:
        if self._rng.random() > chance:
            return {}
        agents = list(KETTLES.agents)
        return {"assets": [str(a) for a in self._rng.choice(agents, int(self._rng.integers(1, 4)), replace=False)]}

    def _pressed(self, press: Callable[[], None]) -> None:
        press()
        self.judge.press()

    def _stop_by_file(self) -> None:
        self._pressed(self._station.stop.touch)
        os.utime(self._station.stop)

    def _order(self, kind: str, **fields: Any) -> None:
        now_s = time.time()
        row = {"id": new_id(), "kind": kind, "by": f"{PERSON}{self.judge.presses}", "utc_s": now_s, **fields}
        row["expires_utc_s"] = now_s + 10.0
        self._place(str(row["id"]), json.dumps(row))
        if kind == "reset":
            self.judge.presses_at_placing[str(row["id"])] = self.judge.presses

    def _place(self, id: str, text: str) -> None:
        beside = self._station.path / "part"
        beside.write_text(text)
        beside.replace(self._station.inbox / f"{id}.json")
        self._placed = [*self._placed[-50:], (id, text)]

    def _manual(self) -> None:
        places = [("heat_kw", 100.0), ("valve_pu", 1.0)]
        values = {
            f"kettle/{asset}/{name}": float(self._rng.uniform(0.0, top))
            for asset in ("K1", "K2", "K3")
            for name, top in places
            if self._rng.random() < 0.4
        }
        if self._rng.random() < 0.3 or not values:
            values["fan/F1/stage"] = float(self._rng.integers(3))
        self._order("manual", values=values, lasts_s=float(self._rng.uniform(0.5, 60.0)))

    def _wrong(self) -> None:
        now_s = time.time()
        wrong: list[dict[str, Any]] = [
            {"mode": "autonomous", "utc_s": now_s - 7 * 86400.0},
            {"mode": "autonomous", "utc_s": now_s + 3600.0, "expires_utc_s": now_s + 3610.0},
            {"mode": "autonomous", "expires_utc_s": now_s - 1.0},
            {"mode": "autonomous", "assets": ["kettle/K9"]},
            {"kind": "reset", "utc_s": now_s - 3600.0},
            {"kind": "reset", "utc_s": now_s + 3600.0, "expires_utc_s": now_s + 3610.0},
            {"kind": "manual", "values": {"kettle/K1/heat_kw": 1e9}},
            {"kind": "manual", "values": {"kettle/K1/heat_kw": math.nan}},
            {"kind": "fly"},
            {"mode": 7},
        ]
        row = {"id": new_id(), "kind": "mode", "by": "fuzz", "utc_s": now_s, "expires_utc_s": now_s + 10.0}
        text = json.dumps({**row, **wrong[int(self._rng.integers(len(wrong)))]})
        self._place(str(row["id"]), text[: int(self._rng.integers(len(text)))] if self._rng.random() < 0.2 else text)

    def _again(self) -> None:
        """An order that was placed before, whatever became of it; a stop among them is pressed again."""
        if not self._placed:
            return
        id, text = self._placed[int(self._rng.integers(len(self._placed)))]
        self._place(id, text)

    def _time_passes(self) -> None:
        self._clock_s += float(self._rng.uniform(0.0, 30.0))

    def _policy_fails(self) -> None:
        kind = int(self._rng.integers(4))
        self.policy.fails = kind == 0
        self.policy.nonsense = [None, "full", {"kettle": np.full((1, 3, 2), np.nan)}, {"kettle": np.ones((1, 3))}][kind]

    def _policy_works(self) -> None:
        self.policy.fails, self.policy.nonsense = False, None
        self.policy.wants_pu = float(self._rng.random())

    def _policy_late(self) -> None:
        self.policy.late_s = 0.3 * WALL_PERIOD_S

    def _decision_late(self) -> None:
        self.executor.late_s = 0.6 * WALL_PERIOD_S

    def _executor_fails(self) -> None:
        self.executor.is_broken = True

    def _executor_works(self) -> None:
        self.executor.is_broken = False

    def _plant_lost(self) -> None:
        self._lost_for = int(self._rng.integers(1, 6))
        self.plant.is_lost = True

    def _another_hand(self) -> None:
        if not self.plant.is_lost:
            self.plant.commands["kettle"] = self._rng.uniform(0.0, 1.0, (3, 2)) * [100.0, 1.0]

    def _equipment_holds(self) -> None:
        self.plant.holds, self.plant.commands = True, neutral()

    def _equipment_lets_go(self) -> None:
        self.plant.holds = False

    def _control_killed(self) -> None:
        self._kill = True

    def _control_ended(self) -> None:
        self._end = True


def scratch() -> str | None:
    """A folder in memory where there is one, so that the disk does not set the pace."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() and shutil.disk_usage(shm).free > 1 << 28 else None
