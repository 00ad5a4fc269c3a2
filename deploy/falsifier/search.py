"""Where to look next: covariance matrix adaptation where the package ``cma`` is installed, else at random."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Search(Protocol):
    """Minimises over the unit cube. ``name`` says how, for people."""

    name: str

    def ask(self) -> Floats:
        """Points ``[B, D]`` to try."""
        ...

    def tell(self, points: Floats, values: Floats) -> None:
        """What came of them, ``[B]``; smaller is worse for the shield, and so better for the search."""
        ...


class RandomSearch:
    """Uniform points; half of the coordinates at an edge, where limits are."""

    name = "random search (install twinloop[falsify] for CMA-ES, which learns where to look)"

    def __init__(self, n_dimensions: int, n_points: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._shape = (n_points, n_dimensions)

    def ask(self) -> Floats:
        points = self._rng.random(self._shape)
        return np.where(self._rng.random(self._shape) < 0.5, np.round(points), points)

    def tell(self, points: Floats, values: Floats) -> None:
        """Nothing is learned."""


class CovarianceSearch:
    """CMA-ES (Hansen & Ostermeier 2001) in the cube; restarts from a new place where it has converged."""

    name = "CMA-ES"

    def __init__(self, n_dimensions: int, n_points: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._n, self._n_points = n_dimensions, n_points
        self._strategy = self._start(np.full(n_dimensions, 0.5))

    def ask(self) -> Floats:
        if self._strategy.stop():
            self._strategy = self._start(self._rng.random(self._n))
        return np.clip(np.array(self._strategy.ask(), dtype=np.float64), 0.0, 1.0)

    def tell(self, points: Floats, values: Floats) -> None:
        known = np.nan_to_num(values, nan=0.0, posinf=1e9, neginf=-1e9)
        self._strategy.tell(list(points), known.tolist())

    def _start(self, at: Floats) -> Any:
        import cma

        options = {
            "popsize": self._n_points,
            "bounds": [0.0, 1.0],
            "verbose": -9,
            "randn": lambda *shape: self._rng.standard_normal(shape),
            "seed": math.nan,  # leaves numpy's global generator alone
        }
        return cma.CMAEvolutionStrategy(at, 0.4, options)


def make_search(n_dimensions: int, n_points: int, seed: int) -> Search:
    """CMA-ES where it is installed, else random search, which says so in its name."""
    kind = CovarianceSearch if n_points >= 4 and find_spec("cma") is not None else RandomSearch
    return kind(n_dimensions, n_points, seed)
