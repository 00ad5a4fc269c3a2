"""Carts on tracks between two walls, kept off them by foresight alone: the look-ahead's exact case.

    x' = v,  v' = push,  |push| <= 1 m/s2, held for half a second

A cart can still stop before a wall if full braking does it. The foresight is the exact model with that backup, all
carts at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Declaration, LookAheadConstraint, MeasuredConstraint, declare
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.twin import Parameter

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Measured = Mapping[str, Floats]

TRACK_M = 100.0
PUSH_MPS2 = 1.0
PERIOD_S = 0.5
FASTEST_MPS = math.sqrt(4.0 * PUSH_MPS2 * TRACK_M)  # from one wall to the other and back to rest needs less
HORIZON = math.ceil(FASTEST_MPS / (PUSH_MPS2 * PERIOD_S)) + 2
BACKUP = "brake"


@dataclass(frozen=True)
class Braking:
    """How near to a wall any cart comes if all brake after this period."""

    def __call__(
        self, measured: Measured, first: Measured, backup: str, horizon_periods: int, /
    ) -> tuple[float, tuple[Measured, ...]]:
        """Least room and the plan; raises ``ValueError`` for another backup."""
        if backup != BACKUP:
            raise ValueError(f"backup {backup!r}: carts have {BACKUP!r} alone")
        x, v = measured["cart"].T
        u = first["cart"][:, 0]
        x1, v1 = moved(x, v, u)
        # brakes fully, then with what brings the cart to rest at the end of a period, then stands
        speeds = np.maximum(np.abs(v1) - PUSH_MPS2 * PERIOD_S * np.arange(horizon_periods)[:, None], 0.0)
        pushes = -np.sign(v1) * np.minimum(PUSH_MPS2, speeds / PERIOD_S)
        stop = x1 + (np.sign(v1) * speeds * PERIOD_S + 0.5 * pushes * PERIOD_S**2)[:-1].sum(axis=0)
        room = TRACK_M - np.maximum(np.abs(extreme(x, v, u)), np.abs(stop))
        if speeds[-1].any():
            room = np.where(speeds[-1] > 0, -np.inf, room)  # does not stand at the end: nothing is known beyond
        plan = (first, *({"cart": push[:, None]} for push in pushes[:-1]))
        return float(room.min()), plan


def moved(x: Floats, v: Floats, push: Floats) -> tuple[Floats, Floats]:
    """Position and speed a period later."""
    return x + v * PERIOD_S + 0.5 * push * PERIOD_S**2, v + push * PERIOD_S


def extreme(x: Floats, v: Floats, push: Floats) -> Floats:
    """The position of a period that is farthest from the middle: an end, or where the cart turns."""
    x1, v1 = moved(x, v, push)
    turns = v * v1 < 0
    at_turn = np.where(turns, x - 0.5 * v * v / np.where(turns, push, 1.0), x)
    ends = np.where(np.abs(x1) > np.abs(x), x1, x)
    return np.where(np.abs(at_turn) > np.abs(ends), at_turn, ends)


def cart_track(n_carts: int) -> Declaration:
    """``n_carts`` on tracks of their own, 200 m long."""
    measured = (
        Signal("x_m", "m", -1.5 * TRACK_M, 1.5 * TRACK_M), Signal("v_mps", "m/s", -2.0 * FASTEST_MPS, 2.0 * FASTEST_MPS)
    )  # fmt: skip
    push = Signal("push_mps2", "m/s2", -PUSH_MPS2, PUSH_MPS2)
    assets = tuple(f"C{i + 1}" for i in range(n_carts))
    plate = Nameplate("cart_track", PERIOD_S, (Group("cart", assets, measured, (push,)),))
    return declare(
        plate,
        (
            MeasuredConstraint("between the walls", "cart", "x_m", "m", maximum=TRACK_M, minimum=-TRACK_M),
            LookAheadConstraint("can stop", Braking(), (BACKUP,), HORIZON),
        ),
    )


class Carts:
    """The exact model; ``farthest_m`` ``[B]``: the largest distance of any cart from the middle since the start, also
    between readings."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, n_replicas: int, n_carts: int) -> None:
        self.declaration, self.n_replicas = cart_track(n_carts), n_replicas
        self.present: dict[str, Bools] = {}
        self.farthest_m = np.zeros(n_replicas)
        self._x, self._v = np.zeros((2, n_replicas, n_carts))

    def start(self, seeds: NDArray[np.int64], parameters: Measured) -> dict[str, Floats]:
        for row, seed in enumerate(seeds):
            rng = np.random.default_rng((int(seed), row))
            self._x[row] = rng.uniform(-0.9 * TRACK_M, 0.9 * TRACK_M, self._x.shape[1])
            # towards the wall at no more than still stops, a little short of it
            most = np.sqrt(2.0 * PUSH_MPS2 * (TRACK_M - 1.0 - np.abs(self._x[row])))
            self._v[row] = rng.uniform(-0.9, 0.9, self._x.shape[1]) * most
        self.farthest_m = np.abs(self._x).max(axis=1)
        return self._measured()

    def step(self, commands: Measured) -> dict[str, Floats]:
        push = commands["cart"][..., 0]
        self.farthest_m = np.maximum(self.farthest_m, np.abs(extreme(self._x, self._v, push)).max(axis=1))
        self._x, self._v = moved(self._x, self._v, push)
        return self._measured()

    def _measured(self) -> dict[str, Floats]:
        return {"cart": np.stack([self._x, self._v], axis=-1)}
