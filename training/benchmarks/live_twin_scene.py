"""What the live twin of nine turbines has to find out: a farm drawn from a seed, and its noisy power."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ...envs.wind_farm.config import Dynamics, Inflow, NamedLayout, WindFarmConfig
from ...envs.wind_farm.nameplate import GROUP, HIDDEN, MEASURED
from ...envs.wind_farm.twin import WindFarmTwin

Floats = NDArray[np.float64]
DT_S = 5.0
NOISE_KW = 50.0
MIRROR_DEG = 6.0
CONVERGED_S = 400.0
SPEED_BAR_MPS, DIRECTION_BAR_DEG = 0.2, 1.0
SPEED_PRIOR_MPS = (6.5, 10.5)
TURBULENCE_PRIOR = (0.05, 0.12)
DIRECTION_PRIOR_DEG = 7.0
POWER = [s.name for s in MEASURED].index("power_kw")
SPEED, DIRECTION = (
    [s.name for s in HIDDEN].index(f"free_wind_{n}") for n in ("speed_mps", "direction_deg")
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is unknown, and how the farm is run."""

    name: str
    along_row: bool = False
    yaw_deg: float = 0.0
    drift_mps: float = 0.0
    converges: bool = True


CASES = (
    Case("any direction"),
    Case("steered", along_row=True, yaw_deg=20.0),
    Case("drifting", drift_mps=0.3, converges=False),
)


class Reading(NamedTuple):
    """``read`` ``[N, O]`` with noise in its power, ``true`` without; ``wind``: speed (m/s) and direction (deg)."""

    read: Floats
    true: Floats
    wind: tuple[float, float]


class Scene:
    """A farm in its wind. ``prior`` is all that is known of it before; ``commands`` ``[N, 2]`` hold all the time."""

    def __init__(self, case: Case, seed: int) -> None:
        rng = np.random.default_rng((seed, 4007))
        self.speed_mps, turbulence = rng.uniform(7.0, 10.0), rng.uniform(0.06, 0.10)
        direction = rng.uniform(0.0, 360.0)
        if case.along_row:
            direction = 90.0 * int(rng.integers(0, 4)) + rng.uniform(-MIRROR_DEG, MIRROR_DEG)
        self.direction_deg = direction
        self._centre_deg = direction + rng.uniform(-5.0, 5.0)
        wake = {"expansion_turbulence": 0.38 + 0.06 * rng.standard_normal(),
                "expansion_offset": float(np.clip(0.004 + 0.0015 * rng.standard_normal(), 0.0005, 0.01))}  # fmt: skip
        wind = farm(
            (self.speed_mps, self.speed_mps), (direction, direction), (turbulence, turbulence), case.drift_mps
        )  # fmt: skip
        self._truth = WindFarmTwin(wind, 1, dtype=torch.float64)
        self._truth.set_parameters({name: torch.tensor(v, dtype=torch.float64) for name, v in wake.items()})
        self._truth.reset(torch.tensor([seed]))
        self._rng, self._drift_mps = rng, case.drift_mps
        self.commands = np.tile([0.0, 1.0], (9, 1))
        self.commands[:3, 0] = case.yaw_deg

    def prior(self, speed_mps: tuple[float, float] = SPEED_PRIOR_MPS) -> WindFarmConfig:
        """Members' configuration; ``speed_mps`` where only a part of the prior is of interest."""
        low, high = self._centre_deg - DIRECTION_PRIOR_DEG, self._centre_deg + DIRECTION_PRIOR_DEG
        return farm(speed_mps, (low, high), TURBULENCE_PRIOR, self._drift_mps)

    def readings(self, until_s: float) -> Iterator[Reading]:
        """One a period, from now on."""
        given = {GROUP: torch.from_numpy(self.commands)[None]}
        for _ in range(round(until_s / DT_S)):
            found = self._truth.step(given)
            true = found.measured[GROUP][0].numpy().astype(np.float64)
            wind = found.hidden[GROUP][0, 0].numpy()
            read = true.copy()
            read[:, POWER] += NOISE_KW * self._rng.standard_normal(9)
            yield Reading(read, true, (float(wind[SPEED]), float(wind[DIRECTION])))


class Settling:
    """Since when all three errors have been below their bars; inf while they are not."""

    def __init__(self) -> None:
        self.since_s = 0.0

    def add(self, at_s: float, speed_mps: float, direction_deg: float, power_kw: float) -> None:
        """The errors of one period, none of them negative."""
        if speed_mps > SPEED_BAR_MPS or direction_deg > DIRECTION_BAR_DEG or power_kw > NOISE_KW:
            self.since_s = float("inf")
        elif np.isinf(self.since_s):
            self.since_s = at_s


def farm(speed: tuple[float, float], direction: tuple[float, float], turbulence: tuple[float, float],
         drift_mps: float = 0.0) -> WindFarmConfig:  # fmt: skip
    """The grid in winds of these ranges; the direction drifts by seven degrees for each metre a second."""
    return WindFarmConfig(
        layout=NamedLayout(name="grid3x3_5d"),
        dt_s=DT_S,
        inflow=Inflow(
            wind_speed_mps=speed,
            wind_direction_deg=direction,
            turbulence_pu=turbulence,
            speed_drift_std_mps=drift_mps,
            direction_drift_std_deg=7.0 * drift_mps,
        ),
        dynamics=Dynamics(kind="dynamic", yaw_duty_limit_pu=1.0),
    )


def turned_deg(direction_deg: float, origin_deg: float) -> float:
    """How far, and to which side, one direction is from another."""
    return (direction_deg - origin_deg + 180.0) % 360.0 - 180.0


def mean_wind(members: WindFarmTwin) -> tuple[float, float]:
    """Mean speed (m/s) and direction (deg) of the free wind over the members."""
    speed, direction = winds(members)
    return float(speed.mean()), float(direction.mean())


def winds(members: WindFarmTwin) -> tuple[torch.Tensor, torch.Tensor]:
    """Speed (m/s) and direction (deg, not cut at north) of each member's free wind, ``[B]``."""
    state = members.snapshot()
    n = members.n_replicas
    speed, direction = (
        state[f"state/mean_{name}"][:n] + state[f"state/{kind}_drift_{unit}"][:n]
        for name, kind, unit in (("speed_mps", "speed", "mps"), ("direction_deg", "direction", "deg"))
    )
    return speed.double(), direction.double()
