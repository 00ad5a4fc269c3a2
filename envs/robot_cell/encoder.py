"""An arm's view of its cell: itself, its target, what is near, and the arms that it hears.

Everything is in the frame of the arm's own base and the nearest come first, so that one policy serves any number of
arms in any places. The own row is fresh; of other arms only the ``heard_*`` signals are used. Runs on numpy and
on torch alike (:mod:`twinloop.envs.encoder`); inside, batch and arms are one last axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat

from ..configuration import Strict
from ..nameplate import Nameplate
from .arm import N_JOINTS, UR5E, with_tool
from .distance import at_least
from .kinematics import Pose, Value, module_of, stacked, tool_jacobian
from .nameplate import ARM, MEASURED, STATICS
from .near import nearest, shape_rows

Array = Any

_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}


def _block(first: str, count: int) -> slice:
    return slice(_MEASURED[first], _MEASURED[first] + count)


_Q, _DQ, _TARGET = _block("q1_rad", N_JOINTS), _block("dq1_radps", N_JOINTS), _block("target_x_m", 3)
_HEARD_Q = _block("heard_q1_rad", N_JOINTS)
_HEARD = _block("heard_q1_rad", 2 * N_JOINTS + 5)  # joints, speeds, target, stall, age
_STALL, _GAP, _HOLDS = _MEASURED["stall_s"], _MEASURED["gap_m"], _MEASURED["holds"]
_BASE, _YAW = slice(_STATIC["base_x_m"], _STATIC["base_x_m"] + 3), _STATIC["base_yaw_deg"]
_HOME = slice(_STATIC["home_q1_rad"], _STATIC["home_q1_rad"] + N_JOINTS)
_MOST = 2.0
MOTIONS = ("turns", "reach", "home", "out", "across", "up")
"""What the encoder proposes with ``hints``."""
TURN_M = 0.12
"""Arms nearer than this take turns in the motion ``turns``."""
_REACH_PER_S, _REACH_MPS, _HOME_PER_S, _ASIDE_MPS, _DAMPING_M = 4.0, 0.5, 3.0, 0.3, 0.05
_OWN, _PAIR, _PEER = 3 * N_JOINTS + 16, 12, 3 * N_JOINTS + 16


class ArmSettings(Strict):
    """Settings of the encoder ``arm``."""

    n_pairs: NonNegativeInt = Field(4, le=32, description="nearest pairs of own and others' capsules that it sees")
    n_peers: NonNegativeInt = Field(1, le=7, description="nearest other arms that it hears")
    usual_m: PositiveFloat = Field(0.1, description="a gap that counts as middling")
    usual_s: PositiveFloat = Field(2.0, description="a stall that counts as middling")
    tool_length_m: float = Field(0.0, ge=0, le=0.5, description="as in the site's configuration")
    hints: bool = Field(False, description="whether it proposes motions: to the target, home, along each axis")


class _Frame(NamedTuple):
    """Bases of arms, to bring the cell's coordinates into: position ``[3, M]``, cosine and sine of the yaw ``[M]``."""

    origin: Array
    cos: Array
    sin: Array

    def point(self, v: Array) -> Array:
        """``[.., 3, M]`` of the cell in the base's frame."""
        return self.direction(v - self.origin)

    def direction(self, v: Array) -> Array:
        x, y, z = v[..., 0, :], v[..., 1, :], v[..., 2, :]
        return module_of(v).stack((x * self.cos + y * self.sin, y * self.cos - x * self.sin, z), -2)


