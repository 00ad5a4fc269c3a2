"""What a rollout brings home that never left its device; the same names and shapes as :mod:`.rollout_batch`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .rollout_batch import GroupRollout, Rollout

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class DeviceGroupRollout:
    """As :class:`~twinloop.training.rollout_batch.GroupRollout`, in tensors."""

    features: Tensor
    actions: Tensor
    log_prob: Tensor
    reward: Tensor
    present: Tensor
    present_after: Tensor
    last_features: Tensor
    final_features: Tensor
    legal: Tensor | None = None
    first_memory: Tensor | None = None
    fresh: Tensor | None = None


@dataclass(frozen=True, eq=False)
class DeviceRollout:
    """As :class:`~twinloop.training.rollout_batch.Rollout`, in tensors."""

    groups: Mapping[str, DeviceGroupRollout]
    terminated: Tensor
    truncated: Tensor
    final_index: Tensor
    episode_returns: Tensor
    costs: Mapping[str, Tensor]

    def to_host(self) -> Rollout:
        """A copy as numpy arrays, for learners that live on the host."""

        def array(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.numpy(force=True)

        return Rollout(
            groups={
                name: GroupRollout(**{key: array(value) for key, value in vars(group).items()})
                for name, group in self.groups.items()
            },
            terminated=array(self.terminated),
            truncated=array(self.truncated),
            final_index=array(self.final_index),
            episode_returns=array(self.episode_returns),
            costs={name: array(values) for name, values in self.costs.items()},
        )
