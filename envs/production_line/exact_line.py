"""The exact Markov chain of a line of Bernoulli or geometric machines: the referee that every simulation answers to.

States are the levels of all buffers and, for geometric machines, which ones are up; the chain is solved by sparse
elimination. Slot order as in :mod:`.flow`: machines change their status, then parts move, then buffers are counted.

Sources: Bernoulli lines: Li & Meerkov, "Production Systems Engineering" (2009), chapters 4 and 13. Geometric machines:
Gershwin, "Manufacturing Systems Engineering" (1994), section 3.2, where a machine is blocked by a buffer that was full
when the slot began, and fails only in slots in which it could work.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from ..errors import ConfigurationError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MOST_STATES = 200_000


@dataclass(frozen=True)
class ExactMachine:
    """``efficiency``: chance to process in a slot while up. ``fails``, ``repairs``: chance a slot to go down and up;
    ``fails`` 0 is a Bernoulli machine, which is never down."""

    efficiency: float
    fails: float = 0.0
    repairs: float = 1.0


@dataclass(frozen=True)
class ExactLine:
    """Steady state of a line of M machines: ``production`` parts a slot; ``[M]`` each: ``blocked`` and ``starved``,
    chances in a slot that a machine could process and is kept from it; ``level`` ``[M-1]``, mean parts in a buffer."""

    production: float
    blocked: Floats
    starved: Floats
    level: Floats
    n_states: int


def solve_line(machines: Sequence[ExactMachine], capacities: Sequence[int], *, looks_through: bool) -> ExactLine:
    """Solve a serial line. ``looks_through``: a full buffer does not block when its consumer takes a part in the same
    slot (Li & Meerkov), else it does (Gershwin).

    Raises :class:`ConfigurationError` for a line that is none, or has more than ``MOST_STATES`` states.
    """
    _check(machines, capacities)
    geometric = [i for i, m in enumerate(machines) if m.fails > 0]
    n_states = int(np.prod([c + 1 for c in capacities], dtype=np.int64)) * 2 ** len(geometric)
    if n_states > MOST_STATES:
        raise ConfigurationError(
            f"exact line: {n_states} states exceed {MOST_STATES}; give smaller buffers or fewer machines, or simulate"
        )
    levels, up = _states(capacities, geometric, len(machines))
    return _solved(machines, np.asarray(capacities), levels, up, geometric, looks_through)


def _check(machines: Sequence[ExactMachine], capacities: Sequence[int]) -> None:
    if not machines or len(capacities) != len(machines) - 1 or any(c < 1 for c in capacities):
        raise ConfigurationError(
            f"exact line: {len(machines)} machines and capacities {list(capacities)}; give one capacity of 1 or more "
            "between each two machines"
        )
    for i, m in enumerate(machines):
        if not (0 < m.efficiency <= 1 and 0 <= m.fails < 1 and 0 < m.repairs <= 1):
            raise ConfigurationError(f"exact line: machine {i}: {m}; chances lie in (0, 1], that to fail in [0, 1)")


def _states(capacities: Sequence[int], geometric: list[int], n_machines: int) -> tuple[NDArray[np.int64], Bools]:
    """Levels ``[S, M-1]`` and up ``[S, M]`` of all states, levels the slow index."""
    axes = [np.arange(c + 1) for c in capacities] + [np.arange(2)] * len(geometric)
    grid = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=-1) if axes else np.zeros((1, 0), int)
    up = np.ones((len(grid), n_machines), dtype=np.bool_)
    up[:, geometric] = grid[:, len(capacities) :] == 1
    return grid[:, : len(capacities)].astype(np.int64), up


def _solved(
    machines: Sequence[ExactMachine],
    capacities: NDArray[np.int64],
    levels: NDArray[np.int64],
    up: Bools,
    geometric: list[int],
    looks_through: bool,
) -> ExactLine:
    """Over all outcomes of a slot: who is up then (``2^G``), and who would process (``2^M``)."""
    n_states, n_machines = up.shape
    efficiency, fails, repairs = (
        np.array([getattr(m, k) for m in machines]) for k in ("efficiency", "fails", "repairs")
    )
    fed = np.column_stack((np.ones(n_states, dtype=np.bool_), levels > 0))
    roomy = np.column_stack((levels < capacities, np.ones(n_states, dtype=np.bool_)))
    weights = [*np.cumprod([*(capacities[1:] + 1), 2 ** len(geometric)][::-1])[::-1]] if len(capacities) else []
    bit = {i: 2 ** (len(geometric) - 1 - k) for k, i in enumerate(geometric)}
    rows, columns, chances = [], [], []
    production = np.zeros(n_states)
    blocked, starved = np.zeros((n_states, n_machines)), np.zeros((n_states, n_machines))
    can_fail = fed & roomy
    uncertain = [i for i in range(n_machines) if efficiency[i] < 1]
    for flips in itertools.product((False, True), repeat=len(geometric)):
        after, chance_up = up.copy(), np.ones(n_states)
        for i, flip in zip(geometric, flips, strict=True):
            change = np.where(up[:, i], fails[i] * can_fail[:, i], repairs[i])
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
            passing = _passing(roomy, fed & active, looks_through)
            works_now = passing & fed & active
            next_levels = levels + works_now[:, :-1] - works_now[:, 1:]
            index = (
                (next_levels @ np.array(weights, dtype=np.int64)) if len(capacities) else np.zeros(n_states, np.int64)
            )
            index = index + sum(
                (after[:, i].astype(np.int64) * b for i, b in bit.items()), np.zeros(n_states, np.int64)
            )
            rows.append(np.flatnonzero(live))
            columns.append(index[live])
            chances.append(chance[live])
            production += chance * works_now[:, -1]
            blocked += chance[:, None] * (active & fed & ~passing)
            starved += chance[:, None] * (active & ~fed)
    steady = _stationary(np.concatenate(rows), np.concatenate(columns), np.concatenate(chances), n_states)
    return ExactLine(
        float(steady @ production), steady @ blocked, steady @ starved, steady @ levels.astype(np.float64), n_states
    )


def _passing(roomy: Bools, would_take: Bools, looks_through: bool) -> Bools:
    """``[S, M]``: whether a machine finds room for its part."""
    if not looks_through:
        return roomy
    passing = roomy.copy()
    for i in range(roomy.shape[1] - 2, -1, -1):
        passing[:, i] |= would_take[:, i + 1] & passing[:, i + 1]
    return passing


def _stationary(rows: NDArray[np.int64], columns: NDArray[np.int64], chances: Floats, n: int) -> Floats:
    """The distribution that a chain keeps: balance in all states but one, and chances that add up to one."""
    chain = sparse.coo_matrix((chances, (columns, rows)), shape=(n, n)).tocsr()
    balance = (chain - sparse.identity(n)).tolil()
    balance[n - 1, :] = 1.0
    right = np.zeros(n)
    right[n - 1] = 1.0
    found: Floats = linalg.spsolve(balance.tocsc(), right)
    return found
