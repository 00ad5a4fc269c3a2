"""Settings of the learner that is taught; importing them imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ..envs.configuration import Strict


class TaughtConfiguration(Strict):
    """Imitation of the best answers that a site knows exactly (:mod:`twinloop.envs.teacher`), each weighed by what a
    wrong one loses: for policies of sites like it, which are too large or too many to be solved.

    It plays nothing in the twin: an iteration is ``rollout.steps`` gradient steps of ``rollout.replicas`` rows each, a
    row being an asset in a state.
    """

    kind: Literal["taught"] = "taught"
    controlled: dict[str, tuple[str, ...]] | None = Field(
        None, description="commands that the policy drives, per group; absent: all of them. The rest stay neutral"
    )
    lessons: PositiveInt = Field(100, description="layouts that the site draws and solves, once, at the beginning")
    states: PositiveInt = Field(1500, description="states of each lesson")
    most_regret: PositiveFloat = Field(20.0, description="a wrong answer weighs no more, in the task's currency")
    hidden: tuple[PositiveInt, ...] = Field((64, 64), description="widths of the tanh layers")
    lr: PositiveFloat = 3e-3
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    max_grad_norm: PositiveFloat = 1.0
    feature_clip: PositiveFloat = 10.0
    adam_epsilon: PositiveFloat = 1e-8

    def disagreement(self, *, replicas: int, steps: int, workers: int, shards: int, iterations: bool) -> str | None:
        """What in the rest of a run does not fit these settings, or None. ``iterations``: the run counts them."""
        if not iterations:
            return "learner.kind taught counts iterations; give iterations instead of agent_steps"
        if workers or shards > 1:
            return (
                "learner.kind taught plays nothing in the twin; leave rollout.workers at 0 and "
                "rollout.shard_replicas out"
            )
        return None
