"""Settings of a run beside what it learns: evaluation, logging, stopping; importing them imports no torch."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ..envs.configuration import Strict


class EvaluationConfiguration(Strict):
    """Episodes of the policy without exploration, on replicas of their own; ``every`` 0 switches them off."""

    every: NonNegativeInt = 0
    replicas: PositiveInt = 8
    steps: PositiveInt | None = Field(None, description="absent: the task's horizon")


class EarlyStopConfiguration(Strict):
    """Stop when evaluations no longer get better."""

    patience: PositiveInt = Field(5, description="evaluations without a new best after which the run ends")
    minimum_gain: NonNegativeFloat = Field(0.0, description="what a new best must be better by")


class LogConfiguration(Strict):
    """Where figures go beside metrics.jsonl."""

    tensorboard: bool = True
