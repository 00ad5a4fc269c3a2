"""People who walk by the emulated cell: seeded scripts, not the twin's legs.

A person walks straight towards a point, starts and stops with a bounded acceleration, gives way sideways to the arms
unless on a visit, and sometimes pays one: walks up to the arms, stands there, and leaves.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .config import People

Floats = NDArray[np.float64]

ACCELERATION_MPS2 = 1.5
_ARRIVED_M = 0.05


class Walker:
    """One person. ``position_m``, ``velocity_mps``: ``[2]``, on the floor; ``stride_rad``: the phase of the legs."""

    def __init__(self, people: People, visits_per_min: float, visit_m: float, rng: np.random.Generator) -> None:
        self._people, self._rng = people, rng
        self._visits_per_s, self._visit_m = visits_per_min / 60.0, visit_m
        angle = rng.uniform(0.0, 2 * math.pi)
        self.position_m: Floats = people.distance_m[1] * np.array([math.cos(angle), math.sin(angle)])
        self.velocity_mps: Floats = np.zeros(2)
        self.heading_rad = angle + math.pi
        self.stride_rad = 0.0
        self._pause_s = 0.0
        self._is_visiting = False
        self._goal_m: Floats = self.position_m.copy()
        self._speed_mps = people.speed_mps[0]
        self._choose()

    def step(self, dt_s: float) -> None:
        """Walk on for ``dt_s``."""
        if not self._is_visiting and self._rng.random() < self._visits_per_s * dt_s:
            self._visit()
        wanted = self._wanted(dt_s)
        change = wanted - self.velocity_mps
        size, most = math.hypot(*change), ACCELERATION_MPS2 * dt_s
        self.velocity_mps = wanted if size <= most else self.velocity_mps + change * (most / size)
        self.position_m = self.position_m + self.velocity_mps * dt_s
        speed = math.hypot(*self.velocity_mps)
        if speed > 0.05:
            self.heading_rad = math.atan2(self.velocity_mps[1], self.velocity_mps[0])
        self.stride_rad = (self.stride_rad + 2 * math.pi * dt_s * speed / 1.4) % (2 * math.pi) if speed > 0.05 else 0.0

    def send(self, start_m: Floats, goal_m: Floats, speed_mps: float) -> None:
        """Begin anew at ``start_m`` ``[2]``, at full speed on the way to ``goal_m``, giving way to nobody."""
        way = goal_m - start_m
        self.position_m, self._goal_m, self._speed_mps = start_m.copy(), goal_m.copy(), speed_mps
        self.velocity_mps = way * (speed_mps / max(math.hypot(*way), 1e-9))
        self._is_visiting, self._pause_s = True, 1.0

    def _wanted(self, dt_s: float) -> Floats:
        way = self._goal_m - self.position_m
        left = math.hypot(*way)
        if left < _ARRIVED_M:
            self._pause_s -= dt_s
            if self._pause_s <= 0:
                self._choose()
            return np.zeros(2)
        speed = min(self._speed_mps, math.sqrt(2 * 0.5 * ACCELERATION_MPS2 * left))
        wanted: Floats = way * (speed / left)
        radius = math.hypot(*self.position_m)
        if not self._is_visiting and radius < self._people.distance_m[0] + 0.2:
            outward = self.position_m / max(radius, 1e-9)
            inward = float(wanted @ outward)
            if inward < 0:  # slide around the arms
                aside = np.array([-outward[1], outward[0]])
                aside = aside if float(wanted @ aside) >= 0 else -aside
                wanted = speed * aside
                if radius < self._people.distance_m[0]:
                    wanted = wanted + outward * speed
        return wanted

    def _choose(self) -> None:
        """A point somewhere else around the cell, a speed and a pause for there."""
        people, rng = self._people, self._rng
        self._is_visiting = False
        angle = math.atan2(self.position_m[1], self.position_m[0]) + rng.uniform(-2.2, 2.2)
        radius = rng.uniform(*people.distance_m)
        self._goal_m = radius * np.array([math.cos(angle), math.sin(angle)])
        self._speed_mps = float(rng.uniform(*people.speed_mps))
        self._pause_s = float(rng.uniform(*people.pause_s))

    def _visit(self) -> None:
        self._is_visiting = True
        radius = math.hypot(*self.position_m)
        self._goal_m = self.position_m * (min(self._visit_m, radius) / max(radius, 1e-9))
        self._speed_mps = float(self._rng.uniform(*self._people.speed_mps))
        self._pause_s = float(self._rng.uniform(1.0, 3.0))
