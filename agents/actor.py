"""The acting half of a learner, as plain numpy arrays: what rollouts run, and what an artifact ships in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .action_layout import ActionLayout
from .action_sampling import choose_levels, log_prob_of_normal
from .forward import PolicyNetwork
from .layers import Dense, Float32, GruWeights, affine, from_rows, to_rows

Flags = NDArray[np.bool_]


class ActorStep(NamedTuple):
    """``actions`` ``[B, N, K]``, continuous ones not clipped, then level indices; ``memory`` ``[B, N, H]``;
    ``density`` ``[B, N, X]``, what :meth:`Actor.log_prob` wants to know of this step."""

    actions: Float32
    memory: Float32
    density: Float32


class Actor(Protocol):
    """What a rollout runs for a group: numpy, float32, picklable, frozen; all chance comes from outside."""

    @property
    def n_memory(self) -> int:
        """``H``, numbers that an asset remembers from step to step; 0 without recurrence."""
        ...

    @property
    def n_normal(self) -> int:
        """Standard normal draws an asset-step."""
        ...

    @property
    def n_uniform(self) -> int:
        """Uniform draws in (0, 1) an asset-step."""
        ...

    def act(
        self,
        features: Float32,
        memory: Float32,
        normal: Float32 | None,
        uniform: Float32 | None,
        legal: Flags | None,
    ) -> ActorStep:
        """Decide once.

        ``features`` ``[B, N, F]`` raw; ``memory`` ``[B, N, H]``; ``normal`` ``[B, N, n_normal]`` and ``uniform``
        ``[B, N, n_uniform]``, None for the mode; ``legal`` ``[B, N, L]``, None where every level is.
        """
        ...

    def log_prob(self, normal: Float32 | None, density: Float32) -> Float32:
        """Log density ``[T, B, N]`` of decisions, from their draws ``[T, B, N, n_normal]`` (None: the mode) and from
        ``[T, B, N, X]`` of :class:`ActorStep`."""
        ...


@dataclass(frozen=True, eq=False)
class ActorWeights:
    """Gaussian over continuous commands (deviation independent of the state), categorical over discrete ones.

        x = normalise(features);  h' = gru(x, h);  tanh layers of x, or of (x, h') with a GRU;  linear head

    ``S`` stacks: 1, shared by all assets, or one an asset. ``feature_mean``, ``feature_std``: ``[F]``; ``weights[i]``:
    ``[S, inputs, outputs]``; ``biases[i]``: ``[S, outputs]``; ``log_std``: ``[S, Kc]``; ``level_counts``: levels of
    each discrete command. The head is ``Kc`` means, then a logit a level.
    """

    feature_mean: Float32
    feature_std: Float32
    feature_clip: float
    weights: tuple[Float32, ...]
    biases: tuple[Float32, ...]
    log_std: Float32
    n_continuous: int
    level_counts: tuple[int, ...] = field(default=())
    gru: GruWeights | None = None

    @property
    def n_stacks(self) -> int:
        return len(self.weights[0])

    @property
    def n_memory(self) -> int:
        return 0 if self.gru is None else self.gru.n_memory

    @property
    def n_normal(self) -> int:
        return self.n_continuous

    @cached_property
    def n_uniform(self) -> int:
        return sum(self.level_counts)

    @cached_property
    def _std(self) -> Float32:
        return np.exp(self.log_std)

    def head(self, features: Float32, memory: Float32) -> tuple[Float32, Float32]:
        """Head ``[B, N, M]`` and new memory ``[B, N, H]`` of raw features ``[B, N, F]``."""
        n_assets, n_stacks = features.shape[-2], self.n_stacks
        h = normalise(to_rows(features, n_stacks), self.feature_mean, self.feature_std, self.feature_clip)
        if self.gru is not None:
            h, after = self.gru.step(h, to_rows(memory, n_stacks))
            memory = from_rows(after, n_assets, n_stacks)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = affine(h, weight, bias)
            if i < last:
                np.tanh(h, out=h)
        return from_rows(h, n_assets, n_stacks), memory

    def act(
        self,
        features: Float32,
        memory: Float32,
        normal: Float32 | None,
        uniform: Float32 | None,
        legal: Flags | None,
    ) -> ActorStep:
        head, memory = self.head(features, memory)
        n = self.n_continuous
        means = head[..., :n]
        if normal is not None:
            means = normal * self._std + means
        if not self.level_counts:
            return ActorStep(means, memory, np.empty((*head.shape[:-1], 0), np.float32))
        chosen, log_prob = choose_levels(head[..., n:], self.level_counts, uniform, legal)
        return ActorStep(np.concatenate([means, chosen], -1), memory, log_prob[..., None])

    def log_prob(self, normal: Float32 | None, density: Float32) -> Float32:
        if normal is None:
            normal = np.zeros((*density.shape[:-1], self.n_continuous), np.float32)
        found: Float32 = log_prob_of_normal(normal, self.log_std)
        if self.level_counts:
            found += density[..., 0]
        return found


def normalise(features: Float32, mean: Float32, std: Float32, clip: float) -> Float32:
    """``clip((features - mean) / std, -clip, clip)``, float32 whatever comes in."""
    x = np.subtract(features, mean, dtype=np.float32)
    np.divide(x, std, out=x)
    np.minimum(x, np.float32(clip), out=x)
    np.maximum(x, np.float32(-clip), out=x)
    return x


def to_policy_network(actor: ActorWeights, layout: ActionLayout) -> PolicyNetwork:
    """What the actor does without exploration, as the network of an artifact."""
    last = len(actor.weights) - 1
    dense = (
        Dense(weight, bias, "linear" if i == last else "tanh")
        for i, (weight, bias) in enumerate(zip(actor.weights, actor.biases, strict=True))
    )
    return PolicyNetwork(
        feature_mean=actor.feature_mean,
        feature_std=actor.feature_std,
        feature_clip=actor.feature_clip,
        layers=(*(() if actor.gru is None else (actor.gru,)), *dense),
        layout=layout,
    )
