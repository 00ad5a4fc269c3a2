"""Numpy, ONNX and torch give the same commands and the same memory from the same weights, whatever the architecture."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.forward import PolicyNetwork
from twinloop.agents.layers import ACTIVATIONS, Activation, Dense, GruWeights, Layer, LstmWeights
from twinloop.agents.onnx_graph import OPSET, to_onnx
from twinloop.envs.errors import ContractError
from twinloop.envs.nameplate import Group, Signal

GROUP = Group(
    name="valve",
    assets=("V1", "V2", "V3"),
    measured=(Signal("flow_kgps", "kg/s", 0.0, 10.0),),
    commanded=(
        Signal("angle_deg", "deg", -40.0, 40.0, neutral=0.0),
        Signal("gear", "1", 0.0, 3.0, neutral=1.0, levels=(0.0, 1.0, 3.0)),
        Signal("opening_pu", "pu", 0.1, 1.0, neutral=1.0),
        Signal("heat_kw", "kW", 0.0, 5.0, neutral=2.0),
        Signal("lamp", "1", 0.0, 1.0, neutral=0.0, levels=(0.0, 1.0)),
    ),
)
LOWER, UPPER = GROUP.lower("commanded"), GROUP.upper("commanded")
N_ASSETS, N_FEATURES = 3, 7
TWO = ("opening_pu", "angle_deg")


def draw(rng: np.random.Generator, *shape: int) -> Any:
    return (rng.normal(size=shape) / math.sqrt(shape[-2] if len(shape) > 2 else 10.0)).astype(np.float32)


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def dense(rng: np.random.Generator, stacks: int, n_in: int, n_out: int, activation: Activation = "linear") -> Dense:
    return Dense(draw(rng, stacks, n_in, n_out), draw(rng, stacks, n_out), activation)


def recurrent(rng: np.random.Generator, kind: str, stacks: int, n_in: int, width: int, joins: bool) -> Layer:
    made, gates = (GruWeights, 3) if kind == "gru" else (LstmWeights, 4)
    arrays = draw(rng, stacks, n_in, gates * width), draw(rng, stacks, width, gates * width)
    return made(*arrays, draw(rng, stacks, gates * width), draw(rng, stacks, gates * width), joins)


def network(
    layers: tuple[str, ...] = ("tanh", "tanh"),
    controlled: tuple[str, ...] | None = TWO,
    stacks: int = 1,
    seed: int = 3,
    **changes: Any,
) -> PolicyNetwork:
    """``layers`` by kind: an activation, ``gru``, ``lstm``, with + where it joins its input; then a linear head."""
    rng = np.random.default_rng(seed)
    layout = ActionLayout.of(GROUP, controlled)
    made: list[Layer] = []
    width = N_FEATURES
    for kind in layers:
        if kind.rstrip("+") in ("gru", "lstm"):
            made.append(recurrent(rng, kind.rstrip("+"), stacks, width, 5, kind.endswith("+")))
        else:
            made.append(dense(rng, stacks, width, 16, kind))  # type: ignore[arg-type]  # the test says an activation
        width = made[-1].n_outputs
    made.append(dense(rng, stacks, width, layout.n_outputs))
    told = {
        "feature_mean": rng.normal(size=N_FEATURES).astype(np.float32),
        "feature_std": rng.uniform(0.1, 3.0, N_FEATURES).astype(np.float32),
        "feature_clip": 5.0,
        "layers": tuple(made),
        "layout": layout,
    }
    return PolicyNetwork(**{**told, **changes})


def features(n_rows: int, seed: int = 4) -> Any:
    return np.random.default_rng(seed).normal(0.0, 8.0, (n_rows, N_ASSETS, N_FEATURES)).astype(np.float32)


def masks(n_rows: int, layout: ActionLayout, seed: int = 5) -> Any:
    rng = np.random.default_rng(seed)
    flags = rng.random((n_rows, N_ASSETS, layout.n_levels)) < 0.5
    starts = np.cumsum([0, *layout.level_counts])
    for start, end in itertools.pairwise(starts):
        flags[..., start] |= ~flags[..., start:end].any(-1)
    return flags


def run_onnx(net: PolicyNetwork, x: Any, memory: Any = None, legal: Any = None) -> tuple[Any, Any]:
    session = onnxruntime.InferenceSession(to_onnx(net), providers=["CPUExecutionProvider"])
    shape = x.shape[:2]
    given: dict[str, Any] = {"features": x}
    if net.n_memory:
        given["memory"] = np.zeros((*shape, net.n_memory), np.float32) if memory is None else memory
    if net.layout.discrete:
        given["legal"] = np.ones((*shape, net.layout.n_levels), np.bool_) if legal is None else legal
    commands, *after = session.run(None, given)
    return commands, after[0] if after else None


def torch_module(layer: Layer, stack: int) -> torch.nn.Module:
    """A layer of ours as torch's own."""

    def turned(array: Any) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.from_numpy(array[stack].T.copy()))

    module: torch.nn.Module
    if isinstance(layer, Dense):
        module = torch.nn.Linear(layer.n_inputs, layer.n_outputs)
        module.weight, module.bias = turned(layer.weight), turned(layer.bias)
        return module
    made = torch.nn.GRU if isinstance(layer, GruWeights) else torch.nn.LSTM
    module = made(layer.n_inputs, layer.recurrent.shape[1], batch_first=True)
    module.weight_ih_l0, module.weight_hh_l0 = turned(layer.input), turned(layer.recurrent)
    module.bias_ih_l0, module.bias_hh_l0 = turned(layer.input_bias), turned(layer.recurrent_bias)
    return module


