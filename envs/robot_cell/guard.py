"""Rows on joint speeds that keep arms off each other, off themselves, off people and off things.

A row is about one gap ``d`` between two capsules with gradient ``g`` by the arm's own joints: the command ``u`` may
close it at no more than a share of ``gain`` times what is left, ``g . u >= -share gain (d - least)`` (Ames et al. 2019,
arXiv 1903.11199). Of two arms each answers for one half, by what it has heard of the other, so that each can decide
alone. What was heard is old: the other may have come nearer by its speed then, and by what it may have gained since.
Where that is as much as the gap, no way is known to lead off it, and the arm stands until it hears again.

An arm can brake all joints together from full speed within ``T = max speed / braking`` (0.21 s by the maker's stopping
data), along the line of its present speeds. So a gap that closes at ``v`` still shrinks by ``v (reaction + T / 2)``;
with ``gain <= 1 / (reaction + T / 2)`` that is no more than is left, and "still able to stop" is what the rows say.
Where the closing of several gaps can't fall as fast as the rows ask, the row is as far as braking gets: braking keeps
every row.

Rows are straight and gaps are not: an arm that runs along one at top speed loses up to a millimetre of it a period. So
from :data:`_WITHIN_M` inside a distance on an arm moves only outwards, by more than the bend of the gap can take:
``g . u >= bend |u|_1``, a cone with its tip at rest, which is one row for each of the 64 signs of ``u``.

What is not known any more (NaN) is anywhere: a peer is not heard then, and for people and things the arm stands.

People: the closing speed to a person is at most what ISO 10218-2's separation leaves (:mod:`.guard_settings`); where
nothing is left the arm stops, wherever it was going.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..constraint import RowTerms
from .arm import N_JOINTS, UR5E, with_tool
from .arm_body import ArmBody, ArmShape, Body, shape_of
from .gaps import body_gaps
from .nameplate import ARM, BODY_MEASURED, MEASURED, OBSTACLE, PERSON
from .surroundings import MOUNTED, PLANE_GAPS, Pairs, look_around, look_down, pairs_of

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
_HEARD = slice(_AT["heard_q1_rad"], _AT["heard_age_s"] + 1)
_WITHIN_REACH = 0.98  # of the brakes, so that rounding leaves "as fast as it can brake" in reach
_WITHIN_M = 0.002  # noise of the encoders is a tenth of it
_BEND_M = 1.0  # of a gap, by joints that run together: m a rad^2, twice what has been seen
_SAME_M = 1e-9
_CONES = 2  # of the deepest gaps; of links that are neighbours one cone stands for the others
_SIGNS = 1.0 - 2.0 * (np.arange(2**N_JOINTS)[:, None] >> np.arange(N_JOINTS) & 1)
_EACH_WAY = np.concatenate([np.eye(N_JOINTS), -np.eye(N_JOINTS)])

_NOBODY = np.zeros((0, len(BODY_MEASURED)))

Rows = tuple[Floats, Floats]
"""``[R, 6]`` and ``[R]``: ``control @ u >= least``."""
_Near = tuple[Floats, Floats, Floats]
"""What a reading asks of an arm, whatever it obeys: rows ``[R, 6]``, what they should be at least ``[R]``, and by how
much ``[R]`` they may ask for more than braking along the present speeds gives."""
_UNKNOWN = (np.full((1, N_JOINTS), math.nan), np.full(1, math.nan), np.zeros(1))


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

    @cached_property
    def _made(self) -> _Made:
        arm = with_tool(UR5E, self.tool_length_m) if self.tool_length_m > 0 else UR5E
        solid = np.array(self.capsules)
        fixtures = [Body(solid[:, :3], solid[:, 3:6] - solid[:, :3], solid[:, 6])] if len(solid) else []
        return _Made(shape_of(arm), np.array(self.bases), np.array(self.planes), fixtures)

    @property
    def stopping_s(self) -> float:
        """From full speed to a stand, all joints together."""
        return self.joint_speed_radps / float(_BRAKING.min())

    def __call__(self, measured: Mapping[str, Floats], applied: Floats, /) -> RowTerms:
        """Rows ``[N, R]`` at measured ``[N, O]`` a group under ``applied`` ``[N, 6]`` rad/s."""
        made = self._made
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
        made, arms = self._made, measured[ARM]
        q, age_s, told = arms[k, _Q], arms[:, _HEARD_AGE].tolist(), arms[:, _HEARD].sum(1).tolist()
        heard = [j for j in range(len(self.bases)) if j != k and age_s[j] <= self.blind_s and math.isfinite(told[j])]
        own, *peers = made.shape.each(np.array([q, *arms[heard, _HEARD_Q]]), made.bases[[k, *heard]])
        moving = measured[OBSTACLE] if self.has_obstacles else _NOBODY
        people = measured[PERSON] if self.has_people else _NOBODY
        bodies = [_bodies(rows) for rows in (moving, people) if len(rows)]
        pairs, pace, spare_m = made.paired(self, len(peers), len(moving), len(people))
        late = any(age_s[j] > 0.0 for j in heard)
        seen = look_around(own, peers, made.fixtures + bodies, pairs, theirs=late)
        gap, gradient = seen.gap_m, seen.gradient
        if len(made.planes):
            gap, gradient = map(np.concatenate, zip((gap, gradient), look_down(own, made.planes), strict=True))
        allowed = gap - spare_m
        ends = allowed[pairs.ends].reshape(4, -1)  # where one of them is nearest, its row is there already
        ends[ends - allowed[pairs.itself] < _SAME_M] = math.inf
        cones = self._cones(allowed, gradient, pairs)
        stops = len(people) > 0 and not (allowed[pairs.people] > 0.0).all()
        if late:
            moves = seen.theirs.reshape(len(heard), -1, N_JOINTS, 3)
            drift, travel = self._since(moves, seen.normal[pairs.peers].reshape(len(heard), -1, 3), arms[heard])
            allowed[pairs.peers] -= drift
            # where the other may be here already, no way is known to lead off it
            stops |= not (gap[pairs.peers] > travel).all()
        if len(people) and not np.isfinite(allowed[pairs.people]).all():
            return _UNKNOWN
        allowed *= pace
        # never asked to part: standing still is always allowed, and braking always enough
        floor, steep = -np.maximum(allowed, 0.0), self.joint_speed_radps * np.abs(gradient).sum(1)
        near, spare = ~(allowed >= steep), np.zeros(len(allowed))
        if len(moving):  # the arm makes way at their measured speed, where its brakes can
            at = pairs.obstacles
            comes = (seen.normal[at] * moving[pairs.second[at] - pairs.second[at.start], _VELOCITY]).sum(1)
            near[at] = ~(allowed[at] - np.maximum(comes, 0.0) >= steep[at])
            floor[at] = comes - allowed[at]
            spare[at] = 0.5 * (np.abs(gradient[at]) @ (_WITHIN_REACH * self.period_s * _BRAKING))
        rows, least, spare = gradient[near], floor[near], spare[near]
        parts = [*self._range(q), *cones]
        for j in range(len(self.bases)):
            if j != k and j not in heard:
                around, is_inside = self._blind(own, made, j)
                parts.append(around)
                stops |= is_inside
        if stops:  # a protective stop: every joint brakes, and none may start
            parts = [(_EACH_WAY, np.zeros(2 * N_JOINTS), np.zeros(2 * N_JOINTS))]
            rows, least, spare = rows[:0], least[:0], spare[:0]
        if parts:
            rows, least, spare = map(np.concatenate, zip((rows, least, spare), *parts, strict=True))
        if not (np.isfinite(rows).all() and not np.isnan(least).any()):
            return _UNKNOWN
        return rows, least, spare

    def separation_m(self, closing_mps: float = 0.0) -> float:
        """Protective separation at that closing speed: ``v_h (T_r + T_s) + v_r (T_r + T_s / 2) + C + Z``, ``T_s`` the
        time to stop from full speed."""
        together_s = self.reaction_s + self.stopping_s
        return self.approach_mps * together_s + closing_mps * (self.reaction_s + 0.5 * self.stopping_s) + self.spare_m

    def _brake_pu(self, applied: Floats) -> float:
        """Share of all speeds that the brakes take off in a period, joint by joint alike."""
        speed = np.abs(applied)
        return min(1.0, float((_WITHIN_REACH * self.period_s * _BRAKING / np.maximum(speed, 1e-12)).min()))

    def _cones(self, allowed: Floats, gradient: Floats, pairs: Pairs) -> list[_Near]:
        """Where arms are inside a distance, of what does not come to them by itself: only outwards."""
        fixed, planes = allowed[: pairs.obstacles.start], allowed[pairs.people.stop :]
        if fixed.min(initial=0.0) > -_WITHIN_M and planes.min(initial=0.0) > -_WITHIN_M:
            return []
        left = allowed.copy()
        left[pairs.obstacles] = left[pairs.people] = math.inf
        deepest = [i for i in left.argsort()[:_CONES].tolist() if left[i] <= -_WITHIN_M]
        bend = _BEND_M * self.period_s * self.joint_speed_radps
        return [(gradient[i] - bend * _SIGNS, np.zeros(len(_SIGNS)), np.zeros(len(_SIGNS))) for i in deepest]

    def _range(self, q: Floats) -> list[_Near]:
        """Joints stay within their range; nothing where none is near an end."""
        left = np.concatenate([q - _LOW, _HIGH - q])
        near = ~(self.gain_per_s * left >= self.joint_speed_radps)
        if not near.any():
            return []
        return [(_EACH_WAY[near], -self.gain_per_s * np.maximum(left[near], 0.0), np.zeros(np.count_nonzero(near)))]

    def _since(self, moves: Floats, normal: Floats, heard: Floats) -> tuple[Floats, Floats]:
        """By how much gaps may have shrunk since peers were heard, and how far the peers' points may have gone, m: by
        their speed then and what they may have gained since, no faster than joints go.

        ``moves`` ``[H, 64, 6, 3]``, ``normal`` ``[H, 64, 3]``, ``heard`` ``[H, O]``; ``[64 H]`` each.
        """
        age_s, speed = heard[:, _HEARD_AGE, None], heard[:, _HEARD_DQ]
        came = np.einsum("hpjc,hj->hpc", moves, speed)
        closing = np.maximum(np.einsum("hpc,hpc->hp", came, normal), 0.0)
        towards = np.abs(np.einsum("hpjc,hpc->hpj", moves, normal))
        anywhere = np.sqrt(np.einsum("hpjc,hpjc->hpj", moves, moves))
        found = []
        for then, rates in ((closing, towards), (np.sqrt(np.einsum("hpc,hpc->hp", came, came)), anywhere)):
            gained = 0.5 * age_s * age_s * (rates @ _BRAKING)
            most = rates.sum(-1) * self.joint_speed_radps * age_s
            found.append(np.minimum(then * age_s + gained, most).reshape(-1))
        return found[0], found[1]

    def _blind(self, own: ArmBody, made: _Made, j: int) -> tuple[_Near, bool]:
        """A peer not heard for long may be anywhere in a ball of its whole reach about its shoulder: rows that keep out
        of it, and whether the arm is inside."""
        reach_m = UR5E.reach_m + self.tool_length_m + UR5E.d_m[5]
        at = np.array([[*made.bases[j][:2], made.bases[j][2] + UR5E.d_m[0]]])
        ball = Body(at, np.zeros((1, 3)), np.array([reach_m]))
        gaps = body_gaps(own, ball)
        gradient = gaps.gradient_a.reshape(-1, N_JOINTS)
        left = gaps.gap_m.reshape(-1) - self.arm_gap_m
        allowed = self.gain_per_s * left
        near = ~(allowed >= self.joint_speed_radps * np.abs(gradient).sum(1))
        rows = gradient[near], -np.maximum(allowed[near], 0.0), np.zeros(np.count_nonzero(near))
        return rows, not (left[MOUNTED:] > 0.0).all()


@dataclass
class _Made:
    """What is worked out once from a cell's numbers, and of the newest reading, and the newest answer."""

    shape: ArmShape
    bases: Floats
    planes: Floats
    fixtures: list[Body]
    pairs: dict[tuple[int, ...], tuple[Pairs, Floats, Floats]] = field(default_factory=dict)
    reading: tuple[bytes, ...] = ()
    near: dict[int, _Near] = field(default_factory=dict)
    last: tuple[bytes, RowTerms] | None = None

    def paired(self, rows: CellRows, *counts: int) -> tuple[Pairs, Floats, Floats]:
        """Pairs among so many peers, obstacles and people; of each, closing speed a metre left, and what must be."""
        if counts not in self.pairs:
            n_peers, n_obstacles, n_people = counts
            pairs = pairs_of(self.shape.arm, n_peers, len(rows.capsules), n_obstacles, n_people)
            count = len(pairs.first) + PLANE_GAPS * len(self.planes)
            pace, spare_m = np.full(count, rows.gain_per_s), np.full(count, rows.fixture_gap_m)
            spare_m[pairs.itself] = spare_m[pairs.ends] = rows.self_gap_m
            spare_m[pairs.peers] = rows.arm_gap_m
            pace[pairs.peers] *= 0.5  # each arm answers for half of the closing
            spare_m[pairs.people] = rows.separation_m()
            pace[pairs.people] = 1.0 / (rows.reaction_s + 0.5 * rows.stopping_s)
            self.pairs[counts] = pairs, pace, spare_m
        return self.pairs[counts]


def _bodies(rows: Floats) -> Body:
    return Body(rows[:, _START], rows[:, _END] - rows[:, _START], rows[:, _RADIUS])
