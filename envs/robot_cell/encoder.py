"""An arm's view of its cell: itself, its target, what is near, and the arms that it hears.

Everything is in the frame of the arm's own base and the nearest come first, so that one policy serves any number of
arms in any places. The own row is fresh; of other arms only the ``heard_*`` signals are used. Runs on numpy and
on torch alike (:mod:`twinloop.envs.encoder`); inside, batch and arms are one last axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat

from ..configuration import Strict
from ..nameplate import Nameplate
from .arm import N_JOINTS, UR5E, with_tool
from .arm_body import shape_of
from .arm_features import (
    MOTIONS,
    N_OWN,
    N_PAIR,
    N_PEER,
    TARGET,
    BaseFrame,
    Q,
    is_sooner,
    motion_shares,
    own_features,
    pair_features,
    peer_features,
)
from .kinematics import Pose, Value, as_floats, module_of, stacked, tool_jacobian
from .nameplate import ARM, MEASURED, STATICS
from .near import nearest, shape_rows

Array = Any

_HEARD_Q1 = [signal.name for signal in MEASURED].index("heard_q1_rad")
_HEARD_Q = slice(_HEARD_Q1, _HEARD_Q1 + N_JOINTS)
_HEARD = slice(_HEARD_Q1, _HEARD_Q1 + 2 * N_JOINTS + 5)  # joints, speeds, target, stall, age
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}
_BASE, _YAW = slice(_STATIC["base_x_m"], _STATIC["base_x_m"] + 3), _STATIC["base_yaw_deg"]
_HOME = slice(_STATIC["home_q1_rad"], _STATIC["home_q1_rad"] + N_JOINTS)
_MOST = 2.0


class ArmSettings(Strict):
    """Settings of the encoder ``arm``."""

    n_pairs: NonNegativeInt = Field(4, le=32, description="nearest pairs of own and others' capsules that it sees")
    n_peers: NonNegativeInt = Field(1, le=7, description="nearest other arms that it hears")
    usual_m: PositiveFloat = Field(0.1, description="a gap that counts as middling")
    usual_s: PositiveFloat = Field(2.0, description="a stall that counts as middling")
    tool_length_m: float = Field(0.0, ge=0, le=0.5, description="as in the site's configuration")
    hints: bool = Field(False, description="whether it proposes motions: to the target, home, along each axis")


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
        self._body = shape_of(self._arm)

    @property
    def n_features(self) -> int:
        return self._n_seen + (N_JOINTS * len(MOTIONS) if self._settings.hints else 0)

    @property
    def _n_seen(self) -> int:
        return N_OWN + N_PAIR * self._settings.n_pairs + N_PEER * self._settings.n_peers

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
        return self.encode_some(measured, statics, present, memory, dt_s, None)

    def encode_some(
        self,
        measured: Array,
        statics: Array,
        present: Array,
        memory: Mapping[str, Array],
        dt_s: float,
        asked: Array | None,
    ) -> tuple[Array, Mapping[str, Array]]:
        """The same, zero where ``asked`` ``[N]`` is False too; None: for all."""
        xp, s = module_of(measured), self._settings
        here = present[..., None]
        n_rows, n = present.shape
        told = xp.where(here, measured, xp.zeros_like(measured)).reshape(n_rows * n, -1).T
        fixed = xp.where(here, statics, xp.zeros_like(statics)).reshape(n_rows * n, -1).T
        lanes = xp.arange(n_rows * n, device=measured.device)
        if asked is not None:
            lanes = lanes[xp.broadcast_to(asked, (n_rows, n)).reshape(-1)]
        if not len(lanes):
            return xp.zeros((n_rows, n, self.n_features), dtype=measured.dtype, device=measured.device), memory
        bases = xp.concatenate((fixed[_BASE], fixed[_YAW, None] * (math.pi / 180.0)))
        whole, all_told = bases, told
        if asked is not None:
            told, fixed, bases = told[:, lanes], fixed[:, lanes], bases[:, lanes]
        own, heard, jacobian = self._looked(told[Q], all_told[_HEARD_Q], bases, whole)
        pairs = peers = None
        if n > 1 and heard is not None:
            message = xp.concatenate((whole, heard[-3:], all_told[_HEARD]))
            pairs, peers = nearest(own, heard, message, present, lanes, self._arm, s.n_pairs, s.n_peers)
        parts = told, fixed, bases, own[-3:], jacobian, pairs, peers
        if as_floats(told[Q]):
            found = [self._features([_of_lane(part, k) for part in parts]) for k in range(len(lanes))]
            features = xp.array(found, dtype=told.dtype).reshape(len(lanes), -1).T
        else:
            features = xp.stack(self._features(parts))
        features = self._bounded(xp, features)
        if asked is not None:
            placed = xp.zeros((len(features), n_rows * n), dtype=told.dtype, device=told.device)
            placed[:, lanes] = features
            features = placed
        features = features.T.reshape(n_rows, n, self.n_features)
        return xp.where(here, features, xp.zeros_like(features)), memory

    def _features(self, parts: Sequence[Any]) -> list[Value]:
        """Of one arm in floats, or of all at once, each part's first axis being its components."""
        s, arm = self._settings, self._arm
        told, fixed, bases, tool, jacobian, pairs, peers = parts
        frame = BaseFrame.of(bases)
        found = own_features(told, tool, frame, self._top_radps, arm.reach_m, s.usual_m, s.usual_s)
        nil = told[0] - told[0]
        behind = nil > 0.0
        for k in range(s.n_pairs):
            known = pairs is not None
            found += pair_features(_of(pairs, k), frame, arm.reach_m, s.usual_m) if known else [nil] * N_PAIR
        for k in range(s.n_peers):
            if peers is None or k >= len(peers[0]):
                found += [nil] * N_PEER
                continue
            peer = _of(peers, k)
            found += peer_features(peer, frame, self._top_radps, arm.reach_m, s.usual_m, s.usual_s)
            behind = behind | is_sooner(peer, told[TARGET], tool)
        if jacobian is not None:
            found += motion_shares(told, fixed[_HOME], tool, frame, jacobian, behind, self._top_radps)
        return found

    def _bounded(self, xp: Any, features: Array) -> Array:
        """What is seen is no larger than two; motions are shares already."""
        seen = features[: self._n_seen]
        # np.clip takes several times as long as two bounds on few numbers
        seen = np.minimum(np.maximum(seen, -_MOST), _MOST) if xp is np else seen.clamp(-_MOST, _MOST)
        return xp.concatenate((seen, features[self._n_seen :]))

    def _looked(self, q: Array, heard: Array, bases: Array, whole: Array) -> tuple[Array, Array | None, Array | None]:
        """Shapes (:func:`~.near.shape_rows`) of arms at ``q`` ``[6, M]`` on ``bases`` ``[4, M]`` and at ``heard`` on
        ``whole``, and the Jacobians ``[3, 6, M]`` of the former's tools; None for what the settings have no use for."""
        s = self._settings
        sees, hints, m = s.n_pairs + s.n_peers > 0, s.hints, q.shape[1]
        if not (as_floats(q) and as_floats(heard)):
            shape, jacobian = stacked(q.T, bases.T, self._shape, self._arm), None
            if hints:
                jacobian = tool_jacobian(q.T, bases.T, self._arm).reshape(m, -1).T.reshape(3, N_JOINTS, m)
            return shape, stacked(heard.T, whole.T, self._shape, self._arm) if sees else None, jacobian
        joints = np.concatenate((q, heard), 1) if sees else q
        feet = np.concatenate((bases, whole), 1) if sees else bases
        bodies = self._body.each(joints.T.astype(np.float64), feet.T.astype(np.float64))
        starts, ends = np.array([b.start_m for b in bodies]), np.array([b.along_m for b in bodies])  # [K, 8, 3]
        ends += starts
        tools, k = np.array([b.tool_m for b in bodies]), len(bodies)
        shape = np.concatenate((starts.T.reshape(-1, k), ends.T.reshape(-1, k), tools.T)).astype(q.dtype, copy=False)
        jacobian = np.array([b.tool_rates for b in bodies[:m]]).astype(q.dtype, copy=False) if hints else None
        return shape[:, :m], shape[:, m:] if sees else None, None if jacobian is None else jacobian.transpose(1, 2, 0)

    def _shape(self, p: Pose) -> list[Value]:
        return shape_rows(p, self._arm)


def _of(parts: Any, k: int) -> list[Value]:
    """The components of the ``k``-th pair or peer."""
    return [component[k] for component in parts]


def _of_lane(part: Array | None, lane: int) -> Any:
    """One arm's components as floats."""
    return None if part is None else part[..., lane].tolist()
