"""The emulated wind farm: FLORIS behind the Plant contract.

FLORIS is steady; time comes in by a path of our own that shares no code with the twin:

- *Fronts*: Taylor's hypothesis (Taylor 1938). The free wind is given at the farm's upstream edge, and a turbine s
  metres downwind of it feels the wind of s / u seconds ago, u being the free wind averaged over some minutes.
- *Wakes* travel at ``wake_speed_ratio`` times u. What reaches turbine j from turbine i carries the yaw, the power
  limit and the outage that i had (s_j - s_i) / (ratio u) seconds ago.
- *Age classes*: turbines are grouped by s into at most ``n_age_classes`` classes, and FLORIS solves one condition a
  class: the wind of that class's front, with every turbine further upwind in its past state and all others as they
  are. Turbine j is read from its class's condition. With one class a turbine (N <= ``n_age_classes``) this is exact
  under the hypotheses above; with fewer, delays are rounded to the class's mean s, and wakes inside a class travel at
  once. Not modelled: meandering, diffusion of a front, fronts that overtake each other.

Yaw drives turn at most 0.3 deg/s behind a filtered vane, power follows with a first-order lag, pitch follows the power
limit. With constant wind and settled drives the powers are FLORIS' own.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, PlantError
from ..nameplate import Nameplate
from ..plant import Arrays, Quality, Telemetry
from .config import FlorisPlantConfig, WindFarmConfig
from .farm import farm_nameplate
from .floris_model import ONE_FARM, FarmSolver, Solution
from .inflow_series import FreeWind, Gusts, WindSeries, constant_series, load_series
from .nameplate import GROUP
from .plant_drive import YawDrives

FloatArray = NDArray[np.float64]

EPOCH_UTC_S = 1_735_689_600.0
"""2025-01-01T00:00Z: the wind series carry no date, so the plant's clock starts here."""

_MAX_STEP_S = 1.0
_TRANSPORT_MEMORY_S = 300.0
_TRANSPORT_FLOOR_MPS = 3.0
_TURBULENCE_MEMORY_S = 600.0
_LOAD_WOEHLER = 10.0
_LIMIT_RATE_PU_PER_S = 0.05
# Pitch above rated wind speed: NREL 5 MW, Jonkman et al. 2009, NREL/TP-500-38060, table 7-1.
_PITCH_SPEED_MPS = np.array([11.4, 12.0, 13.0, 14.0, 15.0, 17.0, 19.0, 21.0, 23.0, 25.0])
_PITCH_DEG = np.array([0.0, 3.823, 6.602, 8.668, 10.450, 13.536, 16.226, 18.699, 21.177, 23.469])


