"""What a policy that trains behind the shield is worth without it, on the same replicas as its evaluation."""

from __future__ import annotations

from dataclasses import replace

from .collector import one_thread
from .configuration import TrainConfiguration
from .learning import Learning
from .network_evaluation import EVALUATION_REPLICA, evaluate_networks
from .problem import Problem
from .rollout import Shard, ShardPlan
from .trainer import mean_reward

UNSHIELDED_REWARD = "evaluation/reward_unshielded"
"""Beside ``evaluation/reward``, which is behind the shield: what the policy asks for, had it been obeyed."""


def reward_unshielded(trainer: Learning, config: TrainConfiguration, problem: Problem) -> float:
    """Mean reward an agent-step without exploration and without the shield."""
    free, replicas = replace(problem, shield=None), config.evaluation.replicas
    n_steps = config.evaluation.steps or problem.task().horizon
    acting = getattr(trainer, "policy_weights", None)
    with one_thread():
        if acting is None:  # a learner that acts through another library
            return evaluate_networks(free, trainer.export(), config.seed, replicas, n_steps)
        plan = ShardPlan(config.seed, EVALUATION_REPLICA, replicas, explore=False, bootstrap=False)
        rollout = Shard(free, plan).collect(acting(), n_steps)
    return mean_reward((g.reward, g.present) for g in rollout.groups.values())
