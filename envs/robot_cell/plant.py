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
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, PlantError
from ..nameplate import Nameplate
from ..plant import Arrays, Telemetry
from .arm import N_JOINTS, UR5E
from .config import Box, CapsuleFixture, FixedArms, PickPlaceWork, ReachWork, RobotCellConfig
from .messages import PeerLink
from .model_xml import HIP_M, PARTS_PER_ARM, SERVO_PERIOD_S, cell_xml
from .nameplate import ARM, OBSTACLE, PERSON, cell_nameplate
from .plant_config import RobotCellPlantConfig
from .plant_gaps import PlantGaps
from .walking import Walker

Floats = NDArray[np.float64]

EPOCH_UTC_S = 1_735_689_600.0
"""2025-01-01T00:00Z, where the plant's clock starts."""
KINDS = ("arm", "self", "fixture", "obstacle", "person", "person_at_standstill")
"""What contacts are counted by. A person who walks into an arm that stands is counted apart."""
_APART_S = 0.5  # a pair that parts for less is still in the contact before
_STANDS_MPS = 0.02
_TRIES = 100
_NEAREST_M = 0.2  # to the axis of joint 1: nearer, an arm gets at little
_BEYOND_M = 0.02  # a crossing target lies so far beyond the box's middle
_SHOULDER_M = np.array([0.0, 0.0, UR5E.d_m[0]])
_SERVO_SLACK_RAD = 0.03  # the integral winds up no further: a joint that is held up doesn't leap when it is free
_HELD_UP_S = 0.2  # so long at that slack, and the arm stops
_BRAKING = np.array(UR5E.braking_radps2)
_LOWEST, _HIGHEST = np.array(UR5E.q_min_rad), np.array(UR5E.q_max_rad)


