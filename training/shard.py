"""Shards: a twin of a fixed number of replicas with everything that gathers experience in it.

The policy's forward pass and the twin's step always see one whole shard, so no kernel's rounding depends on how many
shards there are or where they run. All randomness is a hash of (run seed, replica, episode or step).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import ActionLayout, Float32
from ..envs.encoder import Encoder, MaskingEncoder
from ..envs.nameplate import Nameplate
from ..envs.task import Score, Task
from ..envs.twin import Readings, Tensors, Twin
from .episode_ends import EpisodeEnds, rows_with, seen_last
from .episode_returns import EpisodeReturns
from .group_recorder import Draws, GroupRecorder, Mind
from .numerical_guard import Where, check_features, check_readings, check_reward
from .problem import Problem
from .rollout_batch import Flags, PolicyWeights, Rollout
from .seeds import episode_seeds, row_seeds
from .site_state import SiteState

if TYPE_CHECKING:  # a run without a shield imports none
    from .shielding import Shielding
    from .watched_twin import Charges

ShardState = dict[str, Any]


@dataclass(frozen=True)
class ShardPlan:
    """Which replicas of which run: ``n_replicas`` from ``first_replica`` on."""

    run_seed: int
    first_replica: int
    n_replicas: int
    explore: bool = True
    bootstrap: bool = True
    wants_state: bool = False


class Shard:
    """Gathers whole rollouts in replicas that carry on from one rollout to the next."""

    def __init__(self, problem: Problem, plan: ShardPlan) -> None:
        self._problem = problem
        self._plan = plan
        self._is_open = False
        self.steps_taken = 0
        """Counts up while a rollout is gathered, so that another thread can see life."""

    def open(self) -> None:
        """Build the twin and reset every replica; a shard that is open stays as it is."""
        if self._is_open:
            return
        plan, n = self._plan, self._plan.n_replicas
        self._nameplate: Nameplate = self._problem.nameplate()
        self._twin: Twin = self._problem.twin(n)
        self._shielding: Shielding | None = self._problem.shielding(self._twin)
        self._charges: Charges | None = self._problem.charges(self._twin)
        self._task: Task = self._problem.task()
        self._encoders: dict[str, Encoder] = self._problem.encoders(self._nameplate)
        self._layouts: dict[str, ActionLayout] = self._problem.layouts(self._nameplate)
        self._maskers = {n: e for n, e in self._encoders.items() if isinstance(e, MaskingEncoder)}
        self._site_state = SiteState(self._nameplate) if plan.wants_state else None
        self._neutral: dict[str, torch.Tensor] = {
            g.name: torch.from_numpy(np.tile(g.neutral(), (n, g.n_assets, 1))).to(self._twin.device, self._twin.dtype)
            for g in self._nameplate.groups
        }
        self._row_seeds = row_seeds(plan.run_seed, torch.arange(plan.first_replica, plan.first_replica + n))
        self._step = 0
        self._episode = torch.zeros(n, dtype=torch.int64)
        self._episode_step = np.zeros(n, np.int64)
        self._returns = EpisodeReturns(n)
        self._minds: dict[str, Mind] = {}
        self._readings = self._reset(None)
        self._features: dict[str, Float32] = {}
        self._memory: dict[str, Mapping[str, Any]] = {}
        self._features, self._memory = self._encode(self._readings, self._fresh_memory(self._readings))
        self._is_open = True

    def close(self) -> None:
        """Let go of what a twin holds open, such as a simulator's processes; the shard is done with."""
        close = getattr(self._twin, "close", None) if self._is_open else None
        if close is not None:
            close()

    @torch.no_grad()
    def collect(self, weights: PolicyWeights, n_steps: int) -> Rollout:
        """Act for ``n_steps`` and return what happened; raises NumericalError for a NaN, naming its signal."""
        self.open()
        recorders = {name: self._recorder(number, name, weights, n_steps) for number, name in enumerate(self._layouts)}
        terminated = np.zeros((n_steps, self._plan.n_replicas), np.bool_)
        truncated = np.zeros_like(terminated)
        ends = EpisodeEnds()
        costs: dict[str, list[float]] = {}
        states: list[Float32] = []
        for t in range(n_steps):
            if self._site_state is not None:
                states.append(self._site_state.of(self._readings))
            after, score = self._advance(recorders, t, costs)
            self._episode_step += 1
            terminated[t] = _array(score.terminated)
            truncated[t] = (self._episode_step >= self._task.horizon) & ~terminated[t]
            cut = self._cut(score, recorders, t)
            self._move_on(after, t, terminated[t], truncated[t], cut, recorders, ends)
            self.steps_taken += 1
        self._step += n_steps
        for name, recorder in recorders.items():
            if (mind := recorder.mind()) is not None:
                self._minds[name] = mind
        groups = {name: r.finish(self._features[name], ends.features, name) for name, r in recorders.items()}
        last_state = None if self._site_state is None else self._site_state.of(self._readings)
        return Rollout(
            groups=groups,
            terminated=terminated,
            truncated=truncated,
            final_index=np.concatenate([np.empty((0, 2), np.int64), *ends.index]),
            episode_returns=self._returns.add(groups.values(), terminated | truncated),
            costs={name: np.array(values, np.float32) for name, values in costs.items()},
            state=np.stack(states) if states else None,
            last_state=last_state,
            final_state=None if last_state is None else np.concatenate([last_state[:0], *ends.states]),
        )

    def _advance(
        self, recorders: Mapping[str, GroupRecorder], t: int, costs: dict[str, list[float]]
    ) -> tuple[Readings, Score]:
        """Decide, step and score once."""
        before = self._readings
        commands: Tensors = self._commands(recorders, t)
        after = self._twin.step(commands)
        if self._shielding is not None:
            commands = self._shielding.obeyed(recorders, self._layouts, costs)
        score = self._task.score(before, commands, after)
        reward = score.reward if self._charges is None else self._charges.charge(score.reward, after.present, costs)
        where, first = self._where_after, self._plan.first_replica
        self._check(after, where)
        for name, recorder in recorders.items():
            recorder.get(t, _array(reward[name]), _array(after.present[name]))
            check_reward(*recorder.reward(t), self._nameplate, name, first, where)
        for name, cost in score.costs.items():
            costs.setdefault(name, []).append(_mean_cost(cost, after))
        return after, score

    def _commands(self, recorders: Mapping[str, GroupRecorder], t: int) -> dict[str, torch.Tensor]:
        commands = dict(self._neutral)
        readings, device, dtype = self._readings, self._twin.device, self._twin.dtype
        for name, recorder in recorders.items():
            check_features(self._features[name], self._nameplate, name, self._plan.first_replica, self._where)
            legal = None
            if (masker := self._maskers.get(name)) is not None:
                measured, statics, present = _seen(readings, name)
                legal = self._layouts[name].legal(masker.legal(measured, statics, present), present)
            decided = recorder.act(t, self._features[name], _array(readings.present[name]), legal)
            commands[name] = torch.from_numpy(decided).to(device, dtype)
        return commands

    def _cut(self, score: Score, recorders: Mapping[str, GroupRecorder], t: int) -> dict[str, Flags]:
        """Who was cut with step ``t``, ``[B, N]`` a group, noted; nothing where the task knows of no such thing."""
        if score.cut is None:
            return {}
        return {name: recorder.leave(t, _array(score.cut[name])) for name, recorder in recorders.items()}

    def _move_on(
        self,
        after: Readings,
        t: int,
        terminated: Flags,
        truncated: Flags,
        cut: Mapping[str, Flags],
        recorders: Mapping[str, GroupRecorder],
        ends: EpisodeEnds,
    ) -> None:
        """Encode what comes next, over resets where episodes ended."""
        done = terminated | truncated
        rows = rows_with(cut)
        finals = truncated if rows is None else truncated | rows
        wants_final = self._plan.bootstrap and bool(finals.any())
        everything = bool(done.all())
        features: dict[str, Float32] = {}
        memory: dict[str, Mapping[str, Any]] = {}
        if wants_final or not everything:
            features, memory = self._encode(after, self._memory)
        if wants_final:
            last, seen = after, features
            if rows is not None:
                last = seen_last(after, cut)
                self._check(last, self._where)
                seen, _ = self._encode(last, self._memory)
            ends.add(t, finals, seen, None if self._site_state is None else self._site_state.of(last))
        if not done.any():
            self._readings, self._features, self._memory = after, features, memory
            return
        for recorder in recorders.values():
            recorder.begin_again(done)
        self._readings = self._reset(done)
        fresh_features, fresh_memory = self._encode(self._readings, self._fresh_memory(self._readings))
        if everything:
            self._features, self._memory = fresh_features, fresh_memory
            return
        self._features = {n: _choose(done, fresh_features[n], features[n]) for n in features}
        self._memory = {
            n: {key: _choose(done, fresh_memory[n][key], old) for key, old in memory[n].items()} for n in memory
        }

    def _reset(self, done: Flags | None) -> Readings:
        """Begin the next episode in the rows that are done; the first one everywhere for None."""
        if done is None:
            readings = self._twin.reset(episode_seeds(self._row_seeds, self._episode))
        else:
            rows = torch.from_numpy(np.flatnonzero(done))
            self._episode[rows] += 1
            self._episode_step[done] = 0
            seeds = episode_seeds(self._row_seeds[rows], self._episode[rows])
            readings = self._twin.reset(seeds, None if done.all() else rows.to(self._twin.device))
        self._check(readings, self._where)
        return readings

    def _check(self, readings: Readings, where: Where) -> None:
        """Raise NumericalError for what is not finite of who is present; ``where`` tells a row's step."""
        plan = self._plan
        check_readings(readings, self._nameplate, self._groups, plan.first_replica, where, plan.wants_state)

    def _encode(
        self, readings: Readings, memory: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, Float32], dict[str, Mapping[str, Any]]]:
        features: dict[str, Float32] = {}
        remembered: dict[str, Mapping[str, Any]] = {}
        for name, encoder in self._encoders.items():
            measured, statics, present = _seen(readings, name)
            encoded, remembered[name] = encoder.encode(measured, statics, present, memory[name], self._twin.dt_s)
            features[name] = encoded = np.asarray(encoded, np.float32)
            # An absent asset's features are zero by contract; a NaN in them must not reach the network either way.
            if not present.all():
                features[name] = np.where(present[..., None], encoded, np.float32(0))
        return features, remembered

    def _fresh_memory(self, readings: Readings) -> dict[str, Mapping[str, Any]]:
        return {
            name: encoder.start(self._plan.n_replicas, readings.present[name].shape[1], _array(readings.measured[name]))
            for name, encoder in self._encoders.items()
        }

    def _recorder(self, number: int, name: str, weights: PolicyWeights, n_steps: int) -> GroupRecorder:
        actor, layout = weights[name], self._layouts[name]
        shape = (n_steps, self._plan.n_replicas, self._nameplate.group(name).n_assets)
        draws = Draws.of(actor, self._row_seeds, self._step, shape, number) if self._plan.explore else Draws.none()
        return GroupRecorder(actor, layout, draws, self._minds.get(name), shape, self._features[name].shape[-1])

    @property
    def _groups(self) -> tuple[str, ...]:
        return tuple(self._layouts)

    def _where_after(self, row: int) -> str:
        return self._where(row, 1)

    def _where(self, row: int, later: int = 0) -> str:
        seeds = episode_seeds(self._row_seeds, self._episode)
        return f"step {self._episode_step[row] + later} of episode {int(self._episode[row])} (seed {int(seeds[row])})"

    def snapshot(self) -> ShardState:
        """Everything that the next rollout depends on, as tensors."""
        self.open()
        r = self._readings
        return {
            "twin": {k: v.clone() for k, v in self._twin.snapshot().items()},
            "readings": {k: {g: v.clone() for g, v in getattr(r, k).items()} for k in _READINGS},
            "time_s": r.time_s.clone(),
            "features": {g: torch.from_numpy(v.copy()) for g, v in self._features.items()},
            "memory": {g: {k: torch.from_numpy(np.array(v)) for k, v in m.items()} for g, m in self._memory.items()},
            "minds": {g: {k: torch.from_numpy(v.copy()) for k, v in vars(m).items()} for g, m in self._minds.items()},
            "step": self._step,
            "episode": self._episode.clone(),
            "episode_step": torch.from_numpy(self._episode_step.copy()),
            "episode_return": torch.from_numpy(self._returns.running.copy()),
        }

    def restore(self, state: ShardState) -> None:
        """Inverse of :meth:`snapshot`."""
        self.open()
        self._twin.restore({k: v.clone() for k, v in state["twin"].items()})
        self._readings = Readings(
            **{k: {g: v.clone() for g, v in state["readings"][k].items()} for k in _READINGS},
            time_s=state["time_s"].clone(),
        )
        self._features = {g: v.numpy().copy() for g, v in state["features"].items()}
        self._memory = {g: {k: v.numpy().copy() for k, v in m.items()} for g, m in state["memory"].items()}
        self._minds = {g: Mind(**{k: v.numpy().copy() for k, v in m.items()}) for g, m in state["minds"].items()}
        self._step = int(state["step"])
        self._episode = state["episode"].clone()
        self._episode_step = state["episode_step"].numpy().copy()
        self._returns.running = state["episode_return"].numpy().copy()


_READINGS = ("measured", "hidden", "statics", "present")


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.numpy(force=True)
    return array


def _seen(readings: Readings, name: str) -> tuple[NDArray[Any], NDArray[Any], Flags]:
    """Measured signals, statics and presence of a group, as encoders see them: what an absent asset says, which may be
    NaN, is zero, lest it reach a neighbour's features."""
    measured, statics, present = (
        _array(tensors[name]) for tensors in (readings.measured, readings.statics, readings.present)
    )
    if not present.all():
        measured = np.where(present[..., None], measured, np.zeros((), measured.dtype))
    return measured, statics, present


def _mean_cost(cost: torch.Tensor, readings: Readings) -> float:
    """Mean over replicas and present assets of the group that the cost is shaped like."""
    present = next((p for p in readings.present.values() if p.shape == cost.shape), None)
    counted = cost.double() if present is None else cost[present].double()
    return float(counted.mean()) if counted.numel() else 0.0


def _choose(rows: Flags, there: NDArray[Any], elsewhere: NDArray[Any]) -> NDArray[Any]:
    return np.where(rows.reshape(-1, *(1,) * (there.ndim - 1)), there, elsewhere)
