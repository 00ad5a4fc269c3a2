"""Gaps in the emulated cell, by MuJoCo's own distances: nothing here is shared with the twin's closed forms."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from .arm import UR5E
from .model_xml import own_pairs

Floats = NDArray[np.float64]
FARTHEST_M = 100.0


class PlantGaps:
    """Gaps between an arm and what it may meet: other arms, own links, bodies of a name, planes.

    Pairs come in order of a lower bound (balls around both geoms), so that only the near ones are computed exactly.
    """

    def __init__(self, model: Any, n_arms: int, bodies: tuple[str, ...], planes: tuple[str, ...]) -> None:
        self._model = model
        names = [[f"arm_{k + 1}_{c.name}" for c in UR5E.capsules] for k in range(n_arms)]
        self._arms = np.array([[model.geom(name).id for name in row] for row in names], dtype=np.intp)
        self._bodies = np.array([model.geom(name).id for name in bodies], dtype=np.intp)
        self._planes = np.array([model.geom(name).id for name in planes], dtype=np.intp)
        own = [[(row[a], row[b]) for a, b in own_pairs(UR5E)] for row in self._arms]
        self._own = [np.array(pairs, dtype=np.intp) for pairs in own]
        self._n_arms = n_arms

    def to_arm(self, data: Any, arm: int, other: int) -> float:
        """Between two arms, m; negative: how deep they are in each other."""
        return self._nearest(data, _product(self._arms[arm], self._arms[other]))

    def to_arms(self, data: Any, arm: int) -> float:
        """Between an arm and the nearest other one; ``FARTHEST_M`` where it is alone."""
        others = np.concatenate([self._arms[k] for k in range(self._n_arms) if k != arm] or [self._bodies[:0]])
        return self._nearest(data, _product(self._arms[arm], others))

    def to_itself(self, data: Any, arm: int) -> float:
        return self._nearest(data, self._own[arm])

    def to_bodies(self, data: Any, arm: int) -> float:
        """To the nearest of the bodies: people, obstacles, fixed capsules."""
        return self._nearest(data, _product(self._arms[arm], self._bodies))

    def to_planes(self, data: Any, arm: int) -> float:
        """To the nearest plane; an arm's first two capsules are mounted on one and don't count."""
        if not len(self._planes):
            return FARTHEST_M
        geoms = self._arms[arm][2:]
        centre, axis = data.geom_xpos[geoms], data.geom_xmat[geoms].reshape(-1, 3, 3)[:, :, 2]
        size = self._model.geom_size[geoms]
        normal = data.geom_xmat[self._planes].reshape(-1, 3, 3)[:, :, 2]
        height = centre @ normal.T - (data.geom_xpos[self._planes] * normal).sum(1)
        return float((height - np.abs(axis @ normal.T) * size[:, 1:2] - size[:, :1]).min())

    def nearest(self, data: Any, arm: int) -> float:
        """To whatever is nearest."""
        found = min(self.to_planes(data, arm), self.to_itself(data, arm))
        everything = [self._arms[k] for k in range(self._n_arms) if k != arm]
        pairs = _product(self._arms[arm], np.concatenate([*everything, self._bodies]))
        return min(found, self._nearest(data, pairs, found))

    def _nearest(self, data: Any, pairs: NDArray[np.intp], best_m: float = FARTHEST_M) -> float:
        if not len(pairs):
            return best_m
        bound = self._model.geom_rbound
        first, second = pairs[:, 0], pairs[:, 1]
        way = data.geom_xpos[first] - data.geom_xpos[second]
        least = np.sqrt(np.einsum("ij,ij->i", way, way)) - bound[first] - bound[second]
        for k in np.argsort(least):
            if least[k] >= best_m:
                break
            found = mujoco.mj_geomDistance(self._model, data, int(first[k]), int(second[k]), FARTHEST_M, None)
            best_m = min(best_m, float(found))
        return best_m


def _product(a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.stack([np.repeat(a, len(b)), np.tile(b, len(a))], axis=1)
