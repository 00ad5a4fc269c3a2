"""Coordination of arms without learning: what a learned policy has to beat, and what it learns under.

All of them bring the tool straight to its target by damped least squares (Wampler 1986), as fast as the cell's tool
speed, and differ in who gives way. Every arm could run its own copy: it uses its own row and what it has heard of the
others. None of them is safe by itself, save ``zone_token``; they are proposals to the shield.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError, nearest
from ...envs.nameplate import Nameplate
from ...envs.robot_cell.arm import N_JOINTS, UR5E, Arm, with_tool
from ...envs.robot_cell.arm_body import shape_of
from ...envs.robot_cell.gaps import arm_gaps
from ...envs.robot_cell.kinematics import reach_speeds, tool_position
from ...envs.robot_cell.nameplate import ARM, MEASURED, STATICS
from ...envs.twin import Observation
from ..policy import Commands, Memory
from .reference import neutral_commands

Floats = NDArray[np.float64]

_AT = {signal.name: k for k, signal in enumerate(MEASURED)}
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}
_Q = slice(_AT["q1_rad"], _AT["q1_rad"] + N_JOINTS)
_TOOL = slice(_AT["tool_x_m"], _AT["tool_x_m"] + 3)
_TARGET = slice(_AT["target_x_m"], _AT["target_x_m"] + 3)
_HEARD_Q = slice(_AT["heard_q1_rad"], _AT["heard_q1_rad"] + N_JOINTS)
_HEARD_TARGET = slice(_AT["heard_target_x_m"], _AT["heard_target_x_m"] + 3)
_TOUCHES, _STALL = _AT["touches"], _AT["stall_s"]
_HOME = slice(_STATIC["home_q1_rad"], _STATIC["home_q1_rad"] + N_JOINTS)
_HOME_PER_S = 3.0
_AT_HOME_RAD = 0.05
_TOOL_STEP_M = 0.005
_LONGEST_TOOL_M = 0.5  # as in a cell's configuration; what is farther off is no reading of a tool


def arm_of(arms: Floats, base: Floats, present: NDArray[np.bool_]) -> Arm:
    """The arm with the tool that its readings tell of, which no nameplate does: the tool point's distance from the
    flange, in steps that noise of encoders doesn't cross; one tool a cell.

    ``arms``: readings ``[B, N, O]``; ``base``: ``[B, N, 4]``, its yaw in rad.
    """
    rows = np.argwhere(present)
    if not len(rows):
        return UR5E
    row, k = rows[0]
    flange = np.asarray(tool_position(arms[row, k, _Q], base[row, k], UR5E))
    length_m = float(np.linalg.norm(arms[row, k, _TOOL] - flange))
    steps = round(length_m / _TOOL_STEP_M) if length_m < _LONGEST_TOOL_M else 0
    return with_tool(UR5E, steps * _TOOL_STEP_M) if steps else UR5E


class NoAvoidance:
    """Every arm goes straight to its target, as if it were alone.

    Without a shield: the speed ceiling, with contacts. Under one it is what filters alone make of it, which deadlocks
    (a barrier function knows no way round: Wang, Ames & Egerstedt 2017, "Safety barrier certificates for
    collisions-free multirobot systems", section V).
    """

    def __init__(self, nameplate: Nameplate, seed: int = 0, name: str = "no_avoidance") -> None:
        if not any(group.name == ARM for group in nameplate.groups):
            raise ConfigurationError(f"policy {name!r}: {nameplate.site!r} has no group {ARM!r}; it is for robot cells")
        self._nameplate = nameplate
        self._seed = seed
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """``clock_s`` ``[B]``, since the start."""
        return {"clock_s": np.zeros(n_rows)}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        arms = np.asarray(observation.measured[ARM], dtype=np.float64)
        statics = np.asarray(observation.statics[ARM], dtype=np.float64)
        present = np.asarray(observation.present[ARM])
        base = np.concatenate([statics[..., :3], np.deg2rad(statics[..., _STATIC["base_yaw_deg"], None])], axis=-1)
        waits, after = self._waits(arms, base, statics[..., _HOME], present, memory)
        ahead = reach_speeds(arms[..., _Q], base, arms[..., _TARGET], arm_of(arms, base, present))
        home = _HOME_PER_S * (statics[..., _HOME] - arms[..., _Q])
        speeds = np.where(waits[..., None] > 0, home, ahead)
        speeds = np.where(waits[..., None] < 0, 0.0, speeds)
        commands = neutral_commands(self._nameplate, len(arms))
        group = self._nameplate.group(ARM)
        limited = np.clip(speeds, group.lower("commanded"), group.upper("commanded"))
        commands[ARM] = np.where(present[..., None], limited, commands[ARM])
        return commands, {**after, "clock_s": memory["clock_s"] + observation.dt_s}

    def _waits(
        self, arms: Floats, base: Floats, home: Floats, present: NDArray[np.bool_], memory: Memory
    ) -> tuple[Floats, dict[str, NDArray[Any]]]:
        """Who gives way, ``[B, N]``: 0 goes on, 1 goes home, -1 stands; and what is remembered."""
        return np.zeros(arms.shape[:2]), {}


class ZoneToken(NoAvoidance):
    """One arm in the shared box while the others are at home; it hands on after a touch, or after ``patience_s``.

    Interlocked zones, as robot controllers offer them and most cells with two arms do today.
    """

    patience_s = 8.0

    def __init__(self, nameplate: Nameplate, seed: int = 0, name: str = "zone_token") -> None:
        super().__init__(nameplate, seed, name)

    def start(self, n_rows: int) -> Memory:
        """Besides the clock: ``holder`` ``[B]``, who has the token; ``touches`` and ``since_s`` ``[B]``, the holder's
        touches and the time when it got it."""
        nil = np.zeros(n_rows)
        return {**super().start(n_rows), "holder": np.zeros(n_rows, np.int64), "touches": nil - 1.0, "since_s": nil}

    def _waits(
        self, arms: Floats, base: Floats, home: Floats, present: NDArray[np.bool_], memory: Memory
    ) -> tuple[Floats, dict[str, NDArray[Any]]]:
        rows, n = np.arange(len(arms)), arms.shape[1]
        holder, clock = memory["holder"], memory["clock_s"]
        count = arms[..., _TOUCHES]
        began = np.where(memory["touches"] < 0, count[rows, holder], memory["touches"])
        done = (count[rows, holder] > began) | (clock - memory["since_s"] > self.patience_s) | ~present[rows, holder]
        after = holder.copy()
        for _ in range(n):  # the next arm that is there
            after = np.where(done & (~present[rows, after] | (after == holder)), (after + 1) % n, after)
        since = np.where(done, clock, memory["since_s"])
        began = np.where(done, count[rows, after], began)
        away = np.abs(arms[..., _HEARD_Q] - home).max(-1) > _AT_HOME_RAD
        away = away & present
        away[rows, after] = False
        waits = np.ones(arms.shape[:2])
        waits[rows, after] = np.where(away.any(-1), -1.0, 0.0)  # the box is not yet free
        return waits, {"holder": after, "touches": began, "since_s": since}


class PriorityStop(NoAvoidance):
    """Arms nearer to each other than ``stop_m`` stand, all but the first of them in the nameplate's order."""

    stop_m = 0.15

    def __init__(self, nameplate: Nameplate, seed: int = 0, name: str = "priority_stop") -> None:
        super().__init__(nameplate, seed, name)

    def _waits(
        self, arms: Floats, base: Floats, home: Floats, present: NDArray[np.bool_], memory: Memory
    ) -> tuple[Floats, dict[str, NDArray[Any]]]:
        waits, shape = np.zeros(arms.shape[:2]), shape_of(arm_of(arms, base, present))
        for row, here in enumerate(present):
            numbers = [k for k in range(arms.shape[1]) if here[k]]
            for k in numbers:
                own = shape.at(arms[row, k, _Q], base[row, k])
                others = (shape.at(arms[row, j, _HEARD_Q], base[row, j]) for j in numbers if j < k)
                if min((float(arm_gaps(own, other).gap_m.min()) for other in others), default=math.inf) < self.stop_m:
                    waits[row, k] = -1.0
        return waits, {}


class NearerFirst(NoAvoidance):
    """Of arms nearer to each other than ``near_m``, who is farther from its target goes home until the other has
    touched, by what each has heard: the first who could be done is served first.

    The encoder ``arm`` proposes this to learners as the motion ``turns``; unlike it, this looks at all other arms.
    """

    near_m = 0.12

    def __init__(self, nameplate: Nameplate, seed: int = 0, name: str = "nearer_first") -> None:
        super().__init__(nameplate, seed, name)

    def _waits(
        self, arms: Floats, base: Floats, home: Floats, present: NDArray[np.bool_], memory: Memory
    ) -> tuple[Floats, dict[str, NDArray[Any]]]:
        waits, shape = np.zeros(arms.shape[:2]), shape_of(arm_of(arms, base, present))
        for row, here in enumerate(present):
            numbers = [k for k in range(arms.shape[1]) if here[k]]
            others = {j: shape.at(arms[row, j, _HEARD_Q], base[row, j]) for j in numbers}
            left_m = {j: math.dist(arms[row, j, _HEARD_TARGET], others[j].tool_m) for j in numbers}
            for k in numbers:
                own = shape.at(arms[row, k, _Q], base[row, k])
                way_m = math.dist(arms[row, k, _TARGET], own.tool_m)
                sooner = [others[j] for j in numbers if j != k and left_m[j] < way_m]
                nearest_m = min((float(arm_gaps(own, other).gap_m.min()) for other in sooner), default=math.inf)
                waits[row, k] = float(nearest_m < self.near_m)
        return waits, {}


class BarrierRetreat(NoAvoidance):
    """Straight to the target; when an arm has made no progress for ``stall_s``, one of the arms, drawn at random, goes
    home for ``retreat_s``.

    To be run under the shield, whose barriers keep arms apart; the draw breaks the deadlocks in which that ends
    (random back-off, as on a shared wire: Metcalfe & Boggs 1976).
    """

    stall_s = 0.8
    retreat_s = 1.5

    def __init__(self, nameplate: Nameplate, seed: int = 0, name: str = "barrier_retreat") -> None:
        super().__init__(nameplate, seed, name)

    def start(self, n_rows: int) -> Memory:
        """Besides the clock: ``until_s`` ``[B, N]``, when each arm comes back; ``draws`` ``[B]``, so far."""
        n = self._nameplate.group(ARM).n_assets
        return {**super().start(n_rows), "until_s": np.zeros((n_rows, n)), "draws": np.zeros(n_rows, np.int64)}

    def _waits(
        self, arms: Floats, base: Floats, home: Floats, present: NDArray[np.bool_], memory: Memory
    ) -> tuple[Floats, dict[str, NDArray[Any]]]:
        until, clock, draws = memory["until_s"].copy(), memory["clock_s"], memory["draws"].copy()
        stalled = ((arms[..., _STALL] > self.stall_s) & present).any(-1) & (until <= clock[:, None]).all(-1)
        for row in np.flatnonzero(stalled):
            # A draw of its own for every row and count: a row's course does not depend on what else is in the batch.
            chance = np.random.default_rng((self._seed, int(row), int(draws[row])))
            until[row, chance.choice(np.flatnonzero(present[row]))] = clock[row] + self.retreat_s
            draws[row] += 1
        return (until > clock[:, None]).astype(np.float64), {"until_s": until, "draws": draws}


CONTROLLERS: dict[str, Callable[[Nameplate, int], NoAvoidance]] = {
    "no_avoidance": NoAvoidance,
    "zone_token": ZoneToken,
    "priority_stop": PriorityStop,
    "barrier": lambda nameplate, seed: NoAvoidance(nameplate, seed, "barrier"),
    "barrier_retreat": BarrierRetreat,
    "nearer_first": NearerFirst,
}
"""What makes a controller of a nameplate and a seed, by name."""


def cell_controller(name: str, nameplate: Nameplate, seed: int = 0) -> NoAvoidance:
    """The controller of that name; raises :class:`ConfigurationError` for an unknown one, or a site without arms."""
    if name not in CONTROLLERS:
        raise ConfigurationError(
            f"policy {name!r}: not known for a robot cell; there are {', '.join(CONTROLLERS)}"
            f"{nearest(name, CONTROLLERS)}"
        )
    return CONTROLLERS[name](nameplate, seed)
