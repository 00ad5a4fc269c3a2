"""Which evaluation was the best so far, and whether it is time to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .run_settings import EarlyStopConfiguration


@dataclass
class BestSoFar:
    """The best evaluation by one figure, larger is better; its state goes into the checkpoint.

    A new best is better by more than ``minimum_gain``. An evaluation that is NaN is never a best, and counts as failed.
    """

    judge: str
    early_stop: EarlyStopConfiguration | None
    best: float = -math.inf
    best_iteration: int = 0
    failed: int = 0

    @property
    def has_best(self) -> bool:
        """Whether any evaluation has been the best one."""
        return self.best_iteration > 0

    @property
    def is_over(self) -> bool:
        """Whether early stopping ends the run here."""
        return self.early_stop is not None and self.failed >= self.early_stop.patience

    def take(self, iteration: int, figures: Mapping[str, float]) -> bool:
        """Judge an iteration's figures; True for a new best. Iterations without an evaluation change nothing."""
        if self.judge not in figures:
            return False
        value = figures[self.judge]
        stop = self.early_stop
        if value > self.best + (stop.minimum_gain if stop is not None and self.has_best else 0.0):
            self.best, self.best_iteration, self.failed = value, iteration, 0
            return True
        if stop is not None and iteration >= stop.from_iteration:
            self.failed += 1
        return False

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"best": self.best, "best_iteration": self.best_iteration, "failed": self.failed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of :meth:`state`."""
        self.best, self.best_iteration = float(state["best"]), int(state["best_iteration"])
        self.failed = int(state["failed"])
