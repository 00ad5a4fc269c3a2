"""People and obstacles of the emulated cell: in MuJoCo's model, and as the scanner tells of them."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from .config import RobotCellConfig
from .model_xml import HIP_M
from .nameplate import OBSTACLE, PERSON
from .plant_config import RobotCellPlantConfig
from .walking import Walker

Floats = NDArray[np.float64]


class PlantBodies:
    """What moves in the cell and is no arm. ``walkers``: the people."""

    def __init__(
        self, model: Any, config: RobotCellConfig, settings: RobotCellPlantConfig, rng: np.random.Generator
    ) -> None:
        self._people, self._obstacles = config.people, config.obstacles
        self._noise_m = settings.scanner_noise_m
        self.walkers: list[Walker] = []
        if config.people is not None:
            seeds = np.random.SeedSequence(int(rng.integers(2**63))).spawn(config.people.number[1])
            self.walkers = [
                Walker(config.people, settings.visits_per_min, settings.visit_m, np.random.default_rng(seed))
                for seed in seeds
            ]
        self._phases = rng.uniform(0.0, 2 * math.pi, len(config.obstacles))
        persons = [f"person_{k + 1}" for k in range(len(self.walkers))]
        obstacles = [f"obstacle_{k + 1}" for k in range(len(config.obstacles))]
        self.names = (*persons, *obstacles)
        self._person_slots = [
            tuple(_slot(model, name) for name in (p, f"{p}_leg_left", f"{p}_leg_right")) for p in persons
        ]
        self._obstacle_slots = [_slot(model, name) for name in obstacles]

    def step(self, dt_s: float) -> None:
        """People walk on."""
        for walker in self.walkers:
            walker.step(dt_s)

    def place(self, data: Any, time_s: float) -> None:
        """Put all where they are now."""
        for walker, (whole, *legs) in zip(self.walkers, self._person_slots, strict=True):
            turn = _about_z(walker.heading_rad)
            data.mocap_pos[whole], data.mocap_quat[whole] = (*walker.position_m, 0.0), turn
            assert self._people is not None  # there are walkers
            s = self._people.height_m / 1.8
            across = np.array([-math.sin(walker.heading_rad), math.cos(walker.heading_rad)])
            for side, leg in zip((1, -1), legs, strict=True):
                hip = walker.position_m + side * 0.09 * s * across
                data.mocap_pos[leg] = (hip[0], hip[1], HIP_M * s)
                data.mocap_quat[leg] = _product(turn, _about_y(side * 0.45 * math.sin(walker.stride_rad)))
        for k, slot in enumerate(self._obstacle_slots):
            data.mocap_pos[slot] = self._obstacle_at(k, time_s)[0]

    def scanned(self, time_s: float, rng: np.random.Generator) -> dict[str, Floats]:
        """Rows ``[K, O]`` of each group that the cell has, with the scanner's noise."""
        found: dict[str, Floats] = {}
        if self._people is not None:
            rows = []
            radius, height = self._people.radius_m, self._people.height_m
            for walker in self.walkers:
                x, y = walker.position_m + self._noise_m * rng.standard_normal(2)
                rows.append((x, y, radius, x, y, height - radius, radius, *walker.velocity_mps, 0.0))
            found[PERSON] = np.array(rows)
        if self._obstacles:
            found[OBSTACLE] = np.array([self._obstacle_row(k, time_s, rng) for k in range(len(self._obstacles))])
        return found

    def _obstacle_row(self, k: int, time_s: float, rng: np.random.Generator) -> tuple[float, ...]:
        centre, velocity = self._obstacle_at(k, time_s)
        centre = centre + self._noise_m * rng.standard_normal(3)
        axis = np.array(self._obstacles[k].axis_m)
        return (*(centre - axis), *(centre + axis), self._obstacles[k].radius_m, *velocity)

    def _obstacle_at(self, k: int, time_s: float) -> tuple[Floats, Floats]:
        """Centre and velocity."""
        obstacle = self._obstacles[k]
        rate = 2 * math.pi / obstacle.period_s
        begin, end = np.array(obstacle.from_m), np.array(obstacle.to_m)
        phase = self._phases[k] + rate * time_s
        return 0.5 * (begin + end) + 0.5 * (end - begin) * math.sin(phase), 0.5 * (end - begin) * rate * math.cos(phase)


def _slot(model: Any, body: str) -> int:
    return int(model.body(body).mocapid[0])


def _about_z(angle_rad: float) -> Floats:
    return np.array([math.cos(angle_rad / 2), 0.0, 0.0, math.sin(angle_rad / 2)])


def _about_y(angle_rad: float) -> Floats:
    return np.array([math.cos(angle_rad / 2), 0.0, math.sin(angle_rad / 2), 0.0])


def _product(a: Floats, b: Floats) -> Floats:
    found = np.zeros(4)
    mujoco.mju_mulQuat(found, a, b)
    return found
