"""The forward pass of a trained policy, as plain arrays: numpy to act and to check, ONNX to ship.

    x = clip((features - mean) / std, -feature_clip, feature_clip)
    h = tanh(x W1 + b1), tanh(h W2 + b2), ...
    u = clip(h Wn + bn, -1, 1)
    command[controlled[k]] = (upper + lower) / 2 + (upper - lower) / 2 * u[k];  all other columns stay neutral

All in float32, the type that networks are trained in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.errors import ContractError

OPSET = 17
IR_VERSION = 8
INPUT, OUTPUT = "features", "commands"

Floats = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PolicyNetwork:
    """A network of tanh layers with a linear head, its normaliser and the scaling of its output.

    ``feature_mean``, ``feature_std``: ``[F]``; ``weights[i]``: ``[inputs, outputs]``; ``biases[i]``: ``[outputs]``;
    ``command_lower``, ``command_upper``, ``command_neutral``: ``[A]`` in physical units; ``controlled``: the
    command column that each output of the head drives. Raises
    :class:`~twinloop.envs.errors.ContractError` when shapes disagree or a number is not finite.
    """

    feature_mean: Floats
    feature_std: Floats
    feature_clip: float
    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    command_lower: Floats
    command_upper: Floats
    command_neutral: Floats
    controlled: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, expected, got in self._shapes():
            if expected != got:
                raise ContractError(f"PolicyNetwork.{name}: shape {got}, expected {expected}")
        for name, array in self.to_arrays().items():
            if not np.all(np.isfinite(array)):
                raise ContractError(f"PolicyNetwork.{name}: holds NaN or infinity; training did not end well")
        if not np.all(np.asarray(self.feature_std) > 0) or not self.feature_clip > 0:
            raise ContractError("PolicyNetwork: feature_std and feature_clip must be positive")
        if len(set(self.controlled)) != len(self.controlled) or not set(self.controlled) <= set(range(self.n_commands)):
            raise ContractError(
                f"PolicyNetwork.controlled: {self.controlled} must be different columns below {self.n_commands}"
            )

    def _shapes(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """(field, expected shape, present shape) of every array."""
        if not self.weights or len(self.weights) != len(self.biases):
            raise ContractError(
                f"PolicyNetwork: {len(self.weights)} weights and {len(self.biases)} biases; need one bias a layer"
            )
        found: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
        for name in ("feature_mean", "feature_std"):
            found.append((name, (self.n_features,), np.shape(getattr(self, name))))
        width = self.n_features
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            outputs = len(self.controlled) if i == len(self.weights) - 1 else int(np.shape(bias)[0])
            found.append((f"weights[{i}]", (width, outputs), np.shape(weight)))
            found.append((f"biases[{i}]", (outputs,), np.shape(bias)))
            width = outputs
        for name in ("command_lower", "command_upper", "command_neutral"):
            found.append((name, (self.n_commands,), np.shape(getattr(self, name))))
        return found

    @property
    def n_features(self) -> int:
        return int(np.shape(self.feature_mean)[0])

    @property
    def n_commands(self) -> int:
        return int(np.shape(self.command_neutral)[0])

    @cached_property
    def scale(self) -> NDArray[np.float32]:
        """``[K, A]``: half the command's range where output k drives column a, else 0."""
        lower, upper = (np.asarray(a, dtype=np.float64) for a in (self.command_lower, self.command_upper))
        matrix = np.zeros((len(self.controlled), self.n_commands))
        for k, column in enumerate(self.controlled):
            matrix[k, column] = (upper[column] - lower[column]) / 2.0
        return matrix.astype(np.float32)

    @cached_property
    def offset(self) -> NDArray[np.float32]:
        """``[A]``: the middle of the range of a driven column, the neutral value of any other."""
        lower, upper = (np.asarray(a, dtype=np.float64) for a in (self.command_lower, self.command_upper))
        values = np.array(self.command_neutral, dtype=np.float64)
        columns = list(self.controlled)
        values[columns] = (upper[columns] + lower[columns]) / 2.0
        return values.astype(np.float32)

    def forward(self, features: Floats) -> NDArray[np.float32]:
        """Commands ``[..., A]`` of features ``[..., F]``; a row that holds a NaN comes out as NaN."""
        f32 = np.float32
        x = (np.asarray(features, f32) - np.asarray(self.feature_mean, f32)) / np.asarray(self.feature_std, f32)
        h = np.clip(x, -f32(self.feature_clip), f32(self.feature_clip))
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = np.tanh(h @ np.asarray(weight, f32) + np.asarray(bias, f32))
        head = h @ np.asarray(self.weights[-1], f32) + np.asarray(self.biases[-1], f32)
        commands = np.clip(head, f32(-1), f32(1)) @ self.scale + self.offset
        return np.asarray(commands, f32)

    def to_arrays(self) -> dict[str, Floats]:
        """Everything as named arrays, as ``numpy.savez`` takes them."""
        named: dict[str, Floats] = {
            "feature_mean": np.asarray(self.feature_mean),
            "feature_std": np.asarray(self.feature_std),
            "feature_clip": np.asarray(self.feature_clip, dtype=np.float64),
            "command_lower": np.asarray(self.command_lower, dtype=np.float64),
            "command_upper": np.asarray(self.command_upper, dtype=np.float64),
            "command_neutral": np.asarray(self.command_neutral, dtype=np.float64),
            "controlled": np.asarray(self.controlled, dtype=np.int64),
        }
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            named[f"weight_{i}"], named[f"bias_{i}"] = np.asarray(weight), np.asarray(bias)
        return named

    @staticmethod
    def from_arrays(named: Mapping[str, Floats]) -> PolicyNetwork:
        """Inverse of :meth:`to_arrays`; raises :class:`KeyError` with the name of a missing array."""
        n_layers = sum(1 for name in named if name.startswith("weight_"))
        return PolicyNetwork(
            feature_mean=named["feature_mean"],
            feature_std=named["feature_std"],
            feature_clip=float(named["feature_clip"]),
            weights=tuple(named[f"weight_{i}"] for i in range(n_layers)),
            biases=tuple(named[f"bias_{i}"] for i in range(n_layers)),
            command_lower=named["command_lower"],
            command_upper=named["command_upper"],
            command_neutral=named["command_neutral"],
            controlled=tuple(int(c) for c in named["controlled"]),
        )


