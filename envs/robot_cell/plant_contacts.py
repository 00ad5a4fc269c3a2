"""Contacts in the emulated cell, counted by what touches: a pair counts again when it has parted for a while."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arm import UR5E
from .config import RobotCellConfig

Floats = NDArray[np.float64]

KINDS = ("arm", "self", "fixture", "obstacle", "person", "person_at_standstill")
"""What contacts are counted by. A person who walks into an arm that stands is counted apart."""
_APART_S = 0.5  # a pair that parts for less is still in the contact before
_STANDS_MPS = 0.02
_NEVER, _FIXTURE, _OBSTACLE, _PERSON = -9, -2, -3, -10  # persons go on down from theirs; arms are 0 and up


class PlantContacts:
    """``counts`` by :data:`KINDS`."""

    def __init__(self, model: Any, config: RobotCellConfig, n_people: int) -> None:
        self.counts: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._last_s: dict[tuple[int, int], float] = {}
        self._class = np.full(model.ngeom, _NEVER, dtype=np.int64)
        for k in range(config.n_arms):
            for capsule in UR5E.capsules:
                self._class[model.geom(f"arm_{k + 1}_{capsule.name}").id] = k
        for k in range(len(config.fixtures)):
            self._class[model.geom(f"fixture_{k + 1}").id] = _FIXTURE
        for k in range(len(config.obstacles)):
            self._class[model.geom(f"obstacle_{k + 1}").id] = _OBSTACLE
        for k in range(n_people):
            self._class[model.geom(f"person_{k + 1}").id] = _PERSON - k

    def count(self, data: Any, speeds: Floats) -> set[int]:
        """Count pairs that begin to touch, at joint speeds ``[N, 6]``; the arms among them."""
        now_s, arms = float(data.time), set[int]()
        for pair, depth in zip(data.contact.geom, data.contact.dist, strict=True):
            if depth > 0:
                continue
            first, second = sorted((int(self._class[pair[0]]), int(self._class[pair[1]])))
            if _NEVER in (first, second):
                continue
            last_s = self._last_s.get((first, second))
            self._last_s[(first, second)] = now_s
            if last_s is not None and now_s - last_s < _APART_S:
                continue
            self.counts[_kind(first, second, speeds)] += 1
            arms |= {k for k in (first, second) if k >= 0}
        return arms


def _kind(first: int, second: int, speeds: Floats) -> str:
    if first == second:
        return "self"
    if first >= 0:
        return "arm"
    if first > _NEVER:
        return "fixture" if first == _FIXTURE else "obstacle"
    is_standing = np.abs(speeds[second]).sum() * UR5E.reach_m <= _STANDS_MPS
    return "person_at_standstill" if is_standing else "person"
