"""What becomes of the members of a live twin under today's commands and under a change, by the same chance.

Both futures begin at the same members and draw the same noise, which a twin makes from seed and step alone: what
differs between them is the change. Every command passes the shield that stands before the plant, one memory a member.
The twin needs torch; nothing here does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ...agents.policy import Memory, Policy
from ...envs.constraint import (
    BarrierConstraint,
    History,
    LookAheadConstraint,
    Margins,
    MeasuredConstraint,
    Moment,
    RowsConstraint,
    SeparationConstraint,
    needs_history,
)
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Quality, Telemetry
from ...envs.twin import Observation
from ..shield import Shield, ShieldState

if TYPE_CHECKING:
    from ...envs.twin import Readings, Twin

Floats = NDArray[np.float64]

_READS_STATE = (BarrierConstraint, LookAheadConstraint, MeasuredConstraint, RowsConstraint, SeparationConstraint)


@dataclass(frozen=True)
class Future:
    """``measured[g]``: ``[T, B, N, O]`` after each period; ``commands[g]``: ``[T, B, N, A]``, what was sent in it.

    ``margins``: of each constraint, the least of all members, periods and assets.
    """

    measured: Arrays
    commands: Arrays
    margins: Mapping[str, float]


class Commander(Protocol):
    """Asks for commands ``[B, N, A]`` a group in period ``k``, from 0 on. Holds its own memory: one future each."""

    def __call__(self, observation: Observation, k: int) -> Arrays: ...


class Hold:
    """What the plant obeys now, for ever. ``accepted[g]``: ``[N, A]``."""

    def __init__(self, accepted: Arrays) -> None:
        self._accepted = accepted

    def __call__(self, observation: Observation, k: int) -> Arrays:
        n = len(next(iter(observation.measured.values())))
        return {name: np.tile(value, (n, 1, 1)) for name, value in self._accepted.items()}


class Follow:
    """What a policy says, from its start."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._memory: Memory | None = None

    def __call__(self, observation: Observation, k: int) -> Arrays:
        if self._memory is None:
            self._memory = self._policy.start(len(next(iter(observation.measured.values()))))
        commands, self._memory = self._policy.act(observation, self._memory)
        return commands


class RollOut:
    """``today`` for all, save for the assets of the stages begun, which get ``change``'s where it says something."""

    def __init__(
        self,
        nameplate: Nameplate,
        today: Commander,
        change: Commander,
        stages: Sequence[Sequence[str]],
        stage_periods: int,
    ) -> None:
        self._today, self._change = today, change
        self._begins = {g.name: np.full(g.n_assets, np.iinfo(np.int64).max) for g in nameplate.groups}
        for number, agents in enumerate(stages):
            for agent in agents:
                group, _, asset = agent.partition("/")
                self._begins[group][nameplate.group(group).assets.index(asset)] = number * stage_periods

    def __call__(self, observation: Observation, k: int) -> Arrays:
        today, change = self._today(observation, k), self._change(observation, k)
        found = {}
        for name, value in today.items():
            ours = (self._begins[name] <= k)[:, None] & ~np.isnan(change[name])
            found[name] = np.where(ours, change[name], value)
        return found


def simulate(
    twin: Twin, readings: Readings, commander: Commander, shield: Shield, accepted: Arrays, n_periods: int
) -> Future:
    """One future of all members, from where they stand. ``accepted[g]`` ``[N, A]``: what the plant obeys now."""
    like = readings.measured[twin.nameplate.groups[0].name]  # makes tensors of the twin's kind without knowing torch
    plate, dt_s = twin.nameplate, twin.dt_s
    behind = _Behind(shield, twin.n_replicas, accepted, dt_s)
    margins = Margins(shield.declaration)
    before: Arrays = {name: np.tile(value, (twin.n_replicas, 1, 1)) for name, value in accepted.items()}
    history = History.start(shield.declaration, before) if needs_history(shield.declaration) else None
    measured: dict[str, list[Floats]] = {g.name: [] for g in plate.groups}
    commands: dict[str, list[Floats]] = {g.name: [] for g in plate.groups}
    least: dict[str, float] = {}
    observation = readings.observation(dt_s)
    for k in range(n_periods):
        sent = behind.send(commander(observation, k), observation, k)
        after = twin.step({n: like.new_tensor(c) for n, c in sent.items()})
        observation = after.observation(dt_s)
        now = {n: np.asarray(v, dtype=np.float64) for n, v in observation.measured.items()}
        for name, margin in margins(Moment(before, sent, now, dt_s, observation.present, history)).items():
            worst = np.asarray(margin, dtype=np.float64).min()
            least[name] = min(least.get(name, np.inf), float(worst) if np.isfinite(worst) else np.inf)
        history = None if history is None else history.after(before, sent, dt_s)
        before = sent
        for n, value in now.items():
            measured[n].append(value)
            commands[n].append(sent[n])
    return Future(
        {n: np.stack(v) for n, v in measured.items()},
        {n: np.stack(v) for n, v in commands.items()},
        {name: value for name, value in least.items() if np.isfinite(value)},
    )


class _Behind:
    """The shield before each member. Where nothing that it keeps depends on measurements, and all members are asked the
    same, one answer serves all."""

    def __init__(self, shield: Shield, n_members: int, accepted: Arrays, dt_s: float) -> None:
        self._shield, self._dt_s = shield, dt_s
        self._states: list[ShieldState] = [shield.start(accepted)] * n_members
        self._alike = not any(isinstance(c, _READS_STATE) for c in shield.declaration.constraints)
        plate = shield.nameplate
        self._good = {g.name: np.full((g.n_assets, len(g.measured)), Quality.GOOD, np.int8) for g in plate.groups}

    def send(self, asked: Arrays, observation: Observation, k: int) -> dict[str, Floats]:
        asked = {name: np.asarray(value, dtype=np.float64) for name, value in asked.items()}
        self._alike &= all(bool((value == value[:1]).all()) for value in asked.values())
        n = len(self._states)
        sent = {name: np.empty_like(value) for name, value in asked.items()}
        for row in range(1 if self._alike else n):
            now_s = k * self._dt_s
            decision = self._shield.filter(
                self._telemetry(observation, row, now_s, k),
                {name: value[row] for name, value in asked.items()},
                now_s,
                self._states[row],
            )
            self._states[row] = decision.state
            for name, value in decision.commands.items():
                sent[name][row] = value
        if self._alike:
            self._states = [self._states[0]] * n
            for value in sent.values():
                value[1:] = value[0]
        return sent

    def _telemetry(self, observation: Observation, row: int, now_s: float, k: int) -> Telemetry:
        values = {name: np.asarray(v[row], dtype=np.float64) for name, v in observation.measured.items()}
        times = {name: np.full(value.shape, now_s) for name, value in values.items()}
        return Telemetry(values, times, self._good, now_s, k)
