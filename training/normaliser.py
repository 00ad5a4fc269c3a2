"""Running moments that a learner standardises with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[Any]


class RunningMoments:
    """Mean and variance of rows seen so far, in float64, merged by Chan, Golub & LeVeque (1983), equation 2.1b."""

    def __init__(self, n_columns: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(n_columns)
        self._squares = np.zeros(n_columns)

    def add(self, rows: Floats) -> None:
        """Merge the moments of ``rows`` ``[n, columns]``."""
        n = float(len(rows))
        if n == 0:
            return
        mean = rows.mean(axis=0, dtype=np.float64)
        squares = np.square(rows - mean, dtype=np.float64).sum(axis=0)
        total = self.count + n
        shift = mean - self.mean
        self.mean = self.mean + shift * (n / total)
        self._squares = self._squares + squares + np.square(shift) * (self.count * n / total)
        self.count = total

    @property
    def variance(self) -> Floats:
        """Population variance; ones before the first row."""
        return self._squares / self.count if self.count else np.ones_like(self._squares)

    def standard(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation in float32; a column that never varied is centred and left in its scale."""
        deviation = np.sqrt(self.variance)
        deviation[deviation < 1e-6] = 1.0
        return self.mean.astype(np.float32), deviation.astype(np.float32)

    def state(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": torch.from_numpy(self.mean.copy()),
            "squares": torch.from_numpy(self._squares.copy()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = float(state["count"])
        self.mean = state["mean"].numpy().copy()
        self._squares = state["squares"].numpy().copy()


class ReturnScale:
    """Divides rewards by the running deviation of each asset's discounted return, as VecNormalize of
    Stable-Baselines3 does, absent assets left out."""

    def __init__(self, shape: tuple[int, ...], gamma: float) -> None:
        self.gamma = gamma
        self._returns = np.zeros(shape)
        self._moments = RunningMoments(1)

    def scale(self, reward: Floats, present: NDArray[np.bool_], done: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scaled rewards ``[T, B, N]``; ``done`` is ``[T, B]``. Moments are updated first."""
        for t in range(len(reward)):
            self._returns = self._returns * self.gamma + np.where(present[t], reward[t], 0.0)
            self._moments.add(self._returns[present[t]][:, None])
            self._returns[done[t]] = 0.0
        deviation = np.sqrt(self._moments.variance[0] + 1e-8)
        scaled: NDArray[np.float32] = (reward / deviation).astype(np.float32)
        return scaled

    def state(self) -> dict[str, Any]:
        return {"returns": torch.from_numpy(self._returns.copy()), "moments": self._moments.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._returns = state["returns"].numpy().copy()
        self._moments.restore(state["moments"])
