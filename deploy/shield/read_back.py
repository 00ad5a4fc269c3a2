"""What the plant says that it obeys, held against what was sent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays


class ReadBack:
    """Compares commands of one site. ``tolerance_pu``: share of a command's range by which the two may differ."""

    def __init__(self, nameplate: Nameplate, tolerance_pu: float) -> None:
        self._n_agents = len(nameplate.agents)
        self._parts: list[tuple[str, slice, NDArray[np.float64]]] = []
        first = 0
        for group in nameplate.groups:
            span = group.upper("commanded") - group.lower("commanded")
            self._parts.append((group.name, slice(first, first + group.n_assets), tolerance_pu * span))
            first += group.n_assets

    def wrong(self, sent: Arrays, obeyed: Arrays) -> NDArray[np.bool_]:
        """Which agents ``[agents]`` obey something else than was sent, ``[N, A]`` a group each.

        A number that is none says nothing, and is not wrong.
        """
        found = np.zeros(self._n_agents, dtype=np.bool_)
        for name, rows, most in self._parts:
            with np.errstate(invalid="ignore"):  # two infinities have no difference
                found[rows] = (np.abs(obeyed[name] - sent[name]) > most).any(axis=1)
        return found
