"""Configuration of a training run; loading it imports neither torch nor a simulator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializeAsAny,
    create_model,
    field_validator,
    model_validator,
)

from ..agents.analytic_settings import AnalyticConfiguration
from ..agents.ppo_settings import PpoConfiguration
from ..envs.configuration import Strict, load_mapping
from ..envs.errors import UnknownSiteError
from ..envs.registry import load_site


class TaskChoice(Strict):
    """A task of the site and its options."""

    name: str
    options: dict[str, Any] = {}


class EncoderChoice(Strict):
    """An encoder of the site and its settings; groups that it does not serve see their own signals."""

    name: str
    settings: dict[str, Any] = {}


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


class EvaluationConfiguration(Strict):
    """Episodes of the policy without exploration, on replicas of their own; ``every`` 0 switches them off."""

    every: NonNegativeInt = 0
    replicas: PositiveInt = 8
    steps: PositiveInt | None = Field(None, description="absent: the task's horizon")


class TrainConfiguration(Strict):
    """One training run."""

    kind: Literal["train"] = "train"
    name: str = Field("train", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    site: SerializeAsAny[BaseModel]
    task: TaskChoice
    encoder: EncoderChoice | None = None
    learner: Annotated[PpoConfiguration | AnalyticConfiguration, Field(discriminator="kind")] = PpoConfiguration()
    rollout: RolloutConfiguration = RolloutConfiguration()
    evaluation: EvaluationConfiguration = EvaluationConfiguration()
    iterations: PositiveInt | None = None
    agent_steps: PositiveInt | None = Field(None, description="instead of iterations; rounded up to whole ones")
    seed: NonNegativeInt = 0
    dtype: Literal["float32", "float64"] = Field("float32", description="the twin's; learners use float32")
    device: str = Field("cpu", description="the twin's, cpu or cuda; learners run on the CPU")
    scope: Literal["auto", "site", "interface"] = Field(
        "auto",
        description="what the artifact may serve: this very site, or any with the same signals; auto: the "
        "latter where layouts differ per replica",
    )
    checkpoint_every: PositiveInt = 10
    keep_checkpoints: PositiveInt = Field(3, ge=2, description="at least two, so that one may be damaged")

    @field_validator("site", mode="before")
    @classmethod
    def _site(cls, value: object) -> BaseModel:
        if isinstance(value, BaseModel):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise ValueError("needs a mapping with a kind, such as {kind: wind_farm}; `twinloop sites` lists the kinds")
        try:
            site = load_site(value["kind"])
        except UnknownSiteError as error:
            raise ValueError(str(error)) from error
        return site.config_model.model_validate(dict(value))

    @field_validator("learner", mode="before")
    @classmethod
    def _learner(cls, value: object) -> object:
        return {"kind": "ppo", **value} if isinstance(value, Mapping) else value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
            raise ValueError("must be cpu, cuda, or cuda:1 for the second GPU")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> TrainConfiguration:
        if (self.iterations is None) == (self.agent_steps is None):
            raise ValueError("give either iterations or agent_steps, not both and not neither")
        if isinstance(self.learner, AnalyticConfiguration):
            return self._agrees_analytic()
        env_steps = self.rollout.replicas * self.rollout.steps
        if env_steps % self.learner.minibatches:
            raise ValueError(
                f"learner.minibatches {self.learner.minibatches} does not divide the {env_steps} steps of an iteration "
                f"(rollout.replicas {self.rollout.replicas} x rollout.steps {self.rollout.steps})"
            )
        if self.learner.log_std_initial < self.learner.log_std_minimum:
            raise ValueError(
                f"learner.log_std_initial {self.learner.log_std_initial} is below "
                f"learner.log_std_minimum {self.learner.log_std_minimum}"
            )
        return self

    def _agrees_analytic(self) -> TrainConfiguration:
        if self.iterations is None:
            raise ValueError("learner.kind analytic counts iterations; give iterations instead of agent_steps")
        if self.rollout.workers or self.rollout.n_shards > 1:
            raise ValueError(
                "learner.kind analytic differentiates one twin in this process; "
                "leave rollout.workers at 0 and rollout.shard_replicas out"
            )
        return self


def training_model(path: str | Path, overrides: Sequence[str] = ()) -> type[TrainConfiguration]:
    """The model of a file: :class:`TrainConfiguration` with the model of its site, so that errors name the site's keys.

    Where the file names no site that is installed, the plain model, which says so.
    """
    site = load_mapping(path, overrides).get("site")
    kind = site.get("kind") if isinstance(site, Mapping) else None
    if not isinstance(kind, str):
        return TrainConfiguration
    try:
        site_model = load_site(kind).config_model
    except UnknownSiteError:
        return TrainConfiguration
    fields: dict[str, Any] = {"site": (site_model, ...)}
    return create_model("TrainConfiguration", __base__=TrainConfiguration, __doc__=TrainConfiguration.__doc__, **fields)