class FlorisPlant:
    """A running farm, emulated. ``advance`` simulates one period of ``config.dt_s``; nothing waits.

    Two plants of the same configuration and seed have the same wind, gusts, outages and sensor errors, whatever is
    commanded: run two controllers on them (or on ``clone()``) for a paired comparison.
    """

    def __init__(self, config: WindFarmConfig, plant_config: FlorisPlantConfig) -> None:
        self._nameplate = farm_nameplate(config)
        self._group = self._nameplate.group(GROUP)
        self._dt_s = config.dt_s
        self._config = plant_config
        self._n = self._group.n_assets
        if not self._group.static_values:
            raise ConfigurationError(f"layout: kind 'random' is many farms, a plant is one: {ONE_FARM}")
        statics = self._group.statics_array()
        self._position_m = statics[:, :2] - statics[:, :2].mean(axis=0)
        self._rated_kw = statics[:, 4]
        self._n_classes = min(self._n, plant_config.n_age_classes)
        self._solver = FarmSolver(config, self._n_classes)
        self._wind = FreeWind(
            _series(config, plant_config),
            Gusts(speed_share=plant_config.gust_share, direction_std_deg=plant_config.direction_gust_deg),
            plant_config.seed,
        )
        self._vane_bias_deg = plant_config.vane_bias_deg * self._rng(1, 0).standard_normal(self._n)
        self._commands = np.tile(self._group.neutral(), (self._n, 1))
        self._lower, self._upper = self._group.lower("commanded"), self._group.upper("commanded")
        self._period = 0
        self._sequence = 0
        self._energy_kwh = 0.0
        self._limit_pu = np.ones(self._n)
        self._outage_until_s = np.full(self._n, -math.inf)
        speed, direction, _ = self._wind.at(np.array(plant_config.start_s))
        self._transport_mps = float(speed)
        self._drives = YawDrives(
            np.full(self._n, float(direction)),
            rate_degps=config.dynamics.yaw_rate_degps,
            deadband_deg=plant_config.yaw_deadband_deg,
            filter_s=plant_config.vane_filter_s,
            duty_limit_pu=config.dynamics.yaw_duty_limit_pu,
            duty_window_s=config.dynamics.yaw_duty_window_s,
        )
        reach_s = 2.0 * np.hypot(*self._position_m.T).max() / (plant_config.wake_speed_ratio * _TRANSPORT_FLOOR_MPS)
        self._n_history = int(reach_s / self._dt_s) + 2
        # Newest last: heading, power limit, availability, [T, 3, N]
        self._history = np.tile(self._state()[None], (self._n_history, 1, 1))
        self._free = np.zeros((3, self._n))
        self._solution = self._solve()
        self._power_kw = self._solution.power_kw[0].copy()
        self._mean_turbulence = self._solution.rotor_turbulence_pu[0].copy()
        self._load_sum = np.zeros(self._n)
        self._values = np.zeros((self._n, len(self._group.measured)))
        self._source_time_s = np.full(self._values.shape, self.clock_s)
        self._quality = np.zeros(self._values.shape, dtype=np.int8)
        self._measure()

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def clock_s(self) -> float:
        """Emulated UTC, seconds."""
        return EPOCH_UTC_S + self._time_s

    @property
    def energy_kwh(self) -> float:
        """True energy of the farm since the plant started."""
        return self._energy_kwh

    def read(self) -> Telemetry:
        self._sequence += 1
        return Telemetry(
            values={GROUP: self._values.copy()},
            source_time_s={GROUP: self._source_time_s.copy()},
            quality={GROUP: self._quality.copy()},
            received_time_s=self.clock_s,
            sequence=self._sequence,
        )

    def write(self, commands: Arrays) -> Arrays:
        """Take commands; an item that is NaN or out of range is refused and keeps its last accepted value."""
        unknown = sorted(set(commands) - {GROUP})
        if unknown:
            raise PlantError(f"plant {self._nameplate.site!r}: no group {unknown[0]!r}; it has {GROUP!r}")
        if GROUP in commands:
            wanted = np.asarray(commands[GROUP], dtype=np.float64)
            if wanted.shape != self._commands.shape:
                raise PlantError(
                    f"plant {self._nameplate.site!r}: commands for {GROUP!r} have shape {wanted.shape}, expected "
                    f"{self._commands.shape} (assets, commanded signals)"
                )
            fits = (wanted >= self._lower) & (wanted <= self._upper)  # False for NaN
            self._commands = np.where(fits, wanted, self._commands)
        return {GROUP: self._commands.copy()}

    def advance(self) -> None:
        start_s = self._time_s
        self._period += 1
        self._turn(start_s)
        step = _LIMIT_RATE_PU_PER_S * self._dt_s
        self._limit_pu = self._limit_pu + np.clip(self._commands[:, 1] - self._limit_pu, -step, step)
        self._fail()
        self._history = np.concatenate((self._history[1:], self._state()[None]))
        speed, _, _ = self._wind.at(np.array(self._series_time_s))
        keep = math.exp(-self._dt_s / _TRANSPORT_MEMORY_S)
        self._transport_mps = keep * self._transport_mps + (1.0 - keep) * float(speed)
        self._solution = self._solve()
        self._settle()
        self._measure()

    def close(self) -> None:
        """Nothing to release."""

    def clone(self) -> FlorisPlant:
        """An independent copy that goes on from here with the same wind and sensor errors."""
        return copy.deepcopy(self)

    def truth(self) -> dict[str, Any]:
        """What no sensor says, for evaluation. Per turbine ``[N]``, except ``time_s`` and ``energy_kwh``.

        ``load_pu`` is a surrogate: damage-equivalent thrust variation, thrust coefficient x turbulence x speed squared
        with a Woehler exponent of 10 over the time so far, over 0.8 x 0.06 x (8 m/s)^2. It orders controllers; it is
        no fatigue life.
        """
        return {
            "time_s": self._time_s,
            "power_kw": self._power_kw.copy(),
            "equilibrium_power_kw": self._solution.power_kw[0].copy(),
            "free_wind_speed_mps": self._free[0].copy(),
            "free_wind_direction_deg": self._free[1].copy(),
            "free_turbulence_pu": self._free[2].copy(),
            "rotor_wind_speed_mps": self._solution.rotor_wind_speed_mps[0].copy(),
            "misalignment_deg": _wrap(self._free[1] - self._drives.heading_deg),
            "yaw_travel_deg": self._drives.travel_deg.copy(),
            "load_pu": (self._load_sum / max(self._period, 1)) ** (1.0 / _LOAD_WOEHLER),
            "energy_kwh": self._energy_kwh,
        }

    @property
    def _time_s(self) -> float:
        return self._period * self._dt_s

    @property
    def _series_time_s(self) -> float:
        return self._config.start_s + self._time_s

    @property
    def _is_available(self) -> NDArray[np.bool_]:
        return np.asarray(self._outage_until_s <= self._time_s)

    def _rng(self, stream: int, period: int) -> np.random.Generator:
        """Draws of one stream in one period: a function of seed, stream and period alone."""
        return np.random.default_rng((self._config.seed, 7002, stream, period))

    def _state(self) -> FloatArray:
        """Heading, power limit and availability now, ``[3, N]``."""
        return np.stack((self._drives.heading_deg, self._limit_pu, 1.0 * self._is_available))

    def _downwind_m(self) -> FloatArray:
        """Distance of each turbine from the farm's upstream edge, along the wind, ``[N]``."""
        _, direction, _ = self._wind.at(np.array(self._series_time_s))
        towards = np.deg2rad(float(direction) + 180.0)
        along = self._position_m @ np.array([np.sin(towards), np.cos(towards)])
        return np.asarray(along - along.min(), dtype=np.float64)

    def _turn(self, start_s: float) -> None:
        steps = max(1, math.ceil(self._dt_s / _MAX_STEP_S))
        step_s = self._dt_s / steps
        times = self._config.start_s + start_s + step_s * np.arange(1, steps + 1)
        front_s = self._downwind_m() / max(self._transport_mps, _TRANSPORT_FLOOR_MPS)
        _, direction, _ = self._wind.at(times[:, None] - front_s[None, :])
        noise = self._config.vane_noise_deg * self._rng(2, self._period).standard_normal((steps, self._n))
        self._drives.advance(direction + self._vane_bias_deg + noise, self._commands[:, 0], step_s)

    def _fail(self) -> None:
        rng = self._rng(3, self._period)
        chance, length = rng.random(self._n), rng.exponential(self._config.outage_duration_s, self._n)
        starts = chance < self._config.outage_rate_per_day * self._dt_s / 86_400.0
        until = np.where(starts, self._time_s + length, -math.inf)
        self._outage_until_s = np.maximum(self._outage_until_s, until)

    def _solve(self) -> Solution:
        """One FLORIS solve for the present period, reduced to ``[1, N]``; sets the free wind at each turbine."""
        downwind = self._downwind_m()
        member = self._classes(downwind)
        classes = np.arange(self._n_classes)
        centre = np.array([downwind[member == k].mean() if np.any(member == k) else 0.0 for k in classes])
        transport = max(self._transport_mps, _TRANSPORT_FLOOR_MPS)
        inflow = self._wind.at(self._series_time_s - centre / transport)
        age_s = (centre[:, None] - downwind[None, :]) / (self._config.wake_speed_ratio * transport)
        age_s[member[None, :] == classes[:, None]] = 0.0
        heading, limit, available = self._past(np.maximum(age_s, 0.0))
        # FLORIS' wake deflection means nothing near 90 deg; a nacelle is that far off only after a jump of the wind.
        yaw = np.clip(_wrap(inflow[1][:, None] - heading), -80.0, 80.0)
        limit_kw = np.where(limit < 1.0, limit * self._rated_kw, np.inf)
        solved = self._solver.solve(*inflow, yaw, limit_kw, available < 0.5)
        self._free = np.stack([values[member] for values in inflow])
        own = (member, np.arange(self._n))
        return Solution(
            solved.power_kw[own][None],
            solved.rotor_wind_speed_mps[own][None],
            solved.rotor_turbulence_pu[own][None],
            solved.thrust_pu[own][None],
        )

    def _classes(self, downwind_m: FloatArray) -> NDArray[np.intp]:
        """Class of each turbine, ``[N]``: its own where there are enough, else equal widths along the wind."""
        if self._n_classes == self._n:
            return np.arange(self._n, dtype=np.intp)
        share = downwind_m / max(float(downwind_m.max()), 1e-9)
        return np.minimum((share * self._n_classes).astype(np.intp), self._n_classes - 1)

    def _past(self, age_s: FloatArray) -> FloatArray:
        """State of each turbine ``age_s`` ``[K, N]`` ago, linear between periods: ``[3, K, N]``."""
        place = np.maximum(self._n_history - 1 - age_s / self._dt_s, 0.0)
        low = np.minimum(place.astype(np.intp), self._n_history - 2)
        share = place - low
        turbine = np.arange(self._n)[None, :]
        older, newer = self._history[low, :, turbine], self._history[low + 1, :, turbine]
        # Exact at both ends, so that a state that does not change comes back to the last bit.
        return np.moveaxis(older + share[..., None] * (newer - older), -1, 0)

    def _settle(self) -> None:
        target, lag = self._solution.power_kw[0], self._config.power_lag_s
        decay = math.exp(-self._dt_s / lag) if lag > 0 else 0.0
        mean_share = (1.0 - decay) * lag / self._dt_s if lag > 0 else 0.0
        mean_kw = target + mean_share * (self._power_kw - target)
        self._power_kw = target + decay * (self._power_kw - target)
        self._energy_kwh += float(mean_kw.sum()) * self._dt_s / 3600.0
        turbulence, speed = self._solution.rotor_turbulence_pu[0], self._solution.rotor_wind_speed_mps[0]
        keep = math.exp(-self._dt_s / _TURBULENCE_MEMORY_S)
        self._mean_turbulence = keep * self._mean_turbulence + (1.0 - keep) * turbulence
        load = self._solution.thrust_pu[0] * turbulence * speed**2 / (0.8 * 0.06 * 64.0)
        self._load_sum += load**_LOAD_WOEHLER

    def _pitch_deg(self) -> FloatArray:
        """Pitch that holds the limit: the table at the speed at which the limited rotor would be at rated."""
        limit = np.maximum(self._limit_pu, 0.05)
        speed = self._solution.rotor_wind_speed_mps[0] / np.cbrt(limit)
        return np.where(self._is_available, np.interp(speed, _PITCH_SPEED_MPS, _PITCH_DEG), 90.0)

    def _measure(self) -> None:
        rng = self._rng(4, self._period)
        noise, lost = rng.standard_normal((3, self._n)), rng.random(self._values.shape) < self._config.dropout_pu
        heading = self._drives.heading_deg
        vane = _wrap(self._free[1] - heading) + self._vane_bias_deg + self._config.vane_noise_deg * noise[1]
        fresh = np.stack(
            (
                self._solution.rotor_wind_speed_mps[0] * (1.0 + self._config.wind_speed_noise_pu * noise[0]),
                (heading + vane) % 360.0,
                heading % 360.0,
                self._power_kw + self._config.power_noise_pu * self._rated_kw * noise[2],
                self._mean_turbulence,
                self._drives.duty_pu,
                self._pitch_deg(),
                1.0 * self._is_available,
            ),
            axis=1,
        )
        fresh = np.clip(fresh, self._group.lower("measured"), self._group.upper("measured"))
        if self._period == 0:
            lost[:] = False  # a plant that starts has something to say
        self._values = np.where(lost, self._values, fresh)
        self._source_time_s = np.where(lost, self._source_time_s, self.clock_s)
        self._quality = np.where(lost, Quality.BAD, Quality.GOOD).astype(np.int8)


def _series(config: WindFarmConfig, plant_config: FlorisPlantConfig) -> WindSeries:
    if plant_config.series != "constant":
        return load_series(plant_config.series)
    inflow = config.inflow
    middle = [sum(r) / 2.0 for r in (inflow.wind_speed_mps, inflow.wind_direction_deg, inflow.turbulence_pu)]
    return constant_series(*middle)


def _wrap(angle_deg: FloatArray) -> FloatArray:
    """Angle in [-180, 180)."""
    return np.asarray((angle_deg + 180.0) % 360.0 - 180.0, dtype=np.float64)
