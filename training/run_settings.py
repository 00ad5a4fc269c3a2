"""Settings of a run beside what it learns: evaluation, stopping, logging; importing them imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from ..envs.configuration import Strict, load_mapping
from ..envs.errors import ConfigurationError

Judge = Literal["evaluation/reward", "plant/gain"]
TWIN_REWARD: Judge = "evaluation/reward"
PLANT_GAIN: Judge = "plant/gain"


class PlantEvaluationConfiguration(Strict):
    """The policy on a plant as deployment runs it: exported, behind the shield and the runtime.

    ``file: configs/.../plant.yaml`` (a path from where the command runs) may stand for ``site`` and ``plant``; it is
    read when the configuration is, so that a run folder holds what was in it.
    """

    every: PositiveInt = Field(10, description="iterations between evaluations on the plant")
    periods: PositiveInt = Field(60, ge=2, description="control periods of one evaluation")
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1, description="plant seeds; figures are over all")
    site: dict[str, Any] | None = Field(None, description="the plant's site; absent: the run's")
    plant: dict[str, Any] = Field({}, description="what the site's plant configuration takes")

    @model_validator(mode="before")
    @classmethod
    def _file(cls, data: object) -> object:
        if not isinstance(data, Mapping) or "file" not in data:
            return data
        rest = {key: value for key, value in data.items() if key != "file"}
        double = [key for key in ("site", "plant") if key in rest]
        if double:
            raise ValueError(f"file and {' and '.join(double)} say the same thing twice; give one of them")
        try:
            read = load_mapping(str(data["file"]))
        except ConfigurationError as error:
            raise ValueError(f"file: {error}") from error
        return {**rest, **{key: value for key, value in read.items() if key in ("site", "plant")}}


class EvaluationConfiguration(Strict):
    """Episodes of the policy without exploration, on replicas of their own; ``every`` 0 switches them off."""

    every: NonNegativeInt = 0
    replicas: PositiveInt = 8
    steps: PositiveInt | None = Field(None, description="absent: the task's horizon")
    plant: PlantEvaluationConfiguration | None = Field(None, description="evaluations on the plant; absent: none")
    judge: Judge = Field(
        TWIN_REWARD, description="the figure, larger is better, that early_stop and artifact: best go by"
    )


class EarlyStopConfiguration(Strict):
    """Stop when evaluations no longer get better."""

    patience: PositiveInt = Field(5, description="evaluations without a new best after which the run ends")
    minimum_gain: NonNegativeFloat = Field(0.0, description="what a new best must be better by")
    from_iteration: NonNegativeInt = Field(0, description="evaluations before this iteration do not count as failed")


class MlflowConfiguration(Strict):
    """An MLflow run beside the run folder (extra ``mlflow``)."""

    tracking_uri: str | None = Field(None, description="server, file or database; absent: MLFLOW_TRACKING_URI")
    experiment: str = "twinloop"


class WandbConfiguration(Strict):
    """A Weights & Biases run beside the run folder (extra ``wandb``)."""

    project: str = "twinloop"
    entity: str | None = None
    mode: Literal["online", "offline"] = Field("online", description="offline: `wandb sync` sends it later")


class LogConfiguration(Strict):
    """Where figures go beside metrics.jsonl. None of these can end a run: one that fails is left out, with a word."""

    tensorboard: bool = True
    mlflow: MlflowConfiguration | None = None
    wandb: WandbConfiguration | None = None


def disagreement(
    evaluation: EvaluationConfiguration,
    early_stop: EarlyStopConfiguration | None,
    artifact: str,
    iterations: int | None,
) -> str | None:
    """What in these settings contradicts itself, or None; ``iterations`` is None for a run that counts agent-steps."""
    by_plant = evaluation.judge == PLANT_GAIN
    if by_plant and evaluation.plant is None:
        return "evaluation.judge plant/gain: there is no evaluation on a plant; add evaluation.plant"
    needing = [name for name, on in (("early_stop", early_stop), ("artifact: best", artifact == "best")) if on]
    if not needing:
        return None
    key = "evaluation.plant.every" if by_plant else "evaluation.every"
    every = evaluation.plant.every if by_plant and evaluation.plant is not None else evaluation.every
    if not every:
        return f"{needing[0]} goes by evaluations, and {key} is 0; set it to a number of iterations"
    if iterations is not None and every > iterations:
        return (
            f"{needing[0]} goes by evaluations, and {key} {every} is beyond the {iterations} iterations of the run; "
            f"take at most {iterations}"
        )
    return None