@torch.no_grad()
def torch_heads(net: PolicyNetwork, sequence: list[Any]) -> list[Any]:
    """Heads of a sequence of features, by torch's modules, asset by asset."""
    steps = [
        (torch.from_numpy(x) - torch.from_numpy(net.feature_mean)) / torch.from_numpy(net.feature_std) for x in sequence
    ]
    x = torch.stack(steps, 2).clamp(-net.feature_clip, net.feature_clip)  # [B, N, T, F]
    found = []
    for asset in range(N_ASSETS):
        h = x[:, asset]
        for layer in net.layers:
            module = torch_module(layer, asset if net.n_stacks > 1 else 0)
            if isinstance(layer, Dense):
                h = module(h)
                if layer.activation != "linear":
                    h = getattr(torch.nn.functional, layer.activation)(h)
            else:
                seen = module(h)[0]
                h = torch.cat([h, seen], -1) if layer.joins_input else seen
        found.append(h)
    heads = torch.stack(found, 1).numpy()
    return [heads[:, :, t] for t in range(len(sequence))]


ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "linear": (),
    **{name: (name,) for name in ACTIVATIONS if name != "linear"},
    "deep": ("tanh", "tanh", "tanh"),
    "gru": ("gru", "tanh"),
    "gru beside its input": ("gru+", "tanh"),
    "lstm": ("lstm", "tanh"),
    "two lstm": ("lstm", "lstm+", "relu"),
}


