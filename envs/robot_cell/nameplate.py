"""The cell's nameplate: arms, and where there may be any, people and moving obstacles.

An arm's row is what the arm itself knows, fresh; its ``heard_*`` signals are what the other arms have received of it,
late by ``heard_age_s``. Whoever decides for arm i takes its own row and the heard part of the others'.
"""

from __future__ import annotations

import math

from ..nameplate import Group, Nameplate, Signal
from .arm import N_JOINTS, UR5E
from .config import FixedArms, RobotCellConfig

ARM, PERSON, OBSTACLE = "arm", "person", "obstacle"

_TURN = 2 * math.pi + 1e-3  # a little beyond the stop, for a float32 at it


def _joints(
    pattern: str, unit: str, limit: float, description: str, tag: str, *, relayed: bool = False
) -> tuple[Signal, ...]:
    return tuple(
        Signal(pattern.format(j), unit, -limit, limit, description.format(j), tag.format(j), relayed=relayed)
        for j in range(1, N_JOINTS + 1)
    )


def _position(name: str, description: str, tag: str, *, relayed: bool = False) -> tuple[Signal, ...]:
    return tuple(
        Signal(f"{name}_{c}_m", "m", -100.0, 100.0, f"{description}, {c}", f"{tag}{c.upper()}", relayed=relayed)
        for c in "xyz"
    )


MEASURED = (
    *_joints("q{}_rad", "rad", _TURN, "angle of joint {}", "Joint{}Position"),
    *_joints("dq{}_radps", "rad/s", 4.0, "speed of joint {}", "Joint{}Speed"),
    *_position("tool", "tool point, cell frame", "Tool"),
    *_position("target", "target of the tool point, cell frame", "Target"),
    Signal("holds", "1", 0.0, 1.0, "1 while the gripper holds a part", "Holds"),
    Signal("touches", "1", 0.0, 1e9, "targets touched since the start", "Touches"),
    Signal("stall_s", "s", 0.0, 1e9, "since the tool was last nearer to its target than ever", "Stall"),
    Signal("gap_m", "m", -10.0, 100.0, "to the nearest other arm (as heard), own link, person, obstacle or fixture",
           "Gap"),
    *_joints("heard_q{}_rad", "rad", _TURN, "angle of joint {} as the other arms have received it", "HeardJoint{}",
             relayed=True),
    *_joints("heard_dq{}_radps", "rad/s", 4.0, "speed of joint {} as the other arms have received it",
             "HeardJoint{}Speed", relayed=True),
    *_position("heard_target", "target as the other arms have received it, cell frame", "HeardTarget", relayed=True),
    Signal("heard_stall_s", "s", 0.0, 1e9, "stall as the other arms have received it", "HeardStall", relayed=True),
    Signal("heard_age_s", "s", 0.0, 1e9, "age of what the other arms have received", "HeardAge", relayed=True),
)  # fmt: skip
HIDDEN = (
    Signal("distance_m", "m", 0.0, 100.0, "of the tool point to its target, before a touch brings a new one"),
    Signal("arm_gap_m", "m", -10.0, 100.0, "to the nearest other arm, as it is"),
    Signal("self_gap_m", "m", -10.0, 100.0, "between links of the arm that can meet"),
    Signal("person_gap_m", "m", -10.0, 100.0, "to the nearest person"),
    Signal("fixture_gap_m", "m", -10.0, 100.0, "to the nearest fixture or moving obstacle"),
    Signal("tool_speed_mps", "m/s", 0.0, 100.0, "of the tool point"),
    Signal("guarded_pu", "1", 0.0, 2.0, "by how much the guard inside the twin changed the command, mean over joints"),
)
STATICS = (
    *(Signal(f"base_{c}_m", "m", -100.0, 100.0, f"base, cell frame, {c}") for c in "xyz"),
    Signal("base_yaw_deg", "deg", -360.0, 360.0, "of the maker's base frame about z; at q1 = 0 it reaches to its -x"),
    *(Signal(f"home_q{j}_rad", "rad", -_TURN, _TURN, f"where joint {j} waits") for j in range(1, N_JOINTS + 1)),
)
BODY_MEASURED = (
    *_position("start", "one end of the capsule's axis", "Start"),
    *_position("end", "other end of the capsule's axis", "End"),
    Signal("radius_m", "m", 0.0, 10.0, "of the capsule", "Radius"),
    *(Signal(f"v{c}_mps", "m/s", -20.0, 20.0, f"velocity, {c}", f"Velocity{c.upper()}") for c in "xyz"),
)


def commanded(config: RobotCellConfig) -> tuple[Signal, ...]:
    """Joint speeds; as fast as they may change is what the maker's brakes do."""
    limit = config.joint_speed_radps
    return tuple(
        Signal(f"dq{j}_radps", "rad/s", -limit, limit, f"speed of joint {j}", f"Joint{j}SpeedSetpoint",
               rate_limit_per_s=UR5E.braking_radps2[j - 1])
        for j in range(1, N_JOINTS + 1)
    )  # fmt: skip


def cell_nameplate(config: RobotCellConfig) -> Nameplate:
    """The nameplate of a configuration; statics are left to the readings where episodes place arms at random."""
    values: tuple[tuple[float, ...], ...] = ()
    if isinstance(config.arms, FixedArms):
        values = tuple((p.x_m, p.y_m, p.z_m, p.yaw_deg, *p.home_rad) for p in config.arms.places)
    groups = [
        Group(
            name=ARM,
            assets=tuple(f"arm_{k + 1}" for k in range(config.n_arms)),
            measured=MEASURED,
            commanded=commanded(config),
            hidden=HIDDEN,
            statics=STATICS,
            static_values=values,
        )
    ]
    if config.people is not None:
        people = tuple(f"person_{k + 1}" for k in range(config.people.number[1]))
        groups.append(Group(name=PERSON, assets=people, measured=BODY_MEASURED, commanded=()))
    if config.obstacles:
        things = tuple(f"obstacle_{k + 1}" for k in range(len(config.obstacles)))
        groups.append(Group(name=OBSTACLE, assets=things, measured=BODY_MEASURED, commanded=()))
    return Nameplate(
        site=config.name,
        period_s=config.control_period_s,
        groups=tuple(groups),
        description="six-joint arms that share a workspace; commands are joint speeds",
    )
