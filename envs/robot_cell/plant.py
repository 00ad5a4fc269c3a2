"""The emulated cell: rigid bodies, contacts and joint servos in MuJoCo, none of it known to the twin.

What differs from the twin, on purpose. Arms have mass, friction and rotor inertia; each joint has a speed servo of
500 Hz inside the maker's torque limit, which holds up the arm's weight but does not know what it carries. Arms that
touch push each other, and every contact is counted. Sensors are noisy; people follow other scripts, and may walk up to
the arms; what arms hear of each other may be late, lost or frozen. As a real controller does, an arm keeps to its joint
ranges and to its tool speed, brakes when nobody commands it, and stops for a while when a joint can't follow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, PlantError
from ..nameplate import Nameplate
from ..plant import Arrays, Telemetry
from .arm import N_JOINTS
from .config import CapsuleFixture, FixedArms, RobotCellConfig
from .messages import PeerLink
from .model_xml import SERVO_PERIOD_S, cell_xml
from .nameplate import ARM, cell_nameplate
from .plant_bodies import PlantBodies
from .plant_config import RobotCellPlantConfig
from .plant_contacts import PlantContacts
from .plant_gaps import PlantGaps
from .plant_servos import PlantServos
from .plant_work import PlantWork

Floats = NDArray[np.float64]

EPOCH_UTC_S = 1_735_689_600.0
"""2025-01-01T00:00Z, where the plant's clock starts."""


