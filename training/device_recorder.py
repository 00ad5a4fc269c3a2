"""One group of a device's rollout: it decides step by step, and keeps what it saw, did and got, in tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..agents.torch_actor import TorchActor
from .device_batch import DeviceGroupRollout

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Mind:
    """What a group carries on: ``memory`` ``[B, N, H]``; ``fresh`` ``[B, N]``, True where it begins at zero."""

    memory: Tensor
    fresh: Tensor


@dataclass(eq=False)
class DeviceRecorder:
    """``T`` steps of one group; ``decide`` is :meth:`TorchActor.act`, as it is or compiled."""

    actor: TorchActor
    decide: Callable[..., Any]
    normal: Tensor | None
    uniform: Tensor | None
    mind: Mind
    features: Tensor
    actions: Tensor
    reward: Tensor
    present: Tensor
    present_after: Tensor

    def __post_init__(self) -> None:
        self.legal: list[Tensor] = []
        self.densities: list[Tensor] = []
        self.all_fresh: list[Tensor] = []
        self.first_memory: Tensor | None = None

    def act(self, t: int, features: Tensor, present: Tensor, legal: Tensor | None) -> Tensor:
        """Decide step ``t``; returns actions ``[B, N, K]``."""
        self.features[t], self.present[t] = features, present
        if legal is not None:
            self.legal.append(legal)
        memory = self.mind.memory
        if self.actor.n_memory:
            fresh = self.mind.fresh | ~present
            self.all_fresh.append(fresh)
            memory = memory.masked_fill(fresh[..., None], 0.0)
            if t == 0:
                self.first_memory = memory
        draws = (None if x is None else x[t] for x in (self.normal, self.uniform))
        step = self.decide(self.actor, features, memory, *draws, legal)
        if self.actor.n_memory:
            self.mind = Mind(step.memory.masked_fill(~present[..., None], 0.0), ~present)
        if step.density.shape[-1]:
            self.densities.append(step.density)
        self.actions[t] = step.actions
        actions: Tensor = step.actions
        return actions

    def finish(self, last_features: Tensor, finals: Sequence[Tensor]) -> DeviceGroupRollout:
        """What the group brings home; ``finals`` are the features that truncated episodes ended with."""
        none = self.reward.new_empty(*self.reward.shape, 0)
        density = torch.stack(self.densities) if self.densities else none
        return DeviceGroupRollout(
            features=self.features,
            actions=self.actions,
            log_prob=self.actor.log_prob(self.normal, density),
            reward=self.reward,
            present=self.present,
            present_after=self.present_after,
            last_features=last_features.clone(),
            final_features=torch.cat([self.features[0, :0], *finals]),
            legal=torch.stack(self.legal) if self.legal else None,
            first_memory=self.first_memory,
            fresh=torch.stack(self.all_fresh) if self.all_fresh else None,
        )
