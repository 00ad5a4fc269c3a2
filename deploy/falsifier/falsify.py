"""Search for a schedule of commands, faults and disturbances under which a constraint breaks behind the shield."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.plant import Telemetry
from ..shield import Shield
from .model import Model
from .schedule import Schedule, Space, proposal, reading
from .search import make_search
from .trial import TOLERANCE_PU, Measured, Outcome, Trial

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One constraint: its least ``margin`` in its unit over all trials, and the schedule and seed that gave it.

    ``asked``: whether the shield promises it there. Under faulty messages, readings that are wrong or writes that get
    lost, only constraints on commands are promised, without accelerations: nobody keeps what can't be seen or reached.
    """

    constraint: str
    hard: bool
    faulty_messages: bool
    asked: bool
    margin: float
    scale: float
    step: int
    seed: int
    schedule: Schedule
    violations: int

    @property
    def violated(self) -> bool:
        return self.margin < -TOLERANCE_PU * self.scale


@dataclass(frozen=True)
class Falsification:
    """``findings`` by constraint and kind of messages; what it took, and how it was searched.

    ``failed``: periods in which the shield itself raised and its last resort answered.
    """

    findings: tuple[Finding, ...]
    n_schedules: int
    n_steps: int
    agent_steps: int
    changed: int
    failed: int
    search: str
    seed: int

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Hard constraints that the shield promised and did not keep."""
        return tuple(f for f in self.findings if f.hard and f.asked and f.violated)


class Scheduled:
    """The adversary that follows one schedule a replica."""

    def __init__(self, space: Space, schedules: list[Schedule], seed: int) -> None:
        self._space, self._schedules, self._seed = space, schedules, seed
        self._first: Measured = {}

    def proposals(self, step: int, measured: Measured, applied: Measured) -> list[Any]:
        return [proposal(s, step, self._space.nameplate) for s in self._schedules]

    def readings(self, step: int, now_s: float, measured: Measured) -> list[Telemetry | None]:
        if step == 0:
            self._first = {name: value.copy() for name, value in measured.items()}
        found: list[Telemetry | None] = []
        for row, schedule in enumerate(self._schedules):
            rng = np.random.default_rng((self._seed, row, step))
            truth = {name: value[row] for name, value in measured.items()}
            frozen = {name: value[row] for name, value in self._first.items()}
            found.append(reading(schedule, step, truth, frozen, now_s, self._space.nameplate, rng))
        return found

    def lost(self, step: int) -> NDArray[np.bool_]:
        return np.array([any(e.on(step) for e in s.losses) for s in self._schedules], dtype=np.bool_)


def falsify(
    model: Model, shield: Shield, n_schedules: int, n_steps: int, seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Falsification:  # fmt: skip
    """Try ``n_schedules``, a batch of the model's replicas at a time; at least a batch with sound messages and one
    with faulty ones.

    What is minimised is the least margin of the hard constraints in shares of their scales, with a little of all
    others, so that there is a slope where limits are merely touched. The same arguments give the same findings.
    """
    trial = Trial(model, shield)
    plate = model.declaration.nameplate
    batches = max(1, round(n_schedules / model.n_replicas / 2))
    findings: dict[tuple[str, bool], Finding] = {}
    agent_steps = changed = failed = tried = 0
    name = ""
    for faulty in (False, True):
        space = Space(plate, n_steps, model.parameters, faulty)
        search = make_search(space.n_dimensions, model.n_replicas, seed + faulty)
        name = search.name
        for batch in range(batches):
            points = search.ask()
            schedules = [space.schedule(point) for point in points]
            # the same weather for all of a batch, so that they differ by what the search chose
            weather = seed * 1_000_003 + batch
            seeds = np.full(model.n_replicas, weather, dtype=np.int64)
            outcome = trial.run(Scheduled(space, schedules, weather), seeds, n_steps, _parameters(schedules))
            search.tell(points, _objective(trial, outcome, faulty))
            _take(findings, trial, outcome, schedules, weather, faulty)
            agent_steps, changed = agent_steps + outcome.agent_steps, changed + outcome.changed
            tried, failed = tried + len(schedules), failed + outcome.failed
            if progress is not None:
                progress(tried, 2 * batches * model.n_replicas)
    return Falsification(tuple(findings.values()), tried, n_steps, agent_steps, changed, failed, name, seed)


def _parameters(schedules: list[Schedule]) -> Mapping[str, Floats]:
    return {name: np.array([s.parameters[name] for s in schedules]) for name in schedules[0].parameters}


def _asked(trial: Trial, name: str, faulty: bool) -> bool:
    return not (faulty and name in trial.needs_messages)


def _objective(trial: Trial, outcome: Outcome, faulty: bool) -> Floats:
    """``[B]``; smaller is nearer to a violation that counts."""
    shares = {
        name: np.clip(least / trial.scale[name], -1e6, 1e6)
        for name, least in outcome.least.items()
        if not np.isposinf(least).all()
    }
    if not shares:
        return np.zeros(trial.model.n_replicas)
    every = np.mean(list(shares.values()), axis=0)
    counted = [shares[name] for name in trial.hard if name in shares and _asked(trial, name, faulty)]
    return np.asarray(every * 1e-2 + (np.min(counted, axis=0) if counted else 0.0))


def _take(
    findings: dict[tuple[str, bool], Finding], trial: Trial, outcome: Outcome, schedules: list[Schedule], seed: int,
    faulty: bool,
) -> None:  # fmt: skip
    for name, least in outcome.least.items():
        row = int(least.argmin())
        known = findings.get((name, faulty))
        violations = outcome.violated[name] + (known.violations if known is not None else 0)
        hard, asked = name in trial.hard, _asked(trial, name, faulty)
        new = Finding(
            name, hard, faulty, asked, float(least[row]), trial.scale[name], int(outcome.at_step[name][row]), seed,
            schedules[row], violations,
        )  # fmt: skip
        if known is None or new.margin < known.margin or math.isnan(known.margin):
            findings[name, faulty] = new
        else:
            findings[name, faulty] = Finding(**{**vars(known), "violations": violations})
