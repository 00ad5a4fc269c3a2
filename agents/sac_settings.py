"""Settings of multi-agent soft actor-critic; importing them imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ..envs.configuration import Strict


class SacConfiguration(Strict):
    """Soft actor-critic for many assets (Haarnoja et al. 2018, arXiv 1812.05905), off-policy: for slow simulators.

    ``rollout.steps`` is how many steps are gathered between two rounds of updates.
    """

    kind: Literal["masac"] = "masac"
    controlled: dict[str, tuple[str, ...]] | None = Field(
        None, description="commands that the policy drives, per group; absent: all of them. The rest stay neutral"
    )
    weights: Literal["shared", "separate"] = Field(
        "shared", description="shared: one network for the like assets of a group; separate: one an asset, stacked"
    )
    critic: Literal["own", "joint"] = Field(
        "own", description="own: the asset's features and action; joint: also those of all other assets"
    )
    hidden: tuple[PositiveInt, ...] = Field((256, 256), description="widths of the actor's ReLU layers")
    critic_hidden: tuple[PositiveInt, ...] | None = Field(None, description="widths of the critics'; absent: the same")
    lr: PositiveFloat = 3e-4
    gamma: float = Field(0.99, ge=0, le=1)
    tau: float = Field(0.005, gt=0, le=1, description="share of the critics that flows into their targets at an update")
    batch: PositiveInt = Field(256, description="joint steps a gradient step learns from")
    buffer: PositiveInt = Field(1_000_000, description="joint steps that are remembered")
    warm_up: NonNegativeInt = Field(100, description="joint steps with uniform random actions before the first update")
    updates_per_step: PositiveFloat = Field(1.0, description="gradient steps a joint step of the batch of replicas")
    entropy_target: float | None = Field(None, description="a command; absent: -1, as the authors advise")
    temperature_initial: PositiveFloat = 1.0
    normalise_features: bool = Field(True, description="moments of the warm-up, fixed thereafter")
    feature_clip: PositiveFloat = 10.0
    reward_scale: PositiveFloat = 1.0
    team_reward: bool = False

    def disagreement(self, *, replicas: int, steps: int, workers: int, shards: int, iterations: bool) -> str | None:
        """What in the rest of a run does not fit these settings, or None. ``iterations``: the run counts them."""
        if self.buffer < self.batch:
            return f"learner.buffer {self.buffer} is smaller than learner.batch {self.batch}"
        return None
