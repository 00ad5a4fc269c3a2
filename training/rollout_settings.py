"""Settings of how experience is gathered; importing them imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..envs.configuration import Strict


class RolloutConfiguration(Strict):
    """How experience is gathered: ``replicas`` in shards of a fixed size, ``steps`` an iteration.

    Kernels always see one shard, so that no result depends on ``workers``; 0 workers collect in this process.
    """

    replicas: PositiveInt = 16
    shard_replicas: PositiveInt | None = Field(None, description="replicas of one twin; absent: all in one shard")
    steps: PositiveInt = 64
    workers: NonNegativeInt = Field(
        0,
        description="Ray processes that gather; 0: this one. In a file also auto: one a core of this machine, at most "
        "one a shard",
    )
    workers_forced: bool = Field(
        False,
        description="use the workers even where a first measurement says that they would lose; else such a run stays "
        "in this process and says so. Results are the same",
    )
    overlap: bool = Field(
        False,
        description="gather the next rollout, with weights one iteration old, while the learner learns: other results "
        "than without, the same for any number of workers",
    )
    ray_address: str | None = Field(
        None,
        min_length=1,
        description="for workers: the running Ray cluster to join, auto or host:port; absent: RAY_ADDRESS, or a "
        "session of this run's own",
    )
    hang_timeout_s: PositiveFloat = Field(
        30.0, description="for workers: one that takes no step for so long is replaced; above the longest step"
    )

    @property
    def per_shard(self) -> int:
        return self.shard_replicas or self.replicas

    @property
    def n_shards(self) -> int:
        return self.replicas // self.per_shard

    def disagreement(self, learner: str) -> str | None:
        """What of these settings a learner of kind ``learner`` cannot honour, or None."""
        if self.overlap and learner in ("analytic", "sb3", "taught"):
            return f"rollout.overlap true: learner kind {learner} gathers its own experience as it learns; set it false"
        return None

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, data: Any) -> Any:
        """Make a number of ``workers: auto``."""
        if not isinstance(data, Mapping) or data.get("workers") != "auto":
            return data
        replicas, each = data.get("replicas", cls.model_fields["replicas"].default), data.get("shard_replicas")
        counts = [n for n in (replicas, each) if isinstance(n, int) and n > 0]
        shards = counts[0] // counts[1] if len(counts) == 2 else 1
        return {**data, "workers": max(1, min(shards, len(os.sched_getaffinity(0))))}

    @model_validator(mode="after")
    def _fits(self) -> RolloutConfiguration:
        if self.replicas % self.per_shard:
            raise ValueError(
                f"replicas {self.replicas} is not a multiple of shard_replicas {self.per_shard}; "
                f"take {self.per_shard * max(1, round(self.replicas / self.per_shard))} replicas"
            )
        if self.workers > self.n_shards:
            raise ValueError(
                f"workers {self.workers} exceeds the {self.n_shards} shards that there are to share out; "
                f"make shard_replicas smaller, or take at most {self.n_shards} workers"
            )
        return self


class ShieldedConfiguration(Strict):
    """The deployment shield between policy and twin: the twin obeys what the shield sends, the learner keeps both."""

    intervention_penalty: NonNegativeFloat = Field(
        0.0, description="reward lost a unit of change that the shield makes, in shares of the command's range"
    )
