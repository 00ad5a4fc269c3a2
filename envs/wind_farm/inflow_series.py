"""Wind over time: a series from a CSV, and the free wind that a plant makes of it.

The series gives means (here of ten minutes); what happens between two samples is ours: linear interpolation, plus two
Ornstein-Uhlenbeck processes from the plant's seed (Uhlenbeck & Ornstein 1930; the exact discretisation is in Gillespie
1996, Phys. Rev. E 54, eq. 1.9), one for speed and one for direction. Draws depend on the seed and on time alone.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, nearest

FloatArray = NDArray[np.float64]

COLUMNS = ("time_s", "wind_speed_mps", "wind_direction_deg", "turbulence_pu")
GUST_STEP_S = 5.0
_LIMITS = {
    "time_s": (-math.inf, math.inf),
    "wind_speed_mps": (0.0, 60.0),
    "wind_direction_deg": (-360.0, 720.0),
    "turbulence_pu": (0.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class WindSeries:
    """Samples of the free wind, all ``[T]``: ``time_s`` increasing from 0, direction in degrees from north."""

    name: str
    time_s: FloatArray
    wind_speed_mps: FloatArray
    wind_direction_deg: FloatArray
    turbulence_pu: FloatArray

    @property
    def duration_s(self) -> float:
        return float(self.time_s[-1] - self.time_s[0])


@dataclass(frozen=True)
class Gusts:
    """Fluctuations between samples: ``speed_share`` of the series' own standard deviation (turbulence times speed) is
    taken as coherent over the farm, ``direction_std_deg`` likewise; correlation times in seconds."""

    speed_share: float = 0.25
    speed_time_s: float = 90.0
    direction_std_deg: float = 1.5
    direction_time_s: float = 180.0


def series_names() -> tuple[str, ...]:
    """Names of the series that ship with the package."""
    return tuple(sorted(p.stem for p in _folder().glob("*.csv")))


def load_series(name_or_path: str) -> WindSeries:
    """Load a shipped series by name, or a CSV by path, with the columns of :data:`COLUMNS`.

    Raises :class:`ConfigurationError` naming file, row (the header is row 1) and column.
    """
    if name_or_path.endswith(".csv"):
        path = Path(name_or_path)
        if not path.is_file():
            raise ConfigurationError(f"wind series: file {name_or_path!r} does not exist; give a CSV's path, or one of "
                                     f"{', '.join(series_names())}")  # fmt: skip
    else:
        path = _folder() / f"{name_or_path}.csv"
        if name_or_path not in series_names():
            raise ConfigurationError(
                f"wind series {name_or_path!r} is not known; shipped: {', '.join(series_names())}, or give the path "
                f"of a .csv{nearest(name_or_path, series_names())}"
            )
    return _parse(path)


def constant_series(wind_speed_mps: float, wind_direction_deg: float, turbulence_pu: float) -> WindSeries:
    """A wind that never changes."""
    both = np.ones(2)
    return WindSeries(
        "constant",
        np.array([0.0, 600.0]),
        wind_speed_mps * both,
        wind_direction_deg % 360.0 * both,
        turbulence_pu * both,
    )


class FreeWind:
    """The free wind at the farm's upstream edge as a function of time, for one seed.

    ``at`` takes any times in seconds since the series' start, of any shape; before 0 the wind is that of time 0,
    after the end the series begins again (over one sample's interval the wind goes back to the first sample).
    """

    def __init__(self, series: WindSeries, gusts: Gusts, seed: int) -> None:
        step = float(np.median(np.diff(series.time_s)))
        self._period_s = series.duration_s + step
        self._time = np.append(series.time_s, series.time_s[-1] + step)
        self._speed = np.append(series.wind_speed_mps, series.wind_speed_mps[0])
        direction = np.append(series.wind_direction_deg, series.wind_direction_deg[0])
        self._direction = np.unwrap(direction, period=360.0)
        self._turbulence = np.append(series.turbulence_pu, series.turbulence_pu[0])
        self._share = gusts.speed_share
        n = int(self._period_s / GUST_STEP_S) + 2
        self._gust_time = GUST_STEP_S * np.arange(n)
        self._speed_gust = _ornstein_uhlenbeck(n, gusts.speed_time_s, seed, stream=1)
        self._turn = gusts.direction_std_deg * _ornstein_uhlenbeck(n, gusts.direction_time_s, seed, stream=2)

    def at(self, time_s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Speed in m/s (never below 0.1), direction in degrees [0, 360), turbulence; shaped as ``time_s``."""
        t = np.where(time_s > 0.0, np.asarray(time_s, dtype=np.float64) % self._period_s, 0.0)
        speed = np.interp(t, self._time, self._speed)
        turbulence = np.interp(t, self._time, self._turbulence)
        direction = np.interp(t, self._time, self._direction)
        speed = speed * (1.0 + self._share * turbulence * np.interp(t, self._gust_time, self._speed_gust))
        direction = direction + np.interp(t, self._gust_time, self._turn)
        return np.maximum(speed, 0.1), direction % 360.0, turbulence


def _ornstein_uhlenbeck(n: int, time_s: float, seed: int, stream: int) -> FloatArray:
    """Stationary process of unit variance, ``[n]``, every ``GUST_STEP_S`` seconds."""
    from scipy.signal import lfilter

    draws = np.random.default_rng((seed, 7001, stream)).standard_normal(n)
    keep = math.exp(-GUST_STEP_S / time_s)
    push = math.sqrt(1.0 - keep * keep)
    path, _ = lfilter([push], [1.0, -keep], draws[1:], zi=[keep * draws[0]])
    return np.concatenate((draws[:1], np.asarray(path, dtype=np.float64)))


def _folder() -> Path:
    return Path(__file__).parent / "data"


def _parse(path: Path) -> WindSeries:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    header = [cell.strip() for cell in rows[0]] if rows else []
    for column in COLUMNS:
        if column not in header:
            raise ConfigurationError(
                f"{path}: row 1: column {column!r} is missing; the columns are {', '.join(COLUMNS)}, units in their "
                f"names{nearest(column, header)}"
            )
    if len(rows) < 3:
        raise ConfigurationError(f"{path}: {len(rows) - 1} rows of data; a series needs at least two")
    values = {c: np.array([_cell(path, i, c, row, header) for i, row in enumerate(rows[1:], 2)]) for c in COLUMNS}
    steps = np.diff(values["time_s"])
    if not np.all(steps > 0):
        row = int(np.argmax(steps <= 0)) + 3
        raise ConfigurationError(
            f"{path}: row {row}: column 'time_s': {values['time_s'][row - 2]:g} does not exceed the row before "
            f"({values['time_s'][row - 3]:g}); times must increase"
        )
    return WindSeries(
        path.stem,
        values["time_s"] - values["time_s"][0],
        values["wind_speed_mps"],
        values["wind_direction_deg"] % 360.0,
        values["turbulence_pu"],
    )


def _cell(path: Path, number: int, column: str, row: list[str], header: list[str]) -> float:
    index = header.index(column)
    text = row[index].strip() if index < len(row) else ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    low, high = _LIMITS[column]
    if not (math.isfinite(value) and low <= value <= high):
        raise ConfigurationError(
            f"{path}: row {number}: column {column!r}: {text!r}; needed is a finite number in [{low:g}, {high:g}]"
        )
    return value
