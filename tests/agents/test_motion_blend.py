"""Actions that weigh an encoder's proposals: the sum itself, numpy against torch and ONNX, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.forward import PolicyNetwork
from twinloop.agents.layers import Dense
from twinloop.agents.onnx_graph import to_onnx
from twinloop.agents.torch_actor import TorchLayout
from twinloop.envs.errors import ConfigurationError, ContractError
from twinloop.envs.nameplate import Group, Signal

GROUP = Group(
    name="arm",
    assets=("a", "b"),
    measured=(Signal("x", "m", 0.0, 1.0, ""),),
    commanded=(Signal("u", "m/s", -2.0, 2.0, ""), Signal("v", "m/s", 0.0, 4.0, "")),
)
MOTIONS = {"there": (3, 4), "back": (1, 0)}
WANTED = {"back": (-1.0, 1.0), "there": (0.0, 2.0)}
B, N, F = 5, 2, 6


def layout() -> ActionLayout:
    return ActionLayout.of(GROUP, None).blended(GROUP, MOTIONS, WANTED)


def drawn(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, N, 2)).astype(np.float32), rng.uniform(-1, 1, (B, N, F)).astype(np.float32)


def test_a_command_is_the_sum_of_proposals_times_weights_within_its_range() -> None:
    features = np.zeros((1, 1, F), np.float32)
    features[0, 0, [3, 4]] = 0.5, -0.25  # there
    features[0, 0, [1, 0]] = 0.1, 0.2  # back: u first
    actions = np.array([[[0.5, 0.0]]], np.float32)  # weights 0.5 and 1
    np.testing.assert_allclose(layout().commands(actions, features), [[[2 * 0.55, 2 + 2 * (-0.15)]]], atol=1e-6)
    np.testing.assert_array_equal(layout().commands(actions, 100 * features), [[[2.0, 0.0]]])  # ends of the ranges
    beyond = layout().commands(np.array([[[0.5, 9.0]]], np.float32), features)
    np.testing.assert_array_equal(beyond, layout().commands(np.array([[[0.5, 1.0]]], np.float32), features))


def test_torch_and_the_graph_make_the_same_commands() -> None:
    actions, features = drawn()
    expected = layout().commands(actions, features)
    turned = TorchLayout(layout(), torch.device("cpu"), torch.float64)
    found = turned.commands(torch.from_numpy(actions), torch.from_numpy(features))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    rng = np.random.default_rng(1)
    head = Dense(rng.normal(size=(1, F, 2)).astype(np.float32), np.zeros((1, 2), np.float32), "linear")
    network = PolicyNetwork(np.full(F, 0.3, np.float32), np.full(F, 2.0, np.float32), 5.0, (head,), layout())
    commands, _ = network.forward(features)
    graph = onnxruntime.InferenceSession(to_onnx(network), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(graph.run(None, {"features": features})[0], commands, atol=1e-5)
    again = PolicyNetwork.from_arrays(network.to_arrays())
    np.testing.assert_array_equal(again.forward(features)[0], commands)


def test_what_a_blend_cannot_be_is_said() -> None:
    whole = ActionLayout.of(GROUP, None)
    with pytest.raises(
        ConfigurationError, match=r"learner\.blend\.arm: .*no motion 'ther'; it has there, back .*there"
    ):
        whole.blended(GROUP, MOTIONS, {"ther": (0.0, 1.0)})
    with pytest.raises(ConfigurationError, match=r"learner\.blend\.arm\.there: \[1.0, 1.0\]; the first end must be"):
        whole.blended(GROUP, MOTIONS, {"there": (1.0, 1.0)})
    with pytest.raises(ConfigurationError, match="all of whose commands are continuous and controlled"):
        ActionLayout.of(GROUP, ["u"]).blended(GROUP, MOTIONS, WANTED)
    with pytest.raises(ContractError, match="give the features"):
        layout().commands(drawn()[0])
