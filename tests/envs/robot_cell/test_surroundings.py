"""An arm's body and all its pairs at once, against the frames and against the same pair by pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.envs.robot_cell.arm import UR5E, with_tool
from twinloop.envs.robot_cell.arm_body import ArmShape, Body, shape_of
from twinloop.envs.robot_cell.capsules import capsule_ends
from twinloop.envs.robot_cell.distance import segment_distance
from twinloop.envs.robot_cell.gaps import Gaps, arm_gaps, body_gaps, plane_gaps, self_gaps
from twinloop.envs.robot_cell.kinematics import tool_jacobian, tool_position
from twinloop.envs.robot_cell.surroundings import look_around, look_down, pairs_of

Floats = NDArray[np.float64]
TOOLED = with_tool(UR5E, 0.1)

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_a_body_is_where_the_frames_say_and_moves_as_differences_say(rng: np.random.Generator) -> None:
    q, base = rng.uniform(-6.0, 6.0, 6), rng.uniform(-3.0, 3.0, 4)
    body = ArmShape(TOOLED).at(q, base)
    ends = capsule_ends(q, base, TOOLED)
    np.testing.assert_allclose(body.start_m, ends[:, 0], atol=1e-12)
    np.testing.assert_allclose(body.start_m + body.along_m, ends[:, 1], atol=1e-12)
    np.testing.assert_allclose(body.tool_m, tool_position(q, base, TOOLED), atol=1e-12)
    np.testing.assert_allclose(body.tool_rates, tool_jacobian(q, base, TOOLED), atol=1e-12)
    step = 1e-6 * np.eye(6)
    apart = [capsule_ends(q + d, base, TOOLED) - capsule_ends(q - d, base, TOOLED) for d in step]
    rates = np.stack(apart, 1) / 2e-6  # [8, 6, 2, 3]
    np.testing.assert_allclose(body.start_rates, rates[:, :, 0], atol=1e-8)
    np.testing.assert_allclose(body.start_rates + body.along_rates, rates[:, :, 1], atol=1e-8)


def test_arms_are_the_same_alone_together_and_remembered() -> None:
    rng = np.random.default_rng(0)
    q, bases = rng.uniform(-3.0, 3.0, (5, 6)), rng.uniform(-1.0, 1.0, (5, 4))
    shape = ArmShape(UR5E)
    first = shape.each(q, bases)
    for _ in range(2):
        again = shape.each(q[::-1], bases[::-1])
        for body, other in zip(first, reversed(again), strict=True):
            np.testing.assert_array_equal(body.start_rates, other.start_rates)
    for k, body in enumerate(first):
        alone = ArmShape(UR5E).at(q[k], bases[k])
        np.testing.assert_allclose(body.along_m, alone.along_m, atol=1e-15)
        moved = ArmShape(UR5E).at(q[k] + 1e-9, bases[k])
        assert (moved.tool_m != body.tool_m).any()


def test_an_arm_whose_last_joint_moves_a_capsule_is_refused() -> None:
    last = UR5E.capsules[-1]
    bent = replace(UR5E, capsules=(*UR5E.capsules[:-1], replace(last, end_m=(0.05, 0.0, 0.0))))
    with pytest.raises(ValueError, match="off the axis of the last joint"):
        ArmShape(bent)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_all_pairs_at_once_are_the_pairs_one_body_at_a_time(rng: np.random.Generator) -> None:
    own, *peers = shape_of(TOOLED).each(rng.uniform(-3.0, 3.0, (3, 6)), rng.uniform(-1.0, 1.0, (3, 4)))
    fixtures, obstacles, people = (
        Body(rng.uniform(-1, 1, (n, 3)), rng.uniform(-1, 1, (n, 3)), rng.uniform(0.05, 0.3, n)) for n in (2, 1, 3)
    )
    pairs = pairs_of(TOOLED, 2, 2, 1, 3)
    seen = look_around(own, peers, (fixtures, obstacles, people), pairs)

    def agree(part: slice, wanted: Gaps, skip: int = 0) -> None:
        def flat(values: Floats) -> Floats:
            return np.swapaxes(values[skip:], 0, 1).reshape(-1, *values.shape[2:])  # the other body leads

        np.testing.assert_allclose(seen.gap_m[part], flat(wanted.gap_m), atol=1e-12)
        np.testing.assert_allclose(seen.normal[part], flat(wanted.normal), atol=1e-12)
        np.testing.assert_allclose(seen.gradient[part], flat(wanted.gradient_a), atol=1e-12)

    for k, peer in enumerate(peers):
        gaps, of_peer = arm_gaps(own, peer), slice(pairs.peers.start + 64 * k, pairs.peers.start + 64 * (k + 1))
        agree(of_peer, gaps)
        shrinks = -np.einsum("pjc,pc->pj", seen.theirs[64 * k : 64 * (k + 1)], seen.normal[of_peer])
        np.testing.assert_allclose(shrinks, np.swapaxes(gaps.gradient_b, 0, 1).reshape(-1, 6), atol=1e-12)
    agree(pairs.fixtures, body_gaps(own, fixtures), skip=2)
    agree(pairs.obstacles, body_gaps(own, obstacles))
    agree(pairs.people, body_gaps(own, people))
    normals = rng.normal(size=(2, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    gap, gradient = look_down(own, np.column_stack((normals, (0.1, -0.2))))
    planes = [plane_gaps(own, normal, offset) for normal, offset in zip(normals, (0.1, -0.2), strict=True)]
    np.testing.assert_allclose(gap, np.stack([p.gap_m for p in planes], 1).reshape(-1), atol=1e-12)
    np.testing.assert_allclose(gradient, np.stack([p.gradient_a for p in planes], 1).reshape(-1, 6), atol=1e-12)
    itself = self_gaps(own, shape_of(TOOLED).self_pairs)
    np.testing.assert_allclose(seen.gap_m[pairs.itself], itself.gap_m, atol=1e-12)
    np.testing.assert_allclose(seen.gradient[pairs.itself], itself.gradient_a, atol=1e-12)


def _gaps_of_ends(q: Floats, base: Floats, pairs: list[tuple[int, int]]) -> Floats:
    """``[4, pairs]`` by the closed form of segments: start and end of each pair's first to its second, and back."""
    ends, radius = capsule_ends(q, base, TOOLED), shape_of(TOOLED).radius_m
    found = [
        [
            float(segment_distance(np.stack([ends[k, e]] * 2), ends[j])) - radius[k] - radius[j]
            for k, j in ((pair[first], pair[1 - first]) for pair in pairs)
        ]
        for first in (0, 1)
        for e in (0, 1)
    ]
    return np.array(found)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_ends_of_links_are_as_far_from_other_links_as_the_closed_form_and_differences_say(
    rng: np.random.Generator,
) -> None:
    q, base = rng.uniform(-3.0, 3.0, 6), rng.uniform(-1.0, 1.0, 4)
    pairs = [(int(i), int(j)) for i, j in shape_of(TOOLED).self_pairs]
    which = pairs_of(TOOLED, 0, 0, 0, 0)
    seen = look_around(shape_of(TOOLED).at(q, base), (), (), which)
    gap = seen.gap_m[which.ends].reshape(4, -1)
    np.testing.assert_allclose(gap, _gaps_of_ends(q, base, pairs), atol=1e-9)
    assert (gap >= seen.gap_m[which.itself] - 1e-9).all()
    differences = np.stack(
        [(_gaps_of_ends(q + d, base, pairs) - _gaps_of_ends(q - d, base, pairs)) / 2e-6 for d in 1e-6 * np.eye(6)], -1
    )
    gradient = seen.gradient[which.ends].reshape(4, -1, 6)
    apart = gap + 2.0 * shape_of(TOOLED).radius_m.min() > 0.02  # where axes meet there is no gradient
    np.testing.assert_allclose(gradient[apart], differences[apart], atol=2e-5)
