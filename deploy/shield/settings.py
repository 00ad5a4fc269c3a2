"""What an engineer may set about the shield; limits themselves come from the site's constraints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ...envs.configuration import Strict
from .causes import Cause


class ShieldSettings(Strict):
    """Tolerances of the input guard, in control periods where times scale with the site."""

    max_age_periods: PositiveFloat = Field(default=2.5, description="a value older than this is stale")
    max_future_s: NonNegativeFloat = Field(default=0.5, description="a value this far ahead of the clock is refused")
    hold_periods: NonNegativeInt = Field(
        default=2, description="periods that a bad value is replaced by the last good one"
    )
    frozen_after_periods: dict[str, PositiveInt] = Field(
        default_factory=dict, description="signal name: equal readings in a row after which it counts as stuck"
    )
    stuck_after_periods: dict[str, PositiveInt] = Field(
        default_factory=dict,
        description="signal name: equal readings in a row, while most other assets move, that count as stuck",
    )
    jump_per_s: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="signal name: most that it may change in a second, in its unit"
    )
    jump_pu: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="signal name: most that it may change in a period, as a share of its range"
    )
    confusion_step_pu: PositiveFloat | None = Field(
        default=0.1,
        description="change in a period, as a share of the range, from which on a swap or another unit is looked for; "
        "null never looks",
    )
    confusion_learn_periods: PositiveInt = Field(
        default=50,
        description="periods in which a far step of a signal is forgotten; until then such steps are no confusion",
    )
    estimate_periods: NonNegativeInt = Field(
        default=5, description="periods that a bad value is replaced by the twin's estimate, where there is one"
    )
    advises: bool = Field(
        default=True,
        description="whether a decision also says what would be sent if every asset followed its policy; it costs as "
        "much as the decision itself while an asset does not",
    )
    read_back_tolerance_pu: NonNegativeFloat = Field(
        default=1e-3,
        description="share of a command's range by which the plant may obey something else than was sent; beyond it, "
        "three periods in a row put the asset on its fallback (read_back_wrong)",
    )
    cause_modes: dict[Cause, Literal["backup", "tripped"]] = Field(
        default_factory=dict, description="cause: a graver mode than the table of causes forces"
    )
    cause_patience_periods: dict[Cause, PositiveInt] = Field(
        default_factory=dict, description="cause: periods in a row after which it counts, instead of the table's"
    )
    cause_dwell_periods: dict[Cause, NonNegativeInt] = Field(
        default_factory=dict, description="cause: periods that it must be gone before it clears, instead of the table's"
    )
