"""The encoder ``arm`` asked for some arms only, and one arm in floats against many at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from twinloop.envs.encoder import SelectiveEncoder, encoded
from twinloop.envs.robot_cell.config import RobotCellConfig
from twinloop.envs.robot_cell.nameplate import ARM
from twinloop.envs.robot_cell.site import SITE

PLATE = SITE.nameplate(RobotCellConfig())
SETTINGS: tuple[dict[str, Any], ...] = (
    {"hints": True, "tool_length_m": 0.1},
    {"n_pairs": 0, "n_peers": 2},
    {"n_peers": 0},
    {"n_pairs": 0, "n_peers": 0, "hints": True},
)


def readings(n_rows: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    group, rng = PLATE.group(ARM), np.random.default_rng(3)
    low, high = group.lower("measured"), group.upper("measured")
    measured = low + (high - low) * rng.uniform(0.3, 0.7, (n_rows, group.n_assets, len(low)))
    statics = np.repeat(group.statics_array()[None], n_rows, 0)
    return measured, statics, rng.random((n_rows, group.n_assets)) < 0.8


@pytest.mark.parametrize("settings", SETTINGS)
def test_who_is_asked_sees_the_same_and_the_others_nothing(settings: dict[str, Any]) -> None:
    encoder: Any = SITE.encoder("arm", PLATE, settings)
    assert isinstance(encoder, SelectiveEncoder)
    for n_rows in (1, 40):
        seen = readings(n_rows)
        whole, _ = encoder.encode(*seen, {}, 0.02)
        for asked in (np.array([True, False]), np.array([False, True]), np.array([False, False])):
            some, _ = encoded(encoder, *seen, {}, 0.02, asked)
            np.testing.assert_allclose(some[:, asked], whole[:, asked], atol=1e-12)
            assert (some[:, ~asked] == 0.0).all()


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_arm_in_floats_sees_what_many_at_once_see_in_numpy_and_torch(settings: dict[str, Any]) -> None:
    encoder: Any = SITE.encoder("arm", PLATE, settings)
    measured, statics, present = readings(40)
    whole, _ = encoder.encode(measured, statics, present, {}, 0.02)
    told = (torch.as_tensor(v) for v in (measured, statics, present))
    in_torch, _ = encoder.encode(*told, {}, 0.02)
    np.testing.assert_allclose(in_torch.numpy(), whole, atol=1e-9)
    for row in range(40):
        one = slice(row, row + 1)
        alone, _ = encoder.encode(measured[one], statics[one], present[one], {}, 0.02)
        np.testing.assert_allclose(alone, whole[one], atol=1e-9)
