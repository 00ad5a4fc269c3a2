"""How well policies do in the twin without exploration, on replicas that nothing learns from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .collector import one_thread
from .configuration import TrainConfiguration
from .problem import Problem
from .rollout import PolicyWeights, Shard, ShardPlan

EVALUATION_REPLICA = 1 << 40
"""Evaluation replicas count from here, far from those that learn."""


def evaluate_actors(config: TrainConfiguration, problem: Problem, actors: PolicyWeights) -> float:
    """Mean reward an agent-step over the replicas and steps that ``config.evaluation`` asks for."""
    settings = config.evaluation
    plan = ShardPlan(config.seed, EVALUATION_REPLICA, settings.replicas, explore=False, bootstrap=False)
    with one_thread():
        rollout = Shard(problem, plan).collect(actors, settings.steps or problem.task().horizon)
    return mean_reward((g.reward, g.present) for g in rollout.groups.values())


def mean_reward(groups: Iterable[tuple[Any, Any]]) -> float:
    """Mean over present agent-steps of ``(reward, present)`` pairs, numpy arrays or tensors of equal shapes."""
    total, count = 0.0, 0
    for reward, present in groups:
        kept = np.asarray(present)
        total += float(np.asarray(reward)[kept].sum(dtype=np.float64))
        count += int(kept.sum())
    return total / max(1, count)
