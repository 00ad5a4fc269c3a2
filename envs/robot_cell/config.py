"""Configuration of the robot cell; loading it imports neither torch nor MuJoCo.

The cell's frame: x from the first arm to the second, z up, origin on the floor between them. An arm's place is that of
the maker's base frame, in which an arm at ``q1 = 0`` reaches towards -x.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..configuration import Strict
from .arm import UR5E
from .guard_settings import Guard

MOST_ARMS = 8
LONGEST_DELAY_PERIODS = 5

Range = tuple[float, float]
Triple = tuple[float, float, float]
Joints = tuple[float, float, float, float, float, float]

HOME_RAD: Joints = (0.0, -2.4, 2.5, -1.67, -1.57, 0.0)
"""Retracted, tool down, in front of the own base."""


def _require_order(name: str, ends: tuple[float, float]) -> None:
    if ends[0] > ends[1]:
        raise ValueError(f"{name}: [{ends[0]}, {ends[1]}]; the first end exceeds the second")


class ArmPlace(Strict):
    """Where an arm stands and where it waits."""

    x_m: float = Field(0.0, ge=-10, le=10)
    y_m: float = Field(0.0, ge=-10, le=10)
    z_m: float = Field(0.0, ge=-2, le=2)
    yaw_deg: float = Field(0.0, ge=-360, le=360)
    home_rad: Joints = HOME_RAD

    @model_validator(mode="after")
    def _home_within_limits(self) -> ArmPlace:
        for k, (low, q, high) in enumerate(zip(UR5E.q_min_rad, self.home_rad, UR5E.q_max_rad, strict=True)):
            if not low <= q <= high:
                raise ValueError(f"home_rad: joint {k + 1} at {q} leaves [{low:.4f}, {high:.4f}] rad")
        return self


class FixedArms(Strict):
    """Arms that stand where they stand, in every episode."""

    kind: Literal["fixed"] = "fixed"
    places: tuple[ArmPlace, ...] = (ArmPlace(x_m=-0.5, yaw_deg=180.0), ArmPlace(x_m=0.5, yaw_deg=0.0))

    @model_validator(mode="after")
    def _some_apart(self) -> FixedArms:
        if not 1 <= len(self.places) <= MOST_ARMS:
            raise ValueError(f"places: {len(self.places)} arms; give 1 to {MOST_ARMS}")
        for j, b in enumerate(self.places):
            for i, a in enumerate(self.places[:j]):
                gap = math.dist((a.x_m, a.y_m, a.z_m), (b.x_m, b.y_m, b.z_m))
                if gap < 0.3:
                    raise ValueError(f"places: arms {i + 1} and {j + 1} are {gap:.2f} m apart; give at least 0.3")
        return self


class RandomArms(Strict):
    """A new ring of arms for every episode, evenly spaced, each facing its centre: ``arms`` is the range of their
    number, ``spacing_m`` of the distance between neighbours, ``turn_deg`` of what each base is turned away."""

    kind: Literal["random"] = "random"
    arms: tuple[PositiveInt, PositiveInt] = (2, 3)
    spacing_m: tuple[PositiveFloat, PositiveFloat] = (0.9, 1.2)
    turn_deg: NonNegativeFloat = Field(0.0, le=90)
    home_rad: Joints = HOME_RAD

    @model_validator(mode="after")
    def _ordered(self) -> RandomArms:
        _require_order("arms", self.arms)
        _require_order("spacing_m", self.spacing_m)
        if self.arms[1] > MOST_ARMS:
            raise ValueError(f"arms: up to {self.arms[1]}; give at most {MOST_ARMS}")
        if self.spacing_m[0] < 0.3:
            raise ValueError(f"spacing_m: from {self.spacing_m[0]}; bases overlap below 0.3")
        return self


class Box(Strict):
    """A box along the axes of the cell."""

    x_m: Range = (-0.2, 0.2)
    y_m: Range = (-0.35, 0.35)
    z_m: Range = (0.2, 0.6)

    @model_validator(mode="after")
    def _ordered(self) -> Box:
        for name in ("x_m", "y_m", "z_m"):
            _require_order(name, getattr(self, name))
        return self


class ReachWork(Strict):
    """A new target in the shared box at each touch. ``crossing``: on the side of the box away from the arm's base;
    ``half``: every second one."""

    kind: Literal["reach"] = "reach"
    box: Box = Box()
    crossing: bool | Literal["half"] = False


class PickPlaceWork(Strict):
    """Pick in one box, place in the other, and so on; ``dwell_s`` at each, for the gripper."""

    kind: Literal["pick_place"] = "pick_place"
    pick: Box = Box(y_m=(-0.35, -0.15), z_m=(0.2, 0.35))
    place: Box = Box(y_m=(0.15, 0.35), z_m=(0.2, 0.35))
    dwell_s: NonNegativeFloat = 0.2


class People(Strict):
    """People who walk around the cell: an upright capsule each.

    They go from point to point, straight in polar coordinates about the cell's centre, at a speed and after a pause
    that are drawn for every leg. ``number`` is the range of how many there are in an episode.
    """

    number: tuple[NonNegativeInt, PositiveInt] = (1, 1)
    radius_m: PositiveFloat = 0.25
    height_m: PositiveFloat = 1.8
    distance_m: tuple[PositiveFloat, PositiveFloat] = (1.0, 3.0)
    speed_mps: tuple[PositiveFloat, PositiveFloat] = (0.4, 1.6)
    pause_s: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 4.0)

    @model_validator(mode="after")
    def _ordered(self) -> People:
        for name in ("number", "distance_m", "speed_mps", "pause_s"):
            _require_order(name, getattr(self, name))
        if self.height_m < 2 * self.radius_m:
            raise ValueError(f"height_m: {self.height_m} is below twice the radius {self.radius_m}")
        return self


class Obstacle(Strict):
    """A capsule that goes to and fro, its centre as a sine between ``from_m`` and ``to_m``; the phase is drawn."""

    from_m: Triple
    to_m: Triple
    axis_m: Triple = Field((0.0, 0.0, 0.0), description="from its centre to one end; zero: a ball")
    radius_m: PositiveFloat = 0.1
    period_s: PositiveFloat = 8.0


class CapsuleFixture(Strict):
    """Something fixed in the cell, as a capsule."""

    kind: Literal["capsule"] = "capsule"
    start_m: Triple
    end_m: Triple
    radius_m: PositiveFloat


class PlaneFixture(Strict):
    """A wall, a table or the floor: arms stay where ``normal . x > offset_m``; the normal is made a unit vector.

    An arm's foot and the housing above it (its first two capsules) are not held against planes, since they are
    mounted on one.
    """

    kind: Literal["plane"] = "plane"
    normal: Triple = (0.0, 0.0, 1.0)
    offset_m: float = 0.0

    @model_validator(mode="after")
    def _has_direction(self) -> PlaneFixture:
        if math.hypot(*self.normal) < 1e-9:
            raise ValueError("normal: zero; give a direction")
        return self


Fixture = Annotated[CapsuleFixture | PlaneFixture, Field(discriminator="kind")]


class Peers(Strict):
    """How arms hear of each other: ``delay_periods`` is the range of an arm's delay, drawn for every episode;
    ``losses_per_min`` bursts in which nothing of an arm is heard for ``loss_s``."""

    delay_periods: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    losses_per_min: NonNegativeFloat = 0.0
    loss_s: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Peers:
        _require_order("delay_periods", self.delay_periods)
        if self.delay_periods[1] > LONGEST_DELAY_PERIODS:
            raise ValueError(f"delay_periods: up to {self.delay_periods[1]}; give at most {LONGEST_DELAY_PERIODS}")
        return self

    @property
    def is_perfect(self) -> bool:
        return self.delay_periods[1] == 0 and self.losses_per_min == 0


class RobotCellConfig(Strict):
    """Arms that share a workspace, what they reach for, and what else is there."""

    kind: Literal["robot_cell"] = "robot_cell"
    name: str = "robot_cell"
    arms: Annotated[FixedArms | RandomArms, Field(discriminator="kind")] = FixedArms()
    control_period_s: PositiveFloat = 0.02
    joint_speed_radps: float = Field(1.5, gt=0, le=math.pi, description="largest command of each joint")
    tool_speed_mps: PositiveFloat = Field(0.5, description="commands are scaled so that the tool point keeps to it")
    actuator_lag_s: NonNegativeFloat = Field(0.0, le=1, description="time constant of a joint's speed")
    tool_length_m: NonNegativeFloat = Field(0.0, le=0.5, description="from the flange to the tool point")
    touch_m: PositiveFloat = Field(0.02, description="a target is touched within it")
    progress_m: PositiveFloat = Field(0.01, description="coming nearer than ever by this much ends a stall")
    work: Annotated[ReachWork | PickPlaceWork, Field(discriminator="kind")] = ReachWork()
    home_spread_rad: NonNegativeFloat = Field(0.0, le=0.5, description="episodes begin at home, joints off by up to it")
    peers: Peers = Peers()
    people: People | None = None
    obstacles: tuple[Obstacle, ...] = ()
    fixtures: tuple[Fixture, ...] = (PlaneFixture(),)
    guard: Guard = Guard()
    seat: PositiveInt | None = Field(
        None, description="the arm, from 1, that a process decides for by what it has heard of the others; none: all"
    )

    @model_validator(mode="after")
    def _seat_is_there(self) -> RobotCellConfig:
        if self.seat is not None and self.seat > self.n_arms:
            raise ValueError(f"seat: {self.seat} of {self.n_arms} arms; give 1 to {self.n_arms}, or leave it out")
        return self

    @property
    def n_arms(self) -> int:
        """Places for arms, of which an episode of :class:`RandomArms` may leave some empty."""
        return len(self.arms.places) if isinstance(self.arms, FixedArms) else self.arms.arms[1]
