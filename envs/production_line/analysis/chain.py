"""Exact sensitivities of a row of Bernoulli machines: what a little more of each machine would bring.

With the chain's transition matrix P(p), its steady distribution pi, parts a slot c(p) and the relative values h of
Poisson's equation ``h + production = c + P h``, the derivative is exact: ``pi (dc/dp + dP/dp h)`` (Schweitzer 1968, J.
Appl. Prob. 5; Cao & Chen 1997, IEEE TAC 42). One sparse factorisation gives all of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

Floats = NDArray[np.float64]
_STEP = 1e-4


def n_states(capacities: tuple[int, ...]) -> int:
    """States of a row's chain."""
    return int(np.prod([c + 1 for c in capacities], dtype=np.int64))


@dataclass(frozen=True)
class RowChain:
    """What a slot can bring, whatever the machines: ``drawn`` ``[O, M]``, who would process; ``following`` and
    ``finished`` ``[O, S]``, the next state and the parts that leave."""

    drawn: Floats
    following: NDArray[np.int64]
    finished: Floats

    @staticmethod
    def of(capacities: tuple[int, ...], looks_through: bool) -> RowChain:
        """Of a row of machines with ``capacities`` between them."""
        most = np.array(capacities, dtype=np.int64)
        axes = [np.arange(c + 1) for c in capacities]
        grid = [a.ravel() for a in np.meshgrid(*axes, indexing="ij")]
        level = np.stack(grid, axis=-1) if grid else np.zeros((1, 0), dtype=np.int64)
        weights = np.array([n_states(capacities[k + 1 :]) for k in range(len(capacities))], dtype=np.int64)
        every = np.ones((len(level), 1), dtype=np.bool_)
        fed, room = np.hstack((every, level > 0)), np.hstack((level < most, every))
        drawn = np.array(list(itertools.product((0.0, 1.0), repeat=len(capacities) + 1)))
        following, finished = [], []
        for outcome in drawn:
            able = fed & (outcome > 0)
            works = able & room
            if looks_through:
                for i in range(len(capacities) - 1, -1, -1):
                    works[:, i] = able[:, i] & (room[:, i] | works[:, i + 1])
            after = level + works[:, :-1] - works[:, 1:]
            following.append(after @ weights)
            finished.append(works[:, -1].astype(np.float64))
        return RowChain(drawn, np.array(following, dtype=np.int64), np.array(finished))

    def solve(self, efficiency: Floats) -> tuple[float, Floats]:
        """Parts a slot, and their derivative by each machine's efficiency ``[M]``."""
        weight = np.where(self.drawn > 0, efficiency, 1.0 - efficiency)
        chance = weight.prod(1)
        n = self.following.shape[1]
        live = np.flatnonzero(chance > 0)
        column = np.tile(np.arange(n), len(live))
        flow = sparse.coo_matrix((np.repeat(chance[live], n), (self.following[live].ravel(), column)), shape=(n, n))
        balance = (flow - sparse.identity(n)).tocsr()
        # the last balance follows from the others; chances that add up to one take its place
        whole = sparse.vstack((balance[:-1], sparse.csr_matrix(np.ones((1, n))))).tocsc()
        factors = linalg.splu(whole)
        right = np.zeros(n)
        right[-1] = 1.0
        steady = factors.solve(right)
        value = factors.solve(chance @ self.finished, trans="T")
        production = float(value[-1])
        value[-1] = 0.0
        worth = (self.finished - value[self.following]) @ steady  # of each outcome, [O]
        signs = np.where(self.drawn > 0, 1.0, -1.0)
        others = np.stack([np.delete(weight, i, axis=1).prod(1) for i in range(len(efficiency))], axis=1)
        return production, worth @ (signs * others)

    def curvature(self, efficiency: Floats) -> Floats:
        """Derivative ``[M, M]`` of the derivatives, by differences: column ``j`` by machine ``j``."""
        columns = []
        for j in range(len(efficiency)):
            low, high = efficiency.copy(), efficiency.copy()
            low[j] -= _STEP
            high[j] = min(1.0, high[j] + _STEP)
            columns.append((self.solve(high)[1] - self.solve(low)[1]) / (high[j] - low[j]))
        return np.stack(columns, axis=1)
