"""Rollouts: who gathers them (:mod:`~twinloop.training.shard`) and what they hold
(:mod:`~twinloop.training.rollout_batch`), under one name."""

from __future__ import annotations

from .rollout_batch import Flags, GroupRollout, PolicyWeights, Rollout, concatenate
from .shard import Shard, ShardPlan, ShardState

__all__ = [
    "Flags",
    "GroupRollout",
    "PolicyWeights",
    "Rollout",
    "Shard",
    "ShardPlan",
    "ShardState",
    "concatenate",
]
