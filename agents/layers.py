"""Layers of acting networks in numpy, float32, with one stack of weights for all assets of a group or one an asset.

Inside a network an array is in *rows*: ``[B * N, W]`` where ``S = 1`` stack serves everybody, so that a layer is one
plain matrix product, and ``[N, B, W]`` where every asset has its own, so that a layer is one batched product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.errors import ContractError

Float32 = NDArray[np.float32]


def to_rows(array: NDArray[Any], n_stacks: int) -> NDArray[Any]:
    """Rows of ``[B, N, W]``; raises :class:`~twinloop.envs.errors.ContractError` when ``N`` has not as many stacks."""
    if n_stacks == 1:
        return array.reshape(-1, array.shape[-1])
    if array.shape[-2] != n_stacks:
        raise ContractError(
            f"this network has separate weights for {n_stacks} assets and was given {array.shape[-2]}; "
            "it serves no other number of assets"
        )
    return array.transpose(1, 0, 2)


def from_rows(rows: NDArray[Any], n_assets: int, n_stacks: int) -> NDArray[Any]:
    """Inverse of :func:`to_rows`: ``[B, N, W]``, a view."""
    if n_stacks == 1:
        return rows.reshape(-1, n_assets, rows.shape[-1])
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
    def n_memory(self) -> int:
        """``H``, the width."""
        return int(self.recurrent.shape[1])

    def step(self, x: Float32, h: Float32) -> tuple[Float32, Float32]:
        """What the next layer sees and the new memory, both in rows."""
        n = self.n_memory
        given, kept = affine(x, self.input, self.input_bias), affine(h, self.recurrent, self.recurrent_bias)
        gates = sigmoid(given[..., : 2 * n] + kept[..., : 2 * n])
        reset, update = gates[..., :n], gates[..., n:]
        new: Float32 = np.tanh(given[..., 2 * n :] + reset * kept[..., 2 * n :])
        after: Float32 = new + update * (h - new)
        return (np.concatenate([x, after], -1) if self.joins_input else after), after
