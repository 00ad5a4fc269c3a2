"""What is safe in a cell, as constraints: see :mod:`.guard` for the rows."""

from __future__ import annotations

import math

from ..constraint import Constraint, RowsConstraint, SafeState
from ..errors import ConfigurationError
from .config import CapsuleFixture, FixedArms, PlaneFixture, RobotCellConfig
from .guard import CellRows
from .nameplate import ARM


def cell_rows(config: RobotCellConfig) -> CellRows:
    """The rows of a cell, or of one arm of it. Raises :class:`ConfigurationError` where arms stand anywhere."""
    if not isinstance(config.arms, FixedArms):
        raise ConfigurationError(
            "arms: kind 'random' places arms anew in every episode, so that no rows hold for all; give kind 'fixed' to "
            "check or to shield a cell"
        )
    guard, person = config.guard, config.guard.person
    bases = tuple((p.x_m, p.y_m, p.z_m, math.radians(p.yaw_deg)) for p in config.arms.places)
    planes = []
    for fixture in config.fixtures:
        if isinstance(fixture, PlaneFixture):
            size = math.hypot(*fixture.normal)
            x, y, z = (c / size for c in fixture.normal)
            planes.append((x, y, z, fixture.offset_m))
    solid = [(*f.start_m, *f.end_m, f.radius_m) for f in config.fixtures if isinstance(f, CapsuleFixture)]
    return CellRows(
        bases=bases,
        tool_length_m=config.tool_length_m,
        planes=tuple(planes),
        capsules=tuple(solid),
        has_people=config.people is not None,
        has_obstacles=bool(config.obstacles),
        seat=config.seat or 0,
        period_s=config.control_period_s,
        joint_speed_radps=config.joint_speed_radps,
        gain_per_s=guard.gain_per_s,
        arm_gap_m=guard.arm_gap_m,
        self_gap_m=guard.self_gap_m,
        fixture_gap_m=guard.fixture_gap_m,
        blind_s=guard.blind_s,
        reaction_s=person.reaction_s,
        approach_mps=person.approach_mps,
        spare_m=person.intrusion_m + person.uncertainty_m,
    )


def cell_constraints(config: RobotCellConfig) -> tuple[Constraint, ...]:
    """One constraint for all gaps: they share the same few commands."""
    return (RowsConstraint("gaps", ARM, cell_rows(config)),)


def cell_safe_states(config: RobotCellConfig) -> dict[str, SafeState]:
    """Standing still, by the brakes."""
    return {ARM: SafeState("neutral")}
