"""A policy's network as an ONNX graph, equal to its forward pass in numpy.

Inputs: ``features`` ``[rows, assets, F]``, ``memory`` ``[rows, assets, H]`` where the network remembers, ``legal``
``[rows, assets, L]`` bool where it has discrete commands. Outputs: ``commands`` ``[rows, assets, A]`` in physical units
and ``next_memory``. Normaliser, squash, masks and scaling are inside. float32, opset 17, operators of the base set
alone, so that any runtime takes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .action_layout import ActionLayout
from .forward import Floats, PolicyNetwork
from .layers import LEAK, Dense, GruWeights, LstmWeights

OPSET = 17
IR_VERSION = 8
FEATURES, MEMORY, LEGAL, COMMANDS, NEXT_MEMORY = "features", "memory", "legal", "commands", "next_memory"


def to_onnx(network: PolicyNetwork) -> bytes:
    """The graph, serialised. Needs the package ``onnx`` (extra ``train``)."""
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        from ..envs.errors import MissingExtraError

        raise MissingExtraError("onnx", "train", "saving a policy as an ONNX graph") from error

    graph = _Graph()
    _write(graph, network)
    assets: int | str = "assets" if network.n_stacks == 1 else network.n_stacks

    def told(name: str, width: int, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, ["rows", assets, width])

    inputs, outputs = [told(FEATURES, network.n_features)], [told(COMMANDS, network.n_commands)]
    if network.n_memory:
        inputs.append(told(MEMORY, network.n_memory))
        outputs.append(told(NEXT_MEMORY, network.n_memory))
    if network.layout.discrete:
        inputs.append(told(LEGAL, network.layout.n_levels, TensorProto.BOOL))
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, taken, given, **options) for op, taken, given, options in graph.nodes],
            "policy",
            inputs,
            outputs,
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="twinloop",
    )
    model.ir_version = IR_VERSION
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


class _Graph:
    """Nodes and constants in the order in which they are asked for; every value gets a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        self.constants: dict[str, Floats] = {}
        self._numbers = itertools.count()

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        name = f"c{next(self._numbers)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, op: str, *inputs: str, to: str | None = None, **options: Any) -> str:
        name = to or f"v{next(self._numbers)}"
        self.nodes.append((op, list(inputs), [name], options))
        return name

    def split(self, value: str, widths: Sequence[int]) -> list[str]:
        """Parts of the last axis."""
        names = [f"v{next(self._numbers)}" for _ in widths]
        self.nodes.append(("Split", [value, self.constant(widths, np.int64)], list(names), {"axis": -1}))
        return names

    def affine(self, x: str, weight: Floats, bias: Floats) -> str:
        """Values are ``[B, N, W]`` with one stack, ``[N, B, W]`` with several."""
        if len(weight) == 1:
            weight, bias = weight[0], bias[0]
        else:
            bias = bias[:, None]
        return self.add("Add", self.add("MatMul", x, self.constant(weight)), self.constant(bias))


def _write(graph: _Graph, network: PolicyNetwork) -> None:
    low, high = (graph.constant(sign * network.feature_clip) for sign in (-1, 1))
    centred = graph.add("Sub", FEATURES, graph.constant(network.feature_mean))
    x = graph.add("Clip", graph.add("Div", centred, graph.constant(network.feature_std)), low, high)
    x = _swapped(graph, x, network)
    widths = [layer.n_memory for layer in network.layers if layer.n_memory]
    kept = iter(graph.split(_swapped(graph, MEMORY, network), widths) if widths else ())
    after: list[str] = []
    for layer in network.layers:
        if isinstance(layer, Dense):
            x = _activate(graph, graph.affine(x, layer.weight, layer.bias), layer.activation)
            continue
        if isinstance(layer, GruWeights):
            seen, new = _gru(graph, layer, x, next(kept))
        else:
            seen, new = _lstm(graph, layer, x, next(kept))
        after.append(new)
        x = graph.add("Concat", x, seen, axis=-1) if layer.joins_input else seen
    if after:
        graph.add("Identity", _swapped(graph, graph.add("Concat", *after, axis=-1), network), to=NEXT_MEMORY)
    _write_commands(graph, network, _swapped(graph, x, network))


def _swapped(graph: _Graph, value: str, network: PolicyNetwork) -> str:
    """``[B, N, W]`` to ``[N, B, W]`` and back, where each asset has its own stack."""
    return value if network.n_stacks == 1 else graph.add("Transpose", value, perm=[1, 0, 2])


