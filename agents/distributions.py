"""The diagonal Gaussian that explores, and the parts of it that an update needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def log_prob_of_noise(noise: NDArray[Any], log_std: NDArray[Any]) -> NDArray[Any]:
    """Log density ``[...]`` of ``mean + exp(log_std) * noise``, from standard normal ``noise`` ``[..., K]``."""
    shift = np.float32(float(log_std.sum(dtype=np.float64)) + HALF_LOG_TWO_PI * log_std.size)
    density: NDArray[Any] = -0.5 * np.einsum("...k,...k->...", noise, noise) - shift
    return density


def log_prob(z: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Log density ``[rows]`` of standardised actions ``z = (u - mean) / std`` ``[rows, K]``."""
    return (z * z).sum(-1).mul_(-0.5).sub_(log_std.sum() + HALF_LOG_TWO_PI * log_std.numel())


def entropy(log_std: torch.Tensor) -> torch.Tensor:
    """Entropy, a scalar: it depends on the deviations alone."""
    return log_std.sum() + (0.5 + HALF_LOG_TWO_PI) * log_std.numel()