class MuJoCoCell:
    """A running cell. ``advance`` simulates one period, and waits for it where ``real_time`` is set.

    ``contacts`` counts by :data:`KINDS`, ``touches`` ``[N]``, ``protective_stops`` ``[N]``; ``smallest_gap_m`` is the
    least distance between two arms at the end of a period so far. Raises :class:`ConfigurationError` for cells that
    differ from episode to episode and for periods that are no multiple of the servos'.
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
        self._sensor_rng, walk_rng, self._link_rng, self._start_rng = (np.random.default_rng(s) for s in seeds[:4])
        self._target_rng = [np.random.default_rng(s) for s in seeds[4:]]
        self._base_m = np.array([(p.x_m, p.y_m, p.z_m) for p in places])
        self._tool_site = np.array([self._model.site(f"arm_{k + 1}_tool").id for k in range(n)])
        self._target_slot = [self._slot(f"arm_{k + 1}_target") for k in range(n)]
        people = config.people
        self._walkers = [
            Walker(people, plant_config.visits_per_min, plant_config.visit_m, np.random.default_rng(s))
            for s in (np.random.SeedSequence(int(walk_rng.integers(2**63))).spawn(people.number[1]) if people else ())
            if people is not None
        ]
        self._phases = walk_rng.uniform(0.0, 2 * math.pi, len(config.obstacles))
        self._contact_class = self._contact_classes()
        moving = [f"person_{k + 1}" for k in range(len(self._walkers))]
        moving += [f"obstacle_{k + 1}" for k in range(len(config.obstacles))]
        fixed = [(f"fixture_{k + 1}", isinstance(f, CapsuleFixture)) for k, f in enumerate(config.fixtures)]
        bodies = tuple(moving + [name for name, is_capsule in fixed if is_capsule])
        self._distances = PlantGaps(self._model, n, bodies, tuple(name for name, capsule in fixed if not capsule))
        self._start(places)

    def _start(self, places: Any) -> None:
        n = self._n
        spread = self._config.home_spread_rad
        home = np.array([p.home_rad for p in places]) + self._start_rng.uniform(-spread, spread, (n, N_JOINTS))
        self._data.qpos[: self._n_joints] = home.ravel()
        self._data.act[:] = home.ravel()
        self._reference = np.zeros((n, N_JOINTS))  # where the servos' speed setpoints are now
        self._commands = {g.name: np.zeros((g.n_assets, len(g.commanded))) for g in self._nameplate.groups}
        self._period = self._sequence = 0
        self._written_s = np.zeros(n)
        self._stopped_until_s = np.full(n, -1.0)
        self.contacts: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.touches = np.zeros(n, dtype=np.int64)
        self.protective_stops = np.zeros(n, dtype=np.int64)
        self.late_periods = 0
        self.smallest_gap_m = math.inf
        self._last_contact_s: dict[tuple[int, int], float] = {}
        self._holds = np.zeros(n, dtype=bool)
        self._part = np.zeros(n, dtype=np.int64)
        self._dwell_s = np.zeros(n)
        self._held_up_s = np.zeros(n)
        self._stall_since_s, self._best_m = np.zeros(n), np.full(n, math.inf)
        self._target_m = np.zeros((n, 3))
        self._due_s: float | None = None
        self._move_bodies()
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        for k in range(n):
            self._new_target(k)
        self._link = PeerLink(self._settings, self._config.control_period_s, self._said(), self._link_rng)
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
        model, data, n_joints = self._model, self._data, self._n_joints
        wanted = self._wanted()
        most = _BRAKING * SERVO_PERIOD_S
        for _ in range(self._n_steps):
            self._reference += np.minimum(np.maximum(wanted - self._reference, -most), most)
            setpoint = self._reference.ravel()
            data.ctrl[:n_joints] = setpoint
            data.ctrl[n_joints:] = setpoint
            mujoco.mj_step(model, data)
            if data.ncon:
                self._count_contacts()
        self._period += 1
        self._watch_servos()
        for walker in self._walkers:
            walker.step(self._config.control_period_s)
        self._move_bodies()
        # Positions of the state now, which mj_step leaves at those before its last step.
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        self._work()
        self._link.step(self._time_s, self._said())
        self._measure()
        if self._settings.real_time:
            self._wait()

    def close(self) -> None:
        """Nothing is held."""

    def stop(self, arm: int | None = None) -> None:
        """A protective stop of one arm (from 0) or of all: the maker's braking, then a standstill for ``restart_s``."""
        for k in range(self._n) if arm is None else (arm,):
            if self._stopped_until_s[k] < self._time_s:
                self.protective_stops[k] += 1
            self._stopped_until_s[k] = self._time_s + self._settings.restart_s

    def send_person(self, person: int, start_m: Floats, goal_m: Floats, speed_mps: float) -> None:
        """Put a person (from 0) at ``start_m`` ``[2]``, who walks straight to ``goal_m``: for experiments."""
        self._walkers[person].send(start_m, goal_m, speed_mps)

    def truth(self) -> dict[str, Any]:
        """What no sensor says, for evaluation: gaps in m, angles and speeds as they are."""
        arms = range(self._n)
        return {
            "time_s": self._time_s,
            "q_rad": self.joints_rad,
            "dq_radps": self.speeds_radps,
            "tool_m": self._data.site_xpos[self._tool_site].copy(),
            "target_m": self._target_m.copy(),
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
            "stopped": (self._stopped_until_s > self._time_s).tolist(),
            "smallest_gap_m": self.smallest_gap_m,
            "late_periods": self.late_periods,
        }

    def _wanted(self) -> Floats:
        """Speeds that the arms' own controllers steer to in the coming period, ``[N, 6]``."""
        wanted: Floats = self._commands[ARM].copy()
        silent = self._time_s - self._written_s > self._settings.command_timeout_s
        wanted[(self._stopped_until_s > self._time_s) | silent] = 0.0
        q = self.joints_rad
        # So fast that braking still ends before the end of the range, a period from now.
        ahead = np.abs(self._reference) * self._config.control_period_s
        up = np.sqrt(2.0 * _BRAKING * np.maximum(_HIGHEST - q - ahead, 0.0))
        down = np.sqrt(2.0 * _BRAKING * np.maximum(q - _LOWEST - ahead, 0.0))
        wanted = np.minimum(np.maximum(wanted, -down), up)
        jacobian = np.zeros((3, self._model.nv))
        for k, site in enumerate(self._tool_site):
            mujoco.mj_jacSite(self._model, self._data, jacobian, None, int(site))
            speed = math.hypot(*(jacobian[:, k * N_JOINTS : (k + 1) * N_JOINTS] @ wanted[k]))
            wanted[k] *= min(1.0, self._config.tool_speed_mps / max(speed, 1e-9))
        return wanted

    def _watch_servos(self) -> None:
        """Stop an arm of which a joint can't follow, and unwind its integrals."""
        data, n_joints = self._data, self._n_joints
        lag = data.act - data.qpos[:n_joints]
        behind = (np.abs(lag) > _SERVO_SLACK_RAD).reshape(self._n, N_JOINTS).any(1)
        if not behind.any():
            self._held_up_s[:] = 0.0
            return
        data.act[:] = data.qpos[:n_joints] + np.clip(lag, -_SERVO_SLACK_RAD, _SERVO_SLACK_RAD)
        self._held_up_s = np.where(behind, self._held_up_s + self._config.control_period_s, 0.0)
        for k in np.flatnonzero(self._held_up_s > _HELD_UP_S):
            self.stop(int(k))

    def _contact_classes(self) -> NDArray[np.int64]:
        """Of each geom: an arm's number from 0, or what else it is; -9 for what never counts."""
        classes = np.full(self._model.ngeom, -9, dtype=np.int64)
        for k in range(self._n):
            for capsule in UR5E.capsules:
                classes[self._model.geom(f"arm_{k + 1}_{capsule.name}").id] = k
        for k in range(len(self._config.fixtures)):
            classes[self._model.geom(f"fixture_{k + 1}").id] = -2
        for k in range(len(self._config.obstacles)):
            classes[self._model.geom(f"obstacle_{k + 1}").id] = -3
        for k in range(len(self._walkers)):
            classes[self._model.geom(f"person_{k + 1}").id] = -10 - k
        return classes

    def _count_contacts(self) -> None:
        """Count pairs of things that begin to touch; stop touched arms where it is asked for."""
        now_s = float(self._data.time)
        for pair, depth in zip(self._data.contact.geom, self._data.contact.dist, strict=True):
            if depth > 0:
                continue
            first, second = sorted((int(self._contact_class[pair[0]]), int(self._contact_class[pair[1]])))
            if -9 in (first, second):
                continue
            last_s = self._last_contact_s.get((first, second))
            self._last_contact_s[(first, second)] = now_s
            if last_s is not None and now_s - last_s < _APART_S:
                continue
            self.contacts[self._kind(first, second)] += 1
            if self._settings.stops_on_contact:
                for k in (first, second):
                    if k >= 0:
                        self.stop(k)

    def _kind(self, first: int, second: int) -> str:
        if first == second:
            return "self"
        if first >= 0:
            return "arm"
        if first > -9:
            return "fixture" if first == -2 else "obstacle"
        speeds = np.abs(self._reference[second]).sum() * UR5E.reach_m
        return "person" if speeds > _STANDS_MPS else "person_at_standstill"

    def _slot(self, body: str) -> int:
        return int(self._model.body(body).mocapid[0])

    def _move_bodies(self) -> None:
        """Put people and obstacles where they are now."""
        data = self._data
        for k, walker in enumerate(self._walkers):
            name = f"person_{k + 1}"
            x, y = walker.position_m
            turn = _about_z(walker.heading_rad)
            slot = self._slot(name)
            data.mocap_pos[slot], data.mocap_quat[slot] = (x, y, 0.0), turn
            people = self._config.people
            assert people is not None  # there are walkers
            s = people.height_m / 1.8
            across = np.array([-math.sin(walker.heading_rad), math.cos(walker.heading_rad)])
            for side, leg in ((1, "left"), (-1, "right")):
                slot = self._slot(f"{name}_leg_{leg}")
                hip = walker.position_m + side * 0.09 * s * across
                data.mocap_pos[slot] = (hip[0], hip[1], HIP_M * s)
                data.mocap_quat[slot] = _product(turn, _about_y(side * 0.45 * math.sin(walker.stride_rad)))
        for k in range(len(self._config.obstacles)):
            self._data.mocap_pos[self._slot(f"obstacle_{k + 1}")] = self._obstacle_at(k)[0]

    def _obstacle_at(self, k: int) -> tuple[Floats, Floats]:
        """Centre and velocity now."""
        obstacle = self._config.obstacles[k]
        rate = 2 * math.pi / obstacle.period_s
        begin, end = np.array(obstacle.from_m), np.array(obstacle.to_m)
        phase = self._phases[k] + rate * self._time_s
        return 0.5 * (begin + end) + 0.5 * (end - begin) * math.sin(phase), 0.5 * (end - begin) * rate * math.cos(phase)

    def _said(self) -> Floats:
        """What each arm tells the others, ``[N, 16]``: its joints' angles and speeds, its target and its stall."""
        stall_s = self._time_s - self._stall_since_s
        return np.concatenate((self.joints_rad, self.speeds_radps, self._target_m, stall_s[:, None]), axis=1)

    def _work(self) -> None:
        """Hand out the next target where one is touched, and pick or place."""
        config, period_s = self._config, self._config.control_period_s
        tool = self._data.site_xpos[self._tool_site]
        for k in range(self._n):
            distance = math.dist(tool[k], self._target_m[k])
            if distance < self._best_m[k] - config.progress_m:
                self._best_m[k], self._stall_since_s[k] = distance, self._time_s
            if distance > config.touch_m:
                self._dwell_s[k] = 0.0
                continue
            if isinstance(config.work, PickPlaceWork):
                self._dwell_s[k] += period_s
                if self._dwell_s[k] < config.work.dwell_s:
                    continue
                self._hold(k, not self._holds[k])
            self.touches[k] += 1
            self._new_target(k)

    def _new_target(self, k: int) -> None:
        work, rng = self._config.work, self._target_rng[k]
        box = work.box if isinstance(work, ReachWork) else work.place if self._holds[k] else work.pick
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
        self._target_m[k] = point
        self._data.mocap_pos[self._target_slot[k]] = self._target_m[k]
        self._dwell_s[k] = 0.0
        self._best_m[k], self._stall_since_s[k] = math.inf, self._time_s
        if isinstance(work, PickPlaceWork) and not self._holds[k]:
            self._offer(k)

    def _offer(self, k: int) -> None:
        """The next part waits at the arm's target, held up until it is picked."""
        self._part[k] = (self._part[k] + 1) % PARTS_PER_ARM
        joint = self._model.joint(self._part_name(k))
        start, speed = int(joint.qposadr[0]), int(joint.dofadr[0])
        self._data.qpos[start : start + 7] = (*self._target_m[k], 1.0, 0.0, 0.0, 0.0)
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
        self._holds[k] = is_held

    def _part_name(self, k: int) -> str:
        return f"arm_{k + 1}_part_{int(self._part[k]) + 1}"

    def _measure(self) -> None:
        settings, rng, n = self._settings, self._sensor_rng, self._n
        noise = rng.standard_normal((2, n, N_JOINTS))
        values = np.zeros((n, len(self._low)))
        for name, columns in (
            ("q1_rad", self.joints_rad + settings.angle_noise_rad * noise[0]),
            ("dq1_radps", self.speeds_radps + settings.speed_noise_radps * noise[1]),
            ("tool_x_m", self._data.site_xpos[self._tool_site]),
            ("target_x_m", self._target_m),
            ("heard_q1_rad", self._link.heard),  # speeds, target and stall follow angles
        ):
            first = self._column[name]
            values[:, first : first + columns.shape[1]] = columns
        for name, column in (
            ("holds", self._holds),
            ("touches", self.touches),
            ("stall_s", self._time_s - self._stall_since_s),
            ("gap_m", self._gaps()),
            ("heard_age_s", self._time_s - self._link.sent_s),
        ):
            values[:, self._column[name]] = column
        self._values = {ARM: np.minimum(np.maximum(values, self._low), self._high)}
        people = self._config.people
        if people is not None:
            rows = []
            for walker in self._walkers:
                x, y = walker.position_m + settings.scanner_noise_m * rng.standard_normal(2)
                radius, height = people.radius_m, people.height_m
                rows.append((x, y, radius, x, y, height - radius, radius, *walker.velocity_mps, 0.0))
            self._values[PERSON] = np.array(rows)
        if self._config.obstacles:
            self._values[OBSTACLE] = np.array([self._obstacle_row(k) for k in range(len(self._config.obstacles))])

    def _obstacle_row(self, k: int) -> tuple[float, ...]:
        centre, velocity = self._obstacle_at(k)
        centre = centre + self._settings.scanner_noise_m * self._sensor_rng.standard_normal(3)
        obstacle = self._config.obstacles[k]
        axis = np.array(obstacle.axis_m)
        return (*(centre - axis), *(centre + axis), obstacle.radius_m, *velocity)

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


def _corners(box: Box) -> tuple[Floats, Floats]:
    ends = np.array([box.x_m, box.y_m, box.z_m])
    return ends[:, 0].copy(), ends[:, 1].copy()


def _about_z(angle_rad: float) -> Floats:
    return np.array([math.cos(angle_rad / 2), 0.0, 0.0, math.sin(angle_rad / 2)])


def _about_y(angle_rad: float) -> Floats:
    return np.array([math.cos(angle_rad / 2), 0.0, math.sin(angle_rad / 2), 0.0])


def _product(a: Floats, b: Floats) -> Floats:
    found = np.zeros(4)
    mujoco.mju_mulQuat(found, a, b)
    return found
