"""Shards: a twin of a fixed number of replicas with everything that gathers experience in it.

The policy's forward pass and the twin's step always see one whole shard, so no kernel's rounding depends on how many
shards there are or where they run. All randomness is a hash of (run seed, replica, episode or step).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import ActionLayout, Float32
from ..agents.actor import Actor
from ..envs.encoder import Encoder
from ..envs.errors import NumericalError
from ..envs.nameplate import Nameplate
from ..envs.noise import normal
from ..envs.task import Task
from ..envs.twin import Readings, Tensors, Twin
from .problem import Problem
from .seeds import ACTION_STREAM, episode_seeds, row_seeds

Flags = NDArray[np.bool_]
PolicyWeights = Mapping[str, Actor]
ShardState = dict[str, Any]


@dataclass(frozen=True)
class ShardPlan:
    """Which replicas of which run: ``n_replicas`` from ``first_replica`` on."""

    run_seed: int
    first_replica: int
    n_replicas: int
    explore: bool = True
    bootstrap: bool = True


@dataclass(frozen=True, eq=False)
class GroupRollout:
    """What one group saw and did in ``T`` steps; ``B`` replicas, ``N`` assets, ``F`` features, ``K`` actions.

    ``features`` ``[T, B, N, F]`` raw; ``actions`` ``[T, B, N, K]`` not clipped; ``log_prob``, ``reward`` ``[T, B, N]``;
    ``present``, ``present_after`` ``[T, B, N]`` before and after the step (before a reset); ``last_features``
    ``[B, N, F]`` what comes next; ``final_features`` ``[E, N, F]`` what truncated episodes ended with.
    """

    features: Float32
    actions: Float32
    log_prob: Float32
    reward: Float32
    present: Flags
    present_after: Flags
    last_features: Float32
    final_features: Float32


@dataclass(frozen=True, eq=False)
class Rollout:
    """``T`` steps of ``B`` replicas.

    ``terminated``, ``truncated``: ``[T, B]``; ``final_index``: ``[E, 2]``, step and replica of each row of
    ``final_features``; ``episode_returns``: the reward's sum over an episode, mean over its assets, in order of their
    end; ``costs[name]``: mean over replicas and present assets, ``[T]``.
    """

    groups: Mapping[str, GroupRollout]
    terminated: Flags
    truncated: Flags
    final_index: NDArray[np.int64]
    episode_returns: Float32
    costs: Mapping[str, Float32] = field(default_factory=dict)


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """The batch of an iteration: shards side by side, in their order."""
    first_replicas = np.cumsum([0, *(r.terminated.shape[1] for r in rollouts)])
    replica_axis = {"last_features": 0, "final_features": 0}
    return Rollout(
        groups={
            name: GroupRollout(
                **{
                    key: np.concatenate([getattr(r.groups[name], key) for r in rollouts], replica_axis.get(key, 1))
                    for key in vars(group)
                }
            )
            for name, group in rollouts[0].groups.items()
        },
        terminated=np.concatenate([r.terminated for r in rollouts], 1),
        truncated=np.concatenate([r.truncated for r in rollouts], 1),
        final_index=np.concatenate(
            [np.add(r.final_index, (0, n)) for r, n in zip(rollouts, first_replicas[:-1], strict=True)]
        ),
        episode_returns=np.concatenate([r.episode_returns for r in rollouts]),
        costs={
            name: np.mean([r.costs[name] for r in rollouts], axis=0, dtype=np.float32) for name in rollouts[0].costs
        },
    )


class Shard:
    """Gathers whole rollouts in replicas that carry on from one rollout to the next."""

    def __init__(self, problem: Problem, plan: ShardPlan) -> None:
        self._problem = problem
        self._plan = plan
        self._is_open = False

    def open(self) -> None:
        """Build the twin and reset every replica; a shard that is open stays as it is."""
        if self._is_open:
            return
        plan, n = self._plan, self._plan.n_replicas
        self._nameplate: Nameplate = self._problem.nameplate()
        self._twin: Twin = self._problem.twin(n)
        self._task: Task = self._problem.task()
        self._encoders: dict[str, Encoder] = self._problem.encoders(self._nameplate)
        self._layouts: dict[str, ActionLayout] = self._problem.layouts(self._nameplate)
        self._neutral: dict[str, torch.Tensor] = {
            g.name: torch.from_numpy(np.tile(g.neutral(), (n, g.n_assets, 1))).to(self._twin.device, self._twin.dtype)
            for g in self._nameplate.groups
        }
        self._row_seeds = row_seeds(plan.run_seed, torch.arange(plan.first_replica, plan.first_replica + n))
        self._step = 0
        self._episode = torch.zeros(n, dtype=torch.int64)
        self._episode_step = np.zeros(n, np.int64)
        self._episode_return = np.zeros(n, np.float32)
        self._readings = self._twin.reset(episode_seeds(self._row_seeds, self._episode))
        self._features: dict[str, Float32] = {}
        self._memory: dict[str, Mapping[str, Any]] = {}
        self._features, self._memory = self._encode(self._readings, self._fresh_memory(self._readings))
        self._is_open = True

    @torch.no_grad()
    def collect(self, weights: PolicyWeights, n_steps: int) -> Rollout:
        """Act for ``n_steps`` and return what happened; raises NumericalError for a NaN, naming its signal."""
        self.open()
        noise = self._draw_noise(weights, n_steps)
        buffers = {name: self._allocate(name, n_steps, w.n_normal) for name, w in weights.items()}
        terminated = np.zeros((n_steps, self._plan.n_replicas), np.bool_)
        truncated = np.zeros_like(terminated)
        finals: list[tuple[NDArray[np.int64], dict[str, Float32]]] = []
        costs: dict[str, list[float]] = {}
        for t in range(n_steps):
            commands = self._act(weights, buffers, noise, t)
            after = self._twin.step(commands)
            score = self._task.score(self._readings, commands, after)
            for name, buffer in buffers.items():
                buffer["reward"][t] = _array(score.reward[name])
                buffer["present_after"][t] = _array(after.present[name])
            for name, cost in score.costs.items():
                costs.setdefault(name, []).append(_mean_cost(cost, after))
            self._guard(after, buffers, t)
            self._episode_step += 1
            terminated[t] = _array(score.terminated)
            truncated[t] = (self._episode_step >= self._task.horizon) & ~terminated[t]
            final = self._move_on(after, terminated[t], truncated[t])
            if final is not None:
                rows = np.flatnonzero(truncated[t])
                finals.append((np.stack([np.full(rows.size, t), rows], 1), final))
        self._step += n_steps
        return self._finish(weights, buffers, noise, terminated, truncated, finals, costs)

    def _act(
        self, weights: PolicyWeights, buffers: Mapping[str, dict[str, Any]], noise: Mapping[str, Float32], t: int
    ) -> Tensors:
        commands = dict(self._neutral)
        for name, actor in weights.items():
            buffer, features = buffers[name], self._features[name]
            buffer["features"][t] = features
            buffer["present"][t] = _array(self._readings.present[name])
            memory = np.empty((*features.shape[:-1], actor.n_memory), np.float32)
            actions = actor.act(features, memory, noise[name][t], None, None).actions
            buffer["actions"][t] = actions
            commands[name] = torch.from_numpy(self._layouts[name].commands(actions)).to(
                self._twin.device, self._twin.dtype
            )
        return commands

    def _move_on(self, after: Readings, terminated: Flags, truncated: Flags) -> dict[str, Float32] | None:
        """Encode what comes next, over resets where episodes ended; return the final features of truncated rows."""
        done = terminated | truncated
        if not done.any():
            self._readings = after
            self._features, self._memory = self._encode(after, self._memory)
            return None
        wants_final = self._plan.bootstrap and bool(truncated.any())
        everything = bool(done.all())
        features: dict[str, Float32] = {}
        memory: dict[str, Mapping[str, Any]] = {}
        if wants_final or not everything:
            features, memory = self._encode(after, self._memory)
        final = {name: array[truncated].copy() for name, array in features.items()} if wants_final else None
        rows = torch.from_numpy(np.flatnonzero(done))
        self._episode[rows] += 1
        self._episode_step[done] = 0
        seeds = episode_seeds(self._row_seeds[rows], self._episode[rows])
        self._readings = self._twin.reset(seeds, None if everything else rows.to(self._twin.device))
        fresh_features, fresh_memory = self._encode(self._readings, self._fresh_memory(self._readings))
        if everything:
            self._features, self._memory = fresh_features, fresh_memory
        else:
            self._features = {n: _choose(done, fresh_features[n], features[n]) for n in features}
            self._memory = {
                n: {key: _choose(done, fresh_memory[n][key], old) for key, old in memory[n].items()} for n in memory
            }
        return final

    def _encode(
        self, readings: Readings, memory: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, Float32], dict[str, Mapping[str, Any]]]:
        features: dict[str, Float32] = {}
        remembered: dict[str, Mapping[str, Any]] = {}
        for name, encoder in self._encoders.items():
            present = _array(readings.present[name])
            encoded, remembered[name] = encoder.encode(
                _array(readings.measured[name]), _array(readings.statics[name]), present, memory[name], self._twin.dt_s
            )
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

    def _draw_noise(self, weights: PolicyWeights, n_steps: int) -> dict[str, Float32]:
        """Standard normal draws of a whole rollout, ``[T, B, N, K]`` a group; zeros without exploration."""
        n = self._plan.n_replicas
        drawn: dict[str, Float32] = {}
        for stream, (name, actor) in enumerate(weights.items()):
            n_assets, n_actions = self._nameplate.group(name).n_assets, actor.n_normal
            shape = (n_steps, n, n_assets, n_actions)
            if not self._plan.explore:
                drawn[name] = np.zeros(shape, np.float32)
                continue
            seeds = self._row_seeds.repeat(n_steps)
            steps = torch.arange(self._step, self._step + n_steps).repeat_interleave(n)
            z = normal(seeds, steps, ACTION_STREAM + stream, n_assets * n_actions, torch.float32)
            drawn[name] = z.numpy().reshape(shape)
        return drawn

    def _allocate(self, name: str, n_steps: int, n_actions: int) -> dict[str, Any]:
        shape = (n_steps, self._plan.n_replicas, self._nameplate.group(name).n_assets)
        return {
            "features": np.empty((*shape, self._features[name].shape[-1]), np.float32),
            "actions": np.empty((*shape, n_actions), np.float32),
            "reward": np.empty(shape, np.float32),
            "present": np.empty(shape, np.bool_),
            "present_after": np.empty(shape, np.bool_),
        }

    def _guard(self, after: Readings, buffers: Mapping[str, dict[str, Any]], t: int) -> None:
        """Raise for a NaN or infinity of a present asset. A sum is finite only if all its terms are."""
        for name, buffer in buffers.items():
            measured, reward = _array(after.measured[name]), buffer["reward"][t]
            if np.isfinite(measured.sum(dtype=np.float64) + reward.sum(dtype=np.float64)):
                continue
            group = self._nameplate.group(name)
            values = np.concatenate([measured, reward[..., None]], axis=-1)
            bad = ~np.isfinite(values) & (_array(after.present[name]) | buffer["present"][t])[..., None]
            if bad.any():
                row, asset, column = (int(i) for i in np.argwhere(bad)[0])
                signal = [*(s.name for s in group.measured), "reward"][column]
                raise NumericalError(
                    f"replica {self._plan.first_replica + row}, {name}/{group.assets[asset]}/{signal}: the twin gave "
                    f"{values[row, asset, column]} at step {self._episode_step[row] + 1} of episode "
                    f"{int(self._episode[row])} (seed {int(self._seeds()[row])}); "
                    "a learner needs finite numbers, so mend the twin or the task"
                )

    def _seeds(self) -> torch.Tensor:
        return episode_seeds(self._row_seeds, self._episode)

    def _finish(
        self,
        weights: PolicyWeights,
        buffers: Mapping[str, dict[str, Any]],
        noise: Mapping[str, Float32],
        terminated: Flags,
        truncated: Flags,
        finals: list[tuple[NDArray[np.int64], dict[str, Float32]]],
        costs: Mapping[str, list[float]],
    ) -> Rollout:
        groups = {}
        for name, buffer in buffers.items():
            parts = [final[name] for _, final in finals]
            empty = np.empty((0, *self._features[name].shape[1:]), np.float32)
            groups[name] = GroupRollout(
                **buffer,
                log_prob=weights[name].log_prob(noise[name], np.empty((*buffer["reward"].shape, 0), np.float32)),
                last_features=self._features[name].copy(),
                final_features=np.concatenate([empty, *parts]),
            )
        return Rollout(
            groups=groups,
            terminated=terminated,
            truncated=truncated,
            final_index=np.concatenate([np.empty((0, 2), np.int64), *(index for index, _ in finals)]),
            episode_returns=self._episode_returns(groups, terminated | truncated),
            costs={name: np.array(values, np.float32) for name, values in costs.items()},
        )

    def _episode_returns(self, groups: Mapping[str, GroupRollout], done: Flags) -> Float32:
        reward, present = (
            np.concatenate([getattr(g, key) for g in groups.values()], axis=2) for key in ("reward", "present")
        )
        per_step = np.where(present, reward, np.float32(0)).sum(2) / np.maximum(present.sum(2), 1).astype(np.float32)
        ended: list[Float32] = []
        start = 0
        for t in map(int, np.flatnonzero(done.any(axis=1))):
            self._episode_return += per_step[start : t + 1].sum(axis=0)
            ended.append(self._episode_return[done[t]].copy())
            self._episode_return[done[t]] = 0.0
            start = t + 1
        self._episode_return += per_step[start:].sum(axis=0)
        return np.concatenate([np.empty(0, np.float32), *ended])

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
            "step": self._step,
            "episode": self._episode.clone(),
            "episode_step": torch.from_numpy(self._episode_step.copy()),
            "episode_return": torch.from_numpy(self._episode_return.copy()),
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
        self._step = int(state["step"])
        self._episode = state["episode"].clone()
        self._episode_step = state["episode_step"].numpy().copy()
        self._episode_return = state["episode_return"].numpy().copy()


_READINGS = ("measured", "hidden", "statics", "present")


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def _mean_cost(cost: torch.Tensor, readings: Readings) -> float:
    """Mean over replicas and present assets of the group that the cost is shaped like."""
    present = next((p for p in readings.present.values() if p.shape == cost.shape), None)
    counted = cost.double() if present is None else cost[present].double()
    return float(counted.mean()) if counted.numel() else 0.0


def _choose(rows: Flags, there: NDArray[Any], elsewhere: NDArray[Any]) -> NDArray[Any]:
    return np.where(rows.reshape(-1, *(1,) * (there.ndim - 1)), there, elsewhere)
