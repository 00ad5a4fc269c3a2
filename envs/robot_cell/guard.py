"""Rows on joint speeds that keep arms off each other, off themselves, off people and off things.

A row is about one gap ``d`` between two capsules with gradient ``g`` by the arm's own joints: the command ``u`` may
close it at no more than a share of ``gain`` times what is left, ``g . u >= -share gain (d - least)`` (Ames et al. 2019,
arXiv 1903.11199). Of two arms each answers for one half, by what it has heard of the other, so that each can decide
alone. What was heard is old: the other may have come nearer by its speed then, and by what it may have gained since.

An arm can brake all joints together from full speed within ``T = max speed / braking`` (0.21 s by the maker's stopping
data), along the line of its present speeds. So a gap that closes at ``v`` still shrinks by ``v (reaction + T / 2)``;
with ``gain <= 1 / (reaction + T / 2)`` that is no more than is left, and "still able to stop" is what the rows say.
Where the closing of several gaps can't fall as fast as the rows ask, the row is as far as braking gets: braking keeps
every row.

People: the closing speed to a person is at most what ISO 10218-2's separation leaves (:mod:`.guard_settings`); where
nothing is left the arm stops, wherever it was going.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..constraint import RowTerms
from .arm import N_JOINTS, UR5E, with_tool
from .gaps import ArmBody, ArmShape, Body, Gaps, arm_gaps, body_gaps, plane_gaps, self_gaps
from .nameplate import ARM, BODY_MEASURED, MEASURED, OBSTACLE, PERSON

Floats = NDArray[np.float64]
Place = tuple[float, float, float, float]

_AT = {signal.name: k for k, signal in enumerate(MEASURED)}
_BODY_AT = {signal.name: k for k, signal in enumerate(BODY_MEASURED)}
_Q = slice(_AT["q1_rad"], _AT["q1_rad"] + N_JOINTS)
_HEARD_Q = slice(_AT["heard_q1_rad"], _AT["heard_q1_rad"] + N_JOINTS)
_HEARD_DQ = slice(_AT["heard_dq1_radps"], _AT["heard_dq1_radps"] + N_JOINTS)
_HEARD_AGE, _GAP = _AT["heard_age_s"], _AT["gap_m"]
_START = slice(_BODY_AT["start_x_m"], _BODY_AT["start_x_m"] + 3)
_END = slice(_BODY_AT["end_x_m"], _BODY_AT["end_x_m"] + 3)
_RADIUS = _BODY_AT["radius_m"]
_VELOCITY = slice(_BODY_AT["vx_mps"], _BODY_AT["vx_mps"] + 3)

_BRAKING = np.array(UR5E.braking_radps2)
_LOW, _HIGH = np.array(UR5E.q_min_rad), np.array(UR5E.q_max_rad)
_WITHIN_REACH = 0.98  # of the brakes, so that rounding leaves "as fast as it can brake" in reach
_EACH_WAY = np.concatenate([np.eye(N_JOINTS), -np.eye(N_JOINTS)])
_NONE = (np.zeros((0, N_JOINTS)), np.zeros(0), np.zeros(0))

Rows = tuple[Floats, Floats]
"""``[R, 6]`` and ``[R]``: ``control @ u >= least``."""
_Near = tuple[Floats, Floats, Floats]
"""What a reading asks of an arm, whatever it obeys: rows ``[R, 6]``, what they should be at least ``[R]``, and by how
much ``[R]`` they may ask for more than braking along the present speeds gives."""


@dataclass(frozen=True)
class CellRows:
    """Rows of every arm, or of the one in ``seat`` (from 1; 0: all of them). Lengths m, times s, speeds rad/s.

    ``bases``: x, y, z and yaw in rad; ``planes``: unit normal and offset; ``capsules``: two ends and a radius.
    """

    bases: tuple[Place, ...]
    tool_length_m: float
    planes: tuple[Place, ...]
    capsules: tuple[tuple[float, ...], ...]
    has_people: bool
    has_obstacles: bool
    seat: int
    period_s: float
    joint_speed_radps: float
    gain_per_s: float
    arm_gap_m: float
    self_gap_m: float
    fixture_gap_m: float
    blind_s: float
    reaction_s: float
    approach_mps: float
    spare_m: float

    def describe(self) -> str:
        """For the table of limits."""
        return (
            f"gaps: arms {self.arm_gap_m:g} m, fixtures {self.fixture_gap_m:g} m; closing at most "
            f"{self.gain_per_s:g}/s of what is left; people by ISO 10218-2 at {self.approach_mps:g} m/s"
        )

    @property
    def stopping_s(self) -> float:
        """From full speed to a stand, all joints together."""
        return self.joint_speed_radps / float(_BRAKING.min())

    def __call__(self, measured: Mapping[str, Floats], applied: Floats, /) -> RowTerms:
        """Rows ``[N, R]`` at measured ``[N, O]`` a group under ``applied`` ``[N, 6]`` rad/s."""
        made = _made(self)
        reading = tuple(measured[name].tobytes() for name in sorted(measured))
        if made.reading != reading:  # filter, second look and standby ask of the same reading
            made.reading, made.near, made.last = reading, {}, None
        asked = applied.tobytes()
        if made.last is None or made.last[0] != asked:
            made.last = (asked, self._rows(measured, applied, made.near))
        return made.last[1]

    def _rows(self, measured: Mapping[str, Floats], applied: Floats, known: dict[int, _Near]) -> RowTerms:
        n = len(self.bases)
        seats = range(n) if self.seat == 0 else (self.seat - 1,)
        for k in seats:
            if k not in known:
                known[k] = self._near(k, measured)
        found = {k: self._ends(known[k], applied[k]) for k in seats}
        most = max(len(least) for _, least in found.values())
        control, least = np.zeros((n, most, N_JOINTS)), np.full((n, most), -math.inf)
        for k, (rows, ends) in found.items():
            control[k, : len(ends)], least[k, : len(ends)] = rows, ends
        return RowTerms(control, least)

    def margin(self, measured: Mapping[str, Any], /) -> Any:
        """The arm's own smallest gap, ``[..., N]`` m; below 0 something touches."""
        return measured[ARM][..., _GAP]

    def of_arm(self, k: int, measured: Mapping[str, Floats], applied: Floats) -> Rows:
        """Rows of arm ``k`` (from 0); NaN where what they need is no number."""
        return self._ends(self._near(k, measured), applied)

    def _ends(self, near: _Near, applied: Floats) -> Rows:
        """The rows under ``applied`` ``[6]``: never more is asked than the brakes give."""
        rows, floor, spare = near
        slowed = applied * (1.0 - self._brake_pu(applied))
        least = np.minimum(floor, rows @ slowed + spare)
        if np.isnan(least).any():
            return np.full((1, N_JOINTS), math.nan), np.full(1, math.nan)
        return rows, least

    def _near(self, k: int, measured: Mapping[str, Floats]) -> _Near:
        made = _made(self)
        arms = measured[ARM]
        q, own = arms[k, _Q], made.shape.at(arms[k, _Q], made.bases[k])
        parts = [self._range(q)]
        parts.append(self._closing(self_gaps(own, made.shape.self_pairs), self.self_gap_m, 1.0))
        for j in range(len(self.bases)):
            if j != k:
                parts.append(self._peer(own, made, arms[j], j))
        for plane in self.planes:
            gaps = plane_gaps(own, np.array(plane[:3]), plane[3])
            parts.append(self._closing(gaps, self.fixture_gap_m, 1.0))
        if made.fixtures is not None:
            parts.append(self._closing(_free(body_gaps(own, made.fixtures)), self.fixture_gap_m, 1.0))
        if self.has_obstacles:
            parts.append(self._moving(own, measured[OBSTACLE]))
        if self.has_people:
            parts.append(self._people(own, measured[PERSON]))
        rows, floor, spare = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not (np.isfinite(rows).all() and not np.isnan(floor).any()):
            return np.full((1, N_JOINTS), math.nan), np.full(1, math.nan), np.zeros(1)
        return rows, floor, spare

    def separation_m(self, closing_mps: float = 0.0) -> float:
        """Protective separation at that closing speed: ``v_h (T_r + T_s) + v_r (T_r + T_s / 2) + C + Z``, ``T_s`` the
        time to stop from full speed."""
        together_s = self.reaction_s + self.stopping_s
        return self.approach_mps * together_s + closing_mps * (self.reaction_s + 0.5 * self.stopping_s) + self.spare_m

    def _brake_pu(self, applied: Floats) -> float:
        """Share of all speeds that the brakes take off in a period, joint by joint alike."""
        speed = np.abs(applied)
        with np.errstate(divide="ignore"):
            return float(min(1.0, (_WITHIN_REACH * self.period_s * _BRAKING / np.maximum(speed, 1e-12)).min()))

    def _range(self, q: Floats) -> _Near:
        """Joints stay within their range."""
        left = np.concatenate([q - _LOW, _HIGH - q])
        near = ~(self.gain_per_s * left >= self.joint_speed_radps)
        if not near.any():
            return _NONE
        return _EACH_WAY[near], -self.gain_per_s * np.maximum(left[near], 0.0), np.zeros(int(near.sum()))

    def _closing(self, gaps: Gaps, least_m: float, share: float, drift: Floats | float = 0.0) -> _Near:
        """Rows of gaps that nothing but the arm closes, save by ``drift`` m until now."""
        gap, gradient = gaps.gap_m.reshape(-1), gaps.gradient_a.reshape(-1, N_JOINTS)
        allowed = share * self.gain_per_s * (gap - drift - least_m)
        near = ~(allowed >= self.joint_speed_radps * np.abs(gradient).sum(-1))
        # never asked to part: standing still is always allowed, and braking always enough
        return gradient[near], -np.maximum(allowed[near], 0.0), np.zeros(int(near.sum()))

    def _peer(self, own: ArmBody, made: _Made, heard: Floats, j: int) -> _Near:
        age_s = float(heard[_HEARD_AGE])
        if not age_s <= self.blind_s:
            return self._blind(own, made, j)
        gaps = arm_gaps(own, made.shape.at(heard[_HEARD_Q], made.bases[j]))
        if age_s <= 0.0:
            return self._closing(gaps, self.arm_gap_m, 0.5)
        towards = np.abs(gaps.gradient_b)
        came = np.maximum(-(gaps.gradient_b @ heard[_HEARD_DQ]), 0.0) * age_s
        gained = 0.5 * age_s * age_s * (towards @ _BRAKING)
        most = towards.sum(-1) * self.joint_speed_radps * age_s
        return self._closing(gaps, self.arm_gap_m, 0.5, np.minimum(came + gained, most).reshape(-1))

    def _blind(self, own: ArmBody, made: _Made, j: int) -> _Near:
        """A peer not heard for long is a ball of its whole reach about its shoulder."""
        reach_m = UR5E.reach_m + self.tool_length_m + UR5E.d_m[5]
        at = np.array([[*made.bases[j][:2], made.bases[j][2] + UR5E.d_m[0]]])
        ball = Body(at, np.zeros((1, 3)), np.array([reach_m]))
        return self._closing(body_gaps(own, ball), self.arm_gap_m, 1.0)

    def _moving(self, own: ArmBody, rows: Floats) -> _Near:
        """Obstacles that move of themselves: the arm makes way at their measured speed, where it can."""
        gaps = body_gaps(own, _bodies(rows))
        gap, gradient = gaps.gap_m.reshape(-1), gaps.gradient_a.reshape(-1, N_JOINTS)
        comes = np.einsum("akc,kc->ak", gaps.normal, rows[:, _VELOCITY]).reshape(-1)
        allowed = self.gain_per_s * (gap - self.fixture_gap_m)
        near = ~(allowed - np.maximum(comes, 0.0) >= self.joint_speed_radps * np.abs(gradient).sum(-1))
        gradient, comes, allowed = gradient[near], comes[near], allowed[near]
        reach = np.abs(gradient) @ (_WITHIN_REACH * self.period_s * _BRAKING)  # what brakes give from where it slows to
        return gradient, comes - allowed, 0.5 * reach

    def _people(self, own: ArmBody, rows: Floats) -> _Near:
        gaps = body_gaps(own, _bodies(rows))
        if not np.isfinite(gaps.gap_m).all():
            return np.full((1, N_JOINTS), math.nan), np.full(1, math.nan), np.zeros(1)
        left = gaps.gap_m - self.separation_m()
        if left.min() <= 0.0:  # protective stop: every joint brakes, and none may start
            return _EACH_WAY, np.zeros(2 * N_JOINTS), np.zeros(2 * N_JOINTS)
        gradient = gaps.gradient_a.reshape(-1, N_JOINTS)
        allowed = left.reshape(-1) / (self.reaction_s + 0.5 * self.stopping_s)
        near = ~(allowed >= self.joint_speed_radps * np.abs(gradient).sum(-1))
        return gradient[near], -allowed[near], np.zeros(int(near.sum()))


@dataclass
class _Made:
    """What is worked out once from a cell's numbers, and of the newest reading, and the newest answer."""

    shape: ArmShape
    bases: Floats
    fixtures: Body | None
    reading: tuple[bytes, ...] = ()
    near: dict[int, _Near] = field(default_factory=dict)
    last: tuple[bytes, RowTerms] | None = None


@lru_cache(maxsize=8)
def _made(rows: CellRows) -> _Made:
    arm = with_tool(UR5E, rows.tool_length_m) if rows.tool_length_m > 0 else UR5E
    solid = np.array(rows.capsules)
    fixtures = Body(solid[:, :3], solid[:, 3:6] - solid[:, :3], solid[:, 6]) if len(solid) else None
    return _Made(ArmShape(arm), np.array(rows.bases), fixtures)


def _bodies(rows: Floats) -> Body:
    return Body(rows[:, _START], rows[:, _END] - rows[:, _START], rows[:, _RADIUS])


def _free(gaps: Gaps) -> Gaps:
    """Without the two mounted capsules of the arm, which stand where they stand."""
    return Gaps(*(part[2:] for part in vars(gaps).values()))
