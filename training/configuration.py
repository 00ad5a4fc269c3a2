"""Configuration of a training run; loading it imports neither torch nor a simulator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SerializeAsAny,
    create_model,
    field_validator,
    model_validator,
)

from ..agents.analytic_settings import AnalyticConfiguration
from ..agents.ppo_settings import HappoConfiguration, MappoConfiguration, PpoConfiguration
from ..agents.sac_settings import SacConfiguration
from ..agents.sb3_settings import Sb3Configuration
from ..agents.taught_settings import TaughtConfiguration
from ..envs.configuration import Strict, load_mapping
from ..envs.errors import UnknownSiteError
from ..envs.registry import load_site
from .learner_settings import LearnerActorsConfiguration
from .rollout_settings import RolloutConfiguration, ShieldedConfiguration
from .run_settings import EarlyStopConfiguration, EvaluationConfiguration, LogConfiguration, disagreement

LearnerConfiguration = (
    PpoConfiguration
    | MappoConfiguration
    | HappoConfiguration
    | SacConfiguration
    | AnalyticConfiguration
    | Sb3Configuration
    | TaughtConfiguration
)


class TaskChoice(Strict):
    """A task of the site and its options."""

    name: str
    options: dict[str, Any] = {}


class EncoderChoice(Strict):
    """An encoder of the site and its settings; groups that it does not serve see their own signals."""

    name: str
    settings: dict[str, Any] = {}


class TrainConfiguration(Strict):
    """One training run."""

    kind: Literal["train"] = "train"
    name: str = Field("train", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    site: SerializeAsAny[BaseModel]
    task: TaskChoice
    encoder: EncoderChoice | None = None
    learner: Annotated[LearnerConfiguration, Field(discriminator="kind")] = PpoConfiguration()
    rollout: RolloutConfiguration = RolloutConfiguration()
    shield: ShieldedConfiguration | None = Field(None, description="train behind the shield; absent: without it")
    constraint_prices: dict[str, NonNegativeFloat] = Field(
        default_factory=dict,
        description="constraint that the site adds: reward that each asset of its group loses a unit of the "
        "constraint's cost, a share of its scale; what is not named is counted and costs nothing",
    )
    learner_actors: LearnerActorsConfiguration | None = Field(
        None, description="learners of separate groups in Ray processes of their own; absent: in this one"
    )
    evaluation: EvaluationConfiguration = EvaluationConfiguration()
    early_stop: EarlyStopConfiguration | None = None
    artifact: Literal["last", "best"] = Field(
        "last", description="the policy that is shipped: the last, or that of the best evaluation"
    )
    log: LogConfiguration = LogConfiguration()
    iterations: PositiveInt | None = None
    agent_steps: PositiveInt | None = Field(None, description="instead of iterations; rounded up to whole ones")
    seed: NonNegativeInt = 0
    dtype: Literal["float32", "float64"] = Field("float32", description="the twin's; learners use float32")
    device: str = Field(
        "cpu", description="the twin's (cpu, cuda); ppo with own critics learns there, others on the CPU"
    )
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
            raise ValueError(
                "give either iterations or agent_steps, not both and not neither; null takes out one that is in a file"
            )
        wrong = self.disagreement()
        if wrong is not None:
            raise ValueError(wrong)
        return self

    def disagreement(self) -> str | None:
        """What in the parts of this run does not go together, or None."""
        learner = self.learner
        if self.shield is not None and isinstance(learner, AnalyticConfiguration):
            return "shield: no gradient passes a shield, and learner kind analytic needs one; leave one of them out"
        if self.shield is not None and isinstance(learner, TaughtConfiguration):
            return "shield: learner kind taught plays nothing that it could stop; leave one of them out"
        if self.shield is not None and self.shield.intervention_penalty and isinstance(learner, SacConfiguration):
            return (
                f"shield.intervention_penalty {self.shield.intervention_penalty}: learner kind masac learns from the "
                "action that was executed, which must not pay for the one that was chosen; leave it at 0, or take kind "
                "ppo or sb3"
            )
        if self.constraint_prices and (
            isinstance(learner, AnalyticConfiguration | Sb3Configuration | TaughtConfiguration)
            or self.learner_actors is not None
            or self.device != "cpu"
        ):
            return (
                "constraint_prices: only learners ppo, mappo, happo and masac, with their rollouts on the CPU, take "
                "prices on constraints; leave them out, or train behind the shield"
            )
        if self.learner_actors is not None:
            wrong = self.learner_actors.disagreement(learner.kind, getattr(learner, "is_sequential", False))
            if wrong is not None:
                return wrong
        return (
            self.rollout.disagreement(learner.kind)
            or learner.disagreement(
                replicas=self.rollout.replicas,
                steps=self.rollout.steps,
                workers=self.rollout.workers,
                shards=self.rollout.n_shards,
                iterations=self.iterations is not None,
            )
            or disagreement(self.evaluation, self.early_stop, self.artifact, self.iterations)
        )


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
