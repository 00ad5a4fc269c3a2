"""An arm's view of its cell: itself, its target, what is near, and the arms that it hears.

Everything is in the frame of the arm's own base and the nearest come first, so that one policy serves any number of
arms in any places. The own row is fresh; of other arms only the ``heard_*`` signals are used. Runs on numpy and
on torch alike (:mod:`twinloop.envs.encoder`); inside, batch and arms are one last axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveFloat

from ..configuration import Strict
from ..nameplate import Nameplate
from .arm import N_JOINTS, UR5E, with_tool
from .distance import at_least, dot
from .kinematics import Pose, Vector, module_of, pose, tool_point
from .nameplate import ARM, MEASURED, STATICS
from .near import nearest_of

Array = Any

_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}
_OWN, _PAIR, _PEER = 3 * N_JOINTS + 16, 12, 3 * N_JOINTS + 16


class ArmSettings(Strict):
    """Settings of the encoder ``arm``."""

    n_pairs: NonNegativeInt = Field(4, le=32, description="nearest pairs of own and others' capsules that it sees")
    n_peers: NonNegativeInt = Field(1, le=7, description="nearest other arms that it hears")
    usual_m: PositiveFloat = Field(0.1, description="a gap that counts as middling")
    usual_s: PositiveFloat = Field(2.0, description="a stall that counts as middling")
    tool_length_m: float = Field(0.0, ge=0, le=0.5, description="as in the site's configuration")


class _Frame(NamedTuple):
    """An arm's base, to bring the cell's coordinates into."""

    base: Sequence[Array]
    cos: Array
    sin: Array

    def point(self, v: Vector) -> Vector:
        return self.direction((v[0] - self.base[0], v[1] - self.base[1], v[2] - self.base[2]))

    def direction(self, v: Vector) -> Vector:
        return v[0] * self.cos + v[1] * self.sin, v[1] * self.cos - v[0] * self.sin, v[2]


class ArmEncoder:
    """Own joints (sine, cosine, speed), tool, target as it is and the way to it coarse and fine, distance, load, stall,
    gap; then each near pair: presence, nearness, gap, normal, both points; then each near peer: presence, nearness,
    base, tool, target, heading, joints, stall and age of what was heard."""

    name = "arm"
    group = ARM

    def __init__(self, nameplate: Nameplate, settings: ArmSettings) -> None:
        self._top_radps = [float(v) for v in nameplate.group(ARM).upper("commanded")]
        self._settings = settings
        self._arm = with_tool(UR5E, settings.tool_length_m)

    @property
    def n_features(self) -> int:
        return _OWN + _PAIR * self._settings.n_pairs + _PEER * self._settings.n_peers

    def settings(self) -> dict[str, Any]:
        return self._settings.model_dump()

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Nothing is remembered."""
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        """Features ``[B, N, F]``; zero where ``present`` ``[B, N]`` is False."""
        xp = module_of(measured)
        here = present[..., None]
        n_rows, n = present.shape
        told = _columns(xp.where(here, measured, xp.zeros_like(measured)))
        fixed = _columns(xp.where(here, statics, xp.zeros_like(statics)))
        base = [fixed[_STATIC[f"base_{c}_m"]] for c in "xyz"] + [fixed[_STATIC["base_yaw_deg"]] * (math.pi / 180.0)]
        frame = _Frame(base, xp.cos(base[3]), xp.sin(base[3]))
        own = pose(_six(told, "q"), base, self._arm)
        columns = self._own(xp, told, frame, own)
        s = self._settings
        if n > 1 and s.n_pairs + s.n_peers > 0:
            heard = pose(_six(told, "heard_q"), base, self._arm)
            message = self._message(told, base, heard)
            pairs, peers = nearest_of(own, heard, message, present, self._arm, s.n_pairs, min(s.n_peers, n - 1))
            for pair in pairs:
                columns += self._pair(xp, pair, frame)
            columns += [xp.zeros_like(told[0])] * (_OWN + _PAIR * s.n_pairs - len(columns))
            for peer in peers:
                columns += self._peer(xp, peer, frame)
        columns += [xp.zeros_like(told[0])] * (self.n_features - len(columns))
        features = xp.stack(columns, -1).reshape(n_rows, n, self.n_features)
        return xp.where(here, features, xp.zeros_like(features)), memory

    def _own(self, xp: Any, told: Sequence[Array], frame: _Frame, own: Pose) -> list[Array]:
        s, reach = self._settings, self._arm.reach_m
        q, dq = _six(told, "q"), _six(told, "dq")
        tool, target = frame.point(own.position(tool_point(own, self._arm))), frame.point(_three(told, "target"))
        way = (target[0] - tool[0], target[1] - tool[1], target[2] - tool[2])
        distance = at_least(dot(way, way), 1e-12) ** 0.5
        columns = [*(xp.sin(v) for v in q), *(xp.cos(v) for v in q), *self._speeds(xp, dq)]
        columns += [xp.clip(v / reach, -2.0, 2.0) for v in (*tool, *target)]
        columns += [xp.clip(v / scale, -1.0, 1.0) for scale in (0.5, 0.05) for v in way]
        stall, gap = told[_MEASURED["stall_s"]], told[_MEASURED["gap_m"]]
        return [
            *columns, distance / (distance + 0.2), told[_MEASURED["holds"]], stall / (stall + s.usual_s),
            _nearness(gap, s.usual_m),
        ]  # fmt: skip

    def _pair(self, xp: Any, pair: Sequence[Array], frame: _Frame) -> list[Array]:
        """Presence, gap, normal, point of a, point of b."""
        there, gap = pair[0], pair[1]
        reach = self._arm.reach_m
        points = (frame.point((pair[5], pair[6], pair[7])), frame.point((pair[8], pair[9], pair[10])))
        columns = [_nearness(gap, self._settings.usual_m), xp.clip(gap, -1.0, 1.0)]
        columns += frame.direction((pair[2], pair[3], pair[4]))
        columns += [xp.clip(v / reach, -2.0, 2.0) for point in points for v in point]
        return [there, *(v * there for v in columns)]

    def _peer(self, xp: Any, peer: Sequence[Array], frame: _Frame) -> list[Array]:
        there, gap, message = peer[0], peer[1], peer[2:]
        reach, s = self._arm.reach_m, self._settings
        base, tool, target = (frame.point((message[k], message[k + 1], message[k + 2])) for k in (0, 4, 7))
        q, dq = message[12:18], message[18:24]
        turn = message[3] - frame.base[3]
        columns = [_nearness(gap, s.usual_m), *(xp.clip(v / reach, -2.0, 2.0) for v in (*base, *tool, *target))]
        columns += [xp.cos(turn), xp.sin(turn)]
        columns += [*(xp.sin(v) for v in q), *(xp.cos(v) for v in q), *self._speeds(xp, dq)]
        columns += [message[10] / (message[10] + s.usual_s), message[11] / (message[11] + 0.1)]
        return [there, *(v * there for v in columns)]

    def _message(self, told: Sequence[Array], base: Sequence[Array], heard: Pose) -> list[Array]:
        """What others know of each arm: base (4), tool and target (3 each), stall, age, joints, speeds: 24."""
        tool = heard.position(tool_point(heard, self._arm))
        times = (told[_MEASURED["heard_stall_s"]], told[_MEASURED["heard_age_s"]])
        return [*base, *tool, *_three(told, "heard_target"), *times, *_six(told, "heard_q"), *_six(told, "heard_dq")]

    def _speeds(self, xp: Any, dq: Sequence[Array]) -> list[Array]:
        return [xp.clip(v / top, -2.0, 2.0) for v, top in zip(dq, self._top_radps, strict=True)]


def _columns(values: Array) -> list[Array]:
    """``[B, N, C]`` as C arrays ``[B N]``."""
    return [values[..., k].reshape(-1) for k in range(values.shape[-1])]


def _six(told: Sequence[Array], name: str) -> list[Array]:
    unit = "radps" if name.endswith("dq") else "rad"
    first = _MEASURED[f"{name}1_{unit}"]
    return list(told[first : first + N_JOINTS])


def _three(told: Sequence[Array], name: str) -> Vector:
    first = _MEASURED[f"{name}_x_m"]
    return told[first], told[first + 1], told[first + 2]


def _nearness(gap: Array, usual_m: float) -> Array:
    """1 at no gap or less, 0.5 at the usual one, falling to 0."""
    return usual_m / (usual_m + at_least(gap, 0.0))