def to_onnx(weights: PolicyNetwork) -> bytes:
    """The same forward pass as an ONNX model: ``features`` ``[rows, F]`` to ``commands`` ``[rows, A]``, float32.

    Normaliser, clips and scaling are inside the graph. Needs the package ``onnx`` (extra ``train``).
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        from ..envs.errors import MissingExtraError

        raise MissingExtraError("onnx", "train", "saving a policy as an ONNX graph") from error

    constants: dict[str, Floats] = {
        "mean": np.asarray(weights.feature_mean),
        "std": np.asarray(weights.feature_std),
        "feature_low": np.asarray(-weights.feature_clip),
        "feature_high": np.asarray(weights.feature_clip),
        "head_low": np.asarray(-1.0),
        "head_high": np.asarray(1.0),
        "scale": weights.scale,
        "offset": weights.offset,
    }
    nodes = [
        helper.make_node("Sub", [INPUT, "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("Clip", ["normalised", "feature_low", "feature_high"], ["h0"]),
    ]
    last = len(weights.weights) - 1
    for i, (weight, bias) in enumerate(zip(weights.weights, weights.biases, strict=True)):
        constants[f"weight_{i}"], constants[f"bias_{i}"] = np.asarray(weight), np.asarray(bias)
        out = "head" if i == last else f"z{i}"
        nodes.append(helper.make_node("Gemm", [f"h{i}", f"weight_{i}", f"bias_{i}"], [out]))
        if i < last:
            nodes.append(helper.make_node("Tanh", [out], [f"h{i + 1}"]))
    nodes += [
        helper.make_node("Clip", ["head", "head_low", "head_high"], ["u"]),
        helper.make_node("MatMul", ["u", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", weights.n_features])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", weights.n_commands])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="twinloop")
    model.ir_version = IR_VERSION
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
