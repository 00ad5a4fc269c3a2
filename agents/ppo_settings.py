"""Settings of the PPO learner; importing them imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ..envs.configuration import Strict


class PpoConfiguration(Strict):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with weights shared by like assets."""

    kind: Literal["ppo"] = "ppo"
    controlled: dict[str, tuple[str, ...]] | None = Field(
        None, description="commands that the policy drives, per group; absent: all of them. The rest stay neutral"
    )
    hidden: tuple[PositiveInt, ...] = Field((64, 64), description="widths of the actor's tanh layers")
    critic_hidden: tuple[PositiveInt, ...] | None = Field(None, description="widths of the critic's; absent: the same")
    lr: PositiveFloat = 3e-4
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    gamma: float = Field(0.99, ge=0, le=1, description="discount a step; 0 makes a contextual bandit")
    gae_lambda: float = Field(0.95, ge=0, le=1)
    clip: float = Field(0.2, gt=0, lt=1)
    epochs: PositiveInt = 4
    minibatches: PositiveInt = Field(8, description="gradient steps an epoch")
    value_coefficient: float = Field(0.5, ge=0)
    entropy_coefficient: float = Field(0.0, ge=0)
    max_grad_norm: PositiveFloat = 0.5
    target_kl: PositiveFloat | None = Field(None, description="an update stops early above 1.5 times this")
    advantage_normalisation: Literal["minibatch", "batch", "none"] = "minibatch"
    log_std_initial: float = Field(0.0, ge=-10, le=2)
    log_std_minimum: float = Field(-5.0, ge=-10, le=2)
    normalise_features: bool = Field(True, description="running mean and deviation, frozen within an iteration")
    feature_clip: PositiveFloat = 10.0
    reward_scale: PositiveFloat = Field(1.0, description="the learner sees reward times this")
    reward_scaling: Literal["none", "return_std"] = Field(
        "none", description="return_std: divide by the running deviation of the discounted return"
    )
    adam_epsilon: PositiveFloat = 1e-5
