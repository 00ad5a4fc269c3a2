"""The exact Markov chain of a line of exponential machines, in continuous time: the referee of :mod:`.continuous`.

Rows, assembly and disassembly; blocked before or after service; failures while a machine works or at any time. Checked
against Hunt's unbuffered lines (Hunt 1956, "Sequential arrays of waiting lines", Operations Research 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from .exact_states import Blocking, ExactBuffer, ExactLine, States, row

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ExponentialRates:
    """Rates per slot: to finish a part at work, to fail (0: never) and to be repaired. ``failures``: at work, or at any
    time."""

    rate: float
    fails: float = 0.0
    repairs: float = 1.0
    failures: Literal["operation", "time"] = "operation"


def solve_continuous_line(
    machines: Sequence[ExponentialRates], capacities: Sequence[int], *, blocking: Blocking
) -> ExactLine:
    """Solve a row. Raises :class:`ConfigurationError` for a line that is none, or has too many states."""
    return solve_continuous(machines, row(capacities), blocking=blocking)


def solve_continuous(
    machines: Sequence[ExponentialRates], buffers: Sequence[ExactBuffer], *, blocking: Blocking
) -> ExactLine:
    """Solve a line whose machines may have several buffers before them (assembly) or behind them (disassembly)."""
    for i, m in enumerate(machines):
        if not (m.rate > 0 and m.fails >= 0 and m.repairs > 0):
            raise ConfigurationError(f"exact line: machine {i}: {m}; rates are positive, that to fail is not negative")
    failing = [i for i, m in enumerate(machines) if m.fails > 0]
    s = States.of(len(machines), buffers, blocking, failing)
    fed, held = s.fed(), s.held()
    roomy = s.passing(fed, looks_through=False)
    busy = s.up & fed & ~held & roomy
    rows, columns, rates = list[Integers](), list[Integers](), list[Floats]()

    def goes(who: NDArray[np.bool_], levels: Integers, up: NDArray[np.bool_], rate: float) -> None:
        rows.append(np.flatnonzero(who))
        columns.append(s.index(levels[who], up[who]))
        rates.append(np.full(len(rows[-1]), rate))

    for i, m in enumerate(machines):
        only = np.zeros_like(s.up)
        only[:, i] = True
        goes(busy[:, i], s.moved(s.levels, busy & only), s.up, m.rate)
        if m.fails > 0:
            exposed = s.up[:, i] if m.failures == "time" else busy[:, i]
            goes(exposed, s.levels, s.up & ~only, m.fails)
            goes(~s.up[:, i], s.levels, s.up | only, m.repairs)
    rate = np.array([m.rate for m in machines])
    sinks = s.sinks()
    made = busy[:, sinks] @ rate[sinks]
    blocked = s.up & (held | (fed & ~roomy))
    starved = s.up & ~fed & ~held
    return s.steady(
        np.concatenate(rows), np.concatenate(columns), np.concatenate(rates),
        (made, blocked.astype(np.float64), starved.astype(np.float64)),
    )  # fmt: skip
