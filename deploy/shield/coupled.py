"""What became of commands that are kept together, and the rows that moved them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .decision import Code
from .program import Status

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class Active(NamedTuple):
    """A row that moved commands: ``weights`` of the commands ``at`` these places, ``<= limit``.

    ``price``: its multiplier, for distances in half-ranges; ``margin``: how far what was asked is inside it, below 0
    beyond; ``left``: how far what is sent is beyond it, 0 but where it could not be kept. ``sign``: -1 for a lower end.
    """

    name: str
    code: Code
    at: Indices
    weights: Floats
    limit: float
    price: float
    margin: float
    left: float
    sign: float
    hard: bool


class Coupled(NamedTuple):
    """``u``: ``[n]``, inside the reach. ``status``: ``UNCHANGED``, ``OPTIMAL`` or ``RELAXED`` where every hard row is
    kept; ``INFEASIBLE`` where this period's reach can't keep them, with the least violation; ``UNSOLVED`` where nothing
    is known and ``u`` is as it came."""

    u: Floats
    status: Status
    active: tuple[Active, ...] = ()

    def relief(self) -> Floats:
        """The direction in which each command relieves the active rows, ``[n]`` of -1, 0 and 1."""
        found = np.zeros(len(self.u))
        for row in self.active:
            # where nothing has a price, as in least violation, the passed rows themselves say which way relieves
            found[row.at] -= row.weights * (row.price or (1.0 if row.left > 0 else 0.0))
        return np.sign(found)
