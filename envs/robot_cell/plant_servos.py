"""The emulated arms' own controllers: what they make of joint speeds that somebody commands.

They keep to the joints' ranges and the tool's speed, brake when nobody commands them, lead speeds from one command to
the next as fast as the maker's brakes, and stop for a while when a joint can't follow or a stop is asked for.
"""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from .arm import N_JOINTS, UR5E
from .config import RobotCellConfig
from .model_xml import SERVO_PERIOD_S
from .plant_config import RobotCellPlantConfig

Floats = NDArray[np.float64]

_SLACK_RAD = 0.03  # the integral winds up no further: a joint that is held up doesn't leap when it is free
_HELD_UP_S = 0.2  # so long at that slack, and the arm stops
_BRAKING = np.array(UR5E.braking_radps2)
_LOWEST, _HIGHEST = np.array(UR5E.q_min_rad), np.array(UR5E.q_max_rad)


class PlantServos:
    """``reference`` ``[N, 6]``: where the servos' speed setpoints are now; ``stops`` ``[N]``: protective ones."""

    def __init__(self, model: Any, data: Any, config: RobotCellConfig, settings: RobotCellPlantConfig) -> None:
        self._model, self._data, self._config, self._settings = model, data, config, settings
        n = config.n_arms
        self._n_joints = n * N_JOINTS
        self._tool_site = [int(model.site(f"arm_{k + 1}_tool").id) for k in range(n)]
        self.reference = np.zeros((n, N_JOINTS))
        self.stops = np.zeros(n, dtype=np.int64)
        self._stopped_until_s = np.full(n, -1.0)
        self._held_up_s = np.zeros(n)

    def stopped(self, time_s: float) -> NDArray[np.bool_]:
        """Which arms are in a protective stop, ``[N]``."""
        return self._stopped_until_s > time_s

    def stop(self, k: int, time_s: float) -> None:
        """A protective stop of arm ``k``, or a longer one."""
        if self._stopped_until_s[k] < time_s:
            self.stops[k] += 1
        self._stopped_until_s[k] = time_s + self._settings.restart_s

    def wanted(self, commands: Floats, written_s: Floats, time_s: float) -> Floats:
        """Speeds to steer to in the coming period, ``[N, 6]``; ``written_s`` ``[N]``: when each was last commanded."""
        wanted: Floats = commands.copy()
        wanted[self.stopped(time_s) | (time_s - written_s > self._settings.command_timeout_s)] = 0.0
        q = self._data.qpos[: self._n_joints].reshape(-1, N_JOINTS)
        # So fast that braking still ends before the end of the range, a period from now.
        ahead = np.abs(self.reference) * self._config.control_period_s
        up = np.sqrt(2.0 * _BRAKING * np.maximum(_HIGHEST - q - ahead, 0.0))
        down = np.sqrt(2.0 * _BRAKING * np.maximum(q - _LOWEST - ahead, 0.0))
        wanted = np.minimum(np.maximum(wanted, -down), up)
        jacobian = np.zeros((3, self._model.nv))
        for k, site in enumerate(self._tool_site):
            mujoco.mj_jacSite(self._model, self._data, jacobian, None, site)
            speed = math.hypot(*(jacobian[:, k * N_JOINTS : (k + 1) * N_JOINTS] @ wanted[k]))
            wanted[k] *= min(1.0, self._config.tool_speed_mps / max(speed, 1e-9))
        return wanted

    def lead(self, wanted: Floats) -> None:
        """Setpoints of the next servo period."""
        most = _BRAKING * SERVO_PERIOD_S
        self.reference += np.minimum(np.maximum(wanted - self.reference, -most), most)
        setpoint = self.reference.ravel()
        self._data.ctrl[: self._n_joints] = setpoint
        self._data.ctrl[self._n_joints :] = setpoint

    def watch(self, time_s: float) -> None:
        """Stop an arm of which a joint can't follow, and unwind its integrals."""
        data, n_joints = self._data, self._n_joints
        lag = data.act - data.qpos[:n_joints]
        behind = (np.abs(lag) > _SLACK_RAD).reshape(-1, N_JOINTS).any(1)
        if not behind.any():
            self._held_up_s[:] = 0.0
            return
        data.act[:] = data.qpos[:n_joints] + np.clip(lag, -_SLACK_RAD, _SLACK_RAD)
        self._held_up_s = np.where(behind, self._held_up_s + self._config.control_period_s, 0.0)
        for k in np.flatnonzero(self._held_up_s > _HELD_UP_S):
            self.stop(int(k), time_s)
