"""Settings of a learner of Stable-Baselines3; importing them imports neither it nor torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from ..envs.configuration import Strict


class FederatedConfiguration(Strict):
    """One learner an asset, each a Ray actor at its own site, for assets whose data must stay apart."""

    average_every: PositiveInt | None = Field(
        None, description="iterations after which all take the mean of their weights; absent: they never meet"
    )


class Sb3Configuration(Strict):
    """An algorithm of stable-baselines3 or sb3-contrib, shared over like assets."""

    kind: Literal["sb3"] = "sb3"
    controlled: dict[str, tuple[str, ...]] | None = Field(
        None, description="commands that the policy drives, per group; absent: all of them. The rest stay neutral"
    )
    algorithm: str = Field("PPO", description="a class of stable_baselines3 or sb3_contrib, such as PPO, SAC, TQC")
    policy: str = "MlpPolicy"
    options: dict[str, Any] = Field({}, description="keyword arguments of the algorithm, as its own documentation says")
    federated: FederatedConfiguration | None = None

    def disagreement(self, *, replicas: int, steps: int, workers: int, shards: int, iterations: bool) -> str | None:
        """What in the rest of a run does not fit these settings, or None. ``iterations``: the run counts them."""
        if workers or shards > 1:
            return (
                "learner.kind sb3 gathers its own experience in this process; "
                "leave rollout.workers at 0 and rollout.shard_replicas out"
            )
        return None
