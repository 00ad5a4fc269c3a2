"""Yaw offsets of a farm over direction, speed and turbulence, as a controller reads them. Numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import TwinloopError

FloatArray = NDArray[np.float64]

FULL_CIRCLE_DEG = 360.0


@dataclass(frozen=True)
class YawTable:
    """Offsets in FLORIS' sign over a regular grid.

    ``directions_deg`` ``[D]``, ``speeds_mps`` ``[S]`` and ``turbulence_pu`` ``[T]`` ascend; ``offsets_deg`` is
    ``[D, S, T, N]``; ``baseline_kw`` and ``optimum_kw`` are the farm's power with zero and with these offsets,
    ``[D, S, T]``.
    """

    directions_deg: FloatArray
    speeds_mps: FloatArray
    turbulence_pu: FloatArray
    offsets_deg: FloatArray
    baseline_kw: FloatArray
    optimum_kw: FloatArray
    bounds_deg: tuple[float, float]
    method: str
    cpu_s: float

    @property
    def n_turbines(self) -> int:
        return int(self.offsets_deg.shape[-1])

    @property
    def is_full_circle(self) -> bool:
        """True when the directions close around the compass."""
        d = self.directions_deg
        return len(d) > 2 and bool(np.isclose(d[-1] + (d[1] - d[0]), d[0] + FULL_CIRCLE_DEG))

    def gain_pu(self) -> FloatArray:
        """Gain over zero offsets, ``[D, S, T]``; zero where the farm stands still."""
        still = self.baseline_kw <= 0
        return np.where(still, 0.0, self.optimum_kw / np.where(still, 1.0, self.baseline_kw) - 1.0)

    def look_up(self, direction_deg: FloatArray, speed_mps: FloatArray, turbulence_pu: FloatArray) -> FloatArray:
        """Offsets ``[B, N]``, linear between the grid's points, for arrays ``[B]``.

        Speed and turbulence are held at the table's ends; a direction outside the table's sector gets zero.
        """
        i, j, u, inside = self._direction_cell(direction_deg)
        s0, s1, v = _cell(self.speeds_mps, speed_mps)
        t0, t1, w = _cell(self.turbulence_pu, turbulence_pu)
        result = np.zeros((len(direction_deg), self.n_turbines))
        for index, share in ((i, 1 - u), (j, u)):
            for s, share_s in ((s0, 1 - v), (s1, v)):
                for t, share_t in ((t0, 1 - w), (t1, w)):
                    result += (share * share_s * share_t)[:, None] * self.offsets_deg[index, s, t]
        result[~inside] = 0.0
        return result

    def _direction_cell(
        self, direction_deg: FloatArray
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray, NDArray[np.bool_]]:
        grid = self.directions_deg
        beyond_first = np.mod(direction_deg - grid[0], FULL_CIRCLE_DEG)
        if self.is_full_circle:
            step = grid[1] - grid[0]
            low = np.minimum((beyond_first / step).astype(np.intp), len(grid) - 1)
            share = beyond_first / step - low
            return low, (low + 1) % len(grid), share, np.ones(len(direction_deg), dtype=bool)
        inside = beyond_first <= grid[-1] - grid[0]
        low, high, share = _cell(grid - grid[0], beyond_first)
        return low, high, share, inside

    def save(self, path: Path, key: str = "") -> None:
        """Write the table as one ``.npz``; ``key`` says what it was made for."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                key=key,
                directions_deg=self.directions_deg,
                speeds_mps=self.speeds_mps,
                turbulence_pu=self.turbulence_pu,
                offsets_deg=self.offsets_deg,
                baseline_kw=self.baseline_kw,
                optimum_kw=self.optimum_kw,
                bounds_deg=np.array(self.bounds_deg),
                method=self.method,
                cpu_s=self.cpu_s,
            )
        partial.replace(path)

    @staticmethod
    def load(path: Path, key: str | None = None) -> YawTable | None:
        """Read a table; None when the file is absent or was made for another ``key``."""
        if not path.exists():
            return None
        try:
            with np.load(path) as data:
                if key is not None and str(data["key"]) != key:
                    return None
                low, high = (float(v) for v in data["bounds_deg"])
                return YawTable(
                    **{name: np.asarray(data[name], dtype=np.float64) for name in _ARRAYS},
                    bounds_deg=(low, high),
                    method=str(data["method"]),
                    cpu_s=float(data["cpu_s"]),
                )
        except (OSError, KeyError, ValueError) as error:
            raise TwinloopError(f"{path}: not a yaw table ({error}); delete it and let it be built again") from error


_ARRAYS = ("directions_deg", "speeds_mps", "turbulence_pu", "offsets_deg", "baseline_kw", "optimum_kw")


def _cell(grid: FloatArray, value: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """Lower and upper index and the share of the upper one, ``[B]`` each, clamped to the grid."""
    if len(grid) == 1:
        zero = np.zeros(len(value), dtype=np.intp)
        return zero, zero, np.zeros(len(value))
    clamped = np.clip(value, grid[0], grid[-1])
    low = np.clip(np.searchsorted(grid, clamped, side="right") - 1, 0, len(grid) - 2)
    share = (clamped - grid[low]) / (grid[low + 1] - grid[low])
    return low, low + 1, share