class MuJoCoCell:
    """A running cell. ``advance`` simulates one period, and waits for it where ``real_time`` is set.

    ``smallest_gap_m`` is the least distance between two arms at the end of a period so far. Raises
    :class:`ConfigurationError` for cells that differ from episode to episode and for periods that are no multiple of
    the servos'.
    """

    def __init__(self, config: RobotCellConfig, plant_config: RobotCellPlantConfig) -> None:
        if not isinstance(config.arms, FixedArms):
            raise ConfigurationError("arms: kind 'random' is many cells, a plant is one: give kind 'fixed'")
        self._n_steps = round(config.control_period_s / SERVO_PERIOD_S)
        if self._n_steps < 1 or abs(self._n_steps * SERVO_PERIOD_S - config.control_period_s) > 1e-9:
            raise ConfigurationError(
                f"control_period_s: {config.control_period_s}; the servos run every {SERVO_PERIOD_S} s: give a multiple"
            )
        self._config, self._settings = config, plant_config
        self._nameplate = cell_nameplate(config)
        group = self._nameplate.group(ARM)
        self._column = {signal.name: k for k, signal in enumerate(group.measured)}
        self._low, self._high = group.lower("measured"), group.upper("measured")
        places = config.arms.places
        self._n = n = len(places)
        self._model = mujoco.MjModel.from_xml_string(cell_xml(config, plant_config, places))
        self._data, self._as_heard = mujoco.MjData(self._model), mujoco.MjData(self._model)
        self._n_joints = n * N_JOINTS
        seeds = np.random.SeedSequence(plant_config.seed).spawn(4 + n)
        self._sensor_rng, walk_rng, link_rng, start_rng = (np.random.default_rng(s) for s in seeds[:4])
        self._bodies = PlantBodies(self._model, config, plant_config, walk_rng)
        self._contacts = PlantContacts(self._model, config, len(self._bodies.walkers))
        self._servos = PlantServos(self._model, self._data, config, plant_config)
        fixed = [(f"fixture_{k + 1}", isinstance(f, CapsuleFixture)) for k, f in enumerate(config.fixtures)]
        capsules = (*self._bodies.names, *(name for name, is_capsule in fixed if is_capsule))
        self._distances = PlantGaps(self._model, n, capsules, tuple(name for name, capsule in fixed if not capsule))
        spread = config.home_spread_rad
        home = np.array([p.home_rad for p in places]) + start_rng.uniform(-spread, spread, (n, N_JOINTS))
        self._data.qpos[: self._n_joints] = home.ravel()
        self._data.act[:] = home.ravel()
        self._commands = {g.name: np.zeros((g.n_assets, len(g.commanded))) for g in self._nameplate.groups}
        self._period = self._sequence = 0
        self._written_s = np.zeros(n)
        self.late_periods = 0
        self.smallest_gap_m = math.inf
        self._due_s: float | None = None
        self._bodies.place(self._data, 0.0)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        self._jobs = PlantWork(self._model, self._data, config, places, [np.random.default_rng(s) for s in seeds[4:]])
        self._link = PeerLink(plant_config, config.control_period_s, self._said(), link_rng)
        self._measure()

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def clock_s(self) -> float:
        """Emulated UTC, seconds."""
        return EPOCH_UTC_S + self._time_s

    @property
    def wall_period_s(self) -> float | None:
        """How long a period lasts on this machine's clock; None for a plant that nobody has to wait for."""
        return self._config.control_period_s if self._settings.real_time else None

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel``, to draw it."""
        return self._model

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData``, to draw it."""
        return self._data

    @property
    def contacts(self) -> Mapping[str, int]:
        """Counted since the start, by :data:`~.plant_contacts.KINDS`."""
        return self._contacts.counts

    @property
    def touches(self) -> NDArray[np.int64]:
        """Targets that each arm has touched, ``[N]``."""
        return self._jobs.touches

    @property
    def protective_stops(self) -> NDArray[np.int64]:
        """Of each arm, ``[N]``."""
        return self._servos.stops

    @property
    def joints_rad(self) -> Floats:
        """True joint angles, ``[N, 6]``."""
        return self._joints(self._data.qpos)

    @property
    def speeds_radps(self) -> Floats:
        """True joint speeds, ``[N, 6]``."""
        return self._joints(self._data.qvel)

    @property
    def torques_nm(self) -> Floats:
        """Of the joints' motors in the last servo step, ``[N, 6]``."""
        return self._joints(self._data.qfrc_actuator)

    def read(self) -> Telemetry:
        self._sequence += 1
        return Telemetry(
            values={name: values.copy() for name, values in self._values.items()},
            source_time_s={name: np.full(values.shape, self.clock_s) for name, values in self._values.items()},
            quality={name: np.zeros(values.shape, dtype=np.int8) for name, values in self._values.items()},
            received_time_s=self.clock_s,
            sequence=self._sequence,
            notes=self._notes(),
        )

    def write(self, commands: Arrays) -> Arrays:
        """Take joint speeds, limited to their range; an item that is NaN keeps its last accepted value."""
        for name, given in commands.items():
            group = self._nameplate.group(name)
            values = np.asarray(given, dtype=np.float64)
            if values.shape != self._commands[name].shape:
                raise PlantError(
                    f"plant {self._nameplate.site!r}: commands for {name!r} have shape {values.shape}, expected "
                    f"{self._commands[name].shape} (assets, commanded signals)"
                )
            limited = np.clip(values, group.lower("commanded"), group.upper("commanded"))
            self._commands[name] = np.where(np.isnan(values), self._commands[name], limited)
            if name == ARM:
                self._written_s[~np.isnan(values).all(axis=1)] = self._time_s
        return {name: values.copy() for name, values in self._commands.items()}

    def advance(self) -> None:
        model, data, servos = self._model, self._data, self._servos
        wanted = servos.wanted(self._commands[ARM], self._written_s, self._time_s)
        for _ in range(self._n_steps):
            servos.lead(wanted)
            mujoco.mj_step(model, data)
            if data.ncon:
                touched = self._contacts.count(data, servos.reference)
                for k in touched if self._settings.stops_on_contact else ():
                    servos.stop(k, self._time_s)
        self._period += 1
        servos.watch(self._time_s)
        self._bodies.step(self._config.control_period_s)
        self._bodies.place(data, self._time_s)
        # Positions of the state now, which mj_step leaves at those before its last step.
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        self._jobs.step(self._time_s)
        self._link.step(self._time_s, self._said())
        self._measure()
        if self._settings.real_time:
            self._wait()

    def close(self) -> None:
        """Nothing is held."""

    def stop(self, arm: int | None = None) -> None:
        """A protective stop of one arm (from 0) or of all: the maker's braking, then a standstill for ``restart_s``."""
        for k in range(self._n) if arm is None else (arm,):
            self._servos.stop(k, self._time_s)

    def send_person(self, person: int, start_m: Floats, goal_m: Floats, speed_mps: float) -> None:
        """Put a person (from 0) at ``start_m`` ``[2]``, who walks straight to ``goal_m``: for experiments."""
        self._bodies.walkers[person].send(start_m, goal_m, speed_mps)

    def truth(self) -> dict[str, Any]:
        """What no sensor says, for evaluation: gaps in m, angles and speeds as they are."""
        arms = range(self._n)
        return {
            "time_s": self._time_s,
            "q_rad": self.joints_rad,
            "dq_radps": self.speeds_radps,
            "tool_m": self._data.site_xpos[self._jobs.tool_site].copy(),
            "target_m": self._jobs.target_m.copy(),
            "arm_gap_m": np.array([self._distances.to_arms(self._data, k) for k in arms]),
            "body_gap_m": np.array([self._distances.to_bodies(self._data, k) for k in arms]),
            "plane_gap_m": np.array([self._distances.to_planes(self._data, k) for k in arms]),
            "self_gap_m": np.array([self._distances.to_itself(self._data, k) for k in arms]),
            **self._notes(),
        }

    @property
    def _time_s(self) -> float:
        return self._period * self._config.control_period_s

    def _joints(self, of_all: Any) -> Floats:
        return np.array(of_all[: self._n_joints]).reshape(self._n, N_JOINTS)

    def _notes(self) -> dict[str, Any]:
        return {
            "contacts": dict(self.contacts),
            "touches": self.touches.tolist(),
            "protective_stops": self.protective_stops.tolist(),
            "stopped": self._servos.stopped(self._time_s).tolist(),
            "smallest_gap_m": self.smallest_gap_m,
            "late_periods": self.late_periods,
        }

    def _said(self) -> Floats:
        """What each arm tells the others, ``[N, 16]``: its joints' angles and speeds, its target and its stall."""
        stall_s = self._jobs.stall_s(self._time_s)
        return np.concatenate((self.joints_rad, self.speeds_radps, self._jobs.target_m, stall_s[:, None]), axis=1)

    def _measure(self) -> None:
        settings, rng, n = self._settings, self._sensor_rng, self._n
        noise = rng.standard_normal((2, n, N_JOINTS))
        values = np.zeros((n, len(self._low)))
        for name, columns in (
            ("q1_rad", self.joints_rad + settings.angle_noise_rad * noise[0]),
            ("dq1_radps", self.speeds_radps + settings.speed_noise_radps * noise[1]),
            ("tool_x_m", self._data.site_xpos[self._jobs.tool_site]),
            ("target_x_m", self._jobs.target_m),
            ("heard_q1_rad", self._link.heard),  # speeds, target and stall follow angles
        ):
            first = self._column[name]
            values[:, first : first + columns.shape[1]] = columns
        for name, column in (
            ("holds", self._jobs.holds),
            ("touches", self.touches),
            ("stall_s", self._jobs.stall_s(self._time_s)),
            ("gap_m", self._gaps()),
            ("heard_age_s", self._time_s - self._link.sent_s),
        ):
            values[:, self._column[name]] = column
        arms = np.minimum(np.maximum(values, self._low), self._high)
        self._values = {ARM: arms, **self._bodies.scanned(self._time_s, rng)}

    def _gaps(self) -> Floats:
        """As each arm computes it: itself as it is, the others as it has heard of them, ``[N]``."""
        true = self._joints(self._data.qpos)
        for k in range(self._n):
            for other in range(k):
                self.smallest_gap_m = self._distances.to_arm(self._data, k, other, self.smallest_gap_m)
        heard = self._link.heard[:, :N_JOINTS]
        if np.array_equal(true, heard):
            return np.array([self._distances.nearest(self._data, k) for k in range(self._n)])
        gaps = np.zeros(self._n)
        ghost = self._as_heard
        ghost.mocap_pos[:], ghost.mocap_quat[:] = self._data.mocap_pos, self._data.mocap_quat
        for k in range(self._n):
            joints = heard.copy()
            joints[k] = true[k]
            ghost.qpos[:] = self._data.qpos
            ghost.qpos[: self._n_joints] = joints.ravel()
            mujoco.mj_kinematics(self._model, ghost)
            gaps[k] = self._distances.nearest(ghost, k)
        return gaps

    def _wait(self) -> None:
        """Sleep until this period has passed; one that comes too late is counted and starts the count anew."""
        now_s, period_s = time.monotonic(), self._config.control_period_s
        due_s = now_s if self._due_s is None else self._due_s + period_s
        if now_s > due_s + period_s:
            self.late_periods += 1
            due_s = now_s
        self._due_s = due_s
        time.sleep(max(0.0, due_s - now_s))
