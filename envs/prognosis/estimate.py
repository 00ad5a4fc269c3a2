"""What a prognosis says, whatever made it: remaining life with an interval, and the chance to fail soon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ContractError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """Remaining life of machines, ``[n]`` each, in ``unit``.

    ``low`` to ``high`` holds it with the chance ``level``, tails alike; ``chance`` that it ends within ``horizon``.
    Where an estimator looks no further than ``cap``, a value of ``cap`` means "that or more". Infinity: may never end.
    """

    names: tuple[str, ...]
    median: Floats
    low: Floats
    high: Floats
    level: float
    chance: Floats
    horizon: float
    unit: str
    cap: float | None = None

    def __post_init__(self) -> None:
        for name in ("median", "low", "high", "chance"):
            shape = getattr(self, name).shape
            if shape != (len(self.names),):
                raise ContractError(f"estimate: {name} is {shape}, expected one value for each of {len(self.names)}")
        if not ((self.low <= self.median) & (self.median <= self.high)).all():
            raise ContractError("estimate: low <= median <= high does not hold everywhere")

    def alarms(self, limit: float) -> Bools:
        """Who fails within the horizon with a chance of ``limit`` or more, ``[n]``."""
        return np.asarray(self.chance >= limit)

    def text(self, k: int) -> str:
        """Machine ``k`` in words: ``31 (17 to 52) cycles``."""

        def shown(value: float) -> str:
            if not np.isfinite(value):
                return "never"
            more = self.cap is not None and value >= self.cap
            return f"{value:,.3g}{' or more' if more else ''}" if abs(value) < 1000 else f"{value:,.0f}"

        low, median, high = (shown(float(v[k])) for v in (self.low, self.median, self.high))
        return f"{median} ({low} to {high}) {self.unit}"
