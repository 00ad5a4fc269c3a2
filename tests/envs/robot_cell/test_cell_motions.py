"""What the encoder ``arm`` proposes with ``hints``: the closed forms, numpy and torch alike, and whose turn it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from twinloop.envs.encoder import BlendingEncoder
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.registry import load_site
from twinloop.envs.robot_cell.config import HOME_RAD, RobotCellConfig
from twinloop.envs.robot_cell.kinematics import reach_speeds, tool_jacobian, tool_position
from twinloop.envs.robot_cell.nameplate import ARM, MEASURED
from twinloop.envs.robot_cell.site import SITE
from twinloop.training.problem import Problem

AT = {s.name: k for k, s in enumerate(MEASURED)}
PLATE = SITE.nameplate(RobotCellConfig())
STATICS = np.array(PLATE.group(ARM).static_values)[None]
BASES = np.concatenate([STATICS[0, :, :3], np.deg2rad(STATICS[0, :, 3:4])], -1)
PRESENT = np.ones((1, 2), np.bool_)
TOP = 1.5


def proposed(q: Any, targets: Any, like: str = "numpy") -> dict[str, Any]:
    """Motions ``[2, 6]`` in rad/s of arms at ``q`` ``[2, 6]``."""
    arms = np.zeros((1, 2, len(MEASURED)))
    arms[0, :, :6] = arms[0, :, AT["heard_q1_rad"] : AT["heard_q1_rad"] + 6] = q
    for name in ("target", "heard_target"):
        arms[0, :, AT[f"{name}_x_m"] : AT[f"{name}_x_m"] + 3] = targets
    encoder: Any = SITE.encoder("arm", PLATE, {"hints": True})
    assert isinstance(encoder, BlendingEncoder)
    given: list[Any] = [arms, STATICS, PRESENT]
    if like == "torch":
        given = [torch.from_numpy(x) for x in given]
    features, _ = encoder.encode(given[0], given[1], given[2], {}, 0.02)
    assert features.shape[-1] == encoder.n_features
    return {name: TOP * np.asarray(features)[0][:, list(columns)] for name, columns in encoder.motions.items()}


def test_motions_are_the_closed_forms_scaled_to_the_top_speed() -> None:
    rng = np.random.default_rng(0)
    q = np.array(HOME_RAD) + rng.uniform(-0.3, 0.3, (2, 6))
    targets = tool_position(q, BASES) + rng.uniform(-0.05, 0.05, (2, 3))
    found = proposed(q, targets)
    wanted = reach_speeds(q, BASES, targets)
    wanted /= np.maximum(np.abs(wanted).max(-1, keepdims=True) / TOP, 1.0)
    np.testing.assert_allclose(found["reach"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["home"], 3.0 * (np.array(HOME_RAD) - q), atol=1e-9)
    up = np.einsum("ncj,nj->nc", tool_jacobian(q, BASES), found["up"])
    assert (up[:, 2] > 0.9 * np.linalg.norm(up, axis=-1)).all()
    out = np.einsum("ncj,nj->nc", tool_jacobian(q, BASES), found["out"])
    assert (out[:, 0] * np.sign(BASES[:, 0]) < 0.0).all()  # away from the own base, to the other's side
    for name, motion in proposed(q, targets, "torch").items():
        np.testing.assert_allclose(motion, found[name], atol=1e-9)


def test_of_near_arms_the_one_farther_from_its_target_is_sent_home() -> None:
    near = np.tile([0.0, -1.25, 1.3, -1.67, -1.57, 0.0], (2, 1))
    tools = tool_position(near, BASES)
    targets = tools + np.array([(0.02, 0.0, 0.0), (0.0, 0.2, 0.0)])
    found = proposed(near, targets)
    np.testing.assert_array_equal(found["turns"][0], found["reach"][0])
    np.testing.assert_array_equal(found["turns"][1], found["home"][1])
    apart = np.array([HOME_RAD, HOME_RAD])
    found = proposed(apart, targets)
    np.testing.assert_array_equal(found["turns"], found["reach"])


def test_a_blend_of_what_is_not_proposed_is_refused_and_one_of_what_is_has_its_width() -> None:
    def layouts(hints: bool, **told: Any) -> Any:
        problem = Problem(
            load_site("robot_cell"), RobotCellConfig(), "reach_stream", encoder_name="arm",
            encoder_settings={"hints": hints}, blend={ARM: {"turns": (0.0, 2.0), "up": (-1.0, 1.0)}}, **told,
        )  # fmt: skip
        return problem.layouts(PLATE)

    assert layouts(True)[ARM].n_actions == 2
    with pytest.raises(ConfigurationError, match="no motion 'turns'; it has none"):
        layouts(False)
