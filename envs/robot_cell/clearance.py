"""Gaps of a batch of cells: every arm to the others, itself, people, obstacles and fixtures. The replica is last.

Which gap is meant, and that for one cell with its gradients: :mod:`.gaps`. Pairs go in shards of replicas whose numbers
stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .arm import N_CAPSULES, Arm
from .capsules import capsule_segments
from .config import CapsuleFixture, Fixture, PlaneFixture
from .distance import at_least, closest, dot
from .kinematics import Pose
from .people import Bodies

Tensor = torch.Tensor

FAR_M = 50.0
"""The gap to what is not there."""

_SHARD_NUMBERS, _LEAST_SHARD = 32768, 64
_MOUNTED = 2  # an arm's first capsules, which are not held against fixtures
_LEAST_M2 = 1e-16


class Segments(NamedTuple):
    """Axes of capsules, components ``[8, N, R]`` each: one end, and from there to the other."""

    start: tuple[Tensor, ...]
    along: tuple[Tensor, ...]


def segments(p: Pose, arm: Arm) -> Segments:
    """Capsules of arms whose pose is of components ``[N, R]``."""
    whole = torch.zeros_like(p.cos)
    found = capsule_segments(p, arm)
    ends = [[torch.stack([whole + segment[e][c] for segment in found]) for c in range(3)] for e in range(2)]
    return Segments(tuple(ends[0]), tuple(b - a for a, b in zip(*ends, strict=True)))


class Clearance:
    """Gaps of arms of one kind among given fixtures."""

    def __init__(self, arm: Arm, fixtures: Sequence[Fixture], dtype: torch.dtype, device: torch.device) -> None:
        self._arm = arm
        self._radius = torch.tensor([c.radius_m for c in arm.capsules], dtype=dtype, device=device)
        self._planes: list[tuple[tuple[float, ...], float]] = []
        solid = []
        for fixture in fixtures:
            if isinstance(fixture, PlaneFixture):
                size = math.hypot(*fixture.normal)
                self._planes.append((tuple(c / size for c in fixture.normal), fixture.offset_m))
            elif isinstance(fixture, CapsuleFixture):
                solid.append(fixture)
        self._fixtures: Bodies | None = None
        if solid:
            start = torch.tensor([f.start_m for f in solid], dtype=dtype, device=device)[..., None]
            end = torch.tensor([f.end_m for f in solid], dtype=dtype, device=device)[..., None]
            radius = torch.tensor([f.radius_m for f in solid], dtype=dtype, device=device)
            there = torch.ones(len(solid), 1, dtype=torch.bool, device=device)
            self._fixtures = Bodies(start, end - start, torch.zeros_like(start), radius, there)

    def between_arms(self, ours: Segments, theirs: Segments, present: Tensor) -> Tensor:
        """Gap of each arm to the nearest other, ``[N, R]``; ``theirs`` is where arms are for the others. The same
        object twice: both see the same, and each pair is computed once."""
        n = len(present)
        mutual = ours is theirs
        found = [torch.full_like(ours.start[0][0, 0], FAR_M) for _ in range(n)]
        for i in range(n):
            for j in range(i + 1 if mutual else 0, n):
                if i == j:
                    continue
                both = present[i] & present[j]
                gap = self._pairs(_rows(ours, i), _rows(theirs, j), self._radius, self._radius)
                gap = torch.where(both, gap, FAR_M)
                found[i] = torch.minimum(found[i], gap)
                if mutual:
                    found[j] = torch.minimum(found[j], gap)
        return torch.stack(found)

    def of_self(self, arms: Segments) -> Tensor:
        """Gap of each arm's links that can meet, ``[N, R]``."""
        n, lanes = arms.start[0].shape[1:]
        flat = Segments(*(tuple(v.reshape(N_CAPSULES, -1) for v in part) for part in arms))
        gaps = [
            self._pairs(_span(flat, a), _span(flat, b), self._radius[slice(*a)], self._radius[slice(*b)])
            for a, b in self._arm.self_blocks
        ]
        return _smallest(gaps).reshape(n, lanes)

    def to_bodies(self, arms: Segments, bodies: Bodies) -> Tensor:
        """Gap of each arm to the nearest of some bodies, ``[N, R]``."""
        return self._to(arms, bodies, 0)

    def to_fixtures(self, arms: Segments) -> Tensor:
        """Gap of each arm to the nearest fixture, ``[N, R]``."""
        gaps = [torch.full_like(arms.start[0][0], FAR_M)]
        for (x, y, z), offset in self._planes:
            low = x * arms.start[0] + y * arms.start[1] + z * arms.start[2]
            rise = x * arms.along[0] + y * arms.along[1] + z * arms.along[2]
            height = low + rise.clamp(max=0.0) - self._radius[:, None, None]
            gaps.append(height[_MOUNTED:].amin(0) - offset)
        if self._fixtures is not None:
            gaps.append(self._to(arms, self._fixtures, _MOUNTED))
        return _smallest(gaps)

    def _to(self, arms: Segments, bodies: Bodies, first: int) -> Tensor:
        found = []
        start, along = bodies.start.to(arms.start[0].dtype), bodies.along.to(arms.start[0].dtype)
        lanes = arms.start[0].shape[-1]
        for number in range(arms.start[0].shape[1]):
            links = _span(_rows(arms, number), (first, N_CAPSULES))
            gaps = []
            for k in range(len(start)):
                body = Segments(*(tuple(v[k, c].expand(1, lanes) for c in range(3)) for v in (start, along)))
                gap = self._pairs(links, body, self._radius[first:], bodies.radius[k : k + 1].to(self._radius))
                gaps.append(torch.where(bodies.present[k], gap, FAR_M))
            found.append(_smallest(gaps))
        return torch.stack(found)

    def _pairs(self, a: Segments, b: Segments, radius_a: Tensor, radius_b: Tensor) -> Tensor:
        """Smallest gap of all pairs, ``[R]``; components of ``a`` ``[Ka, R]``, of ``b`` ``[Kb, R]``."""
        radius = (radius_a[:, None] + radius_b)[..., None]
        lanes = a.start[0].shape[-1]
        size = max(_LEAST_SHARD, _SHARD_NUMBERS // (len(radius_a) * len(radius_b)) // _LEAST_SHARD * _LEAST_SHARD)
        found = []
        for first in range(0, lanes, size):
            shard = slice(first, min(first + size, lanes))
            start_a, along_a = ((x[:, None, shard], y[:, None, shard], z[:, None, shard]) for x, y, z in a)
            start_b, along_b = ((x[:, shard], y[:, shard], z[:, shard]) for x, y, z in b)
            apart = closest(start_a, along_a, start_b, along_b)[2]
            gap = at_least(dot(apart, apart), _LEAST_M2).sqrt() - radius
            found.append(gap.amin((0, 1)))
        return torch.cat(found)


def _smallest(gaps: Sequence[Tensor]) -> Tensor:
    least = gaps[0]
    for gap in gaps[1:]:
        least = torch.minimum(least, gap)
    return least


def _rows(arms: Segments, number: int) -> Segments:
    return Segments(*(tuple(v[:, number] for v in part) for part in arms))


def _span(links: Segments, span: tuple[int, int]) -> Segments:
    return Segments(*(tuple(v[slice(*span)] for v in part) for part in links))
