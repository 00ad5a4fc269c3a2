"""What a policy is worth with the shield and without it, on the same replicas as its evaluation."""

from __future__ import annotations

from dataclasses import replace

from .actor_evaluation import evaluate_actors
from .configuration import TrainConfiguration
from .learning import Learning
from .network_evaluation import evaluate_networks
from .problem import Problem
from .rollout_settings import ShieldedConfiguration

UNSHIELDED_REWARD = "evaluation/reward_unshielded"
"""Beside ``evaluation/reward``, which is behind the shield: what the policy asks for, had it been obeyed."""


def reward_unshielded(trainer: Learning, config: TrainConfiguration, problem: Problem) -> float:
    """Mean reward an agent-step without exploration and without the shield."""
    return _reward(trainer, config, replace(problem, shield=None))


def reward_shielded(trainer: Learning, config: TrainConfiguration, problem: Problem) -> float:
    """Mean reward an agent-step without exploration, behind the shield, which acts on the host."""
    return _reward(trainer, config, replace(problem, shield=ShieldedConfiguration(), device="cpu"))


def _reward(trainer: Learning, config: TrainConfiguration, problem: Problem) -> float:
    acting = getattr(trainer, "policy_weights", None)
    if acting is None:  # a learner that acts through another library
        return evaluate_networks(config, problem, trainer.export())
    return evaluate_actors(config, problem, acting())
