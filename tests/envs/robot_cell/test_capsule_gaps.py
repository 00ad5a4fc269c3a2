"""Distances of capsules and their gradients against closed forms, MuJoCo, a solver and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.envs.robot_cell.arm_body import ArmShape, Body
from twinloop.envs.robot_cell.capsules import capsule_ends, radii
from twinloop.envs.robot_cell.distance import segment_distance
from twinloop.envs.robot_cell.gaps import Gaps, arm_gaps, body_gaps, plane_gaps, self_gaps

Floats = NDArray[np.float64]
SHAPE = ArmShape()
BASES = np.array([[-0.5, 0.0, 0.0, math.pi], [0.5, 0.1, 0.05, 0.2]])


def segment(*ends: tuple[float, float, float]) -> Floats:
    return np.array(ends, dtype=np.float64)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (segment((0, 0, 0), (1, 0, 0)), segment((0, 2, 0), (1, 2, 0)), 2.0),  # parallel, abreast
        (segment((0, 0, 0), (1, 0, 0)), segment((3, 4, 0), (5, 4, 0)), math.hypot(2, 4)),  # parallel, apart
        (segment((0, 0, 0), (1, 0, 0)), segment((5, 4, 0), (3, 4, 0)), math.hypot(2, 4)),  # the same, turned about
        (segment((0, 0, 0), (1, 0, 0)), segment((4, 0, 0), (6, 0, 0)), 3.0),  # on one line
        (segment((0, 0, 0), (4, 0, 0)), segment((1, 0, 0), (2, 0, 0)), 0.0),  # one in the other
        (segment((-1, 0, 0), (1, 0, 0)), segment((0, -1, 3), (0, 1, 3)), 3.0),  # crossing above each other
        (segment((-1, 0, 0), (1, 0, 0)), segment((0, -1, 0), (0, 1, 0)), 0.0),  # through each other
        (segment((0, 0, 0), (1, 0, 0)), segment((2, 1, 0), (2, 5, 0)), math.hypot(1, 1)),  # end to end
        (segment((0, 0, 0), (2, 0, 0)), segment((1, 1, 0), (1, 5, 0)), 1.0),  # end to middle
        (segment((1, 2, 3), (1, 2, 3)), segment((1, 5, 7), (1, 5, 7)), 5.0),  # two points
        (segment((1, 1, 0), (1, 1, 0)), segment((0, 0, 0), (2, 0, 0)), 1.0),  # a point and a segment
        (segment((0, 0, 0), (2, 0, 0)), segment((3, 4, 0), (3, 4, 0)), math.hypot(1, 4)),
        (segment((1, 1, 1), (1, 1, 1)), segment((1, 1, 1), (1, 1, 1)), 0.0),  # the same point
    ],
)
def test_segments_are_as_far_apart_as_geometry_says(a: Floats, b: Floats, distance: float) -> None:
    for one, other in ((a, b), (b, a), (a[::-1], b), (a, b[::-1])):
        assert abs(float(segment_distance(one, other)) - distance) <= 1e-9
        of_torch = segment_distance(torch.from_numpy(one.copy()), torch.from_numpy(other.copy()))
        assert abs(float(of_torch) - distance) <= 1e-9


coordinate = st.floats(-2, 2).map(lambda v: round(v, 3))
ends = st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=2, max_size=2).map(np.array)


@settings(max_examples=150, deadline=None)
@given(ends, ends)
def test_no_pair_of_points_is_nearer(a: Floats, b: Floats) -> None:
    """The distance is convex in the two shares: a grid bounds it from above, and from below within half a step."""
    share = np.linspace(0, 1, 41)
    points_a = a[0] + share[:, None] * (a[1] - a[0])
    points_b = b[0] + share[:, None] * (b[1] - b[0])
    grid = float(np.linalg.norm(points_a[:, None] - points_b, axis=-1).min())
    reach = 0.5 * (share[1] - share[0]) * (np.linalg.norm(a[1] - a[0]) + np.linalg.norm(b[1] - b[0]))
    found = float(segment_distance(a, b))
    assert found <= grid + 1e-9
    assert found >= grid - reach - 1e-9


def test_nearly_parallel_segments_are_exact_too() -> None:
    generator = np.random.default_rng(0)
    for tilt in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10):
        for _ in range(50):
            away = generator.uniform(0.05, 1.0)
            shift = generator.uniform(-0.4, 0.4)
            a = np.array([[0.0, 0, 0], [0.4, 0, 0]])
            b = np.array([[shift, away, 0], [shift + 0.4, away + tilt * 0.4, 0]])
            # In one plane the nearest point of one of the two is an end.
            wanted = min(point_to_segment(p, s) for p, s in [(a[0], b), (a[1], b), (b[0], a), (b[1], a)])
            assert abs(float(segment_distance(a, b)) - wanted) <= 1e-9


def point_to_segment(point: Floats, of: Floats) -> float:
    along = of[1] - of[0]
    share = min(1.0, max(0.0, float((point - of[0]) @ along / (along @ along))))
    return float(np.linalg.norm(point - of[0] - share * along))


def test_capsule_gaps_are_mujocos() -> None:
    mujoco = pytest.importorskip("mujoco", reason="the referee's simulator is in the extra cell")
    generator = np.random.default_rng(1)
    n = 40
    starts, radius = generator.uniform(-0.4, 0.4, (n, 3)), generator.uniform(0.02, 0.1, n)
    along = generator.normal(size=(n, 3)) * generator.uniform(0.02, 0.5, (n, 1))
    along[1::10] = 1.5 * along[0::10]  # some are parallel
    geoms = "".join(
        f'<geom type="capsule" size="{r}" fromto="{" ".join(map(repr, [*map(float, s), *map(float, s + v)]))}"/>'
        for s, v, r in zip(starts, along, radius, strict=True)
    )
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{geoms}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    # MuJoCo keeps a capsule as centre, rotation and half a length; these are its own numbers.
    axis = data.geom_xmat.reshape(n, 3, 3)[:, :, 2] * model.geom_size[:, 1:2]
    ours = np.stack((data.geom_xpos - axis, data.geom_xpos + axis), 1)
    i, j = np.triu_indices(n, 1)
    gap = segment_distance(ours[i], ours[j]) - model.geom_size[i, 0] - model.geom_size[j, 0]
    theirs = np.array(
        [mujoco.mj_geomDistance(model, data, int(a), int(b), 10.0, None) for a, b in zip(i, j, strict=True)]
    )
    assert (gap < 0).sum() > 20
    assert (gap > 0.1).sum() > 100
    assert np.abs(gap - theirs).max() <= 1e-9


def differences(gaps: Callable[[Floats], Floats], q: Floats) -> Floats:
    step = 1e-6
    columns = [(gaps(q + step * e) - gaps(q - step * e)) / (2 * step) for e in np.eye(6)]
    return np.stack(columns, -1)


def test_gradients_are_those_of_finite_differences() -> None:
    generator = np.random.default_rng(2)
    body = Body(generator.uniform(-0.5, 0.5, (3, 3)), generator.uniform(-0.5, 0.5, (3, 3)), np.array([0.1, 0.2, 0.05]))
    for _ in range(8):
        qa, qb = generator.uniform(-2.5, 2.5, (2, 6))
        check_gradients(qa, qb, body)


def check_gradients(qa: Floats, qb: Floats, body: Body) -> None:
    def pairs(a: Floats, b: Floats) -> Gaps:
        return arm_gaps(SHAPE.at(a, BASES[0]), SHAPE.at(b, BASES[1]))

    here = pairs(qa, qb)
    assert np.allclose(here.gradient_a, differences(lambda q: pairs(q, qb).gap_m, qa), atol=2e-6)
    assert np.allclose(here.gradient_b, differences(lambda q: pairs(qa, q).gap_m, qb), atol=2e-6)
    to_itself = self_gaps(SHAPE.at(qa, BASES[0]), SHAPE.self_pairs)
    found = differences(lambda q: self_gaps(SHAPE.at(q, BASES[0]), SHAPE.self_pairs).gap_m, qa)
    assert np.allclose(to_itself.gradient_a, found, atol=2e-6)
    to_body = body_gaps(SHAPE.at(qa, BASES[0]), body)
    found = differences(lambda q: body_gaps(SHAPE.at(q, BASES[0]), body).gap_m, qa)
    assert np.allclose(to_body.gradient_a, found, atol=2e-6)
    normal = np.array([0.6, 0.0, 0.8])
    to_plane = plane_gaps(SHAPE.at(qa, BASES[0]), normal, -0.2)
    found = differences(lambda q: plane_gaps(SHAPE.at(q, BASES[0]), normal, -0.2).gap_m, qa)
    assert np.allclose(to_plane.gradient_a, found, atol=2e-6)


def test_gradients_are_those_of_autograd() -> None:
    generator = np.random.default_rng(3)
    qa, qb = generator.uniform(-2.5, 2.5, (2, 6))
    here = arm_gaps(SHAPE.at(qa, BASES[0]), SHAPE.at(qb, BASES[1]))
    radius = torch.from_numpy(radii())
    bases = torch.from_numpy(BASES)

    def gaps(joints: torch.Tensor) -> Any:
        capsules = capsule_ends(joints.reshape(2, 6), bases)
        return segment_distance(capsules[0][:, None], capsules[1][None]) - radius[:, None] - radius

    both = torch.from_numpy(np.concatenate((qa, qb)))
    assert np.allclose(gaps(both).numpy(), here.gap_m, atol=1e-12)
    found = torch.autograd.functional.jacobian(gaps, both).numpy()  # type: ignore[no-untyped-call]  # torch's
    assert np.allclose(found, np.concatenate((here.gradient_a, here.gradient_b), -1), atol=1e-9)


def test_points_and_normals_belong_to_their_gaps() -> None:
    q = np.random.default_rng(4).uniform(-2, 2, (2, 6))
    a, b = (SHAPE.at(one, base) for one, base in zip(q, BASES, strict=True))
    gaps = arm_gaps(a, b)
    between = gaps.point_a_m - gaps.point_b_m
    distance = gaps.gap_m + a.radius_m[:, None] + b.radius_m
    assert np.allclose(between, gaps.normal * distance[..., None], atol=1e-12)
    assert np.allclose(np.linalg.norm(gaps.normal, axis=-1), 1.0, atol=1e-12)


def test_axes_that_meet_have_no_gradient_and_no_nan() -> None:
    q = np.random.default_rng(5).uniform(-2, 2, 6)
    same = SHAPE.at(q, BASES[0])
    gaps = arm_gaps(same, same)
    for part in vars(gaps).values():
        assert np.isfinite(part).all()
    links = np.arange(8)
    assert (gaps.gradient_a[links, links] == 0.0).all()
    assert np.allclose(gaps.gap_m[links, links], -2.0 * same.radius_m, atol=1e-12)
