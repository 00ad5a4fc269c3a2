"""The exact Markov chain of a line of Bernoulli or geometric machines: the referee that every simulation answers to.

States are the levels of all buffers and, for geometric machines, which ones are up; the chain is solved by sparse
elimination. Rows, assembly and disassembly. Slot order as in :mod:`.flow`: machines change their status, then parts
move, then buffers are counted.

Sources: Bernoulli lines: Li & Meerkov, "Production Systems Engineering" (2009), chapters 4 and 13. Geometric machines:
Gershwin, "Manufacturing Systems Engineering" (1994), section 3.2, where a machine is blocked by a buffer that was full
when the slot began, and fails only in slots in which it could work.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from .exact_states import Blocking, ExactBuffer, ExactLine, States, row

Floats = NDArray[np.float64]
__all__ = ["Blocking", "ExactBuffer", "ExactLine", "ExactMachine", "solve_line", "solve_network"]


@dataclass(frozen=True)
class ExactMachine:
    """``efficiency``: chance to process in a slot while up. ``fails``, ``repairs``: chance a slot to go down and up;
    ``fails`` 0 is a Bernoulli machine, which is never down. ``failures``: while it could work, or at any time."""

    efficiency: float
    fails: float = 0.0
    repairs: float = 1.0
    failures: Literal["operation", "time"] = "operation"


def solve_line(
    machines: Sequence[ExactMachine], capacities: Sequence[int], *, looks_through: bool, blocking: Blocking = "before"
) -> ExactLine:
    """Solve a serial line. ``looks_through``: a full buffer does not block when its consumer takes a part in the same
    slot (Li & Meerkov), else it does (Gershwin); it has no meaning where ``blocking`` is after service.

    Raises :class:`ConfigurationError` for a line that is none, or has more than ``MOST_STATES`` states.
    """
    return solve_network(machines, row(capacities), looks_through=looks_through, blocking=blocking)


def solve_network(
    machines: Sequence[ExactMachine],
    buffers: Sequence[ExactBuffer],
    *,
    looks_through: bool,
    blocking: Blocking = "before",
) -> ExactLine:
    """Solve a line whose machines may have several buffers before them (assembly) or behind them (disassembly)."""
    for i, m in enumerate(machines):
        if not (0 < m.efficiency <= 1 and 0 <= m.fails < 1 and 0 < m.repairs <= 1):
            raise ConfigurationError(f"exact line: machine {i}: {m}; chances lie in (0, 1], that to fail in [0, 1)")
    if looks_through and blocking == "after":
        raise ConfigurationError("exact line: looks_through has no meaning with blocking after service; give False")
    geometric = [i for i, m in enumerate(machines) if m.fails > 0]
    return _solved(machines, States.of(len(machines), buffers, blocking, geometric), looks_through)


def _solved(machines: Sequence[ExactMachine], s: States, looks_through: bool) -> ExactLine:
    """Over all outcomes of a slot: who is up then (``2^G``), and who would process (``2^M``)."""
    efficiency, fails, repairs = (
        np.array([getattr(m, k) for m in machines]) for k in ("efficiency", "fails", "repairs")
    )
    n_states, n_machines = s.up.shape
    fed, held, sinks = s.fed(), s.held(), s.sinks()
    could = fed & ~held & s.passing(fed, looks_through=False)
    rows, columns, chances = [], [], []
    production = np.zeros(n_states)
    blocked, starved = np.zeros((n_states, n_machines)), np.zeros((n_states, n_machines))
    uncertain = [i for i in range(n_machines) if efficiency[i] < 1]
    for flips in itertools.product((False, True), repeat=len(s.failing)):
        after, chance_up = s.up.copy(), np.ones(n_states)
        for i, flip in zip(s.failing, flips, strict=True):
            exposed = could[:, i] | (machines[i].failures == "time")
            change = np.where(s.up[:, i], fails[i] * exposed, repairs[i])
            chance_up *= change if flip else 1.0 - change
            after[:, i] ^= flip
        for drawn in itertools.product((False, True), repeat=len(uncertain)):
            active, chance = after.copy(), chance_up.copy()
            for i, works in zip(uncertain, drawn, strict=True):
                # a machine that is down draws nothing: its chance is counted once
                chance = chance * np.where(after[:, i], efficiency[i] if works else 1 - efficiency[i], float(not works))
                active[:, i] &= works
            live = chance > 0
            if not live.any():
                continue
            works_now = fed & active & ~held
            stopped = works_now & ~s.passing(works_now, looks_through)
            works_now &= ~stopped
            rows.append(np.flatnonzero(live))
            columns.append(s.index(s.moved(s.levels, works_now)[live], after[live]))
            chances.append(chance[live])
            production += chance * works_now[:, sinks].sum(1)
            blocked += chance[:, None] * (stopped | (active & held))
            starved += chance[:, None] * (active & ~fed & ~held)
    return s.steady(
        np.concatenate(rows), np.concatenate(columns), np.concatenate(chances), (production, blocked, starved)
    )
