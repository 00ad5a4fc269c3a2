"""Policies of arms that mean harm: they drive arms into each other, themselves, the floor, things and people."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...agents.controllers.reference import neutral_commands
from ...agents.policy import Commands, Memory
from ...envs.nameplate import Nameplate
from ...envs.robot_cell.arm import N_JOINTS, UR5E, with_tool
from ...envs.robot_cell.arm_body import ArmBody, Body, shape_of
from ...envs.robot_cell.config import RobotCellConfig
from ...envs.robot_cell.constraints import cell_rows
from ...envs.robot_cell.gaps import Gaps, arm_gaps, body_gaps, plane_gaps, self_gaps
from ...envs.robot_cell.nameplate import ARM, BODY_MEASURED, MEASURED
from ...envs.twin import Observation

Floats = NDArray[np.float64]

AIMS = ("arm", "itself", "floor", "things", "anything")
MANNERS = {
    "noise": "each joint's speed drawn anew every period",
    "bang": "each joint at top speed, turned at random",
    "dive": "the shortest way to close the gap that closes soonest",
    "dart": "the same, with retreats of random lengths",
    "slide": "across that gap at top speed, leaning in",
    "duel": "the first arm dives, the others are at top speed, turned at random",
}
"""What each manner does; all but the first two have an aim."""
UNAIMED = ("noise", "bang")

_Q1 = [signal.name for signal in MEASURED].index("q1_rad")
_Q = slice(_Q1, _Q1 + N_JOINTS)
_BODY = {signal.name: k for k, signal in enumerate(BODY_MEASURED)}
_START, _END = (slice(_BODY[n], _BODY[n] + 3) for n in ("start_x_m", "end_x_m"))
_LONG, _RETREATS_PU = 60, 0.35
_LEAN_PU = 0.3
_FLAT_M = 1e-4


class HostileArms:
    """``manner``, or ``manner at aim``: one of :data:`MANNERS`, one of :data:`AIMS`. It sees every arm as it is."""

    def __init__(self, name: str, nameplate: Nameplate, config: RobotCellConfig, seed: int) -> None:
        self._name, self._nameplate, self._seed = name, nameplate, seed
        self._manner, _, self._aim = name.partition(" at ")
        if self._manner not in MANNERS or (self._manner in UNAIMED) != (self._aim == "") or (
            self._aim and self._aim not in AIMS
        ):  # fmt: skip
            raise ValueError(
                f"hostile policy {name!r}: give {' or '.join(UNAIMED)}, or one of "
                f"{', '.join(m for m in MANNERS if m not in UNAIMED)} with ' at ' and one of {', '.join(AIMS)}"
            )
        group = nameplate.group(ARM)
        self._top_radps = float(group.upper("commanded").min())
        self._n = group.n_assets
        places = group.statics_array()
        self._bases = np.concatenate([places[:, :3], np.deg2rad(places[:, 3:4])], axis=1)
        arm = with_tool(UR5E, config.tool_length_m) if config.tool_length_m > 0 else UR5E
        self._shape = shape_of(arm)
        rows = cell_rows(config)
        self._planes = [(np.array(plane[:3]), plane[3]) for plane in rows.planes]
        solid = np.array(rows.capsules).reshape(-1, 7)
        self._fixtures = Body(solid[:, :3], solid[:, 3:6] - solid[:, :3], solid[:, 6])

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """``step`` ``[B]``; ``way`` and ``left`` ``[B, N, 6]``: the way each joint goes, and for how many periods."""
        return {
            "step": np.zeros(n_rows, np.int64),
            "way": np.ones((n_rows, self._n, N_JOINTS)),
            "left": np.zeros((n_rows, self._n, N_JOINTS), np.int64),
        }

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        """Joint speeds, up to the top ones."""
        commands = neutral_commands(self._nameplate, len(memory["step"]))
        way, left = memory["way"].copy(), memory["left"].copy()
        for row, step in enumerate(memory["step"].tolist()):
            rng = np.random.default_rng((self._seed, row, step))
            self._turn(way[row], left[row], rng)
            commands[ARM][row] = self._top_radps * self._shares(observation, row, way[row], rng)
        return commands, {"step": memory["step"] + 1, "way": way, "left": left}

    def _turn(self, way: Floats, left: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Draw ways, in place, where the time of the last ones is over: joint by joint, or of an arm as a whole."""
        left -= 1
        joints_alone = self._manner in ("bang", "duel")
        over = left < 0 if joints_alone else (left[:, :1] < 0).repeat(N_JOINTS, 1)
        lasts = rng.integers(2, _LONG, over.shape if joints_alone else (self._n, 1))
        if self._manner == "slide":
            ways = rng.normal(size=over.shape)
        elif self._manner == "dart":
            ways = np.where(rng.random((self._n, 1)) < _RETREATS_PU, -1.0, 1.0)
        else:
            ways = rng.choice((-1.0, 1.0), over.shape)
        way[:], left[:] = np.where(over, ways, way), np.where(over, lasts, left)

    def _shares(self, observation: Observation, row: int, way: Floats, rng: np.random.Generator) -> Floats:
        """Speeds in shares of the top one, ``[N, 6]``."""
        if self._manner == "noise":
            return rng.uniform(-1.0, 1.0, (self._n, N_JOINTS))
        if self._manner == "bang":
            return way
        arms = list(self._shape.each(np.asarray(observation.measured[ARM][row])[:, _Q], self._bases))
        return np.array([self._aimed(observation, row, k, arms, way[k]) for k in range(self._n)])

    def _aimed(self, observation: Observation, row: int, k: int, arms: list[ArmBody], way: Floats) -> Floats:
        if self._manner == "duel" and k > 0:
            return way
        gradient = self._soonest(observation, row, k, arms)
        if gradient is None:
            return way
        if self._manner == "slide":
            normal = gradient / max(float(np.linalg.norm(gradient)), 1e-9)
            along = way - normal * (way @ normal)
            return np.clip(along / max(float(np.abs(along).max()), 1e-9) - _LEAN_PU * normal, -1.0, 1.0)
        into = np.where(np.abs(gradient) > _FLAT_M, -np.sign(gradient), 1.0)
        return into * way if self._manner == "dart" else into

    def _soonest(self, observation: Observation, row: int, k: int, arms: list[ArmBody]) -> Floats | None:
        """The gradient ``[6]`` of the gap that can be closed soonest; None where there is nothing of the kind."""
        soonest, found = math.inf, None
        for gaps in self._gaps(observation, row, k, arms):
            gradients = gaps.gradient_a.reshape(-1, N_JOINTS)
            time = gaps.gap_m.reshape(-1) / np.maximum(np.abs(gradients).sum(1), _FLAT_M)
            at = int(time.argmin())
            if time[at] < soonest:
                soonest, found = float(time[at]), gradients[at]
        return found

    def _gaps(self, observation: Observation, row: int, k: int, arms: list[ArmBody]) -> Iterator[Gaps]:
        every = self._aim == "anything"
        if every or self._aim == "arm":
            yield from (arm_gaps(arms[k], other) for j, other in enumerate(arms) if j != k)
        if every or self._aim == "itself":
            yield self_gaps(arms[k], self._shape.self_pairs)
        if every or self._aim == "floor":
            yield from (plane_gaps(arms[k], normal, offset_m) for normal, offset_m in self._planes)
        if every or self._aim == "things":
            if len(self._fixtures.radius_m):
                yield body_gaps(arms[k], self._fixtures)
            for name, seen in observation.measured.items():
                if name != ARM and len(seen[row]):
                    yield body_gaps(arms[k], _body(np.asarray(seen[row])))


def _body(rows: Floats) -> Body:
    return Body(rows[:, _START], rows[:, _END] - rows[:, _START], rows[:, _BODY["radius_m"]])
