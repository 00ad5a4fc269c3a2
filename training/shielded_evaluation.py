"""What a policy that trains behind the shield is worth without it, on the same replicas as its evaluation."""

from __future__ import annotations

from dataclasses import replace

from .actor_evaluation import evaluate_actors
from .configuration import TrainConfiguration
from .learning import Learning
from .network_evaluation import evaluate_networks
from .problem import Problem

UNSHIELDED_REWARD = "evaluation/reward_unshielded"
"""Beside ``evaluation/reward``, which is behind the shield: what the policy asks for, had it been obeyed."""


def reward_unshielded(trainer: Learning, config: TrainConfiguration, problem: Problem) -> float:
    """Mean reward an agent-step without exploration and without the shield."""
    free = replace(problem, shield=None)
    acting = getattr(trainer, "policy_weights", None)
    if acting is None:  # a learner that acts through another library
        return evaluate_networks(config, free, trainer.export())
    return evaluate_actors(config, free, acting())
