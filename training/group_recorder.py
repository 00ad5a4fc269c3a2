"""One group of a shard through one rollout: it decides step by step, and keeps what it saw, did and got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import ActionLayout, Float32
from ..agents.actor import Actor
from ..envs.noise import normal, uniform
from .rollout_batch import Flags, GroupRollout
from .seeds import ACTION_STREAM, LEVEL_STREAM


@dataclass(frozen=True, eq=False)
class Draws:
    """Chance of a whole rollout: ``normal`` ``[T, B, N, n_normal]`` and ``uniform`` ``[T, B, N, n_uniform]``, None
    where the actor asks for none, or must not explore."""

    normal: Float32 | None
    uniform: Float32 | None

    @staticmethod
    def of(actor: Actor, row_seeds: torch.Tensor, first_step: int, shape: tuple[int, int, int], number: int) -> Draws:
        """Draws of steps ``first_step`` on, of the run's group ``number``; ``shape`` is ``(T, B, N)``."""
        n_steps, n_replicas, n_assets = shape
        seeds = row_seeds.repeat(n_steps)
        steps = torch.arange(first_step, first_step + n_steps).repeat_interleave(n_replicas)

        def drawn(draw: Any, stream: int, each: int) -> Float32 | None:
            if each == 0:
                return None
            numbers = draw(seeds, steps, stream + number, n_assets * each, torch.float32)
            array: Float32 = numbers.numpy().reshape(*shape, each)
            return array

        return Draws(drawn(normal, ACTION_STREAM, actor.n_normal), drawn(uniform, LEVEL_STREAM, actor.n_uniform))

    @staticmethod
    def none() -> Draws:
        """No exploration: the actor takes the mode."""
        return Draws(None, None)


@dataclass(frozen=True, eq=False)
class Mind:
    """What a recurrent group carries from step to step: ``memory`` ``[B, N, H]``; ``fresh`` ``[B, N]``, True where it
    begins at zero, because an episode does or because the asset was away."""

    memory: Float32
    fresh: Flags


class GroupRecorder:
    """``T`` steps of one group; ``begin`` is where its memory stands, None when it has none yet."""

    def __init__(
        self,
        actor: Actor,
        layout: ActionLayout,
        draws: Draws,
        begin: Mind | None,
        shape: tuple[int, int, int],
        n_features: int,
    ) -> None:
        self._actor = actor
        self._layout = layout
        self._draws = draws
        self._shape = shape
        self._features = np.empty((*shape, n_features), np.float32)
        self._actions = np.empty((*shape, layout.n_actions), np.float32)
        self._reward = np.empty(shape, np.float32)
        self._present = np.empty(shape, np.bool_)
        self._present_after = np.empty(shape, np.bool_)
        self._densities: list[Float32] = []
        self._legal: list[Flags] = []
        self._executed: list[Float32] = []
        self._penalties: list[Float32] = []
        self._cut: list[Flags] = []
        self._memory = np.zeros((*shape[1:], actor.n_memory), np.float32)
        self._fresh = np.ones(shape[1:], np.bool_)
        if begin is not None:
            self._memory, self._fresh = begin.memory.copy(), begin.fresh.copy()
        self._is_recurrent = actor.n_memory > 0
        self._all_fresh = np.empty(shape, np.bool_) if self._is_recurrent else None
        self._newest: Float32 = self._actions[0]
        self._first_memory: Float32 | None = None

    def act(self, t: int, features: Float32, present: Flags, legal: Flags | None) -> NDArray[Any]:
        """Decide step ``t``; returns commands ``[B, N, A]``."""
        self._features[t] = features
        self._present[t] = present
        if legal is not None:
            self._legal.append(legal)
        if self._all_fresh is not None:
            fresh = self._all_fresh[t] = self._fresh | ~present
            self._memory = np.where(fresh[..., None], np.float32(0), self._memory)
            if t == 0:
                self._first_memory = self._memory
        draws = self._draws
        step = self._actor.act(
            features,
            self._memory,
            None if draws.normal is None else draws.normal[t],
            None if draws.uniform is None else draws.uniform[t],
            legal,
        )
        if self._is_recurrent:
            self._memory = np.where(present[..., None], step.memory, np.float32(0))
            self._fresh = ~present
        if step.density.shape[-1]:
            self._densities.append(step.density)
        self._actions[t] = self._newest = step.actions
        return self._layout.commands(step.actions, features)

    def get(self, t: int, reward: NDArray[Any], present_after: Flags) -> None:
        """Keep what step ``t`` brought."""
        self._reward[t] = reward
        self._present_after[t] = present_after

    def obey(self, executed: Float32, penalty: Float32) -> None:
        """Keep what a shield made of the newest step's action, and what that costs."""
        self._executed.append(executed)
        self._penalties.append(penalty)

    def leave(self, t: int, cut: Flags) -> Flags:
        """Keep who was cut with step ``t`` of those who are gone after it, and return that, ``[B, N]``."""
        left: Flags = cut & self._present[t] & ~self._present_after[t]
        self._cut.append(left)
        return left

    def begin_again(self, rows: Flags) -> None:
        """New episodes in ``rows`` ``[B]``: nothing is remembered there."""
        self._fresh[rows] = True

    def reward(self, t: int) -> tuple[Float32, Flags]:
        """Reward of step ``t`` and who was present for it, ``[B, N]`` each."""
        return self._reward[t], self._present[t]

    def newest_actions(self) -> Float32:
        """Of the newest step, ``[B, N, K]``."""
        return self._newest

    def mind(self) -> Mind | None:
        """Where the memory stands after the newest step."""
        return Mind(self._memory, self._fresh) if self._is_recurrent else None

    def finish(self, last_features: Float32, finals: Sequence[Mapping[str, Float32]], name: str) -> GroupRollout:
        """What the group brings home; ``finals`` are the features that truncated episodes ended with."""
        none = np.empty((*self._shape, 0), np.float32)
        density = np.stack(self._densities) if self._densities else none
        return GroupRollout(
            features=self._features,
            actions=self._actions,
            log_prob=self._actor.log_prob(self._draws.normal, density),
            reward=self._reward,
            present=self._present,
            present_after=self._present_after,
            last_features=last_features.copy(),
            final_features=np.concatenate(
                [np.empty((0, *self._features.shape[2:]), np.float32), *(final[name] for final in finals)]
            ),
            legal=np.stack(self._legal) if self._legal else None,
            first_memory=self._first_memory,
            fresh=self._all_fresh,
            cut=np.stack(self._cut) if self._cut else None,
            executed=np.stack(self._executed) if self._executed else None,
            penalty=np.stack(self._penalties) if self._penalties else None,
        )
