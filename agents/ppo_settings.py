"""Settings of the on-policy learners; importing them imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ..envs.configuration import Strict

SEQUENCE_STEPS = 16


class PpoConfiguration(Strict):
    """Independent proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347; IPPO: de Witt et al. 2020,
    arXiv 2011.09533): each asset's actor and critic see what that asset sees."""

    kind: Literal["ppo", "ippo"] = "ppo"
    controlled: dict[str, tuple[str, ...]] | None = Field(
        None, description="commands that the policy drives, per group; absent: all of them. The rest stay neutral"
    )
    blend: dict[str, dict[str, tuple[float, float]]] | None = Field(
        None,
        description="per group, motions that its encoder proposes and the range of each one's weight: the network "
        "learns weights, and commands are the weighted sum; absent: it learns commands",
    )
    weights: Literal["shared", "separate"] = Field(
        "shared", description="shared: one network for the like assets of a group; separate: one an asset, stacked"
    )
    hidden: tuple[PositiveInt, ...] = Field((64, 64), description="widths of the actor's tanh layers")
    critic_hidden: tuple[PositiveInt, ...] | None = Field(None, description="widths of the critic's; absent: the same")
    gru: PositiveInt | None = Field(
        None, description="width of a recurrent layer that actor and critic share, before their own; absent: no memory"
    )
    sequence_steps: PositiveInt | None = Field(
        None, description=f"with gru: steps that a gradient reaches back; absent: {SEQUENCE_STEPS}"
    )
    lr: PositiveFloat = 3e-4
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    gamma: float = Field(0.99, ge=0, le=1, description="discount a step; 0 makes a contextual bandit")
    gae_lambda: float = Field(0.95, ge=0, le=1)
    clip: float = Field(0.2, gt=0, lt=1)
    epochs: PositiveInt = 4
    minibatches: PositiveInt = Field(8, description="gradient steps an epoch")
    value_coefficient: float = Field(0.5, ge=0)
    entropy_coefficient: float = Field(0.0, ge=0)
    entropy_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="linear, cosine: the coefficient falls to nought at the run's end, as lr may"
    )
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
    team_reward: bool = Field(
        False, description="every asset learns from the mean reward of the present assets of all groups that learn"
    )
    adam_epsilon: PositiveFloat = 1e-5

    @property
    def gradient_steps(self) -> int:
        """Steps that a gradient of the recurrent layer reaches back."""
        return self.sequence_steps or SEQUENCE_STEPS

    @property
    def critic_view(self) -> Literal["own", "joint", "state"]:
        """What the critic sees; see :class:`MappoConfiguration`."""
        return "own"

    @property
    def is_sequential(self) -> bool:
        """Whether assets are updated one after another, each reckoning with those before it."""
        return False

    def disagreement(self, *, replicas: int, steps: int, workers: int, shards: int, iterations: bool) -> str | None:
        """What in the rest of a run does not fit these settings, or None. ``iterations``: the run counts them."""
        if (replicas * steps) % self.minibatches:
            return (
                f"learner.minibatches {self.minibatches} does not divide the {replicas * steps} steps of an iteration "
                f"(rollout.replicas {replicas} x rollout.steps {steps})"
            )
        if self.log_std_initial < self.log_std_minimum:
            return (
                f"learner.log_std_initial {self.log_std_initial} is below "
                f"learner.log_std_minimum {self.log_std_minimum}"
            )
        if self.gru is None:
            if self.sequence_steps is not None:
                return "learner.sequence_steps is for a recurrent layer; set learner.gru to its width, or leave it out"
            return None
        length = self.gradient_steps
        if steps % length:
            return (
                f"learner.sequence_steps {length} does not divide rollout.steps {steps}; "
                f"take {math.gcd(length, steps)}, or {math.ceil(steps / length) * length} steps"
            )
        if (replicas * steps // length) % self.minibatches:
            return (
                f"learner.minibatches {self.minibatches} does not divide the {replicas * steps // length} sequences of "
                f"an iteration (rollout.replicas {replicas} x rollout.steps {steps} / learner.sequence_steps {length})"
            )
        return None


class MappoConfiguration(PpoConfiguration):
    """PPO with a central critic (Yu et al. 2022, arXiv 2103.01955): in training alone the critic also sees the site."""

    kind: Literal["mappo"] = "mappo"  # type: ignore[assignment]  # each learner has its own kind
    critic: Literal["state", "joint", "own"] = Field(
        "state",
        description="beside the asset's own features: state, all measured and hidden signals of the twin; joint, the "
        "features of all other assets; own, nothing more",
    )

    @property
    def critic_view(self) -> Literal["own", "joint", "state"]:
        return self.critic


class HappoConfiguration(MappoConfiguration):
    """Heterogeneous-agent PPO (Kuba et al. 2022, arXiv 2109.11251; Zhong et al. 2024, arXiv 2304.09870, algorithm 4).

    Assets are updated one after another in a random order; each one's advantage is the team's, times the ratios of
    those already updated.
    """

    kind: Literal["happo"] = "happo"  # type: ignore[assignment]  # each learner has its own kind
    weights: Literal["shared", "separate"] = "separate"
    team_reward: bool = True

    @property
    def is_sequential(self) -> bool:
        return True

    def disagreement(self, *, replicas: int, steps: int, workers: int, shards: int, iterations: bool) -> str | None:
        if self.weights == "shared":
            return "learner.weights shared: happo updates one asset after another; take separate, or kind mappo"
        if not self.team_reward:
            return "learner.team_reward false: happo improves what the team gets; leave it true, or take kind mappo"
        return super().disagreement(
            replicas=replicas, steps=steps, workers=workers, shards=shards, iterations=iterations
        )
