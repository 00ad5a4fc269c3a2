"""States of a line for its exact chains: levels of all buffers, and which machines are up.

What levels mean and who is blocked is defined in :mod:`.flow`; here it is written again with numpy, by machines from
the last to the first, so that referee and twin share no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph, linalg

from ..errors import ConfigurationError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Blocking = Literal["before", "after"]
MOST_STATES = 200_000


@dataclass(frozen=True)
class ExactBuffer:
    """From machine ``producer`` to ``consumer``, places from 0, ``capacity`` parts."""

    producer: int
    consumer: int
    capacity: int


@dataclass(frozen=True)
class ExactLine:
    """Steady state of a line of M machines and K buffers: ``production``, parts a slot that leave it; ``[M]`` each:
    ``blocked`` and ``starved``, shares of slots in which a machine could process and is kept from it; of exponential
    machines, shares of the time in which they are up and are kept from it. ``level`` ``[K]``, mean parts in a buffer's
    places. ``n_states`` that the chain visits from an empty line."""

    production: float
    blocked: Floats
    starved: Floats
    level: Floats
    n_states: int


def row(capacities: Sequence[int]) -> tuple[ExactBuffer, ...]:
    """Buffers of machines that stand in a row."""
    return tuple(ExactBuffer(k, k + 1, c) for k, c in enumerate(capacities))


@dataclass(frozen=True)
class States:
    """All states: ``levels`` ``[S, K]`` and ``up`` ``[S, M]``, ordered by levels, then by who is up."""

    n_machines: int
    buffers: tuple[ExactBuffer, ...]
    blocking: Blocking
    failing: tuple[int, ...]
    levels: Integers
    up: Bools

    @staticmethod
    def of(n_machines: int, buffers: Sequence[ExactBuffer], blocking: Blocking, failing: Sequence[int]) -> States:
        """Raises :class:`ConfigurationError` for a line that is none, or has more than ``MOST_STATES`` states."""
        least = 0 if blocking == "after" else 1
        ends = [b for b in buffers if not 0 <= b.producer < b.consumer < n_machines or b.capacity < least]
        if n_machines < 1 or ends or not _hangs_together(n_machines, buffers):
            raise ConfigurationError(
                f"exact line: {n_machines} machines and {list(buffers)}; give one capacity of {least} or more between "
                "each two machines, parts going from lower to higher places"
            )
        most = [b.capacity + (2 if blocking == "after" else 0) for b in buffers]
        n_states = int(np.prod([m + 1 for m in most], dtype=np.float64)) * 2 ** len(failing)
        if n_states > MOST_STATES:
            raise ConfigurationError(
                f"exact line: {n_states} states exceed {MOST_STATES}; give smaller buffers or fewer machines, or "
                "simulate"
            )
        axes = [np.arange(m + 1) for m in most] + [np.arange(2)] * len(failing)
        mesh = np.meshgrid(*axes, indexing="ij")
        grid = np.stack([a.ravel() for a in mesh], axis=-1) if axes else np.zeros((1, 0), np.int64)
        up = np.ones((len(grid), n_machines), dtype=np.bool_)
        up[:, list(failing)] = grid[:, len(buffers) :] == 1
        return States(
            n_machines, tuple(buffers), blocking, tuple(failing), grid[:, : len(buffers)].astype(np.int64), up
        )

    def index(self, levels: Integers, up: Bools) -> Integers:
        """Places of states in the order of all."""
        extra = 2 if self.blocking == "after" else 0
        found = np.zeros(len(levels), dtype=np.int64)
        for k, b in enumerate(self.buffers):
            found = found * (b.capacity + extra + 1) + levels[:, k]
        for i in self.failing:
            found = found * 2 + up[:, i]
        return found

    def moved(self, levels: Integers, working: Bools) -> Integers:
        """Levels ``[S, K]`` after those ``working`` ``[S, M]`` have finished a part each."""
        after = levels.copy()
        for k, b in enumerate(self.buffers):
            after[:, k] += working[:, b.producer].astype(np.int64) - working[:, b.consumer]
        return after

    def fed(self) -> Bools:
        """``[S, M]``: a part in every buffer before."""
        found = np.ones_like(self.up)
        for k, b in enumerate(self.buffers):
            found[:, b.consumer] &= self.levels[:, k] > 0
        return found

    def held(self) -> Bools:
        """``[S, M]``: blocked with a finished part; nobody, blocked before service."""
        found = np.zeros_like(self.up)
        if self.blocking == "after":
            for k, b in sorted(enumerate(self.buffers), key=lambda kb: -kb[1].producer):
                places = b.capacity + 1 - found[:, b.consumer]
                found[:, b.producer] |= self.levels[:, k] > places
        return found

    def passing(self, would_take: Bools, looks_through: bool) -> Bools:
        """``[S, M]``: room behind, always there blocked after service; ``would_take``: who has a part and would process
        it."""
        found = np.ones_like(self.up)
        if self.blocking == "after":
            return found
        for k, b in sorted(enumerate(self.buffers), key=lambda kb: -kb[1].producer):
            free = self.levels[:, k] < b.capacity
            if looks_through:
                free |= would_take[:, b.consumer] & found[:, b.consumer]
            found[:, b.producer] &= free
        return found

    def stored(self) -> Floats:
        """``[S, K]``: parts in the places of each buffer."""
        found = self.levels.astype(np.float64)
        if self.blocking == "after":
            held = self.held()
            for k, b in enumerate(self.buffers):
                worked_on = ~held[:, b.consumer] & (self.levels[:, k] > 0)
                waiting = self.levels[:, k] - worked_on
                found[:, k] = np.minimum(waiting, b.capacity)
        return found

    def sinks(self) -> list[int]:
        """Machines by which parts leave the line."""
        return [i for i in range(self.n_machines) if all(b.producer != i for b in self.buffers)]

    def steady(
        self, rows: Integers, columns: Integers, rates: Floats, each: tuple[Floats, Floats, Floats]
    ) -> ExactLine:
        """Of a chain that goes from ``rows`` to ``columns`` with ``rates``, and makes, is blocked and is starved as
        ``each`` has it, ``[S]``, ``[S, M]`` and ``[S, M]``; begun empty, with all machines up."""
        n = len(self.levels)
        chain = sparse.coo_matrix((rates, (columns, rows)), shape=(n, n)).tocsc()
        first = self.index(np.zeros((1, len(self.buffers)), np.int64), np.ones((1, self.n_machines), np.bool_))[0]
        seen = np.sort(csgraph.breadth_first_order(chain.T.tocsr(), first, return_predecessors=False))
        chance = _stationary(chain[seen][:, seen])
        made, blocked, starved = (v[seen] for v in each)
        return ExactLine(
            float(chance @ made), chance @ blocked, chance @ starved, chance @ self.stored()[seen], len(seen)
        )


def _hangs_together(n_machines: int, buffers: Sequence[ExactBuffer]) -> bool:
    ends = np.array([(b.producer, b.consumer) for b in buffers], dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(ends))
    graph = sparse.coo_matrix((ones, (ends[:, 0], ends[:, 1])), shape=(n_machines, n_machines))
    return int(csgraph.connected_components(graph, directed=False, return_labels=False)) == 1


def _stationary(chain: sparse.csc_matrix) -> Floats:
    """The distribution that a chain keeps: balance in all states but one, and chances that add up to one."""
    n = chain.shape[0]
    balance = (chain - sparse.diags(np.asarray(chain.sum(axis=0)).ravel())).tolil()
    balance[n - 1, :] = 1.0
    right = np.zeros(n)
    right[n - 1] = 1.0
    found: Floats = linalg.spsolve(balance.tocsc(), right)
    return found
