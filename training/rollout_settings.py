"""Settings of how experience is gathered; importing them imports no torch."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from ..envs.configuration import Strict


class RolloutConfiguration(Strict):
    """How experience is gathered: ``replicas`` in shards of a fixed size, ``steps`` an iteration.

    Kernels always see one shard, so that no result depends on ``workers``; 0 workers collect in this process.
    """

    replicas: PositiveInt = 16
    shard_replicas: PositiveInt | None = Field(None, description="replicas of one twin; absent: all in one shard")
    steps: PositiveInt = 64
    workers: NonNegativeInt = 0

    @property
    def per_shard(self) -> int:
        return self.shard_replicas or self.replicas

    @property
    def n_shards(self) -> int:
        return self.replicas // self.per_shard

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
