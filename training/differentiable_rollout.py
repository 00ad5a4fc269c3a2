"""Short windows through a differentiable twin: replicas carry on from one to the next, the gradient is cut there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..envs.errors import ConfigurationError
from ..envs.twin import Readings
from .differentiable_commands import differentiable_commands
from .numerical_guard import check_readings, check_reward
from .problem import Problem
from .seeds import episode_seeds, row_seeds

Act = Callable[[str, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(group, raw features ``[B, N, F]``, seeds of the replicas ``[B]``, number of the step) to actions ``[B, N, K]``."""
Value = Callable[[str, torch.Tensor], torch.Tensor]
"""(group, raw features ``[B, N, F]``) to values ``[B, N]``."""
_KINDS = ("measured", "hidden", "statics", "present")


@dataclass(frozen=True, eq=False)
class GroupWindow:
    """What one group saw and got in ``T`` steps, without gradient.

    ``features`` ``[T, B, N, F]`` raw; ``reward``, ``present`` before the step, ``next_value`` ``[T, B, N]``, the value
    of what followed (of a cut episode's end, never of what comes after a reset); ``terminated``: nothing followed, or
    the asset left; ``ended``: that, or the episode was cut.
    """

    features: torch.Tensor
    reward: torch.Tensor
    present: torch.Tensor
    next_value: torch.Tensor
    terminated: torch.Tensor
    ended: torch.Tensor


@dataclass(frozen=True, eq=False)
class Window:
    """``objective``: what the gradient is of, a mean over present asset-steps; ``episode_returns``: of the episodes
    that ended, the mean over assets."""

    objective: torch.Tensor
    groups: Mapping[str, GroupWindow]
    episode_returns: torch.Tensor


