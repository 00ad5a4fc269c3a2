"""Settings of where learners live; importing them imports no torch."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat

from ..envs.configuration import Strict


class LearnerActorsConfiguration(Strict):
    """The learner of each group in a Ray process of its own, so that groups learn side by side; ``{}`` will do.

    Results are those of learning in one process, bit for bit, on CPUs; a GPU rounds otherwise.
    """

    gpus_each: NonNegativeFloat = Field(0.0, description="GPUs a learner, such as 0.5; 0: learners run on CPUs")
    hang_timeout_s: PositiveFloat = Field(30.0, description="a learner that does not answer for so long is replaced")

    def disagreement(self, learner: str, is_sequential: bool) -> str | None:
        """What a learner of kind ``learner`` cannot honour, or None."""
        if learner not in ("ppo", "ippo", "mappo", "happo"):
            return f"learner_actors: learner kind {learner} has none of its own; leave it out, or take ppo or mappo"
        if is_sequential:
            return f"learner_actors: {learner} updates one group after another, so nothing would run side by side"
        return None
