"""Layers of acting networks in numpy, float32, with one stack of weights for all assets of a group or one an asset.

Inside a network an array is in *rows*: ``[B * N, W]`` where ``S = 1`` stack serves everybody, so that a layer is one
plain matrix product, and ``[N, B, W]`` where every asset has its own, so that a layer is one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..envs.errors import ContractError

Float32 = NDArray[np.float32]
Activation = Literal["linear", "tanh", "relu", "elu", "gelu", "silu", "leaky_relu"]
LEAK = 0.01
"""Slope of ``leaky_relu`` below zero, torch's default."""


def to_rows(array: NDArray[Any], n_stacks: int) -> NDArray[Any]:
    """Rows of ``[B, N, W]``; raises :class:`~twinloop.envs.errors.ContractError` when ``N`` has not as many stacks."""
    if n_stacks == 1:
        return array.reshape(array.shape[0] * array.shape[1], array.shape[2])
    if array.shape[-2] != n_stacks:
        raise ContractError(
            f"this network has separate weights for {n_stacks} assets and was given {array.shape[-2]}; "
            "it serves no other number of assets"
        )
    return array.transpose(1, 0, 2)


def from_rows(rows: NDArray[Any], n_assets: int, n_stacks: int) -> NDArray[Any]:
    """Inverse of :func:`to_rows`: ``[B, N, W]``, a view."""
    if n_stacks == 1:
        return rows.reshape(len(rows) // n_assets, n_assets, rows.shape[1])
    return rows.transpose(1, 0, 2)


def affine(rows: NDArray[Any], weight: Float32, bias: Float32) -> Float32:
    """``rows @ weight + bias`` with ``weight`` ``[S, I, O]`` and ``bias`` ``[S, O]``."""
    if len(weight) == 1:
        out: Float32 = rows @ weight[0]
        out += bias[0]
        return out
    out = np.matmul(rows, weight)
    out += bias[:, None]
    return out


def sigmoid(x: Float32) -> Float32:
    """Logistic function, by ``tanh``, which does not overflow."""
    out: Float32 = np.tanh(x * np.float32(0.5))
    out *= np.float32(0.5)
    out += np.float32(0.5)
    return out


def _gelu(x: Float32) -> Float32:
    """``x Phi(x)`` (Hendrycks & Gimpel 2016, arXiv 1606.08415), exact."""
    erf: Float32 = np.vectorize(math.erf, otypes=[np.float32])(x * np.float32(math.sqrt(0.5)))
    return np.float32(0.5) * x * (np.float32(1) + erf)


ACTIVATIONS: dict[Activation, Callable[[Float32], Float32]] = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0)))),
    "gelu": _gelu,
    "silu": lambda x: x * sigmoid(x),
    "leaky_relu": lambda x: np.where(x > 0, x, np.float32(LEAK) * x),
}
"""Each as torch has it by default."""


@dataclass(frozen=True, eq=False)
class Dense:
    """``activation(x weight + bias)``; ``weight`` ``[S, I, O]``, ``bias`` ``[S, O]``."""

    weight: Float32
    bias: Float32
    activation: Activation = "linear"

    @property
    def n_stacks(self) -> int:
        return int(self.weight.shape[0])

    @property
    def n_inputs(self) -> int:
        return int(self.weight.shape[1])

    @property
    def n_outputs(self) -> int:
        return int(self.weight.shape[2])

    @property
    def n_memory(self) -> int:
        return 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.n_stacks, self.n_inputs, self.n_outputs), "bias": (self.n_stacks, self.n_outputs)}

    def step(self, x: Float32, memory: Float32) -> tuple[Float32, Float32]:
        return ACTIVATIONS[self.activation](affine(x, self.weight, self.bias)), memory


