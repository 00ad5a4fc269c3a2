"""A policy and an executor that do what they must not: late, broken, nonsense, in slots that are not theirs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...deploy.arbitration.request import Circumstances, Request
from ...deploy.station.executor_seat import EmptySeat, Verdict
from ...deploy.station.order import Order
from ...envs.twin import Observation
from .arbitration_site import Eager


class FaultyPolicy(Eager):
    """Eager, and in every way wrong at times; ``during`` is called in each turn."""

    def __init__(self, rng: np.random.Generator, during: Callable[[], None]) -> None:
        super().__init__()
        self._rng, self._during = rng, during
        self.late_s = 0.0
        self.nonsense: Any = None

    def act(self, observation: Observation, memory: Any) -> Any:
        self._during()
        late_s, self.late_s = self.late_s, 0.0
        time.sleep(late_s)
        if self.nonsense is not None:
            return self.nonsense, memory
        return super().act(observation, memory)


class FaultyExecutor(EmptySeat):
    """Holds random commands in slot 14, also where and when it should not."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.asks: list[Request] = []
        self.is_broken = False
        self.late_s = 0.0

    def order(self, order: Order, seen: Circumstances) -> Verdict:
        slot = int(self._rng.choice([14, 14, 14, 14, 8, 2, 16]))
        values = {
            "kettle": np.where(
                self._rng.random((3, 2)) < 0.5, self._rng.uniform(0.0, 1.0, (3, 2)) * [100.0, 1.0], math.nan
            ),
            "fan": np.where(self._rng.random((1, 1)) < 0.5, float(self._rng.integers(3)), math.nan),
        }
        self.asks = (
            [Request(slot, values, float(self._rng.uniform(0.5, 20.0)), "P-1")] if order.kind == "execute" else []
        )
        return Verdict(True, order.kind, {"nonce": order.id})

    def requests(self, seen: Circumstances) -> Sequence[Request]:
        late_s, self.late_s = self.late_s, 0.0
        time.sleep(late_s)
        if self.is_broken:
            raise RuntimeError("broken")
        return self.asks
