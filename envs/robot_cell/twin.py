"""The robot-cell twin: a batch of cells; keeps the :class:`~twinloop.envs.twin.Twin` contract.

Inside, the replica is the last axis, padded to a multiple of 64 so that no kernel's tail depends on the batch size;
outside, it is the first, as everywhere in twinloop. Arms pass through each other: a gap below nothing is for the task
to judge. With ``guard.inside_twin`` arms obey :mod:`.batched_guard` instead, which keeps them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..errors import ContractError
from ..nameplate import Nameplate
from ..twin import Parameter, Readings, Tensors
from .arm import N_JOINTS, UR5E, with_tool
from .batched_guard import BatchedGuard
from .clearance import FAR_M, Clearance, segments
from .config import PickPlaceWork, RobotCellConfig
from .hearing import fresh_hearing, hear
from .kinematics import pose, tool_point
from .motion import JointLimits, move, tool_speed
from .nameplate import ARM, OBSTACLE, PERSON, cell_nameplate
from .people import Bodies, fresh_obstacles, fresh_people, obstacle_bodies, people_bodies, walk
from .placement import draw_placement
from .sensing import arm_hidden, arm_measured, arm_statics, body_measured, outer
from .starts import draw_starts
from .targets import draw_targets
from .told_cell import mixed_lag, mixed_state, told_state

Tensor = torch.Tensor
State = dict[str, Tensor]

_LANES = 64
_LAG = "actuator_lag_s"


class RobotCellTwin:
    """``n_replicas`` cells of one configuration.

    Raises :class:`ContractError` when there is no replica.
    """

    def __init__(
        self, config: RobotCellConfig, n_replicas: int, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if n_replicas < 1:
            raise ContractError(f"n_replicas {n_replicas}: a twin has at least one replica")
        self._config, self._n_replicas = config, n_replicas
        self._device, self._dtype = torch.device(device), dtype
        self._arm = with_tool(UR5E, config.tool_length_m)
        self._nameplate = cell_nameplate(config)
        self._limits = JointLimits.of(config, self._arm, dtype, self._device)
        self._clearance = Clearance(self._arm, config.fixtures, dtype, self._device)
        self._guard = BatchedGuard(config, self._arm, self._limits) if config.guard.inside_twin else None
        lanes = _padded(n_replicas)
        self._lag = torch.full((lanes,), config.actuator_lag_s, dtype=dtype, device=self._device)
        self._state = self._fresh(torch.zeros(lanes, dtype=torch.int64, device=self._device))
        self._statics = self._outer_statics()

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def n_replicas(self) -> int:
        return self._n_replicas

    @property
    def dt_s(self) -> float:
        return self._config.control_period_s

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def parameter_specs(self) -> tuple[Parameter, ...]:
        return (Parameter(_LAG, "s", 0.0, 1.0, "time constant of a joint's speed"),)

    def parameters(self) -> dict[str, Tensor]:
        return {_LAG: self._lag[: self._n_replicas].clone()}

    def set_parameters(self, values: Tensors) -> None:
        """Set the lag, ``[B]`` or a scalar; gradients flow through it."""
        for name, value in values.items():
            if name != _LAG:
                raise ContractError(f"parameter {name!r}: unknown; this twin has {_LAG}")
            given = value.to(self._device, self._dtype).expand(self._n_replicas)
            self._lag = _lengthened(given, len(self._lag))

    def reset(self, seeds: Tensor, rows: Tensor | None = None) -> Readings:
        """Begin new episodes from ``seeds`` for ``rows`` (all when None); other rows keep every bit."""
        target = torch.arange(self._n_replicas, device=self._device) if rows is None else rows.to(self._device)
        if tuple(seeds.shape) != (len(target),):
            raise ContractError(f"reset: {tuple(seeds.shape)} seeds for {len(target)} rows; give one int64 a row")
        if len(target):
            given = _lengthened(seeds.to(self._device, torch.int64), _padded(len(target)))
            fresh = self._fresh(given)
            self._state = {
                name: value.detach().index_copy(-1, target, fresh[name][..., : len(target)])
                for name, value in self._state.items()
            }
            self._statics = self._outer_statics()
        return self._readings()

    def step(self, commands: Tensors) -> Readings:
        """Advance one control period. ``commands["arm"]``: ``[B, N, 6]`` joint speeds, rad/s.

        Commands beyond a joint's range act as its ends; all six are scaled where the tool would be too fast, and slowed
        where a joint could not stop before the end of its range.
        """
        n = self._config.n_arms
        given = commands[ARM].to(self._device, self._dtype)
        expected = (self._n_replicas, n, N_JOINTS)
        if tuple(given.shape) != expected:
            raise ContractError(f"step: commands['arm'] is {tuple(given.shape)}, expected {expected} (B, N, A)")
        s = dict(self._state)
        flat = given.reshape(self._n_replicas, n * N_JOINTS).t()
        command = _lengthened(flat, len(self._lag)).contiguous().view(n, N_JOINTS, -1) * s["present"][:, None]
        if self._guard is not None:
            command, s["guarded"] = self._guarded(self._guard, s, command)
        s["q"], s["dq"] = move(s["q"], s["dq"], command, self._lag, self._limits, self._config, self._arm)
        s["step"] = s["step"] + 1
        if self._config.people is not None:
            s |= walk(self._config.people, s, s["seeds"], self.dt_s)
        s = self._worked(self._seen(s))
        if self._config.peers.is_perfect:
            s["heard"] = _message(s)
        else:
            s |= hear(self._config.peers, s, _message(s), s["seeds"], s["step"], self.dt_s)
            s["seen_gap"] = self._heard_gap(s)
        self._state = s
        return self._readings()

    def follow(self, measured: Tensors) -> None:
        """Take over what a plant tells, ``[N, O]`` a group, NaN where nothing is known (:mod:`.told_cell`)."""
        told = {name: value.to(self._device, self._dtype) for name, value in measured.items()}
        self._state = told_state(self._state, told, self._config)

    def mix(self, transform: Tensor) -> Readings:
        """Mix joints, speeds and lags of all replicas by ``[B, B]``, as a live twin does."""
        self._state = mixed_state(self._state, transform, self._limits)
        self._lag = mixed_lag(self._lag, transform)
        return self._readings()

    def snapshot(self) -> dict[str, Tensor]:
        return {f"state/{k}": v.detach().clone() for k, v in self._state.items()} | {_LAG: self._lag.detach().clone()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        self._lag = snapshot[_LAG].clone()
        self._state = {k.removeprefix("state/"): v.clone() for k, v in snapshot.items() if k.startswith("state/")}
        self._statics = self._outer_statics()

    def _fresh(self, seeds: Tensor) -> State:
        """State of new episodes, one a seed."""
        placement = draw_placement(self._config, seeds, self._dtype)
        q = draw_starts(self._config, self._limits, placement.home, seeds)
        dq = torch.zeros_like(q)
        zero = torch.zeros_like(q[:, 0])
        s: State = {
            "seeds": seeds, "step": torch.zeros_like(seeds), "q": q, "dq": dq, "base": placement.base,
            "home": placement.home, "present": placement.present, "holds": zero, "touches": zero, "stall_s": zero,
            "dwell_s": zero, "guarded": zero, "drawn": torch.ones_like(zero, dtype=torch.int64),
        }  # fmt: skip
        first = torch.zeros_like(seeds)
        drawn = [draw_targets(self._config, self._arm, k, seeds, first, base) for k, base in enumerate(placement.base)]
        s["target"] = torch.stack(drawn).to(self._dtype)
        if self._config.people is not None:
            s |= fresh_people(self._config.people, seeds)
        if self._config.obstacles:
            s |= fresh_obstacles(self._config.obstacles, seeds)
        s = self._seen(s)
        s["distance"] = s["best_m"] = _length(s["target"] - s["tool"])
        if self._config.peers.is_perfect:
            s |= {"heard": _message(s), "heard_age_s": zero}
        else:
            s |= fresh_hearing(self._config.peers, seeds, _message(s))
        return s

    def _seen(self, s: State) -> State:
        """The state with what follows from joints and bodies: tool points, their speeds, gaps."""
        q, base = s["q"], s["base"]
        p = pose(q.unbind(1), base.unbind(1), self._arm)
        tool = p.position(tool_point(p, self._arm))
        now = segments(p, self._arm)
        gap = self._clearance.between_arms(now, now, s["present"])
        found = s | {"tool": torch.stack(tool, 1), "arm_gap": gap, "seen_gap": gap}
        found["tool_speed"] = tool_speed(p, s["dq"], self._arm)
        found["self_gap"] = self._clearance.of_self(now)
        found["fixture_gap"] = self._clearance.to_fixtures(now)
        found["person_gap"] = torch.full_like(gap, FAR_M)
        for name, bodies in self._bodies(s).items():
            nearest = self._clearance.to_bodies(now, bodies)
            key = "person_gap" if name == PERSON else "fixture_gap"
            found[key] = torch.minimum(found[key], nearest)
        return found

    def _guarded(self, guard: BatchedGuard, s: State, command: Tensor) -> tuple[Tensor, Tensor]:
        """What arms obey of ``command`` ``[N, 6, R]``, and how far that is from it, ``[N, R]`` of a command's range."""
        base, top = s["base"].unbind(1), self._limits.speed
        wished = torch.minimum(torch.maximum(command, -top), top)
        now = pose(s["q"].unbind(1), base, self._arm)
        heard = pose(s["heard"][:, :N_JOINTS].unbind(1), base, self._arm)
        sides = segments(now, self._arm), segments(heard, self._arm)
        speeds = s["heard"][:, N_JOINTS : 2 * N_JOINTS]
        sent = guard(wished, s["dq"], now, *sides, s["heard_age_s"], speeds, heard, s["present"])
        return sent, ((sent - wished).abs() / (2.0 * top)).mean(1) * s["present"]

    def _heard_gap(self, s: State) -> Tensor:
        """Gap of each arm to the nearest other, where that is known to be, ``[N, R]``."""
        now, heard = (
            segments(pose(q.unbind(1), s["base"].unbind(1), self._arm), self._arm)
            for q in (s["q"], s["heard"][:, :N_JOINTS])
        )
        return self._clearance.between_arms(now, heard, s["present"])

    def _worked(self, s: State) -> State:
        """The state with targets that are touched replaced, and the stall timers."""
        work, dt_s = self._config.work, self.dt_s
        distance = _length(s["target"] - s["tool"])
        dwell = torch.where(distance <= self._config.touch_m, s["dwell_s"] + dt_s, 0.0)
        needed = work.dwell_s if isinstance(work, PickPlaceWork) else 0.0
        touched = (dwell >= max(needed, 0.5 * dt_s)) & s["present"]
        nearer = distance < s["best_m"] - self._config.progress_m
        found = s | {
            "distance": distance,
            "touches": s["touches"] + touched,
            "drawn": s["drawn"] + touched,
            "dwell_s": torch.where(touched, 0.0, dwell),
            "stall_s": torch.where(nearer | touched, 0.0, s["stall_s"] + dt_s),
        }
        best = torch.where(nearer, distance, s["best_m"])
        if isinstance(work, PickPlaceWork):
            found["holds"] = torch.where(touched, 1.0 - s["holds"], s["holds"])
        target = s["target"]
        for k, lanes in ((k, row.nonzero()[:, 0]) for k, row in enumerate(touched)):
            if len(lanes):
                base, count = s["base"][k][:, lanes], s["drawn"][k][lanes]
                new = draw_targets(self._config, self._arm, k, s["seeds"][lanes], count, base).to(self._dtype)
                target = target.index_put((torch.tensor(k), torch.arange(3)[:, None], lanes), new)
                away = _length((new - s["tool"][k][:, lanes])[None])[0]
                best = best.index_put((torch.tensor(k), lanes), away)
        return found | {"target": target, "best_m": best}

    def _bodies(self, s: Mapping[str, Tensor]) -> dict[str, Bodies]:
        found = {}
        if self._config.people is not None:
            found[PERSON] = people_bodies(self._config.people, s)
        if self._config.obstacles:
            time_s = s["step"] * self.dt_s
            found[OBSTACLE] = obstacle_bodies(self._config.obstacles, s["obstacle_phase"], time_s)
        return found

    def _readings(self) -> Readings:
        s, b, dtype = self._state, self._n_replicas, self._dtype
        measured = {ARM: outer(arm_measured(s), s["present"], b, dtype)}
        hidden = {ARM: outer(arm_hidden(s), s["present"], b, dtype)}
        present = {ARM: s["present"].T[:b].contiguous()}
        for name, bodies in self._bodies(s).items():
            measured[name] = outer(body_measured(bodies), bodies.present, b, dtype)
            present[name] = bodies.present.T[:b].contiguous()
            hidden[name] = torch.zeros(b, len(bodies.radius), 0, dtype=dtype, device=self._device)
        return Readings(measured, hidden, self._statics, present, s["step"][:b] * self.dt_s)

    def _outer_statics(self) -> dict[str, Tensor]:
        s, b = self._state, self._n_replicas
        found = {ARM: outer(arm_statics(s), s["present"], b, self._dtype)}
        for group in self._nameplate.groups[1:]:
            found[group.name] = torch.zeros(b, group.n_assets, 0, dtype=self._dtype, device=self._device)
        return found


def _message(s: State) -> Tensor:
    """What arms tell each other, ``[N, 16, R]``, in the order of the nameplate's heard signals."""
    return torch.cat((s["q"], s["dq"], s["target"], s["stall_s"][:, None]), 1)


def _length(v: Tensor) -> Tensor:
    """Length of vectors ``[N, 3, R]``."""
    return (v[:, 0] * v[:, 0] + v[:, 1] * v[:, 1] + v[:, 2] * v[:, 2]).clamp(min=1e-18).sqrt()


def _padded(count: int) -> int:
    return math.ceil(count / _LANES) * _LANES


def _lengthened(row: Tensor, lanes: int) -> Tensor:
    """The last axis lengthened to ``lanes`` with copies of its last entry."""
    missing = lanes - row.shape[-1]
    return row if not missing else torch.cat((row, row[..., -1:].expand(*row.shape[:-1], missing)), dim=-1)
