"""What keeps arms apart from each other, from people and from things; loading it imports no numpy."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat

from ..configuration import Strict


class PersonGuard(Strict):
    """Speed and separation as in ISO 10218-2:2025 (before: ISO/TS 15066; Marvel & Norcross 2017, PMC5117641).

    A person is taken to come at ``approach_mps``, whatever was seen: 1.6 m/s where speeds are not measured safely (ISO
    13855). ``intrusion_m``: how far a hand may be in before it is seen; 0 where the sensor sees the whole body.
    """

    reaction_s: PositiveFloat = Field(
        0.1, description="from a person's step to the arm's brakes: sensor, bus, decision"
    )
    approach_mps: PositiveFloat = 1.6
    intrusion_m: NonNegativeFloat = 0.0
    uncertainty_m: NonNegativeFloat = Field(0.1, description="of the person's place and the arm's, together")


class Guard(Strict):
    """Distances that the shield keeps, and how fast what is left of them may be used up."""

    gain_per_s: PositiveFloat = Field(
        4.0, le=8, description="an arm closes on anything at most this times the distance left: see README, 'Guard'"
    )
    arm_gap_m: NonNegativeFloat = Field(0.05, description="between arms, each of which answers for half of the closing")
    self_gap_m: NonNegativeFloat = Field(0.01, description="between links of one arm that can meet")
    fixture_gap_m: NonNegativeFloat = Field(0.03, description="to fixtures and moving obstacles")
    blind_s: PositiveFloat = Field(
        0.5, description="a peer that was heard longer ago may be anywhere in its reach: an arm inside stands"
    )
    person: PersonGuard = PersonGuard()
    inside_twin: bool = Field(
        False, description="the twin's arms obey a batched form of the guard, so that agents learn under it"
    )
