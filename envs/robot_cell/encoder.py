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
from .kinematics import Pose, Value, module_of, stacked, tool_jacobian
from .nameplate import ARM, MEASURED, STATICS
from .near import nearest, nearest_of_one, shape_rows

Array = Any

_HEARD_Q1 = [signal.name for signal in MEASURED].index("heard_q1_rad")
_HEARD_Q = slice(_HEARD_Q1, _HEARD_Q1 + N_JOINTS)
_HEARD = slice(_HEARD_Q1, _HEARD_Q1 + 2 * N_JOINTS + 5)  # joints, speeds, target, stall, age
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}
_BASE, _YAW = slice(_STATIC["base_x_m"], _STATIC["base_x_m"] + 3), _STATIC["base_yaw_deg"]
_HOME = slice(_STATIC["home_q1_rad"], _STATIC["home_q1_rad"] + N_JOINTS)
_MOST = 2.0
_RAD = math.pi / 180.0
_FEW = 16
"""Up to so many arms, float by float is faster than numpy."""


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
        self._last: tuple[Any, Array] | None = None

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
        xp = module_of(measured)
        answered = present if asked is None else present & asked
        few = xp is np and present.size <= _FEW
        if not few:
            features = self._together(measured, statics, present)
            return xp.where(answered[..., None], features, xp.zeros_like(features)), memory
        # A policy and who watches its inputs ask of the same reading.
        seen = tuple(v.tobytes() for v in (measured, statics, present, answered)), measured.dtype
        last = self._last
        if last is None or last[0] != seen:
            self._last = last = seen, self._one_by_one(measured, statics, present, answered)
        return last[1].copy(), memory

    def _together(self, measured: Array, statics: Array, present: Array) -> Array:
        """Features ``[B, N, F]`` of all arms at once."""
        xp, s = module_of(measured), self._settings
        here = present[..., None]
        n_rows, n = present.shape
        m = n_rows * n
        told = xp.where(here, measured, xp.zeros_like(measured)).reshape(m, -1).T
        fixed = xp.where(here, statics, xp.zeros_like(statics)).reshape(m, -1).T
        bases = xp.concatenate((fixed[_BASE], fixed[_YAW, None] * _RAD))
        own = stacked(told[Q].T, bases.T, self._shape, self._arm)
        pairs: Sequence[Sequence[Value]] = ()
        peers: Sequence[Sequence[Value]] = ()
        if n > 1 and s.n_pairs + s.n_peers > 0:
            heard = stacked(told[_HEARD_Q].T, bases.T, self._shape, self._arm)
            message = xp.concatenate((bases, heard[-3:], told[_HEARD]))
            near = nearest(own, heard, message, present, self._arm, s.n_pairs, s.n_peers)
            pairs, peers = (xp.swapaxes(v, 0, 1) for v in near)
        jacobian = None
        if s.hints:
            jacobian = tool_jacobian(told[Q].T, bases.T, self._arm).reshape(m, -1).T.reshape(3, N_JOINTS, m)
        features = xp.stack(self._features(told, fixed, bases, own[-3:], jacobian, pairs, peers))
        seen = features[: self._n_seen]
        seen = np.clip(seen, -_MOST, _MOST) if xp is np else seen.clamp(-_MOST, _MOST)
        return xp.concatenate((seen, features[self._n_seen :])).T.reshape(n_rows, n, -1)

    def _one_by_one(self, measured: Array, statics: Array, present: Array, answered: Array) -> Array:
        """The same of those to be answered, float by float."""
        features = np.zeros((*present.shape, self.n_features), measured.dtype)
        for row, wanted in enumerate(answered):
            wanted = np.flatnonzero(wanted).tolist()
            if wanted:
                features[row, wanted] = self._of_cell(measured[row], statics[row], present[row], wanted)
        seen = features[..., : self._n_seen]
        np.minimum(np.maximum(seen, -_MOST, out=seen), _MOST, out=seen)
        return features

    def _of_cell(self, measured: Array, statics: Array, present: Array, wanted: list[int]) -> list[list[float]]:
        """Features of some arms of one cell: ``measured`` ``[N, O]``, ``statics`` ``[N, S]``, ``present`` ``[N]``."""
        s, told, fixed, there = self._settings, measured.tolist(), statics.tolist(), present.tolist()
        bases = [[*row[_BASE], row[_YAW] * _RAD] for row in fixed]
        # Of an arm that is asked about alone nobody needs what is heard.
        heard = [k for k in range(len(told)) if there[k] and wanted != [k]] if s.n_pairs + s.n_peers > 0 else []
        joints = [told[k][Q] for k in wanted] + [told[k][_HEARD_Q] for k in heard]
        bodies = self._body.each(np.array(joints), np.array([bases[k] for k in (*wanted, *heard)]))
        as_heard, found = dict(zip(heard, bodies[len(wanted) :], strict=True)), []
        for k, own in zip(wanted, bodies, strict=False):
            # The others of an arm are those after it, around; who is not there is where the arm itself is.
            others = [(k + turn) % len(told) for turn in range(1, len(told))] if heard else []
            pairs: list[list[float]] = []
            peers: list[list[float]] = []
            if others:
                places = [as_heard.get(j, own) for j in others]
                pairs, nearby = nearest_of_one(
                    self._body, own, places, [there[j] for j in others], s.n_pairs, s.n_peers
                )
                for here, gap, at in nearby:
                    j = others[at]
                    peers.append([here, gap, *bases[j], *places[at].tool_m.tolist(), *told[j][_HEARD]])
            jacobian = own.tool_rates.tolist() if s.hints else None
            found.append(self._features(told[k], fixed[k], bases[k], own.tool_m.tolist(), jacobian, pairs, peers))
        return found

    def _features(
        self,
        told: Any,
        fixed: Any,
        base: Sequence[Value],
        tool: Sequence[Value],
        jacobian: Any,
        pairs: Sequence[Sequence[Value]],
        peers: Sequence[Sequence[Value]],
    ) -> list[Value]:
        """Of one arm in floats, or of all at once, each argument's components first."""
        s, reach_m, top = self._settings, self._arm.reach_m, self._top_radps
        frame, nil = BaseFrame.of(base), told[0] - told[0]
        found = own_features(told, tool, frame, top, reach_m, s.usual_m, s.usual_s)
        for pair in pairs:
            found += pair_features(pair, frame, reach_m, s.usual_m)
        found += [nil] * (N_PAIR * (s.n_pairs - len(pairs)))
        behind = nil > 0.0
        for peer in peers:
            found += peer_features(peer, frame, top, reach_m, s.usual_m, s.usual_s)
            behind = behind | is_sooner(peer, told[TARGET], tool)
        found += [nil] * (N_PEER * (s.n_peers - len(peers)))
        if jacobian is not None:
            found += motion_shares(told, fixed[_HOME], tool, frame, jacobian, behind, top)
        return found

    def _shape(self, p: Pose) -> list[Value]:
        return shape_rows(p, self._arm)
