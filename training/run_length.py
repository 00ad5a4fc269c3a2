"""How many iterations a run has."""

from __future__ import annotations

import math

from .configuration import TrainConfiguration


def n_iterations(config: TrainConfiguration, n_assets: int) -> int:
    """What the configuration says, or whole iterations that hold its agent-steps of ``n_assets`` learning assets."""
    if config.iterations is not None:
        return config.iterations
    return math.ceil((config.agent_steps or 0) / (config.rollout.replicas * config.rollout.steps * n_assets))
