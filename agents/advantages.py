"""Generalised advantage estimation with termination, truncation and absent assets kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Flags = NDArray[np.bool_]


def generalised_advantages(
    reward: Floats, value: Floats, next_value: Floats, terminated: Flags, ended: Flags, gamma: float, gae_lambda: float
) -> tuple[Floats, Floats]:
    """Return advantages and returns, ``[T, ...]`` each (Schulman et al. 2016, arXiv 1506.02438, equation 16).

    ``next_value[t]`` is the value of what followed step t: of the *final* observation where an episode was truncated,
    never of the observation after the reset. ``terminated``: nothing follows, so ``next_value`` counts as zero
    whatever it holds. ``ended``: terminated or truncated; no advantage flows back over it.
    """
    delta = reward + gamma * np.where(terminated, np.float32(0), next_value) - value
    carry = np.where(ended, np.float32(0), np.float32(gamma * gae_lambda))
    advantage = np.empty_like(delta)
    running = np.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + carry[t] * running
        advantage[t] = running
    return advantage, advantage + value
