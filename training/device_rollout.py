"""Whole rollouts where the twin is: twin, encoder, actor and task in torch on one device.

The same numbers as :class:`~twinloop.training.shard.Shard`: the same hashes, resets, masks and memories. No array is
copied to the host. Once a step it reads two flags, whether an episode ended and whether a number is not finite; all
else stays in the device's queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..agents.torch_actor import TorchActor, TorchLayout
from ..envs.encoder import Encoder, MaskingEncoder
from ..envs.errors import ConfigurationError
from ..envs.noise import normal, uniform
from ..envs.task import Task
from ..envs.twin import Readings, Twin
from .device_batch import DeviceGroupRollout, DeviceRollout
from .device_guard import DeviceGuard
from .device_recorder import DeviceRecorder, Mind
from .problem import Problem
from .seeds import ACTION_STREAM, LEVEL_STREAM, episode_seeds, row_seeds
from .shard import ShardPlan, ShardState

Tensor = torch.Tensor
_READINGS = ("measured", "hidden", "statics", "present")


class DeviceShard:
    """Gathers rollouts of a problem's twin on ``problem.device``, in replicas that carry on between rollouts.

    ``is_compiled``: fuse deciding into few kernels by ``torch.compile``, for GPUs, where a launch costs more than the
    arithmetic of a small network. Raises :class:`~twinloop.envs.errors.ConfigurationError` for what needs the host: a
    shield, the site's state for central critics, compiling on a CPU.
    """

    def __init__(self, problem: Problem, plan: ShardPlan, *, is_compiled: bool = False) -> None:
        for asked, what in ((problem.shield is not None, "a shield"), (plan.wants_state, "critic_view state")):
            if asked:
                raise ConfigurationError(f"rollouts on the device: {what} works on the host; gather with Shard instead")
        if is_compiled and torch.device(problem.device).type == "cpu":
            raise ConfigurationError("rollouts on the device: compiling pays on a GPU alone; leave it off on a CPU")
        self._problem, self._plan, self._is_compiled = problem, plan, is_compiled
        self._is_open = False

    def open(self) -> None:
        """Build the twin and reset every replica; a shard that is open stays as it is."""
        if self._is_open:
            return
        n, first = self._plan.n_replicas, self._plan.first_replica
        self._nameplate = self._problem.nameplate()
        self._twin: Twin = self._problem.twin(n)
        self._task: Task = self._problem.task()
        self._encoders: dict[str, Encoder] = self._problem.encoders(self._nameplate)
        device, dtype = self._twin.device, self._twin.dtype
        layouts = self._problem.layouts(self._nameplate)
        self._layouts = {name: TorchLayout(layout, device, dtype) for name, layout in layouts.items()}
        self._guard = DeviceGuard(self._nameplate, tuple(layouts), first)
        self._neutral = {
            g.name: torch.from_numpy(g.neutral()).to(device, dtype).expand(n, g.n_assets, -1)
            for g in self._nameplate.groups
        }
        self._row_seeds = row_seeds(self._plan.run_seed, torch.arange(first, first + n)).to(device)
        self._step = 0
        self._episode = torch.zeros(n, dtype=torch.int64, device=device)
        self._episode_step = torch.zeros_like(self._episode)
        self._running_return = torch.zeros(n, dtype=torch.float32, device=device)
        self._minds: dict[str, Mind] = {}
        self._readings = self._twin.reset(episode_seeds(self._row_seeds, self._episode))
        self._guard.look(self._readings, self._where)
        self._features, self._memory = self._encode(self._readings, self._fresh_memory(self._readings))
        self._deciders: dict[str, Callable[..., Any]] = {}
        self._is_open = True

    @torch.no_grad()
    def collect(self, actors: Mapping[str, TorchActor], n_steps: int) -> DeviceRollout:
        """Act for ``n_steps`` and return what happened; raises NumericalError for a NaN, naming its signal."""
        self.open()
        shape, device = (n_steps, self._plan.n_replicas), self._twin.device
        recorders = {
            name: self._recorder(number, name, actors[name], n_steps) for number, name in enumerate(self._layouts)
        }
        terminated = torch.empty(shape, dtype=torch.bool, device=device)
        truncated = torch.empty_like(terminated)
        finals = _Finals()
        costs: dict[str, list[Tensor]] = {}
        ends: list[int] = []
        for t in range(n_steps):
            before = self._readings
            commands = self._decide(recorders, t)
            after = self._twin.step(commands)
            score = self._task.score(before, commands, after)
            if score.cut is not None:
                raise ConfigurationError(
                    f"rollouts on the device: task {self._task.name!r} cuts assets one by one, which works on the "
                    "host; take device cpu"
                )
            for name, recorder in recorders.items():
                recorder.reward[t] = score.reward[name]
                recorder.present_after[t] = after.present[name]
            for name, cost in score.costs.items():
                costs.setdefault(name, []).append(_mean_cost(cost, after))
            self._episode_step += 1
            terminated[t] = score.terminated
            truncated[t] = (self._episode_step >= self._task.horizon) & ~terminated[t]
            done = terminated[t] | truncated[t]
            rewards = {n: r.reward[t] for n, r in recorders.items()}
            if self._guard.look(after, self._where, rewards, before, done):
                ends.append(t)
                self._begin_again(after, t, done, truncated[t], recorders, finals)
            else:
                self._readings = after
                self._features, self._memory = self._encode(after, self._memory)
        self._step += n_steps
        groups = {name: self._finish(name, recorder, finals) for name, recorder in recorders.items()}
        return DeviceRollout(
            groups=groups,
            terminated=terminated,
            truncated=truncated,
            final_index=torch.cat([torch.empty(0, 2, dtype=torch.int64, device=device), *finals.index]),
            episode_returns=self._returns(groups, terminated | truncated, ends),
            costs={name: torch.stack(values).to(torch.float32) for name, values in costs.items()},
        )

    def _recorder(self, number: int, name: str, actor: TorchActor, n_steps: int) -> DeviceRecorder:
        n, n_assets = self._plan.n_replicas, self._nameplate.group(name).n_assets
        shape, device = (n_steps, n, n_assets), self._twin.device

        def drawn(draw: Callable[..., Tensor], stream: int, each: int) -> Tensor | None:
            if each == 0 or not self._plan.explore:
                return None
            steps = torch.arange(self._step, self._step + n_steps, device=device).repeat_interleave(n)
            seeds = self._row_seeds.repeat(n_steps)
            return draw(seeds, steps, stream + number, n_assets * each, torch.float32).view(*shape, each)

        mind = self._minds.get(name)
        if mind is None:
            memory = torch.zeros(n, n_assets, actor.n_memory, device=device)
            mind = Mind(memory, torch.ones(n, n_assets, dtype=torch.bool, device=device))
        if name not in self._deciders:
            # The actor is an argument, so that its tensors are inputs of the compiled code and not constants in it.
            self._deciders[name] = torch.compile(TorchActor.act) if self._is_compiled else TorchActor.act
        return DeviceRecorder(
            actor=actor,
            decide=self._deciders[name],
            normal=drawn(normal, ACTION_STREAM, actor.n_normal),
            uniform=drawn(uniform, LEVEL_STREAM, actor.n_uniform),
            mind=mind,
            features=torch.empty(*shape, self._features[name].shape[-1], device=device),
            actions=torch.empty(*shape, self._layouts[name].n_actions, device=device),
            reward=torch.empty(shape, device=device),
            present=torch.empty(shape, dtype=torch.bool, device=device),
            present_after=torch.empty(shape, dtype=torch.bool, device=device),
        )

    def _decide(self, recorders: Mapping[str, DeviceRecorder], t: int) -> dict[str, Tensor]:
        commands = dict(self._neutral)
        readings = self._readings
        for name, recorder in recorders.items():
            present, encoder, legal = readings.present[name], self._encoders[name], None
            if isinstance(encoder, MaskingEncoder):
                flags = encoder.legal(readings.measured[name], readings.statics[name], present)
                legal = self._layouts[name].legal(flags, present)
            actions = recorder.act(t, self._features[name], present, legal)
            commands[name] = self._layouts[name].commands(actions, self._features[name])
        return commands

    def _begin_again(
        self,
        after: Readings,
        t: int,
        done: Tensor,
        truncated: Tensor,
        recorders: Mapping[str, DeviceRecorder],
        finals: _Finals,
    ) -> None:
        """Reset the rows that are done and encode what comes next."""
        rows, cut = torch.nonzero(done)[:, 0], torch.nonzero(truncated)[:, 0]
        everything = len(rows) == len(done)
        features, memory = self._features, self._memory
        if not everything or (self._plan.bootstrap and len(cut)):
            features, memory = self._encode(after, self._memory)
        if self._plan.bootstrap and len(cut):
            finals.index.append(torch.stack([torch.full_like(cut, t), cut], 1))
            finals.features.append({name: x[cut] for name, x in features.items()})
        for recorder in recorders.values():
            recorder.mind = Mind(recorder.mind.memory, recorder.mind.fresh | done[:, None])
        self._episode += done
        self._episode_step.masked_fill_(done, 0)
        seeds = episode_seeds(self._row_seeds[rows], self._episode[rows])
        self._readings = self._twin.reset(seeds, None if everything else rows)
        self._guard.look(self._readings, self._where)
        fresh, fresh_memory = self._encode(self._readings, self._fresh_memory(self._readings))
        if everything:
            self._features, self._memory = fresh, fresh_memory
            return
        self._features = {n: _choose(done, fresh[n], x) for n, x in features.items()}
        self._memory = {n: {k: _choose(done, fresh_memory[n][k], x) for k, x in m.items()} for n, m in memory.items()}

    def _where(self, row: int) -> str:
        seed = int(episode_seeds(self._row_seeds, self._episode)[row])
        return f"step {int(self._episode_step[row])} of episode {int(self._episode[row])} (seed {seed})"

    def _encode(
        self, readings: Readings, memory: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, Tensor], dict[str, Mapping[str, Any]]]:
        features: dict[str, Tensor] = {}
        remembered: dict[str, Mapping[str, Any]] = {}
        for name, encoder in self._encoders.items():
            present = readings.present[name]
            encoded, remembered[name] = encoder.encode(
                readings.measured[name], readings.statics[name], present, memory[name], self._twin.dt_s
            )
            # An absent asset's features are zero by contract; a NaN in them must not reach the network either way.
            features[name] = encoded.to(torch.float32).masked_fill(~present[..., None], 0.0)
        return features, remembered

    def _fresh_memory(self, readings: Readings) -> dict[str, Mapping[str, Any]]:
        return {
            name: encoder.start(self._plan.n_replicas, readings.present[name].shape[1], readings.measured[name])
            for name, encoder in self._encoders.items()
        }

    def _finish(self, name: str, recorder: DeviceRecorder, finals: _Finals) -> DeviceGroupRollout:
        """Leave the memory for the next rollout, and hand over what this one saw."""
        self._minds[name] = recorder.mind
        self._guard.look_at_features(recorder.features, name)
        return recorder.finish(self._features[name], [x[name] for x in finals.features])

    def _returns(self, groups: Mapping[str, DeviceGroupRollout], done: Tensor, ends: list[int]) -> Tensor:
        """Returns of the episodes that ended, in order: each step's mean over present assets, summed."""
        reward, present = (torch.cat([getattr(g, key) for g in groups.values()], 2) for key in ("reward", "present"))
        per_step = reward.masked_fill(~present, 0.0).sum(2) / present.sum(2).clamp(min=1)
        found, start = [self._running_return[:0]], 0
        for t in ends:
            self._running_return = self._running_return + per_step[start : t + 1].sum(0)
            found.append(self._running_return[done[t]])
            self._running_return = self._running_return.masked_fill(done[t], 0.0)
            start = t + 1
        self._running_return = self._running_return + per_step[start:].sum(0)
        return torch.cat(found)

    def snapshot(self) -> ShardState:
        """Everything that the next rollout depends on, as tensors; a host shard of the same plan can restore it."""
        self.open()
        r = self._readings
        return {
            "twin": {k: v.clone() for k, v in self._twin.snapshot().items()},
            "readings": {k: {g: v.clone() for g, v in getattr(r, k).items()} for k in _READINGS},
            "time_s": r.time_s.clone(),
            "features": {g: v.cpu().clone() for g, v in self._features.items()},
            "memory": {g: {k: v.cpu().clone() for k, v in m.items()} for g, m in self._memory.items()},
            "minds": {g: {k: v.cpu().clone() for k, v in vars(m).items()} for g, m in self._minds.items()},
            "step": self._step,
            "episode": self._episode.cpu().clone(),
            "episode_step": self._episode_step.cpu().clone(),
            "episode_return": self._running_return.cpu().clone(),
        }

    def restore(self, state: ShardState) -> None:
        """Inverse of :meth:`snapshot`."""
        self.open()
        device = self._twin.device
        self._twin.restore({k: v.clone() for k, v in state["twin"].items()})
        self._readings = Readings(
            **{k: {g: v.clone().to(device) for g, v in state["readings"][k].items()} for k in _READINGS},
            time_s=state["time_s"].clone().to(device),
        )
        self._features = {g: v.clone().to(device) for g, v in state["features"].items()}
        self._memory = {g: {k: v.clone().to(device) for k, v in m.items()} for g, m in state["memory"].items()}
        minds = {g: {k: v.clone().to(device) for k, v in m.items()} for g, m in state["minds"].items()}
        self._minds = {g: Mind(m["memory"], m["fresh"]) for g, m in minds.items()}
        self._step = int(state["step"])
        self._episode, self._episode_step, self._running_return = (
            state[k].clone().to(device) for k in ("episode", "episode_step", "episode_return")
        )


class _Finals:
    """What truncated episodes ended with: ``[e, 2]`` step and replica, features a group."""

    def __init__(self) -> None:
        self.index: list[Tensor] = []
        self.features: list[dict[str, Tensor]] = []


def _choose(rows: Tensor, there: Tensor, elsewhere: Tensor) -> Tensor:
    return torch.where(rows.reshape(-1, *(1,) * (there.dim() - 1)), there, elsewhere)


def _mean_cost(cost: Tensor, readings: Readings) -> Tensor:
    """Mean over replicas and present assets of the group that the cost is shaped like."""
    present = next((p for p in readings.present.values() if p.shape == cost.shape), None)
    counted = cost.double()
    if present is None:
        return counted.mean()
    return counted.masked_fill(~present, 0.0).sum() / present.sum().clamp(min=1)
