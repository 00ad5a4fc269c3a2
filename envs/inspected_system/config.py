"""Configuration of a system of inspected components; loading it imports neither torch nor scipy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ..configuration import Strict

MOST_COMPONENTS = 200
MOST_BINS, MOST_YEARS = 100, 100


class CrackGrowth(Strict):
    """Fatigue cracks by Paris' law; ``d`` in mm, stress ranges in MPa, ``C`` in the units that these give.

    A crack begins exponential with mean ``initial_mean_mm``; ``ln C`` and the stress range are normal, each drawn once
    for a component's life. It fails where it exceeds ``critical_mm``.
    """

    initial_mean_mm: PositiveFloat = 1.0
    critical_mm: PositiveFloat = 20.0
    stress_mean_mpa: PositiveFloat = 70.0
    stress_deviation_mpa: PositiveFloat = 10.0
    exponent: float = Field(3.5, gt=2.0, description="m of Paris' law")
    log_constant_mean: float = Field(-35.2, description="of ln C")
    log_constant_deviation: PositiveFloat = 0.5
    cycles_per_year: PositiveFloat = 1e6

    @model_validator(mode="after")
    def _cracks_begin_small(self) -> CrackGrowth:
        if self.initial_mean_mm >= self.critical_mm:
            raise ValueError(
                f"initial_mean_mm {self.initial_mean_mm} is not below critical_mm {self.critical_mm}; swap them, or "
                "take sounder components"
            )
        return self


class Inspection(Strict):
    """An inspection finds a crack of ``d`` mm with chance ``1 - exp(-d / detectable_mm)``."""

    detectable_mm: PositiveFloat = 8.0


class Belief(Strict):
    """How beliefs are kept: chances of ``bins`` ranges of crack size, logarithmic from ``smallest_mm`` to the critical
    size. The first bin holds all that is smaller, the last one what has failed."""

    bins: int = Field(30, ge=4, le=MOST_BINS)
    smallest_mm: PositiveFloat = 1e-4


class InspectedSystemConfig(Strict):
    """``components`` like components of which ``needed`` must work; each may be inspected or repaired once a year."""

    kind: Literal["inspected_system"] = "inspected_system"
    name: str = "inspected_system"
    components: PositiveInt = Field(3, le=MOST_COMPONENTS)
    needed: PositiveInt = Field(2, description="k of n")
    growth: CrackGrowth = CrackGrowth()
    inspection: Inspection = Inspection()
    belief: Belief = Belief()
    years: PositiveInt = Field(30, le=MOST_YEARS, description="of the tables of growth; older components grow alike")

    @model_validator(mode="after")
    def _fits(self) -> InspectedSystemConfig:
        if self.needed > self.components:
            raise ValueError(f"needed {self.needed} of {self.components} components; give at most as many as there are")
        if self.belief.smallest_mm >= self.growth.critical_mm:
            raise ValueError(
                f"belief.smallest_mm {self.belief.smallest_mm} is not below growth.critical_mm "
                f"{self.growth.critical_mm}; give a smaller one"
            )
        return self


class CrackPlantConfig(Strict):
    """The plant: true cracks, drawn one by one.

    ``constants``: a component's C and stress range are ``kept`` for its life (nature), or ``redrawn`` every year among
    components with as large a crack at that age, which is what beliefs over crack sizes alone assume.
    """

    kind: Literal["cracks"] = "cracks"
    seed: int = Field(0, ge=0)
    constants: Literal["kept", "redrawn"] = "kept"
    record_paths: int = Field(
        200_000, ge=1000, le=2_000_000, description="cracks drawn to make the record's table of growth"
    )
    lost_reading_pu: NonNegativeFloat = Field(0.0, le=1, description="chance that a component's reading is bad")