@dataclass(frozen=True, eq=False)
class GruWeights:
    """A gated recurrent unit as ``torch.nn.GRU`` has it (Cho et al. 2014, arXiv 1406.1078), gates in order r, z, n.

        r, z = sigmoid(x W_i + b_i + h W_h + b_h),  n = tanh(x W_in + b_in + r (h W_hn + b_hn)),  h' = (1 - z) n + z h

    ``input`` ``[S, F, 3H]``, ``recurrent`` ``[S, H, 3H]``, ``input_bias``, ``recurrent_bias`` ``[S, 3H]``. With
    ``joins_input`` the next layer sees its input beside the new memory, ``(x, h')``, else ``h'`` alone.
    """

    input: Float32
    recurrent: Float32
    input_bias: Float32
    recurrent_bias: Float32
    joins_input: bool = True

    @property
    def n_stacks(self) -> int:
        return int(self.recurrent.shape[0])

    @property
    def n_inputs(self) -> int:
        return int(self.input.shape[1])

    @property
    def n_outputs(self) -> int:
        return self.n_memory + (self.n_inputs if self.joins_input else 0)

    @property
    def n_memory(self) -> int:
        """``H``, the width."""
        return int(self.recurrent.shape[1])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return _recurrent_shapes(self.n_stacks, self.n_inputs, self.n_memory, 3)

    def step(self, x: Float32, memory: Float32) -> tuple[Float32, Float32]:
        n, h = self.n_memory, memory
        given, kept = affine(x, self.input, self.input_bias), affine(h, self.recurrent, self.recurrent_bias)
        gates = sigmoid(given[..., : 2 * n] + kept[..., : 2 * n])
        reset, update = gates[..., :n], gates[..., n:]
        new: Float32 = np.tanh(given[..., 2 * n :] + reset * kept[..., 2 * n :])
        after: Float32 = new + update * (h - new)
        return (np.concatenate([x, after], -1) if self.joins_input else after), after


@dataclass(frozen=True, eq=False)
class LstmWeights:
    """A long short-term memory as ``torch.nn.LSTM`` has it (Hochreiter & Schmidhuber 1997), gates in order i, f, g, o.

        i, f, o = sigmoid(...),  g = tanh(...),  c' = f c + i g,  h' = o tanh(c')

    ``input`` ``[S, F, 4H]``, ``recurrent`` ``[S, H, 4H]``, ``input_bias``, ``recurrent_bias`` ``[S, 4H]``. Its memory
    is ``(h, c)``, 2H numbers; ``joins_input`` as in :class:`GruWeights`.
    """

    input: Float32
    recurrent: Float32
    input_bias: Float32
    recurrent_bias: Float32
    joins_input: bool = False

    @property
    def n_stacks(self) -> int:
        return int(self.recurrent.shape[0])

    @property
    def n_inputs(self) -> int:
        return int(self.input.shape[1])

    @property
    def n_outputs(self) -> int:
        return self.n_memory // 2 + (self.n_inputs if self.joins_input else 0)

    @property
    def n_memory(self) -> int:
        return 2 * int(self.recurrent.shape[1])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return _recurrent_shapes(self.n_stacks, self.n_inputs, self.n_memory // 2, 4)

    def step(self, x: Float32, memory: Float32) -> tuple[Float32, Float32]:
        n = self.n_memory // 2
        h, c = memory[..., :n], memory[..., n:]
        gates = affine(x, self.input, self.input_bias) + affine(h, self.recurrent, self.recurrent_bias)
        opened = sigmoid(gates[..., : 2 * n])
        cell = opened[..., n:] * c + opened[..., :n] * np.tanh(gates[..., 2 * n : 3 * n])
        after = sigmoid(gates[..., 3 * n :]) * np.tanh(cell)
        return (np.concatenate([x, after], -1) if self.joins_input else after), np.concatenate([after, cell], -1)


Layer = Dense | GruWeights | LstmWeights
"""One step of a network. ``step(x, memory)`` returns output and new memory, in rows; ``shapes()`` tells what each array
should measure. Every array leads with the ``S`` stacks."""


def _recurrent_shapes(n_stacks: int, n_inputs: int, width: int, n_gates: int) -> dict[str, tuple[int, ...]]:
    return {
        "input": (n_stacks, n_inputs, n_gates * width),
        "recurrent": (n_stacks, width, n_gates * width),
        "input_bias": (n_stacks, n_gates * width),
        "recurrent_bias": (n_stacks, n_gates * width),
    }
