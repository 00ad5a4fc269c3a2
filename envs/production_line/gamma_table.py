"""Gamma variates from uniforms, by a table of the inverse distribution: one draw a number, the same on every device."""

from __future__ import annotations

import numpy as np
import torch
from scipy import special

Tensor = torch.Tensor
_REACH, _CELLS = 34.0, 1 << 14


class GammaTable:
    """Draws with a ``shape`` and a ``scale``.

    The logarithm of the quantile is almost linear in the logit of the chance at both ends, so that linear interpolation
    between 16,384 knots is right to about 1e-6 of a value for any shape.
    """

    def __init__(self, shape: float, scale: float, device: torch.device) -> None:
        logit = np.linspace(-_REACH, _REACH, _CELLS + 1)
        # from the nearer end, so that neither loses its digits
        low, high = special.expit(np.minimum(logit, 0.0)), special.expit(-np.maximum(logit, 0.0))
        with np.errstate(divide="ignore"):
            value = np.where(logit <= 0, special.gammaincinv(shape, low), special.gammainccinv(shape, high))
            # where the quantile underflows, its leading term: x^a / Gamma(a + 1) = u
            leading = (np.log(low) + special.gammaln(shape + 1.0)) / shape
            found = np.where(value > 1e-280, np.log(np.maximum(value, 1e-300)), leading)
        self._knots = torch.tensor(found + np.log(scale), dtype=torch.float64, device=device)

    def draw(self, u: Tensor) -> Tensor:
        """Quantiles of ``u`` in (0, 1), any shape."""
        at = (torch.logit(u.to(torch.float64)).clamp(-_REACH, _REACH) + _REACH) * (_CELLS / (2.0 * _REACH))
        cell = at.to(torch.int64).clamp(max=_CELLS - 1)
        low, high = self._knots[cell], self._knots[cell + 1]
        return torch.exp(low + (at - cell) * (high - low))
