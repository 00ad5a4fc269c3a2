"""The forward pass of a trained policy, as plain arrays: what acts at the plant, with numpy as the referee of ONNX.

    x = clip((features - mean) / std, -feature_clip, feature_clip)
    head = layers(x, memory)
    continuous command k = middle + half * squash(head_k), squash being a clip to [-1, 1] or tanh; or, where heads weigh
                           motions, middle + half * clip(sum of weight_m(squash(head_m)) * raw feature[motion m, k])
    discrete command d   = the level whose logit is the largest of the legal ones;  all other commands stay neutral

All in float32, the type that networks are trained in. The same network as an ONNX graph:
:func:`twinloop.agents.onnx_graph.to_onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ..envs.errors import ContractError
from .action_layout import ActionLayout
from .action_sampling import choose_levels
from .layers import Activation, Dense, Float32, GruWeights, Layer, LstmWeights, from_rows, to_rows

Floats = NDArray[Any]
Squash = Literal["clip", "tanh"]


@dataclass(frozen=True, eq=False)
class PolicyNetwork:
    """Normaliser, layers, and the layout that makes commands of the last layer's output.

    ``feature_mean``, ``feature_std``: ``[F]``; ``feature_clip``: infinity for none; ``layers``: of ``S`` stacks each, 1
    shared by all assets or one an asset, the last one ``layout.n_outputs`` wide. Raises
    :class:`~twinloop.envs.errors.ContractError` when shapes disagree or a number is not finite.
    """

    feature_mean: Floats
    feature_std: Floats
    feature_clip: float
    layers: tuple[Layer, ...]
    layout: ActionLayout
    squash: Squash = "clip"

    def __post_init__(self) -> None:
        if not self.layers:
            raise ContractError("PolicyNetwork.layers: none; a network has at least a linear head")
        if self.squash not in get_args(Squash):
            raise ContractError(f"PolicyNetwork.squash: {self.squash!r}, allowed: {', '.join(get_args(Squash))}")
        if np.shape(self.feature_std) != np.shape(self.feature_mean):
            raise ContractError(
                f"PolicyNetwork.feature_std: shape {np.shape(self.feature_std)}, expected {np.shape(self.feature_mean)}"
            )
        width = self.n_features
        for i, layer in enumerate(self.layers):
            self._check_layer(f"layers[{i}]", layer, width)
            width = layer.n_outputs
        if width != self.layout.n_outputs:
            raise ContractError(
                f"PolicyNetwork.layers: the head is {width} wide, the layout of these commands needs "
                f"{self.layout.n_outputs}"
            )
        for name, array in self.to_arrays().items():
            if name != "feature_clip" and array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                raise ContractError(f"PolicyNetwork.{name}: holds NaN or infinity; training did not end well")
        if not np.all(np.asarray(self.feature_std) > 0) or not self.feature_clip > 0:
            raise ContractError("PolicyNetwork: feature_std and feature_clip must be positive")

    def _check_layer(self, name: str, layer: Layer, width: int) -> None:
        if isinstance(layer, Dense) and layer.activation not in get_args(Activation):
            raise ContractError(
                f"PolicyNetwork.{name}.activation: {layer.activation!r}, allowed: {', '.join(get_args(Activation))}"
            )
        for key, expected in layer.shapes().items():
            got = np.shape(getattr(layer, key))
            if got != expected:
                raise ContractError(f"PolicyNetwork.{name}.{key}: shape {got}, expected {expected}")
        if layer.n_inputs != width or layer.n_stacks != self.n_stacks:
            raise ContractError(
                f"PolicyNetwork.{name}: takes {layer.n_inputs} inputs in {layer.n_stacks} stacks, expected {width} in "
                f"{self.n_stacks}"
            )

    @property
    def n_stacks(self) -> int:
        """``S``: 1, or as many as there are assets."""
        return self.layers[0].n_stacks

    @property
    def n_features(self) -> int:
        return int(np.shape(self.feature_mean)[0])

    @property
    def n_commands(self) -> int:
        return int(self.layout.neutral.size)

    @property
    def n_memory(self) -> int:
        """``H``: numbers that an asset remembers from step to step."""
        return sum(layer.n_memory for layer in self.layers)

    def head(self, features: Floats, memory: Floats | None = None) -> tuple[Float32, Float32]:
        """Output of the last layer ``[B, N, M]`` and new memory ``[B, N, H]``; see :meth:`forward`."""
        f32, (n_rows, n_assets) = np.float32, features.shape[:2]
        if memory is None:
            memory = np.zeros((n_rows, n_assets, self.n_memory), f32)
        x = (np.asarray(features, f32) - np.asarray(self.feature_mean, f32)) / np.asarray(self.feature_std, f32)
        rows = to_rows(np.clip(x, -f32(self.feature_clip), f32(self.feature_clip)), self.n_stacks)
        kept, after, at = to_rows(np.asarray(memory, f32), self.n_stacks), [], 0
        for layer in self.layers:
            rows, new = layer.step(rows, kept[..., at : at + layer.n_memory])
            after.append(new)
            at += layer.n_memory
        outcome = from_rows(np.concatenate(after, -1), n_assets, self.n_stacks)
        return from_rows(rows, n_assets, self.n_stacks), outcome

    def forward(
        self, features: Floats, memory: Floats | None = None, legal: NDArray[np.bool_] | None = None
    ) -> tuple[Float32, Float32]:
        """Commands ``[B, N, A]`` and new memory ``[B, N, H]`` of features ``[B, N, F]``, in physical units.

        ``memory`` None: nothing is remembered yet; ``legal`` ``[B, N, L]`` None: every level is legal. A NaN of an
        asset comes out as NaN in its continuous commands and stays with that asset.
        """
        head, after = self.head(features, memory)
        n = self.layout.n_means
        actions = np.tanh(head[..., :n]) if self.squash == "tanh" else head[..., :n]
        if self.layout.discrete:
            chosen, _ = choose_levels(head[..., n:], self.layout.level_counts, None, legal)
            actions = np.concatenate([actions, chosen], -1)
        return self.layout.commands(actions, features), after

    def to_arrays(self) -> dict[str, Floats]:
        """The network as named arrays, for ``numpy.savez``."""
        layout = self.layout
        named: dict[str, Floats] = {
            "feature_mean": np.asarray(self.feature_mean),
            "feature_std": np.asarray(self.feature_std),
            "feature_clip": np.asarray(self.feature_clip, np.float64),
            "squash": np.array(self.squash),
            "layers": np.array([_tag(layer) for layer in self.layers]),
            "continuous": np.array(layout.continuous, np.int64),
            "discrete": np.array(layout.discrete, np.int64),
            "legal_columns": np.array(layout.legal_columns, np.int64),
            "middle": np.asarray(layout.middle),
            "half": np.asarray(layout.half),
            "neutral": np.asarray(layout.neutral),
        }
        if layout.motions:
            named |= {
                "motions": np.array(layout.motions, np.int64),
                "weight_middle": np.array(layout.weight_middle, np.float64),
                "weight_half": np.array(layout.weight_half, np.float64),
            }
        named |= {f"levels_{d}": np.array(values, np.float64) for d, values in enumerate(layout.levels)}
        for i, layer in enumerate(self.layers):
            named |= {f"layer_{i}_{key}": np.asarray(getattr(layer, key)) for key in layer.shapes()}
        return named

    @staticmethod
    def from_arrays(named: Mapping[str, Floats]) -> PolicyNetwork:
        """Inverse of :meth:`to_arrays`; raises :class:`KeyError` with the name of a missing array."""
        discrete = tuple(int(c) for c in named["discrete"])
        return PolicyNetwork(
            feature_mean=named["feature_mean"],
            feature_std=named["feature_std"],
            feature_clip=float(named["feature_clip"]),
            layers=tuple(_layer(str(tag), f"layer_{i}_", named) for i, tag in enumerate(named["layers"])),
            layout=ActionLayout(
                continuous=tuple(int(c) for c in named["continuous"]),
                discrete=discrete,
                levels=tuple(tuple(float(v) for v in named[f"levels_{d}"]) for d in range(len(discrete))),
                middle=named["middle"],
                half=named["half"],
                neutral=named["neutral"],
                legal_columns=tuple(int(c) for c in named["legal_columns"]),
                motions=tuple(tuple(int(c) for c in row) for row in named.get("motions", ())),
                weight_middle=tuple(float(w) for w in named.get("weight_middle", ())),
                weight_half=tuple(float(w) for w in named.get("weight_half", ())),
            ),
            squash="tanh" if str(named["squash"]) == "tanh" else "clip",
        )


def _tag(layer: Layer) -> str:
    """Kind and option of a layer: ``dense:tanh``, ``gru:joins_input``, ``lstm``."""
    if isinstance(layer, Dense):
        return f"dense:{layer.activation}"
    kind = "gru" if isinstance(layer, GruWeights) else "lstm"
    return f"{kind}:joins_input" if layer.joins_input else kind


def _layer(tag: str, prefix: str, named: Mapping[str, Floats]) -> Layer:
    kind, _, option = tag.partition(":")
    if kind == "dense":
        return Dense(named[f"{prefix}weight"], named[f"{prefix}bias"], cast(Activation, option))
    kinds: dict[str, type[GruWeights | LstmWeights]] = {"gru": GruWeights, "lstm": LstmWeights}
    arrays: list[Floats] = [named[prefix + key] for key in ("input", "recurrent", "input_bias", "recurrent_bias")]
    return kinds[kind](arrays[0], arrays[1], arrays[2], arrays[3], joins_input=option == "joins_input")
