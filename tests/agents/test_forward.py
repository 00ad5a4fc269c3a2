"""Numpy, ONNX and torch give the same commands from the same weights."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from twinloop.agents.forward import INPUT, OPSET, OUTPUT, PolicyNetwork, to_onnx
from twinloop.envs.errors import ContractError

LOWER, UPPER, NEUTRAL = np.array([-40.0, 0.1, 0.0]), np.array([40.0, 1.0, 5.0]), np.array([0.0, 1.0, 2.0])


def network(
    n_features: int = 7, width: int = 32, depth: int = 2, controlled: tuple[int, ...] = (1, 0)
) -> PolicyNetwork:
    rng = np.random.default_rng(3)
    sizes = [n_features, *[width] * depth, len(controlled)]
    return PolicyNetwork(
        feature_mean=rng.normal(size=n_features).astype(np.float32),
        feature_std=rng.uniform(0.1, 3.0, n_features).astype(np.float32),
        feature_clip=5.0,
        weights=tuple(
            (rng.normal(size=(i, o)) / math.sqrt(i)).astype(np.float32) for i, o in itertools.pairwise(sizes)
        ),
        biases=tuple(rng.normal(0.0, 0.1, o).astype(np.float32) for o in sizes[1:]),
        command_lower=LOWER,
        command_upper=UPPER,
        command_neutral=NEUTRAL,
        controlled=controlled,
    )


def features(n_rows: int, n_features: int = 7) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(4).normal(0.0, 8.0, (n_rows, n_features)).astype(np.float32)


def torch_forward(mlp: PolicyNetwork, x: torch.Tensor) -> torch.Tensor:
    """The same network as torch knows it."""
    layers: list[torch.nn.Module] = []
    for weight, bias in zip(mlp.weights, mlp.biases, strict=True):
        linear = torch.nn.Linear(*weight.shape)
        linear.weight.data = torch.from_numpy(weight.T.copy())
        linear.bias.data = torch.from_numpy(bias.copy())
        layers += [linear, torch.nn.Tanh()]
    normalised = (x - torch.from_numpy(mlp.feature_mean)) / torch.from_numpy(mlp.feature_std)
    head = torch.nn.Sequential(*layers[:-1])(normalised.clamp(-mlp.feature_clip, mlp.feature_clip))
    commands = torch.from_numpy(NEUTRAL.astype(np.float32)).repeat(len(x), 1)
    for k, column in enumerate(mlp.controlled):
        middle, half = (UPPER[column] + LOWER[column]) / 2, (UPPER[column] - LOWER[column]) / 2
        commands[:, column] = middle + half * head[:, k].clamp(-1.0, 1.0)
    return commands


def run_onnx(mlp: PolicyNetwork, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(to_onnx(mlp), providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: rows})[0]


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("n_rows", [1, 3, 257])
def test_numpy_onnx_and_torch_agree(depth: int, n_rows: int) -> None:
    mlp, rows = network(depth=depth), features(n_rows)
    told = mlp.forward(rows)
    assert told.dtype == np.float32
    scale = 1e-6 * (UPPER - LOWER)
    assert np.all(np.abs(told - run_onnx(mlp, rows)) <= scale)
    with torch.no_grad():
        assert np.all(np.abs(told - torch_forward(mlp, torch.from_numpy(rows)).numpy()) <= scale)


def test_one_tanh_layer_by_hand() -> None:
    mlp = PolicyNetwork(
        feature_mean=np.array([1.0]),
        feature_std=np.array([2.0]),
        feature_clip=1.5,
        weights=(np.array([[1.0]]), np.array([[0.5]])),
        biases=(np.array([0.0]), np.array([0.1])),
        command_lower=np.array([0.0, -40.0]),
        command_upper=np.array([1.0, 40.0]),
        command_neutral=np.array([0.25, 0.0]),
        controlled=(1,),
    )
    told = mlp.forward(np.array([[2.0], [1e9]]))
    np.testing.assert_allclose(told[:, 1], 40.0 * (0.5 * np.tanh([0.5, 1.5]) + 0.1), rtol=1e-6)
    np.testing.assert_array_equal(told[:, 0], 0.25)


def test_leading_axes_are_kept_and_change_nothing() -> None:
    mlp, rows = network(), features(12)
    np.testing.assert_allclose(mlp.forward(rows.reshape(2, 6, 7)).reshape(12, 3), mlp.forward(rows), rtol=1e-6)


def test_commands_stay_in_range_and_uncontrolled_ones_neutral_for_any_features() -> None:
    mlp = network()
    rows = np.concatenate([features(500) * 1e6, np.full((1, 7), np.inf, np.float32)])
    for told in (mlp.forward(rows), run_onnx(mlp, rows)):
        assert np.all(told >= LOWER - 1e-5)
        assert np.all(told <= UPPER + 1e-5)
        np.testing.assert_array_equal(told[:, 2], NEUTRAL[2])


def test_a_nan_feature_comes_out_as_nan_and_leaves_other_rows_alone() -> None:
    mlp, rows = network(), features(3)
    rows[1, 4] = np.nan
    for told in (mlp.forward(rows), run_onnx(mlp, rows)):
        assert np.isnan(told[1]).all()
        assert np.isfinite(told[[0, 2]]).all()


def test_arrays_round_trip() -> None:
    mlp = network()
    again = PolicyNetwork.from_arrays(mlp.to_arrays())
    np.testing.assert_array_equal(again.forward(features(9)), mlp.forward(features(9)))
    assert again.controlled == mlp.controlled


def test_the_graph_is_fixed_in_its_opset_and_open_in_its_rows() -> None:
    model = onnx.load_from_string(to_onnx(network()))
    assert model.opset_import[0].version == OPSET
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == ["rows", 7]
    assert [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == ["rows", 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feature_std": np.ones(6)}, r"feature_std: shape \(6,\), expected \(7,\)"),
        ({"feature_std": np.zeros(7)}, "must be positive"),
        ({"feature_mean": np.full(7, np.nan)}, "feature_mean: holds NaN"),
        ({"biases": ()}, "one bias a layer"),
        ({"controlled": (0, 0)}, "different columns"),
        ({"controlled": (0, 3)}, "different columns below 3"),
        ({"controlled": (0,)}, r"weights\[2\]"),
        ({"command_lower": np.zeros(2)}, "command_lower"),
    ],
)
def test_weights_that_contradict_themselves_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        dataclasses.replace(network(), **changes)