class DifferentiableReplicas:
    """Replicas of a twin that are rolled window by window (Xu et al. 2022, arXiv 2204.07137, section 3.2).

    The objective of a window, equation 5 there: over every asset's stretch of steps without a cut, discounted rewards
    plus the discounted value of where the stretch ends, unless it ends for good. An asset that is absent adds nothing,
    and neither its data nor a NaN in them reach a gradient. First episodes are cut short by whole windows, so that the
    replicas are spread over the episode and, where windows divide it, resets fall on a window's end: a twin may forget
    the gradient of all its rows when it resets some.
    """

    def __init__(
        self, problem: Problem, run_seed: int, n_replicas: int, n_steps: int, gamma: float, reward_scale: float
    ) -> None:
        self._n_steps, self._gamma, self._reward_scale = n_steps, gamma, reward_scale
        self._nameplate = problem.nameplate()
        self._layouts = problem.layouts(self._nameplate)
        self._encoders = problem.encoders(self._nameplate)
        self._twin, self._task = problem.twin(n_replicas), problem.task()
        self._seeds = row_seeds(run_seed, torch.arange(n_replicas))
        self._step = 0
        self._episode = torch.zeros(n_replicas, dtype=torch.int64)
        n_windows = max(1, self._task.horizon // n_steps)
        self._episode_step = torch.arange(n_replicas) % n_windows * n_steps
        self._episode_return = torch.zeros(n_replicas, dtype=torch.float64)
        self._readings = self._sound(self._twin.reset(episode_seeds(self._seeds, self._episode)))
        self._features, self._memory = self._encode(self._readings, self._start(self._readings))

    def roll(self, act: Act, value: Value) -> Window:
        """One window on; raises ConfigurationError where neither rewards nor readings depend on the commands, and
        NumericalError for a NaN, naming its replica, asset and signal."""
        self._cut()
        names = list(self._encoders)
        objective = torch.zeros((), dtype=torch.float64)
        factor = {name: torch.ones_like(self._readings.present[name], dtype=torch.float64) for name in names}
        kept: dict[str, dict[str, list[torch.Tensor]]] = {n: {k: [] for k in _COLUMNS} for n in names}
        returns: list[torch.Tensor] = []
        for t in range(self._n_steps):
            before, features = self._readings, self._features
            actions = {name: act(name, features[name], self._seeds, self._step) for name in names}
            commands = self._commands(actions, before)
            after = self._sound(self._twin.step(commands), 1)
            score = self._task.score(before, commands, after)
            if score.cut is not None:
                raise ConfigurationError(
                    f"learner.kind analytic: task {self._task.name!r} cuts assets one by one, which it takes no "
                    "account of; use kind ppo, or masac"
                )
            for name in names:
                given, there = (x.numpy(force=True) for x in (score.reward[name], before.present[name]))
                check_reward(given, there, self._nameplate, name, 0, partial(self._where, later=1))
            self._step += 1
            self._episode_step += 1
            terminated = score.terminated.detach().cpu()
            truncated = (self._episode_step >= self._task.horizon) & ~terminated
            following, memory = self._encode(after, self._memory)
            is_cut = truncated | (t == self._n_steps - 1)
            for name in names:
                here = before.present[name].cpu()
                stays = here & after.present[name].cpu() & ~terminated[:, None]
                reward = torch.where(here, score.reward[name].cpu(), 0.0).double() * self._reward_scale
                future = torch.where(stays, value(name, following[name]).double(), 0.0)
                bridge = factor[name] * self._gamma
                objective = objective + (factor[name] * reward).sum() + (bridge * future * is_cut[:, None]).sum()
                factor[name] = torch.where(stays & ~is_cut[:, None], bridge, 1.0)
                columns = (features[name], reward, here, future, here & ~stays, here & (~stays | truncated[:, None]))
                for key, column in zip(_COLUMNS, columns, strict=True):
                    kept[name][key].append(column.detach())
            self._readings, self._features, self._memory = after, following, memory
            returns.append(self._tally({name: kept[name] for name in names}, terminated | truncated))
            self._start_again(terminated | truncated)
        if not objective.requires_grad:
            raise ConfigurationError(
                "learner.kind analytic: neither the rewards nor the readings of this twin and task have a gradient by "
                "the commands; use kind ppo, or masac"
            )
        groups = {n: GroupWindow(**{k: torch.stack(v) for k, v in columns.items()}) for n, columns in kept.items()}
        n_present = sum(int(g.present.sum()) for g in groups.values())
        return Window(objective / max(1, n_present), groups, torch.cat(returns))

    def _sound(self, readings: Readings, later: int = 0) -> Readings:
        """Readings without what absent assets say; raises NumericalError for what is not finite of the others."""
        clean = _clean(readings)
        check_readings(clean, self._nameplate, tuple(self._encoders), 0, partial(self._where, later=later), False)
        return clean

    def _where(self, row: int, later: int) -> str:
        seed = int(episode_seeds(self._seeds, self._episode)[row])
        return f"step {int(self._episode_step[row]) + later} of episode {int(self._episode[row])} (seed {seed})"

    def _commands(self, actions: Mapping[str, torch.Tensor], readings: Readings) -> dict[str, torch.Tensor]:
        """Commands ``[B, N, A]``; those of absent assets are neutral and take no gradient."""
        commands = differentiable_commands(self._nameplate, self._layouts, actions, readings)
        for name in actions:
            neutral = torch.as_tensor(self._nameplate.group(name).neutral()).to(commands[name])
            commands[name] = torch.where(readings.present[name][..., None], commands[name], neutral)
        return commands

    def _encode(
        self, readings: Readings, memory: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Mapping[str, Any]]]:
        """Raw features ``[B, N, F]`` on the CPU, zero for absent assets, and what the encoders remember."""
        features, remembered = {}, {}
        for name, encoder in self._encoders.items():
            present = readings.present[name]
            seen = (readings.measured[name], readings.statics[name], present)
            encoded, remembered[name] = encoder.encode(*seen, memory[name], self._twin.dt_s)
            features[name] = torch.where(present[..., None], encoded, 0.0).cpu()
        return features, remembered

    def _start(self, readings: Readings) -> dict[str, Mapping[str, Any]]:
        return {
            name: encoder.start(len(x := readings.measured[name]), x.shape[1], x)
            for name, encoder in self._encoders.items()
        }

    def _start_again(self, done: torch.Tensor) -> None:
        """New episodes in the rows that are done; no gradient flows over the reset."""
        if not bool(done.any()):
            return
        rows = torch.nonzero(done)[:, 0]
        self._episode[rows] += 1
        self._episode_step[rows] = 0
        seeds = episode_seeds(self._seeds[rows], self._episode[rows])
        self._readings = self._sound(self._twin.reset(seeds, rows.to(self._twin.device)))
        features, memory = self._encode(self._readings, self._start(self._readings))
        self._features = {n: _choose(done, features[n].detach(), old) for n, old in self._features.items()}
        self._memory = {
            n: {k: _choose(done, memory[n][k].detach(), v) for k, v in old.items()} for n, old in self._memory.items()
        }

    def _tally(self, kept: Mapping[str, Mapping[str, list[torch.Tensor]]], done: torch.Tensor) -> torch.Tensor:
        """Add the newest step to the running returns; give those of the episodes that are done, and clear them."""
        reward, present = (
            torch.cat([columns[key][-1] for columns in kept.values()], 1) for key in ("reward", "present")
        )
        mean = reward.sum(1) / present.sum(1).clamp(min=1) / self._reward_scale
        self._episode_return += mean
        ended = self._episode_return[done]
        self._episode_return[done] = 0.0
        return ended

    def _cut(self) -> None:
        """Forget how the present state came about."""
        self._twin.restore({k: v.detach() for k, v in self._twin.snapshot().items()})
        self._readings = _map(self._readings, torch.Tensor.detach)
        self._features = {n: x.detach() for n, x in self._features.items()}
        self._memory = {n: {k: v.detach() for k, v in m.items()} for n, m in self._memory.items()}

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next window depends on, as tensors."""
        self._cut()
        r = _map(self._readings, torch.Tensor.clone)
        return {
            "twin": {k: v.clone() for k, v in self._twin.snapshot().items()},
            "readings": {kind: dict(getattr(r, kind)) for kind in _KINDS},
            "time_s": r.time_s,
            "features": {n: x.clone() for n, x in self._features.items()},
            "memory": {n: {k: v.clone() for k, v in m.items()} for n, m in self._memory.items()},
            "step": self._step,
            "episode": self._episode.clone(),
            "episode_step": self._episode_step.clone(),
            "episode_return": self._episode_return.clone(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`snapshot`."""
        self._twin.restore({k: v.clone() for k, v in state["twin"].items()})
        readings = Readings(**state["readings"], time_s=state["time_s"])
        self._readings = _map(readings, torch.Tensor.clone)
        self._features = {n: x.clone() for n, x in state["features"].items()}
        self._memory = {n: {k: v.clone() for k, v in m.items()} for n, m in state["memory"].items()}
        self._step = int(state["step"])
        self._episode, self._episode_step = state["episode"].clone(), state["episode_step"].clone()
        self._episode_return = state["episode_return"].clone()


_COLUMNS = ("features", "reward", "present", "next_value", "terminated", "ended")


def _clean(readings: Readings) -> Readings:
    """Zeros in place of whatever an absent asset's slot holds."""

    def cleaned(kind: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: torch.where(readings.present[name][..., None], x, 0.0) for name, x in kind.items()}

    return Readings(
        cleaned(readings.measured), cleaned(readings.hidden), readings.statics, readings.present, readings.time_s
    )


def _map(readings: Readings, change: Callable[[torch.Tensor], torch.Tensor]) -> Readings:
    kinds = {kind: {n: change(x) for n, x in getattr(readings, kind).items()} for kind in _KINDS}
    return Readings(**kinds, time_s=change(readings.time_s))


def _choose(rows: torch.Tensor, there: torch.Tensor, elsewhere: torch.Tensor) -> torch.Tensor:
    return torch.where(rows.to(there.device).reshape(-1, *(1,) * (there.dim() - 1)), there, elsewhere)
