"""The causes that one period's modes are decided by: found, left over, told by the caller, or raised by monitors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.plant import Arrays
from .between_periods import acting
from .causes import Cause
from .choice import Inputs, causes_of
from .decision import BoolArrays, ShieldState
from .inputs import Guarded
from .modes import ModeState
from .monitors.monitor import SITE, Monitor, Seen
from .proposal import Proposal

Bools = NDArray[np.bool_]


def period_causes(
    inputs: Inputs | None,
    proposal: Proposal,
    clock_wrong: bool,
    now_s: float,
    state: ShieldState,
    modes: ModeState,
    causes: Iterable[Cause],
) -> dict[Cause, Bools | bool]:
    """All causes of this period, but for what the monitors find.

    ``inputs`` None: all good; ``modes``: as the last period left them; ``causes``: the caller's.
    """
    raised: dict[Cause, Bools | bool] = {}
    if inputs is not None or proposal.codes is not None:
        raised.update(causes_of(inputs, proposal))
    for cause, where in state.pending.items():
        if np.count_nonzero(where):  # what was found at nobody's asset, or at one that is not ours, is no cause
            raised[Cause(cause)] = where
    # who does not write has no answer to wait for
    if not state.confirmed and acting(modes).any():
        raised[Cause.WRITE_UNCONFIRMED] = True
    if clock_wrong or (state.time_s is not None and not now_s > state.time_s):  # so asked, a NaN is wrong
        raised[Cause.CLOCK_WRONG] = True
    for found in causes:
        raised[Cause(found)] = True
    return raised


class MonitorWatch:
    """The monitors of one site with ``agents``; ``none_changed``: ``[N]`` a group, for a state that tells no
    changes."""

    def __init__(self, monitors: Sequence[Monitor], agents: tuple[str, ...], none_changed: BoolArrays) -> None:
        self.monitors = tuple(monitors)
        self._agents = agents
        self._none_changed = none_changed

    def step(
        self, raised: dict[Cause, Bools | bool], state: ShieldState, guarded: Guarded, proposed: Arrays,
        prediction: Arrays | None, clock_s: float,
    ) -> tuple[Mapping[str, NDArray[Any]], ...]:  # fmt: skip
        """Ask every monitor, add its alarms to ``raised``, and return all memories; ``proposed``: ``[N, A]`` a group.

        One that fails has seen to nothing, which is as bad as an alarm.
        """
        seen = Seen(
            measured=guarded.values,
            commands=state.applied,
            proposed=proposed,
            changed=state.changed or self._none_changed,
            prediction=prediction,
            present=guarded.trusted,
            clock_s=clock_s,
        )
        memories: list[Mapping[str, NDArray[Any]]] = []
        for place, monitor in enumerate(self.monitors):
            memory = state.monitors[place] if place < len(state.monitors) else monitor.start()
            alarms: Mapping[str, Cause]
            try:
                memory, alarms = monitor.step(memory, seen)
            except Exception:  # noqa: BLE001 - a monitor is no reason to lose the period
                alarms = {SITE: Cause.ROBUSTNESS}
            for agent, cause in alarms.items():
                where = np.array([agent in (SITE, a) for a in self._agents])
                raised[cause] = where | raised.get(cause, False)
            memories.append(memory)
        return tuple(memories)
