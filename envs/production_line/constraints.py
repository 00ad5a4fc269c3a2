"""What the operator of a line may declare beyond the machines' own levels: dwell, starts, calls for crews, lock-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..constraint import (
    BarrierConstraint,
    BarrierTerms,
    Constraint,
    DwellConstraint,
    SafeState,
    SumConstraint,
    SwitchesConstraint,
)
from .config import MODES, LineConfig
from .line_plan import plan_of
from .nameplate import MACHINE, MEASURED

Floats = NDArray[np.float64]
_STATE = [s.name for s in MEASURED].index("state")
_IN_SERVICE, _ON = 7.0, 2.0


@dataclass(frozen=True)
class LockOut:
    """``mode <= 0`` at a machine in a crew's hands, ``mode <= 2`` at others: a row on the command that follows what is
    measured. ``n_commands``: commands of a machine, the mode first."""

    n_commands: int

    def __call__(self, measured: Floats, /) -> BarrierTerms:
        open_to = np.where(np.abs(measured[:, _STATE] - _IN_SERVICE) < 0.5, 0.0, _ON)
        control = np.zeros((len(measured), self.n_commands))
        control[:, 0] = -1.0
        return BarrierTerms(h=open_to, drift=np.zeros_like(open_to), control=control)


def line_constraints(config: LineConfig) -> tuple[Constraint, ...]:
    """Hard ones all, and none that the configuration's ``limits`` do not name."""
    limits, slot_s, found = config.limits, config.slot_s, list[Constraint]()
    if limits.on_slots:
        found.append(DwellConstraint(MACHINE, "mode", limits.on_slots * slot_s, "1", level=_ON))
    if limits.rest_slots:
        # what must be locked out goes from stand-by to off at once
        rests = [float(k) for k, mode in enumerate(MODES) if mode in config.modes and mode != "on"]
        rests = [level for level in rests if level == 0.0 or not limits.lock_out]
        found += [DwellConstraint(MACHINE, "mode", limits.rest_slots * slot_s, "1", level=level) for level in rests]
    if limits.starts_per_hour is not None:
        # a start and the stop before it are a change each
        found.append(SwitchesConstraint(MACHINE, "mode", 2 * limits.starts_per_hour, "1"))
    if limits.calls is not None:
        found.append(SumConstraint("calls for crews", MACHINE, "service", "1", maximum=float(limits.calls)))
    if limits.lock_out:
        n_commands = 3 if plan_of(config).wears else 2
        found.append(BarrierConstraint("lock-out in service", MACHINE, LockOut(n_commands), gain_per_s=1.0))
    return tuple(found)


def line_safe_states(config: LineConfig) -> dict[str, SafeState]:
    """On, on their own controllers, and nobody called; off where crews work on machines that must be locked out."""
    if not config.limits.lock_out:
        return {}
    return {MACHINE: SafeState("values", {"mode": 0.0, "service": 0.0})}
