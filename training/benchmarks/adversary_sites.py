"""The sites that adversaries attack, as batches of replicas: a large wind farm, docking spacecraft, a yard with every
kind of constraint but the look-ahead, and carts that nothing but the look-ahead keeps off the walls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...deploy.falsifier import Model, TwinModel
from ...deploy.shield import Shield
from ...envs.configuration import validate
from ...envs.constraint import declaration_of_site
from ...envs.registry import load_site
from ...envs.twin import Parameter
from .cart_track import Carts
from .docking_task import AXIS_SPEED_MPS, PERIOD_S, SPEED_MPS, SPEED_PER_M, brake, docking, held
from .shield_faults.sites import (
    AMBIENT_DEGC,
    CART,
    CART_GAP_M,
    COOL_DEGC_PER_KWS,
    HEAT_DEGC_PER_KWS,
    LOSS_PER_S,
    OVEN,
    PUMP,
    YARD_PERIOD_S,
    yard,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Measured = Mapping[str, Floats]
Steer = Callable[[dict[str, Floats], Measured], None]

FARM_ROWS, FARM_COLUMNS, SPACING_M = 5, 8, 630.0
SEEN_M = 500.0
"""Farther than a cart of the yard gets in an episode: where a position can't be told, no distance is promised."""
TURNS_BACK_M = 30.0
"""Carts farther than this from the middle are proposed to come back, or they would leave what is measured."""


@dataclass(frozen=True)
class Arena:
    """A site under attack: ``periods`` of an episode, and what keeps it where it can be measured."""

    name: str
    model: Model
    shield: Shield
    periods: int
    steer: Steer | None = None