class ArmEncoder:
    """Own joints (sine, cosine, speed), tool, target as it is and the way to it coarse and fine, distance, load, stall,
    gap; then each near pair: presence, nearness, gap, normal, both points; then each near peer: presence, nearness,
    base, tool, target, heading, joints, stall and age of what was heard.

    With ``hints``, last, joint speeds that a learner may follow or weigh (:class:`~twinloop.envs.encoder.
    BlendingEncoder`), in shares of the top speed: ``reach``, the tool straight to its target; ``home``, all joints to
    where they wait; ``turns``, home while a near peer is nearer to its target, else reach; ``out``, ``across`` and
    ``up``, the tool along the base's axes.
    """

    name = "arm"
    group = ARM

    def __init__(self, nameplate: Nameplate, settings: ArmSettings) -> None:
        self._top_radps = [float(v) for v in nameplate.group(ARM).upper("commanded")]
        self._settings = settings
        self._arm = with_tool(UR5E, settings.tool_length_m)

    @property
    def n_features(self) -> int:
        return self._n_seen + (N_JOINTS * len(MOTIONS) if self._settings.hints else 0)

    @property
    def _n_seen(self) -> int:
        return _OWN + _PAIR * self._settings.n_pairs + _PEER * self._settings.n_peers

    @property
    def motions(self) -> Mapping[str, tuple[int, ...]]:
        """Columns of each proposed motion; none without ``hints``."""
        first = self._n_seen
        names = MOTIONS if self._settings.hints else ()
        return {name: tuple(range(first + N_JOINTS * k, first + N_JOINTS * (k + 1))) for k, name in enumerate(names)}

    def settings(self) -> dict[str, Any]:
        return self._settings.model_dump()

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Nothing is remembered."""
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        """Features ``[B, N, F]``; zero where ``present`` ``[B, N]`` is False."""
        xp, s = module_of(measured), self._settings
        here = present[..., None]
        n_rows, n = present.shape
        told = xp.where(here, measured, xp.zeros_like(measured)).reshape(n_rows * n, -1).T
        fixed = xp.where(here, statics, xp.zeros_like(statics)).reshape(n_rows * n, -1).T
        yaw = fixed[_YAW] * (math.pi / 180.0)
        base = xp.concatenate((fixed[_BASE], yaw[None]))
        frame = _Frame(base[:3], xp.cos(yaw), xp.sin(yaw))
        own = stacked(told[_Q].T, base.T, self._shape, self._arm)
        blocks = [self._own(xp, told, frame, own)]
        behind = told[_STALL] < 0.0  # nobody
        if n > 1 and s.n_pairs + s.n_peers > 0:
            heard = stacked(told[_HEARD_Q].T, base.T, self._shape, self._arm)
            message = xp.concatenate((base, heard[-3:], told[_HEARD]))
            pairs, peers = nearest(own, heard, message, present, self._arm, s.n_pairs, s.n_peers)
            blocks += [self._pairs(xp, pairs, frame)] if s.n_pairs else []
            blocks += [self._peers(xp, peers, frame)] if s.n_peers else []
            if s.n_peers:
                behind = _is_behind(told[_TARGET] - own[-3:], peers)
        features = xp.clip(xp.concatenate(blocks), -_MOST, _MOST)
        missing = self._n_seen - len(features)
        if missing:
            empty = xp.zeros((missing, n_rows * n), dtype=told.dtype, device=told.device)
            features = xp.concatenate((features, empty))
        if s.hints:
            features = xp.concatenate((features, self._hints(xp, told, fixed, base, own[-3:], behind)))
        features = features.T.reshape(n_rows, n, self.n_features)
        return xp.where(here, features, xp.zeros_like(features)), memory

    def _shape(self, p: Pose) -> list[Value]:
        return shape_rows(p, self._arm)

    def _own(self, xp: Any, told: Array, frame: _Frame, own: Array) -> Array:
        s, reach = self._settings, self._arm.reach_m
        q = told[_Q]
        tool, target = frame.point(own[-3:]), frame.point(told[_TARGET])
        way = target - tool
        distance = at_least((way * way).sum(0), 1e-12) ** 0.5
        stall, gap = told[_STALL], told[_GAP]
        single = (distance / (distance + 0.2), told[_HOLDS], stall / (stall + s.usual_s), _nearness(gap, s.usual_m))
        parts = (xp.sin(q), xp.cos(q), told[_DQ] / self._top(xp, told), tool / reach, target / reach, way / 0.5)
        return xp.concatenate((*parts, way / 0.05, xp.stack(single)))

    def _pairs(self, xp: Any, pairs: Array, frame: _Frame) -> Array:
        """``[12 n, M]``."""
        there, gap, reach = pairs[:, :1], pairs[:, 1:2], self._arm.reach_m
        points = [frame.point(pairs[:, k : k + 3]) / reach for k in (5, 8)]
        near = xp.concatenate((_nearness(gap, self._settings.usual_m), gap, frame.direction(pairs[:, 2:5]), *points), 1)
        return xp.concatenate((there, near * there), 1).reshape(-1, pairs.shape[-1])

    def _peers(self, xp: Any, peers: Array, frame: _Frame) -> Array:
        """``[34 n, M]``; a message is base (4), tool (3), joints (6), speeds (6), target (3), stall, age."""
        there, gap, message = peers[:, :1], peers[:, 1:2], peers[:, 2:]
        reach, s = self._arm.reach_m, self._settings
        base, tool, target = (frame.point(message[:, k : k + 3]) / reach for k in (0, 4, 19))
        cos, sin = xp.cos(message[:, 3:4]), xp.sin(message[:, 3:4])
        q, dq, stall, age = message[:, 7:13], message[:, 13:19], message[:, 22:23], message[:, 23:24]
        known = (
            _nearness(gap, s.usual_m), base, tool, target, cos * frame.cos + sin * frame.sin,
            sin * frame.cos - cos * frame.sin, xp.sin(q), xp.cos(q), dq / self._top(xp, dq),
            stall / (stall + s.usual_s), age / (age + 0.1),
        )  # fmt: skip
        return xp.concatenate((there, xp.concatenate(known, 1) * there), 1).reshape(-1, peers.shape[-1])

    def _hints(self, xp: Any, told: Array, fixed: Array, base: Array, tool: Array, behind: Array) -> Array:
        """``[36, M]``: each motion scaled as a whole to the top speeds; ``behind`` ``[M]``: whose turn it is not."""
        q, top = told[_Q], self._top(xp, told)
        jacobian = tool_jacobian(q.T, base.T, self._arm)  # [M, 3, 6]
        turned = xp.swapaxes(jacobian, 1, 2)
        square = jacobian @ turned + _DAMPING_M**2 * xp.eye(3, dtype=told.dtype, device=told.device)
        way = told[_TARGET] - tool
        distance = at_least((way * way).sum(0), 1e-12) ** 0.5
        pace = xp.clip(_REACH_PER_S * distance, 0.0, _REACH_MPS) / distance
        nil, cos, sin = xp.zeros_like(base[3]), xp.cos(base[3]), xp.sin(base[3])
        # At q1 = 0 an arm reaches to the -x of its base.
        ways = (xp.stack((-cos, -sin, nil)), xp.stack((sin, -cos, nil)), xp.stack((nil, nil, nil + 1.0)))
        wanted = xp.stack((way * pace, *(_ASIDE_MPS * axis for axis in ways)), -1)  # [3, M, 4]
        speeds = turned @ xp.linalg.solve(square, xp.swapaxes(wanted, 0, 1))  # [M, 6, 4]
        home = (fixed[_HOME] - q) * _HOME_PER_S
        motions = [speeds[..., 0].T, home, *(speeds[..., k].T for k in range(1, 4))]
        shares = [motion / top for motion in motions]
        reach, home, *axes = (share / at_least(_largest(xp, share), 1.0) for share in shares)
        return xp.concatenate((xp.where(behind, home, reach), reach, home, *axes))

    def _top(self, xp: Any, like: Array) -> Array:
        return xp.asarray(self._top_radps, dtype=like.dtype, device=like.device)[:, None]


def _nearness(gap: Array, usual_m: float) -> Array:
    """1 at no gap or less, 0.5 at the usual one, falling to 0."""
    return usual_m / (usual_m + at_least(gap, 0.0))


def _largest(xp: Any, share: Array) -> Array:
    """Largest size of each column, ``[M]``."""
    size = xp.abs(share)
    return size.max(0) if xp is np else size.amax(0)


def _is_behind(way: Array, peers: Array) -> Array:
    """Whether a peer within :data:`TURN_M` is nearer to its target, ``[M]``; ``way`` ``[3, M]`` to the own one."""
    left = peers[:, 21:24] - peers[:, 6:9]  # a message's target less its tool, after presence and gap
    sooner = (left * left).sum(1) < (way * way).sum(0)
    return (sooner & (peers[:, 0] > 0.5) & (peers[:, 1] < TURN_M)).any(0)
