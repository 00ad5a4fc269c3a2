"""What goes wrong at an emulated line that its twin does not know; loading it imports neither torch nor SimPy.

Faults of machines act on what happens; faults of sensors on what is told of it. Hours count from the plant's start.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ..configuration import Strict

Place = Annotated[int, Field(ge=0, description="the machine, from 1; 0: each of them")]


class MicroStops(Strict):
    """Short stops that nobody books as failures: they come with running time and last a little."""

    kind: Literal["micro_stops"] = "micro_stops"
    machine: Place = 0
    per_hour: PositiveFloat = Field(1.0, description="of running time")
    mean_s: PositiveFloat = Field(90.0, description="exponentially distributed")


class Jam(Strict):
    """A machine jams, once, in the midst of a cycle, and is down until somebody has cleared it."""

    kind: Literal["jam"] = "jam"
    machine: PositiveInt = 1
    at_h: NonNegativeFloat = 12.0
    lasts_s: PositiveFloat = 1800.0


class SlowRepairs(Strict):
    """Repairs take ``factor`` times as long as is declared."""

    kind: Literal["slow_repairs"] = "slow_repairs"
    machine: Place = 0
    factor: PositiveFloat = 1.5


class FastWear(Strict):
    """A machine wears ``factor`` times as fast as is declared."""

    kind: Literal["fast_wear"] = "fast_wear"
    machine: Place = 0
    factor: PositiveFloat = 1.3


class _For(Strict):
    """A stretch of time."""

    from_h: NonNegativeFloat = 0.0
    to_h: PositiveFloat = 1e9

    @model_validator(mode="after")
    def _ordered(self) -> _For:
        if self.from_h >= self.to_h:
            raise ValueError(f"from_h {self.from_h:g} is not before to_h {self.to_h:g}")
        return self


class FrozenCounter(_For):
    """A part counter that stands still: its machine seems to make nothing."""

    kind: Literal["frozen_counter"] = "frozen_counter"
    machine: PositiveInt = 1


class LostCounts(_For):
    """A part counter that misses parts, each with this chance."""

    kind: Literal["lost_counts"] = "lost_counts"
    machine: PositiveInt = 1
    lost_pu: Annotated[float, Field(gt=0, le=1)] = 0.1


class FrozenLevel(_For):
    """Both sensors of the buffers beside a machine stay where they were: before it and behind it."""

    kind: Literal["frozen_level"] = "frozen_level"
    machine: PositiveInt = 1


Fault = Annotated[
    MicroStops | Jam | SlowRepairs | FastWear | FrozenCounter | LostCounts | FrozenLevel, Field(discriminator="kind")
]
