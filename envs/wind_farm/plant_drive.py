"""The yaw drives of the emulated plant: a filtered vane, hysteresis, constant rate, duty allowance.

In numpy and on its own: the plant shares no dynamics with the twin.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class YawDrives:
    """N nacelles that track (filtered wind direction - offset); degrees from north, clockwise.

    A drive starts when its error exceeds the deadband, turns at constant rate, and stops at zero error, or when its
    allowance is used up: it may turn for ``duty_limit_pu`` of any window of ``duty_window_s``.
    """

    def __init__(
        self,
        heading_deg: FloatArray,
        *,
        rate_degps: float,
        deadband_deg: float,
        filter_s: float,
        duty_limit_pu: float,
        duty_window_s: float,
    ) -> None:
        self.heading_deg = heading_deg.astype(np.float64)  # not wrapped, so that it can be interpolated
        self.travel_deg = np.zeros_like(self.heading_deg)
        self._filtered_deg = self.heading_deg.copy()
        self._turning = np.zeros(heading_deg.shape, dtype=bool)
        self._rate = rate_degps
        self._deadband = deadband_deg
        self._filter_s = filter_s
        self._allowance_s = duty_limit_pu * duty_window_s
        self._window_s = duty_window_s
        self._log: deque[tuple[float, FloatArray]] = deque()
        self._used_s = np.zeros_like(self.heading_deg)

    @property
    def duty_pu(self) -> FloatArray:
        """Share of the duty allowance that is used up, ``[N]``."""
        return np.clip(self._used_s / self._allowance_s, 0.0, 1.0)

    def advance(self, wind_direction_deg: FloatArray, offset_deg: FloatArray, step_s: float) -> None:
        """Turn through M steps of ``step_s``; ``wind_direction_deg`` ``[M, N]`` is as the vanes say, offset ``[N]``."""
        turned_s = np.zeros_like(self.heading_deg)
        keep = np.exp(-step_s / self._filter_s) if self._filter_s > 0 else 0.0
        reach = self._rate * step_s
        for seen in wind_direction_deg:
            innovation = (seen - self._filtered_deg + 180.0) % 360.0 - 180.0
            self._filtered_deg += (1.0 - keep) * innovation
            # Not wrapped: a wind that goes round takes the nacelle with it.
            error = self._filtered_deg - offset_deg - self.heading_deg
            allowed = self._used_s + turned_s + step_s <= self._allowance_s + 1e-9
            self._turning = (self._turning | (np.abs(error) > self._deadband)) & allowed & (error != 0.0)
            move = np.where(self._turning, np.clip(error, -reach, reach), 0.0)
            self._turning &= np.abs(error) > reach
            self.heading_deg += move
            self.travel_deg += np.abs(move)
            turned_s += np.abs(move) / self._rate
        self._account(turned_s, step_s * len(wind_direction_deg))

    def _account(self, turned_s: FloatArray, period_s: float) -> None:
        self._log.append((period_s, turned_s))
        while sum(period for period, _ in self._log) > self._window_s + 1e-9 and len(self._log) > 1:
            self._log.popleft()
        self._used_s = np.sum([turned for _, turned in self._log], axis=0)
