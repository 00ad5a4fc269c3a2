"""The work of the emulated cell's arms: targets that are touched, parts that are picked and placed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from .arm import UR5E
from .config import ArmPlace, Box, PickPlaceWork, ReachWork, RobotCellConfig
from .model_xml import PARTS_PER_ARM

Floats = NDArray[np.float64]

_TRIES = 100
_NEAREST_M = 0.2  # to the axis of joint 1: nearer, an arm gets at little
_BEYOND_M = 0.02  # a crossing target lies so far beyond the box's middle
_SHOULDER_M = np.array([0.0, 0.0, UR5E.d_m[0]])


class PlantWork:
    """``target_m`` ``[N, 3]``, ``touches`` and ``holds`` ``[N]``, ``tool_site``: ids of the tools' sites."""

    def __init__(
        self, model: Any, data: Any, config: RobotCellConfig, places: Sequence[ArmPlace],
        rngs: Sequence[np.random.Generator],
    ) -> None:  # fmt: skip
        self._model, self._data, self._config, self._rngs = model, data, config, rngs
        n = len(places)
        self._base_m = np.array([(p.x_m, p.y_m, p.z_m) for p in places])
        self.tool_site = np.array([model.site(f"arm_{k + 1}_tool").id for k in range(n)])
        self._target_slot = [int(model.body(f"arm_{k + 1}_target").mocapid[0]) for k in range(n)]
        self.target_m = np.zeros((n, 3))
        self.touches = np.zeros(n, dtype=np.int64)
        self.holds = np.zeros(n, dtype=bool)
        self._part = np.zeros(n, dtype=np.int64)
        self._dwell_s = np.zeros(n)
        self._stall_since_s, self._best_m = np.zeros(n), np.full(n, math.inf)
        for k in range(n):
            self._new_target(k, 0.0)

    def stall_s(self, time_s: float) -> Floats:
        """Since each tool was last nearer to its target than ever, ``[N]``."""
        return time_s - self._stall_since_s

    def step(self, time_s: float) -> None:
        """Hand out the next target where one is touched, and pick or place."""
        config, tool = self._config, self._data.site_xpos[self.tool_site]
        for k in range(len(tool)):
            distance = math.dist(tool[k], self.target_m[k])
            if distance < self._best_m[k] - config.progress_m:
                self._best_m[k], self._stall_since_s[k] = distance, time_s
            if distance > config.touch_m:
                self._dwell_s[k] = 0.0
                continue
            if isinstance(config.work, PickPlaceWork):
                self._dwell_s[k] += config.control_period_s
                if self._dwell_s[k] < config.work.dwell_s:
                    continue
                self._hold(k, not self.holds[k])
            self.touches[k] += 1
            self._new_target(k, time_s)

    def _new_target(self, k: int, time_s: float) -> None:
        work, rng = self._config.work, self._rngs[k]
        box = work.box if isinstance(work, ReachWork) else work.place if self.holds[k] else work.pick
        low, high = _corners(box)
        middle, foot = 0.5 * (low + high), self._base_m[k]
        way = (middle - foot)[:2]
        for _ in range(_TRIES):
            point = rng.uniform(low, high)
            out = math.dist(point[:2], foot[:2])
            fits = out >= _NEAREST_M and math.dist(point, foot + _SHOULDER_M) <= UR5E.reach_m
            if isinstance(work, ReachWork) and (work.crossing is True or (work.crossing and self.touches[k] % 2)):
                fits = fits and float((point - middle)[:2] @ way) >= _BEYOND_M * math.hypot(*way)
            if fits:
                break
        self.target_m[k] = point
        self._data.mocap_pos[self._target_slot[k]] = self.target_m[k]
        self._dwell_s[k] = 0.0
        self._best_m[k], self._stall_since_s[k] = math.inf, time_s
        if isinstance(work, PickPlaceWork) and not self.holds[k]:
            self._offer(k)

    def _offer(self, k: int) -> None:
        """The next part waits at the arm's target, held up until it is picked."""
        self._part[k] = (self._part[k] + 1) % PARTS_PER_ARM
        joint = self._model.joint(self._part_name(k))
        start, speed = int(joint.qposadr[0]), int(joint.dofadr[0])
        self._data.qpos[start : start + 7] = (*self.target_m[k], 1.0, 0.0, 0.0, 0.0)
        self._data.qvel[speed : speed + 6] = 0.0
        self._model.body_gravcomp[self._model.body(self._part_name(k)).id] = 1.0

    def _hold(self, k: int, is_held: bool) -> None:
        """Suction on or off."""
        name = self._part_name(k)
        weld, flange, part = self._model.equality(name).id, f"arm_{k + 1}_flange", self._model.body(name).id
        if is_held:
            body = self._data.body(flange)
            turned = np.zeros(4)
            mujoco.mju_negQuat(turned, body.xquat)
            pose = np.zeros(4)
            mujoco.mju_mulQuat(pose, turned, self._data.xquat[part])
            shift = body.xmat.reshape(3, 3).T @ (self._data.xpos[part] - body.xpos)
            self._model.eq_data[weld, :3] = 0.0
            self._model.eq_data[weld, 3:6], self._model.eq_data[weld, 6:10] = shift, pose
            self._model.body_gravcomp[part] = 0.0
        self._data.eq_active[weld] = is_held
        self.holds[k] = is_held

    def _part_name(self, k: int) -> str:
        return f"arm_{k + 1}_part_{int(self._part[k]) + 1}"


def _corners(box: Box) -> tuple[Floats, Floats]:
    ends = np.array([box.x_m, box.y_m, box.z_m])
    return ends[:, 0].copy(), ends[:, 1].copy()
