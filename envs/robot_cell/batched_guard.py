"""The guard's rows for a batch of cells, in torch: what training sees of the shield. The replica is last.

The same rows as :mod:`.guard`, of the nearest pairs only, and their least change of the command by Dykstra's
projections (Boyle & Dykstra 1986; for half-spaces Hildreth 1957) with a fixed number of sweeps, then drawn towards
braking until every row holds. The shield on the edge solves the same program exactly, with all pairs, people, moving
obstacles, fixtures that are capsules, ranges of joints and peers that fell silent, none of which is here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from .arm import N_CAPSULES, N_JOINTS, Arm
from .clearance import Segments
from .config import PlaneFixture, RobotCellConfig
from .distance import at_least, closest, dot
from .kinematics import Frame, Pose, Vector, point_rates
from .motion import JointLimits

Tensor = torch.Tensor

_NEAREST, _NEAREST_SELF, _NEAREST_LOW = 6, 2, 2
_SWEEPS = 8
_WITHIN_REACH = 0.98
_MOUNTED = 2
_DOWN, _ALONG = (slice(None), None), (None,)  # own capsules down, the other's along


class _Rows(NamedTuple):
    """``gradient`` ``[K, 6, N, R]``, ``least`` ``[K, N, R]``: ``gradient . u >= least``."""

    gradient: Tensor
    least: Tensor


class BatchedGuard:
    """Arms of one kind in cells of one configuration; people and obstacles are left to the shield."""

    def __init__(self, config: RobotCellConfig, arm: Arm, limits: JointLimits) -> None:
        guard = config.guard
        self._gain, self._dt_s = guard.gain_per_s, config.control_period_s
        self._arm_gap, self._self_gap, self._fixture_gap = guard.arm_gap_m, guard.self_gap_m, guard.fixture_gap_m
        self._limits = limits
        self._speed, self._braking = limits.speed[:, 0], limits.braking[:, 0]
        device, dtype = limits.speed.device, limits.speed.dtype
        self._radius = torch.tensor([c.radius_m for c in arm.capsules], dtype=dtype, device=device)
        joints = torch.arange(N_JOINTS, device=device)
        moving = torch.tensor([c.n_moving for c in arm.capsules], device=device)
        self._moves = (joints < moving[:, None]).to(dtype)  # [8, 6]
        pairs = [(i, j) for a, b in arm.self_blocks for i in range(*a) for j in range(*b)]
        self._pairs = torch.tensor(pairs, device=device).T
        self._planes = [f for f in config.fixtures if isinstance(f, PlaneFixture)]

    def __call__(
        self, wished: Tensor, dq: Tensor, p: Pose, own: Segments, heard: Segments, heard_age_s: Tensor,
        heard_dq: Tensor, heard_pose: Pose, present: Tensor,
    ) -> Tensor:  # fmt: skip
        """What the guard makes of commands ``wished`` ``[N, 6, R]`` rad/s, of arms that move with ``dq`` likewise."""
        speed = dq.transpose(0, 1)
        share = (_WITHIN_REACH * self._dt_s * _column(self._braking)) / speed.abs().clamp(min=1e-9)
        slowed = speed * (1.0 - share.amin(0).clamp(max=1.0))
        rows = [self._of_self(p, own, slowed)]
        rows += [self._of_plane(plane, p, own, slowed) for plane in self._planes]
        if len(present) > 1:
            rows.append(self._of_peers(p, own, heard, heard_age_s, heard_dq, heard_pose, present, slowed))
        gradient = torch.cat([r.gradient for r in rows])
        least = torch.cat([r.least for r in rows])
        top, step = _column(self._speed), _column(self._braking) * self._dt_s
        low, high = (
            torch.maximum(-top.expand_as(speed), speed - step),
            torch.minimum(top.expand_as(speed), speed + step),
        )
        asked = torch.minimum(torch.maximum(wished.transpose(0, 1), low), high)
        found = _projected(asked, gradient, least, low, high)
        return _drawn(found, slowed, gradient, least).transpose(0, 1)

    def _of_peers(
        self, p: Pose, own: Segments, heard: Segments, age_s: Tensor, heard_dq: Tensor, heard_pose: Pose,
        present: Tensor, slowed: Tensor,
    ) -> _Rows:  # fmt: skip
        n, lanes = present.shape
        gaps, normals, points, moves, drifts = [], [], [], [], []
        for i in range(n):
            for j in range(n):
                if i == j:
                    continue
                s, t, gap, normal = _pairs(_of(own, i), _of(heard, j), self._radius)
                flat = gap.reshape(-1, lanes)
                near, which = flat.topk(_NEAREST, dim=0, largest=False)
                mine, theirs = which // N_CAPSULES, which % N_CAPSULES
                direction = tuple(_chosen(c, which) for c in normal)
                at = _point(_of(own, i), mine, _chosen(s, which))
                there = _point(_of(heard, j), theirs, _chosen(t, which))
                other = self._gradient(_arm_of(heard_pose, j), direction, there, theirs)
                age = age_s[j]
                came = (other * heard_dq[j][None]).sum(1).clamp(
                    min=0.0
                ) * age  # towards: the normal points away from it
                gained = 0.5 * age * age * (other.abs() * _column(self._braking)[None, :, 0]).sum(1)
                most = other.abs().sum(1) * self._speed.max() * age
                both = (present[i] & present[j])[None]
                gaps.append(torch.where(both, near, 10.0))
                drifts.append(torch.minimum(came + gained, most))
                normals.append(direction)
                points.append(at)
                moves.append((i, mine))
        rows = [
            (i, self._gradient(_arm_of(p, i), normal, at, mine), gap - drift)
            for (i, mine), normal, at, gap, drift in zip(moves, normals, points, gaps, drifts, strict=True)
        ]
        gradient = torch.stack([torch.cat([g for k, g, _ in rows if k == i]) for i in range(n)], 2)
        gap = torch.stack([torch.cat([d for k, _, d in rows if k == i]) for i in range(n)], 1)
        return self._rows(gradient, gap, self._arm_gap, 0.5, slowed)

    def _of_self(self, p: Pose, own: Segments, slowed: Tensor) -> _Rows:
        first, second = self._pairs
        start, along = own
        s, t, apart = closest(
            _vector(c[first] for c in start), _vector(c[first] for c in along),
            _vector(c[second] for c in start), _vector(c[second] for c in along),
        )  # fmt: skip
        distance = at_least(dot(apart, apart), 1e-16) ** 0.5
        gap = distance - (self._radius[first] + self._radius[second])[:, None, None]
        near, which = gap.topk(_NEAREST_SELF, dim=0, largest=False)
        direction = tuple(_chosen_rows(c / distance, which) for c in apart)
        a, b = first[which], second[which]
        at_a = tuple(_at(c, d, a, _chosen_rows(s, which)) for c, d in zip(start, along, strict=True))
        at_b = tuple(_at(c, d, b, _chosen_rows(t, which)) for c, d in zip(start, along, strict=True))
        gradient = self._gradient(p, direction, at_a, a) - self._gradient(p, direction, at_b, b)
        return self._rows(gradient, near, self._self_gap, 1.0, slowed)

    def _of_plane(self, plane: PlaneFixture, p: Pose, own: Segments, slowed: Tensor) -> _Rows:
        size = sum(c * c for c in plane.normal) ** 0.5
        normal = [c / size for c in plane.normal]
        start, along = own
        rise = sum(n * c[_MOUNTED:] for n, c in zip(normal, along, strict=True))
        share = (rise < 0.0).to(rise.dtype)
        low = sum(n * c[_MOUNTED:] for n, c in zip(normal, start, strict=True)) + share * rise
        gap = low - self._radius[_MOUNTED:, None, None] - plane.offset_m
        near, which = gap.topk(_NEAREST_LOW, dim=0, largest=False)
        link = which + _MOUNTED
        share = torch.gather(share, 0, which)
        at = tuple(_at(c, d, link, share) for c, d in zip(start, along, strict=True))
        direction = tuple(torch.full_like(near, n) for n in normal)
        return self._rows(self._gradient(p, direction, at, link), near, self._fixture_gap, 1.0, slowed)

    def _gradient(self, p: Pose, direction: tuple[Tensor, ...], at: tuple[Tensor, ...], link: Tensor) -> Tensor:
        """``[K, 6, ...]``: how fast points ``[K, ...]`` of links move along a direction with each joint."""
        x, y, z = (c - b for c, b in zip(at, p.base, strict=True))
        u, v, w = direction
        point: Vector = (x * p.cos + y * p.sin, x * p.sin - y * p.cos, z)
        normal = (u * p.cos + v * p.sin, u * p.sin - v * p.cos, w)
        rates = [sum(n * c for n, c in zip(normal, rate, strict=True)) for rate in point_rates(p, point)]
        moves = self._moves[link].movedim(-1, 1)
        return torch.stack(rates, 1) * moves

    def _rows(self, gradient: Tensor, gap: Tensor, least_m: float, share: float, slowed: Tensor) -> _Rows:
        allowed = (share * self._gain * (gap - least_m)).clamp(min=0.0)
        braking = (gradient * slowed[None]).sum(1)
        return _Rows(gradient, torch.minimum(-allowed, braking))


def _projected(asked: Tensor, gradient: Tensor, least: Tensor, low: Tensor, high: Tensor) -> Tensor:
    u, corner = asked, torch.zeros_like(asked)
    size = (gradient * gradient).sum(1).clamp(min=1e-6)
    price = [torch.zeros_like(least[0]) for _ in range(len(least))]
    for _ in range(_SWEEPS):
        for k, (g, end, square) in enumerate(zip(gradient, least, size, strict=True)):
            now = (price[k] + (end - (g * u).sum(0)) / square).clamp(min=0.0)
            u = u + (now - price[k]) * g
            price[k] = now
        beyond = u + corner
        u = torch.minimum(torch.maximum(beyond, low), high)
        corner = beyond - u
    return u


def _drawn(u: Tensor, slowed: Tensor, gradient: Tensor, least: Tensor) -> Tensor:
    """Towards ``slowed``, which keeps every row, as far as it takes."""
    rest = (gradient * slowed[None]).sum(1)
    now = (gradient * u[None]).sum(1)
    share = ((rest - least).clamp(min=0.0) / (rest - now).clamp(min=1e-9)).clamp(max=1.0)
    share = torch.where(now < least, share, 1.0).amin(0)
    return slowed + share * (u - slowed)


def _pairs(a: Segments, b: Segments, radius: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    ours, theirs = [[_vector(c[where] for c in part) for part in arm] for arm, where in ((a, _DOWN), (b, _ALONG))]
    s, t, apart = closest(ours[0], ours[1], theirs[0], theirs[1])
    distance = at_least(dot(apart, apart), 1e-16) ** 0.5
    return s, t, distance - (radius[:, None] + radius)[..., None], tuple(c / distance for c in apart)


def _of(arms: Segments, number: int) -> Segments:
    return Segments(*(tuple(c[:, number] for c in part) for part in arms))


def _arm_of(p: Pose, number: int) -> Pose:
    """The pose of one arm of components ``[N, R]``."""

    def part(value: Tensor | float) -> Tensor | float:
        return value[number] if isinstance(value, Tensor) and value.dim() > 1 else value

    frames = tuple(Frame._make(_vector(part(c) for c in vector) for vector in f) for f in p.frames)
    return Pose(frames, part(p.cos), part(p.sin), _vector(part(c) for c in p.base))


def _vector(parts: Iterable[Tensor | float]) -> Vector:
    x, y, z = parts
    return x, y, z


def _chosen(values: Tensor, which: Tensor) -> Tensor:
    return torch.gather(values.reshape(-1, values.shape[-1]), 0, which)


def _chosen_rows(values: Tensor, which: Tensor) -> Tensor:
    return torch.gather(values, 0, which)


def _point(arm: Segments, link: Tensor, share: Tensor) -> tuple[Tensor, ...]:
    return tuple(_at(c, d, link, share) for c, d in zip(*arm, strict=True))


def _at(start: Tensor, along: Tensor, link: Tensor, share: Tensor) -> Tensor:
    return torch.gather(start, 0, link) + share * torch.gather(along, 0, link)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]