@pytest.mark.parametrize("stacks", [1, N_ASSETS])
@pytest.mark.parametrize("layers", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_heads_equal_those_of_torchs_own_layers_over_a_sequence(layers: tuple[str, ...], stacks: int) -> None:
    net, memory = network(layers, None, stacks), None
    sequence = [features(6, seed) for seed in range(4)]
    for x, expected in zip(sequence, torch_heads(net, sequence), strict=True):
        head, memory = net.head(x, memory)
        assert head.dtype == np.float32
        np.testing.assert_allclose(head, expected, atol=2e-6)


KINDS = st.sampled_from([*ACTIVATIONS, "gru", "gru+", "lstm", "lstm+"])


@settings(max_examples=60, deadline=None)
@given(
    layers=st.lists(KINDS, max_size=3).map(tuple),
    stacks=st.sampled_from([1, N_ASSETS]),
    controlled=st.lists(st.sampled_from([s.name for s in GROUP.commanded]), min_size=1, max_size=5, unique=True),
    squash=st.sampled_from(["clip", "tanh"]),
    n_rows=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_numpy_and_onnx_agree_for_any_architecture(
    layers: tuple[str, ...], stacks: int, controlled: list[str], squash: str, n_rows: int, seed: int
) -> None:
    net = network(layers, tuple(controlled), stacks, seed, squash=squash)
    x, legal = features(n_rows, seed), masks(n_rows, net.layout, seed)
    memory = np.random.default_rng(seed).uniform(-1, 1, (n_rows, N_ASSETS, net.n_memory)).astype(np.float32)
    told, after = net.forward(x, memory, legal)
    graph, graph_after = run_onnx(net, x, memory, legal)
    assert told.shape == (n_rows, N_ASSETS, 5)
    assert np.all(np.abs(told - graph) <= 2e-6 * (UPPER - LOWER))
    if net.n_memory:
        np.testing.assert_allclose(after, graph_after, atol=2e-6)
    for column, signal in enumerate(GROUP.commanded):
        if signal.levels is not None:
            assert np.isin(told[..., column], np.array(signal.levels, np.float32)).all()


def test_one_tanh_layer_by_hand() -> None:
    one = np.ones((1, 1, 1), np.float32)
    net = PolicyNetwork(
        feature_mean=np.array([1.0]),
        feature_std=np.array([2.0]),
        feature_clip=1.5,
        layers=(Dense(one, np.zeros((1, 1), np.float32), "tanh"), Dense(0.5 * one, np.full((1, 1), 0.1, np.float32))),
        layout=ActionLayout.of(GROUP, ["angle_deg"]),
    )
    told, _ = net.forward(np.array([[[2.0], [1e9]]]))
    np.testing.assert_allclose(told[0, :, 0], 40.0 * (0.5 * np.tanh([0.5, 1.5]) + 0.1), rtol=1e-6)
    np.testing.assert_array_equal(told[0, :, 1:], np.tile(GROUP.neutral()[1:].astype(np.float32), (2, 1)))


def test_tanh_squashes_where_clip_cuts() -> None:
    net = network((), ("angle_deg",))
    head = net.head(features(9))[0][..., 0]
    assert np.abs(head).max() > 1
    np.testing.assert_allclose(net.forward(features(9))[0][..., 0], 40.0 * np.clip(head, -1, 1), rtol=1e-5, atol=1e-5)
    squashed = dataclasses.replace(net, squash="tanh")
    np.testing.assert_allclose(squashed.forward(features(9))[0][..., 0], 40.0 * np.tanh(head), rtol=1e-5, atol=1e-5)


def test_the_likeliest_legal_level_is_commanded_and_an_illegal_one_never() -> None:
    net = network(controlled=("gear",))
    x, levels = features(40), np.array(GROUP.commanded[1].levels, np.float32)
    head, _ = net.head(x)
    np.testing.assert_array_equal(net.forward(x)[0][..., 1], levels[head.argmax(-1)])
    legal = np.ones(head.shape, np.bool_)
    np.put_along_axis(legal, head.argmax(-1)[..., None], False, -1)
    second = np.argsort(head, -1)[..., -2]
    for told in (net.forward(x, None, legal)[0], run_onnx(net, x, None, legal)[0]):
        np.testing.assert_array_equal(told[..., 1], levels[second])


def test_every_asset_is_answered_by_its_own_stack() -> None:
    net, x = network(("gru+", "tanh"), None, N_ASSETS), features(4)
    together, memory = net.forward(x)
    for asset in range(N_ASSETS):
        layers = []
        for layer in net.layers:
            arrays = {key: getattr(layer, key)[asset : asset + 1] for key in layer.shapes()}
            layers.append(dataclasses.replace(layer, **arrays))
        alone, its_memory = dataclasses.replace(net, layers=tuple(layers)).forward(x[:, asset : asset + 1])
        np.testing.assert_allclose(together[:, asset : asset + 1], alone, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(memory[:, asset : asset + 1], its_memory, atol=1e-6)
    with pytest.raises(ContractError, match="separate weights for 3 assets and was given 2"):
        net.forward(x[:, :2])


def test_commands_stay_in_range_and_uncontrolled_ones_neutral_for_any_features() -> None:
    net = network()
    x = np.concatenate([features(200) * 1e6, np.full((1, N_ASSETS, N_FEATURES), np.inf, np.float32)])
    for told in (net.forward(x)[0], run_onnx(net, x)[0]):
        assert np.all(told >= LOWER - 1e-5)
        assert np.all(told <= UPPER + 1e-5)
        np.testing.assert_array_equal(told[..., [1, 3, 4]], np.broadcast_to([1.0, 2.0, 0.0], (201, N_ASSETS, 3)))


def test_a_nan_feature_comes_out_as_nan_and_leaves_other_assets_alone() -> None:
    net, x = network(("gru+", "tanh")), features(3)
    clean, _ = net.forward(x)
    x[1, 2, 4] = np.nan
    others = np.ones((3, N_ASSETS), np.bool_)
    others[1, 2] = False
    for told in (net.forward(x)[0], run_onnx(net, x)[0]):
        assert np.isnan(told[1, 2, [0, 2]]).all()
        np.testing.assert_allclose(told[others], clean[others], rtol=1e-5, atol=1e-5)


def test_no_clip_of_features_is_a_clip_at_infinity() -> None:
    net = network((), ("angle_deg",), feature_clip=math.inf)
    x = features(5)
    (head,) = net.layers
    assert isinstance(head, Dense)
    expected = ((x - net.feature_mean) / net.feature_std) @ head.weight[0] + head.bias[0]
    np.testing.assert_allclose(net.head(x)[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run_onnx(net, x)[0], net.forward(x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [("tanh", "relu"), ("gru+", "elu"), ("lstm", "silu")])
def test_arrays_round_trip(layers: tuple[str, ...]) -> None:
    net = network(layers, None, N_ASSETS, squash="tanh")
    again = PolicyNetwork.from_arrays(net.to_arrays())
    for one, other in zip(again.forward(features(9)), net.forward(features(9)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert vars(again.layout).keys() == vars(net.layout).keys()
    assert again.layout.legal_columns == net.layout.legal_columns


@pytest.mark.parametrize(("stacks", "assets"), [(1, "assets"), (N_ASSETS, N_ASSETS)])
def test_the_graph_is_fixed_in_its_opset_and_open_in_its_rows(stacks: int, assets: str | int) -> None:
    model = onnx.load_from_string(to_onnx(network(("gru",), None, stacks)))
    assert model.opset_import[0].version == OPSET
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    widths = {"features": 7, "memory": 5, "legal": 5, "commands": 5, "next_memory": 5}
    assert shapes == {name: ["rows", assets, width] for name, width in widths.items()}


@pytest.mark.parametrize("squash", ["clip", "tanh"])
def test_the_graph_holds_no_number_that_it_does_not_use(squash: Any) -> None:
    # onnxruntime would warn of each, on every start
    model = onnx.load_from_string(to_onnx(network(("tanh",), squash=squash)))
    used = {name for node in model.graph.node for name in node.input}
    assert {constant.name for constant in model.graph.initializer} <= used


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feature_std": np.ones(6)}, r"feature_std: shape \(6,\), expected \(7,\)"),
        ({"feature_std": np.zeros(7)}, "must be positive"),
        ({"feature_clip": 0.0}, "must be positive"),
        ({"feature_mean": np.full(7, np.nan)}, "feature_mean: holds NaN"),
        ({"layers": ()}, "at least a linear head"),
        ({"layout": ActionLayout.of(GROUP, ["gear"])}, "the head is 2 wide, the layout of these commands needs 3"),
        ({"squash": "sine"}, "'sine', allowed: clip, tanh"),
        ({"layers": (Dense(ones(1, 7, 2), ones(1, 3)),)}, r"layers\[0\].bias: shape \(1, 3\), expected"),
        ({"layers": (Dense(ones(1, 6, 2), ones(1, 2)),)}, "takes 6 inputs in 1 stacks, expected 7 in 1"),
        ({"layers": (Dense(ones(1, 7, 2) * np.float32(np.inf), ones(1, 2)),)}, "layer_0_weight: holds NaN or infinity"),
        ({"layers": (Dense(ones(1, 7, 2), ones(1, 2), "sin"),)}, "'sin', allowed: linear, tanh"),  # type: ignore[arg-type]  # on purpose
    ],
)  # fmt: skip
def test_weights_that_contradict_themselves_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        dataclasses.replace(network(), **changes)
