"""How long the machines that wear will last, from the last good reading of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...diagnosis import History
from ...prognosis.estimate import Estimate
from ..config import LineConfig
from ..nameplate import MACHINE, MEASURED
from ..remaining_life import BELIEFS_AT, estimate, staged_of, wearing

READ = ("state", "age_slots", "seen_wear_pu", "seen_ago_slots", "waits_for_crew")


@dataclass(frozen=True)
class Foreseen:
    """``ago`` ``[n]``: periods since the reading that an estimate is from, -1 where there is none and a machine
    counts as new; None: all do."""

    estimate: Estimate
    alarm_chance: float
    ago: NDArray[np.int64] | None

    @property
    def alarms(self) -> NDArray[np.bool_]:
        """``[n]``: whose chance to fail within the horizon has passed the limit."""
        return self.estimate.alarms(self.alarm_chance)


def foresee(config: LineConfig, history: History | None, horizon_slots: float | None, alarm_chance: float) -> Foreseen:
    """Raises :class:`ConfigurationError` where no machine wears. A machine without one good reading counts as new."""
    rows, names, wear = wearing(config)
    staged = staged_of(config)
    told = np.zeros((len(rows), BELIEFS_AT + max((len(w.advance_pu) + 1 for w in staged.values()), default=0)))
    told[:, BELIEFS_AT : BELIEFS_AT + 1] = 1.0  # new, and known to be
    ago = None
    if history is not None:
        at = [k for k, signal in enumerate(MEASURED) if signal.name in READ]
        values = history.measured[MACHINE][:, rows]
        good: NDArray[np.bool_] = np.asarray(np.all(history.good[MACHINE][:, rows][..., at], axis=-1))
        n_periods = len(values)
        last = np.where(good.any(0), n_periods - 1 - good[::-1].argmax(0), -1)
        known = last >= 0
        told[known] = values[last[known], np.flatnonzero(known)][:, : told.shape[1]]
        told = np.where(np.isfinite(told), told, 0.0)
        ago = np.where(known, n_periods - 1 - last, -1)
    return Foreseen(estimate(names, told, wear, horizon_slots, staged=staged), alarm_chance, ago)
