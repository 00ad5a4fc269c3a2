"""Settings of the analytic policy gradient; importing them imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ..envs.configuration import Strict


class ShortHorizonConfiguration(Strict):
    """Short-horizon actor-critic (Xu et al. 2022, arXiv 2204.07137): episodes carry on from one iteration to the next,
    each follows the gradient of ``rollout.steps`` steps and of a critic's value of where they lead."""

    weights: Literal["shared", "separate"] = Field(
        "shared", description="shared: one network for the like assets of a group; separate: one an asset, stacked"
    )
    gamma: float = Field(0.99, ge=0, lt=1, description="discount a step")
    td_lambda: float = Field(0.95, ge=0, le=1, description="of the returns that the critic learns")
    critic_hidden: tuple[PositiveInt, ...] | None = Field(None, description="widths of the critic's; absent: the same")
    critic_lr: PositiveFloat = 2e-3
    critic_epochs: PositiveInt = 8
    critic_minibatches: PositiveInt = Field(4, description="gradient steps an epoch")
    tau: float = Field(0.5, gt=0, le=1, description="share of the critic that flows into its target an iteration")
    reward_scale: PositiveFloat = Field(1.0, description="the learner sees reward times this")


class AnalyticConfiguration(Strict):
    """Gradient of the reward through a differentiable twin: no likelihood ratios.

    Without ``short_horizon``, for tasks that answer an action at once: an iteration plays fresh episodes for
    ``rollout.steps`` steps and follows the gradient of the last step's reward by that step's commands. With it, for
    tasks where what is done now pays later.
    """

    kind: Literal["analytic"] = "analytic"
    controlled: dict[str, tuple[str, ...]] | None = Field(
        None, description="commands that the policy drives, per group; absent: all of them. The rest stay neutral"
    )
    hidden: tuple[PositiveInt, ...] = Field((64, 64), description="widths of the tanh layers")
    lr: PositiveFloat = 2e-3
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    noise_initial: float = Field(
        0.1, ge=0, le=1, description="deviation of the noise that smooths the reward, actions span [-1, 1]"
    )
    noise_final: float = Field(0.01, ge=0, le=1, description="what it falls to, linearly")
    short_horizon: ShortHorizonConfiguration | None = Field(
        None, description="follow the gradient through many steps, with a critic; absent: through the last one"
    )
    max_grad_norm: PositiveFloat = 1.0
    feature_clip: PositiveFloat = 10.0
    normalise_iterations: PositiveInt = Field(10, description="iterations that the features' moments are taken from")
    adam_epsilon: PositiveFloat = 1e-8

    def disagreement(self, *, replicas: int, steps: int, workers: int, shards: int, iterations: bool) -> str | None:
        """What in the rest of a run does not fit these settings, or None. ``iterations``: the run counts them."""
        if not iterations:
            return "learner.kind analytic counts iterations; give iterations instead of agent_steps"
        if workers or shards > 1:
            return (
                "learner.kind analytic differentiates one twin in this process; "
                "leave rollout.workers at 0 and rollout.shard_replicas out"
            )
        if self.short_horizon is not None and replicas * steps < self.short_horizon.critic_minibatches:
            return (
                f"learner.short_horizon.critic_minibatches {self.short_horizon.critic_minibatches} exceeds the "
                f"{replicas * steps} steps of an iteration (rollout.replicas {replicas} x rollout.steps {steps})"
            )
        return None
