"""Settings of the analytic policy gradient; importing them imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ..envs.configuration import Strict


class AnalyticConfiguration(Strict):
    """Gradient of the reward through a differentiable twin, for tasks that answer an action at once.

    An iteration plays fresh episodes for ``rollout.steps`` steps and follows the gradient of the last step's reward by
    that step's commands: no critic, no returns, no likelihood ratios.
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
        return None