def farm_arena(n_replicas: int = 64) -> Arena:
    """40 turbines in drifting wind under a power cap, ramps both ways, and a soft limit of the yaw."""
    site = load_site("wind_farm")
    n = FARM_ROWS * FARM_COLUMNS
    config = validate(
        {
            "layout": {
                "kind": "coordinates",
                "x_m": [SPACING_M * (i % FARM_COLUMNS) for i in range(n)],
                "y_m": [SPACING_M * (i // FARM_COLUMNS) for i in range(n)],
            },
            "inflow": {"wind_speed_mps": [4, 20], "wind_direction_deg": [0, 360], "speed_drift_std_mps": 1.0},
            # what turbines would give if aligned is hidden, and of no use here
            "dynamics": {"aligned_refresh_s": 1e9},
            "limits": {
                "power_cap_kw": 3000.0 * n, "power_rise_kw_per_s": 20.0 * n, "power_fall_kw_per_s": 100.0 * n,
                "preferred_yaw_deg": 25.0,
            },
        },
        site.config_model,
        "the adversaries' farm",
    )  # fmt: skip
    declaration = declaration_of_site(site, config)
    return Arena("wind farm", TwinModel(site, config, declaration, n_replicas), Shield(declaration), 100)


def docking_arena(n_replicas: int = 16, n_deputies: int = 20) -> Arena:
    """Deputies anywhere within their limits, each with the chief for itself."""
    model = Deputies(n_replicas, n_deputies)
    return Arena("docking", model, Shield(model.declaration, fallback=brake), 200)


def yard_arena(n_replicas: int = 16) -> Arena:
    """Pumps, ovens and carts: every kind of constraint but the look-ahead."""
    model = Yard(n_replicas)
    return Arena("yard", model, Shield(model.declaration), 400, turn_back)


def track_arena(n_replicas: int = 16, n_carts: int = 20) -> Arena:
    """Carts between two walls: foresight and stored plans."""
    model = Carts(n_replicas, n_carts)
    return Arena("cart track", model, Shield(model.declaration), 200)


class Deputies:
    """The docking task's exact steps; states ``[B, N, 4]`` in m and m/s."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, n_replicas: int, n_deputies: int) -> None:
        self.declaration, self.n_replicas = docking(n_deputies), n_replicas
        self.present: dict[str, Bools] = {}
        self._n_deputies = n_deputies
        self._free, self._forced = held(PERIOD_S)
        self._state = np.zeros((n_replicas, n_deputies, 4))

    def start(self, seeds: NDArray[np.int64], parameters: Measured) -> dict[str, Floats]:
        for row, seed in enumerate(seeds):
            rng = np.random.default_rng((int(seed), row))
            distance = 10.0 ** rng.uniform(0.3, 4.0, self._n_deputies)
            bearing, course = rng.uniform(0.0, 2.0 * math.pi, (2, self._n_deputies))
            limit = np.minimum(SPEED_MPS + SPEED_PER_M * distance, AXIS_SPEED_MPS)
            speed = rng.uniform(0.0, 1.0, self._n_deputies) * limit
            self._state[row] = np.stack(
                [
                    distance * np.cos(bearing),
                    distance * np.sin(bearing),
                    speed * np.cos(course),
                    speed * np.sin(course),
                ],
                axis=1,
            )
        return {"deputy": self._state.copy()}

    def step(self, commands: Measured) -> dict[str, Floats]:
        self._state = self._state @ self._free.T + commands["deputy"] @ self._forced.T
        return {"deputy": self._state.copy()}


class Yard:
    """The fault suite's yard: what is measured is what is true."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, n_replicas: int) -> None:
        self.declaration, self.n_replicas = yard(SEEN_M), n_replicas
        self.present: dict[str, Bools] = {}
        sizes = {g.name: g.n_assets for g in self.declaration.nameplate.groups}
        self._temperature = np.zeros((n_replicas, sizes[OVEN]))
        self._carts = np.zeros((n_replicas, sizes[CART], 2))
        self._flow = np.zeros((n_replicas, sizes[PUMP], 1))
        self._door = 0.5

    def start(self, seeds: NDArray[np.int64], parameters: Measured) -> dict[str, Floats]:
        for row, seed in enumerate(seeds):
            rng = np.random.default_rng((int(seed), row))
            self._temperature[row] = rng.uniform(30.0, 85.0, self._temperature.shape[1])
            turn = rng.uniform(0.0, 2.0 * math.pi)
            n = self._carts.shape[1]
            angles = turn + 2.0 * math.pi * np.arange(n) / n
            radius = rng.uniform(CART_GAP_M, 10.0)  # at least the gap from the middle is more than it between them
            self._carts[row] = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._flow[:] = 10.0
        return self._measured()

    def step(self, commands: Measured) -> dict[str, Floats]:
        heat, cool = commands[OVEN][..., 0], commands[OVEN][..., 1]
        rest = AMBIENT_DEGC + (HEAT_DEGC_PER_KWS * heat - COOL_DEGC_PER_KWS * cool) / LOSS_PER_S
        kept = math.exp(-LOSS_PER_S * YARD_PERIOD_S)
        self._temperature = rest + (self._temperature - rest) * kept
        self._carts = self._carts + YARD_PERIOD_S * commands[CART]
        self._flow = 4.0 + 6.0 * commands[PUMP]
        self._door = 1.1 - self._door  # moves, as what is alive does
        return self._measured()

    def _measured(self) -> dict[str, Floats]:
        door = np.full_like(self._temperature, self._door)
        return {
            PUMP: self._flow.copy(),
            OVEN: np.stack([self._temperature, door], axis=-1),
            CART: self._carts.copy(),
        }


def turn_back(proposals: dict[str, Any], measured: Measured) -> None:
    """Carts that are too far out are proposed to come back."""
    at = measured[CART]
    distance = np.linalg.norm(at, axis=-1, keepdims=True)
    proposals[CART] = np.where(distance > TURNS_BACK_M, -at / np.maximum(distance, 1e-9), proposals[CART])


ARENAS: Mapping[str, Callable[[], Arena]] = {
    "wind_farm": farm_arena,
    "docking": docking_arena,
    "yard": yard_arena,
    "cart_track": track_arena,
}
