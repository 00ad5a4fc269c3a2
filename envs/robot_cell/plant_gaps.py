"""Gaps in the emulated cell, by MuJoCo's own distances: nothing here is shared with the twin's closed forms."""

from __future__ import annotations

from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from .arm import UR5E
from .model_xml import own_pairs

Floats = NDArray[np.float64]
FARTHEST_M = 100.0


class _Pairs(NamedTuple):
    """Geoms ``[P]`` and the sum of the radii of the balls around them, m."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    bound_m: Floats


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
        own = [np.array([(row[a], row[b]) for a, b in own_pairs(UR5E)], dtype=np.intp) for row in self._arms]
        bound = model.geom_rbound

        def table(pairs: NDArray[np.intp]) -> _Pairs:
            return _Pairs(pairs[:, 0], pairs[:, 1], bound[pairs[:, 0]] + bound[pairs[:, 1]])

        arms = range(n_arms)
        between = {(i, k): _product(self._arms[i], self._arms[k]) for i in arms for k in arms if i != k}
        others = [np.concatenate([between[i, k] for k in arms if k != i] or [own[i][:0]]) for i in arms]
        bodies_of = [_product(self._arms[i], self._bodies) for i in arms]
        self._own = [table(pairs) for pairs in own]
        self._between = {key: table(pairs) for key, pairs in between.items()}
        self._others = [table(pairs) for pairs in others]
        self._to_bodies = [table(pairs) for pairs in bodies_of]
        self._everything = [table(np.concatenate([own[i], others[i], bodies_of[i]])) for i in arms]

    def to_arm(self, data: Any, arm: int, other: int, most_m: float = FARTHEST_M) -> float:
        """Between two arms, m, ``most_m`` where it is more; negative: how deep they are in each other."""
        return self._nearest(data, self._between[arm, other], most_m)

    def to_arms(self, data: Any, arm: int) -> float:
        """Between an arm and the nearest other one; ``FARTHEST_M`` where it is alone."""
        return self._nearest(data, self._others[arm])

    def to_itself(self, data: Any, arm: int) -> float:
        """Between links of an arm that can meet."""
        return self._nearest(data, self._own[arm])

    def to_bodies(self, data: Any, arm: int) -> float:
        """To the nearest of the bodies: people, obstacles, fixed capsules."""
        return self._nearest(data, self._to_bodies[arm])

    def to_planes(self, data: Any, arm: int) -> float:
        """To the nearest plane; an arm's first two capsules are mounted on one and don't count."""
        if not len(self._planes):
            return FARTHEST_M
        geoms = self._arms[arm][2:]
        centre, axis = data.geom_xpos[geoms], data.geom_xmat[geoms][:, 2::3]
        size = self._model.geom_size[geoms]
        normal = data.geom_xmat[self._planes][:, 2::3]
        height = centre @ normal.T - (data.geom_xpos[self._planes] * normal).sum(1)
        return float((height - np.abs(axis @ normal.T) * size[:, 1:2] - size[:, :1]).min())

    def nearest(self, data: Any, arm: int) -> float:
        """To whatever is nearest."""
        return self._nearest(data, self._everything[arm], self.to_planes(data, arm))

    def _nearest(self, data: Any, pairs: _Pairs, best_m: float = FARTHEST_M) -> float:
        if not len(pairs.first):
            return best_m
        way = data.geom_xpos[pairs.first] - data.geom_xpos[pairs.second]
        least = np.sqrt((way * way).sum(1)) - pairs.bound_m
        near = np.flatnonzero(least < best_m)
        for k in near[least[near].argsort()].tolist():
            if least[k] >= best_m:
                break
            ends = int(pairs.first[k]), int(pairs.second[k])
            best_m = min(best_m, float(mujoco.mj_geomDistance(self._model, data, *ends, FARTHEST_M, None)))
        return best_m


def _product(a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.stack([np.repeat(a, len(b)), np.tile(b, len(a))], axis=1)