def _activate(graph: _Graph, x: str, activation: str) -> str:
    match activation:
        case "tanh":
            return graph.add("Tanh", x)
        case "relu":
            return graph.add("Relu", x)
        case "elu":
            return graph.add("Elu", x, alpha=1.0)
        case "leaky_relu":
            return graph.add("LeakyRelu", x, alpha=LEAK)
        case "silu":
            return graph.add("Mul", x, graph.add("Sigmoid", x))
        case "gelu":
            erf = graph.add("Erf", graph.add("Mul", x, graph.constant(np.sqrt(0.5))))
            half = graph.add("Mul", x, graph.constant(0.5))
            return graph.add("Mul", half, graph.add("Add", erf, graph.constant(1.0)))
        case _:
            return x


def _gru(graph: _Graph, layer: GruWeights, x: str, h: str) -> tuple[str, str]:
    widths = [layer.n_memory] * 3
    given = graph.split(graph.affine(x, layer.input, layer.input_bias), widths)
    kept = graph.split(graph.affine(h, layer.recurrent, layer.recurrent_bias), widths)
    reset, update = (graph.add("Sigmoid", graph.add("Add", given[i], kept[i])) for i in (0, 1))
    new = graph.add("Tanh", graph.add("Add", given[2], graph.add("Mul", reset, kept[2])))
    after = graph.add("Add", new, graph.add("Mul", update, graph.add("Sub", h, new)))
    return after, after


def _lstm(graph: _Graph, layer: LstmWeights, x: str, memory: str) -> tuple[str, str]:
    n = layer.n_memory // 2
    h, c = graph.split(memory, [n, n])
    gates = graph.add(
        "Add", graph.affine(x, layer.input, layer.input_bias), graph.affine(h, layer.recurrent, layer.recurrent_bias)
    )
    i, f, g, o = graph.split(gates, [n] * 4)
    kept = graph.add("Mul", graph.add("Sigmoid", f), c)
    cell = graph.add("Add", kept, graph.add("Mul", graph.add("Sigmoid", i), graph.add("Tanh", g)))
    after = graph.add("Mul", graph.add("Sigmoid", o), graph.add("Tanh", cell))
    return after, graph.add("Concat", after, cell, axis=-1)


def _write_commands(graph: _Graph, network: PolicyNetwork, head: str) -> None:
    layout = network.layout
    n, n_commands = len(layout.continuous), network.n_commands
    offset = np.array(layout.neutral, np.float32)
    offset[list(layout.columns)] = 0.0
    offset[list(layout.continuous)] = layout.middle
    # Output k moves column continuous[k] by half its range; a chosen level is its column's value.
    scale = np.zeros((n + len(layout.discrete), n_commands), np.float32)
    scale[range(n), list(layout.continuous)] = layout.half
    scale[range(n, len(scale)), list(layout.discrete)] = 1.0
    parts = graph.split(head, [*([layout.n_means] if n else []), *layout.level_counts])
    outputs = []
    if n:
        means = parts.pop(0)
        if network.squash == "tanh":
            outputs.append(graph.add("Tanh", means))
        else:
            outputs.append(graph.add("Clip", means, graph.constant(-1.0), graph.constant(1.0)))
        if layout.motions:
            outputs[0] = _blend(graph, layout, outputs[0])
    masks = graph.split(LEGAL, layout.level_counts) if layout.discrete else []
    for logits, mask, levels in zip(parts, masks, layout.levels, strict=True):
        allowed = graph.add("Where", mask, logits, graph.constant(-np.inf))
        outputs.append(graph.add("Gather", graph.constant(levels), graph.add("ArgMax", allowed, axis=-1, keepdims=1)))
    actions = outputs[0] if len(outputs) == 1 else graph.add("Concat", *outputs, axis=-1)
    graph.add("Add", graph.add("MatMul", actions, graph.constant(scale)), graph.constant(offset), to=COMMANDS)


def _blend(graph: _Graph, layout: ActionLayout, actions: str) -> str:
    """``[B, N, A]`` in shares of half a range: proposals among the features, each times the weight of its action."""
    scaled = graph.add("Mul", actions, graph.constant(layout.weight_half))
    weights = graph.add("Add", scaled, graph.constant(layout.weight_middle))
    weights = graph.add("Unsqueeze", weights, graph.constant([-1], np.int64))
    proposed = graph.add("Gather", FEATURES, graph.constant(layout.motions, np.int64), axis=-1)
    total = graph.add("ReduceSum", graph.add("Mul", weights, proposed), graph.constant([-2], np.int64), keepdims=0)
    return graph.add("Clip", total, graph.constant(-1.0), graph.constant(1.0))
