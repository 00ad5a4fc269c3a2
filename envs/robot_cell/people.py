"""People who walk around the cell and things that go to and fro, as capsules. The replica is the last axis.

Positions are float64: an episode of hours must not lose a centimetre.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from .. import noise
from .config import Obstacle, People

Tensor = torch.Tensor
State = dict[str, Tensor]

_WALK, _PHASE = 341, 343  # streams; a person's own is the first plus ten times its number
_DRAWS = 4


class Bodies(NamedTuple):
    """Capsules ``[K]``: ``start``, ``along`` (end less start) and ``velocity`` ``[K, 3, R]`` m and m/s, ``radius``
    ``[K]`` m, ``present`` ``[K, R]``."""

    start: Tensor
    along: Tensor
    velocity: Tensor
    radius: Tensor
    present: Tensor


def fresh_people(people: People, seeds: Tensor) -> State:
    """Everybody at a first point, about to walk to the next; entries ``[K, R]``."""
    k = people.number[1]
    first = torch.full((k, len(seeds)), 0, dtype=torch.int64, device=seeds.device)
    here, to = _leg(people, seeds, first), _leg(people, seeds, first + 1)
    u = noise.uniform(seeds, torch.zeros_like(seeds), _WALK + 1, 1, torch.float64)[:, 0]
    low, high = people.number
    count = low + torch.floor(u * (high - low + 1))
    present = torch.arange(k, device=seeds.device)[:, None] < count
    zero = torch.zeros_like(here["distance"])
    return {
        "person_distance": here["distance"], "person_angle": here["angle"], "person_to_distance": to["distance"],
        "person_to_angle": to["angle"], "person_speed": to["speed"], "person_pause_s": to["pause_s"],
        "person_legs": first + 1, "person_v_distance": zero, "person_v_angle": zero, "person_present": present,
    }  # fmt: skip


def walk(people: People, state: Mapping[str, Tensor], seeds: Tensor, dt_s: float) -> State:
    """Everybody after ``dt_s``: a pause, then a straight line in (distance, angle) to the next point."""
    distance, angle = state["person_distance"], state["person_angle"]
    left_distance, left_angle = state["person_to_distance"] - distance, state["person_to_angle"] - angle
    # On the way nobody is farther out than its farther end, so that this is no faster than the speed drawn.
    farthest = torch.maximum(distance, state["person_to_distance"])
    length = (left_distance * left_distance + (farthest * left_angle) ** 2).sqrt()
    walking = state["person_pause_s"] <= 0.0
    share = torch.where(walking, state["person_speed"] * dt_s / length.clamp(min=1e-9), 0.0).clamp(max=1.0)
    arrives = walking & (share >= 1.0)
    legs = state["person_legs"] + arrives
    found = {
        "person_distance": distance + share * left_distance, "person_angle": angle + share * left_angle,
        "person_to_distance": state["person_to_distance"], "person_to_angle": state["person_to_angle"],
        "person_speed": state["person_speed"], "person_pause_s": (state["person_pause_s"] - dt_s).clamp(min=0.0),
        "person_legs": legs, "person_v_distance": share * left_distance / dt_s,
        "person_v_angle": share * left_angle / dt_s, "person_present": state["person_present"],
    }  # fmt: skip
    if bool(arrives.any()):
        to = _leg(people, seeds, legs)
        for key in ("distance", "angle"):
            found[f"person_to_{key}"] = torch.where(arrives, to[key], found[f"person_to_{key}"])
        for key in ("speed", "pause_s"):
            found[f"person_{key}"] = torch.where(arrives, to[key], found[f"person_{key}"])
    return found


def people_bodies(people: People, state: Mapping[str, Tensor]) -> Bodies:
    """Where people are: upright capsules."""
    distance, angle = state["person_distance"], state["person_angle"]
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = distance * cos, distance * sin
    outward, around = state["person_v_distance"], distance * state["person_v_angle"]
    zero = torch.zeros_like(x)
    velocity = torch.stack((outward * cos - around * sin, outward * sin + around * cos, zero), 1)
    start = torch.stack((x, y, zero + people.radius_m), 1)
    along = torch.stack((zero, zero, zero + (people.height_m - 2.0 * people.radius_m)), 1)
    radius = torch.full((len(x),), people.radius_m, dtype=x.dtype, device=x.device)
    return Bodies(start, along, velocity, radius, state["person_present"])


def fresh_obstacles(obstacles: tuple[Obstacle, ...], seeds: Tensor) -> State:
    """Phases at the start, ``[K, R]`` rad."""
    u = noise.uniform(seeds, torch.zeros_like(seeds), _PHASE, len(obstacles), torch.float64)
    return {"obstacle_phase": 2.0 * math.pi * u.T.contiguous()}


def obstacle_bodies(obstacles: tuple[Obstacle, ...], phase: Tensor, time_s: Tensor) -> Bodies:
    """Where obstacles are at ``time_s`` ``[R]``."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=phase.dtype, device=phase.device)[:, None]

    rate = column([2.0 * math.pi / o.period_s for o in obstacles])
    share = 0.5 - 0.5 * torch.cos(phase + rate * time_s)
    pace = 0.5 * rate * torch.sin(phase + rate * time_s)
    start, along, velocity = [], [], []
    for c in range(3):
        way = column([o.to_m[c] - o.from_m[c] for o in obstacles])
        axis = column([o.axis_m[c] for o in obstacles])
        start.append(column([o.from_m[c] for o in obstacles]) - axis + share * way)
        along.append((2.0 * axis).expand_as(share))
        velocity.append(pace * way)
    radius = torch.tensor([o.radius_m for o in obstacles], dtype=phase.dtype, device=phase.device)
    there = torch.ones_like(phase, dtype=torch.bool)
    return Bodies(torch.stack(start, 1), torch.stack(along, 1), torch.stack(velocity, 1), radius, there)


def _leg(people: People, seeds: Tensor, legs: Tensor) -> State:
    """Point, speed and pause of everybody's leg ``legs`` ``[K, R]``; angles within half a turn of the last point's are
    not sought: who goes from 170 to -170 degrees goes around."""
    drawn = [noise.uniform(seeds, row, _WALK + 10 * (k + 1), _DRAWS, torch.float64).T for k, row in enumerate(legs)]
    u = torch.stack(drawn, 1)

    def between(row: Tensor, ends: tuple[float, float]) -> Tensor:
        return ends[0] + row * (ends[1] - ends[0])

    return {
        "distance": between(u[0], people.distance_m), "angle": (2.0 * u[1] - 1.0) * math.pi,
        "speed": between(u[2], people.speed_mps), "pause_s": between(u[3], people.pause_s),
    }  # fmt: skip
