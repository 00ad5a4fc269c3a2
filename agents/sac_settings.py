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
        None, description="continuous commands that the policy drives, per group; absent: all. The rest stay neutral"
    )
    weights: Literal["shared", "separate"] = Field(
        "shared", description="shared: one network for the like assets of a group; separate: one an asset, stacked"
    )
    critic: Literal["own", "joint"] = Field(
        "own", description="own: the asset's features and action; joint: also those of all other assets"
    )
    hidden: tuple[PositiveInt, ...] = Field((256, 256), description="widths of the actor's ReLU layers")
    critic_hidden: tuple[PositiveInt, ...] | None = Field(None, description="widths of the critics'; absent: the same")
    lr: PositiveFloat = Field(3e-4, description="of actor, critics and temperature")
    gamma: float = Field(0.99, ge=0, le=1, description="discount a step")
    tau: float = Field(0.005, gt=0, le=1, description="share of the critics that flows into their targets at an update")
    batch: PositiveInt = Field(256, description="joint steps a gradient step learns from")
    buffer: PositiveInt = Field(1_000_000, description="joint steps that are remembered; a checkpoint holds them too")
    warm_up: NonNegativeInt = Field(
        100, description="joint steps, all replicas counted, with uniform random actions and no update"
    )
    updates_per_step: PositiveFloat = Field(
        1.0, description="gradient steps a step of the batch of replicas, whole ones as they fall due"
    )
    temperature_initial: PositiveFloat = Field(1.0, description="price of a nat of entropy, in reward")
    temperature_learnt: bool = Field(True, description="false: it stays at temperature_initial")
    temperature_per: Literal["group", "asset"] = Field("group", description="one for all assets of a group, or each")
    entropy_target: float | None = Field(
        None, description="nats a command that the temperature aims at; absent: -1, as the authors advise"
    )
    normalise_features: bool = Field(
        False, description="by the moments of the warm-up, fixed thereafter; give it a warm-up that has seen enough"
    )
    feature_clip: PositiveFloat = Field(10.0, description="features are cut there, after they are normalised")
    reward_scale: PositiveFloat = Field(1.0, description="the learner sees reward times this")
    team_reward: bool = Field(
        False, description="every asset learns from the mean reward of the present assets of all groups that learn"
    )

    def disagreement(self, *, replicas: int, steps: int, workers: int, shards: int, iterations: bool) -> str | None:
        """What in the rest of a run does not fit these settings, or None. ``iterations``: the run counts them."""
        if self.buffer < self.batch:
            return f"learner.buffer {self.buffer} is smaller than learner.batch {self.batch}; remember more"
        if self.buffer < replicas * steps:
            return (
                f"learner.buffer {self.buffer} is smaller than the {replicas * steps} joint steps of an iteration "
                f"(rollout.replicas {replicas} x rollout.steps {steps}); remember more, or gather fewer"
            )
        if self.normalise_features and not self.warm_up:
            return (
                "learner.normalise_features takes its moments from the warm-up and learner.warm_up is 0; "
                "warm up, or set normalise_features: false"
            )
        if self.entropy_target is not None and not self.temperature_learnt:
            return "learner.entropy_target steers the temperature, which temperature_learnt false fixes; leave one out"
        return None
