"""What runs inside a Ray actor: some of the shards of a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from .collector import one_thread
from .problem import Problem
from .rollout_batch import PolicyWeights, Rollout
from .shard import Shard, ShardPlan, ShardState

Packed = Any
"""A shard's state with numpy arrays for tensors, which Ray shares between processes without copies."""


class ShardWorker:
    """Owns some shards. It is cheap to make: twins are built by the first :meth:`collect`."""

    def __init__(self, problem: Problem, plans: Sequence[ShardPlan]) -> None:
        self._problem = problem
        self._plans = plans
        self._shards = [Shard(problem, plan) for plan in plans]

    def collect(
        self, weights: PolicyWeights, n_steps: int, states: Sequence[Packed] | None
    ) -> tuple[list[Rollout], list[Packed]]:
        """Gather; from ``states`` on when given, else from where the last rollout ended. Returns the states after."""
        with one_thread():
            if states is not None:
                for shard in self._shards:
                    shard.close()
                self._shards = [Shard(self._problem, plan) for plan in self._plans]
                for shard, state in zip(self._shards, states, strict=True):
                    if state:
                        shard.restore(unpack(state))
            rollouts = [shard.collect(weights, n_steps) for shard in self._shards]
            return rollouts, [pack(shard.snapshot()) for shard in self._shards]

    def steps_taken(self) -> int:
        """Grows while there is life in :meth:`collect`; asked from another thread."""
        return sum(shard.steps_taken for shard in self._shards)

    def process(self) -> dict[str, str]:
        """Who this is: process id, host, and the versions that results depend on."""
        return {"pid": str(os.getpid()), "host": platform.node(), **versions()}


def versions() -> dict[str, str]:
    """Of what computes rollouts."""
    return {name: version(name) for name in ("twinloop", "torch", "numpy")}


def pack(state: ShardState) -> Packed:
    """Arrays for tensors."""
    return _mapped(state, torch.Tensor, lambda tensor: tensor.cpu().numpy())


def unpack(packed: Packed) -> ShardState:
    """Tensors for arrays, which may be read-only and are copied."""
    state: ShardState = _mapped(packed, np.ndarray, lambda array: torch.from_numpy(array.copy()))
    return state


def _mapped(value: Any, kind: type, change: Any) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(part, kind, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(part, kind, change) for part in value]
    return value
