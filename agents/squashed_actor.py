"""The acting half of soft actor-critic in numpy: a Gaussian whose deviation depends on what is seen, behind tanh."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .action_layout import ActionLayout
from .actor import ActorStep, normalise
from .forward import PolicyNetwork
from .layers import Dense, Float32, affine, from_rows, to_rows

LOG_STD_MINIMUM, LOG_STD_MAXIMUM = -20.0, 2.0
SQUASH_EPSILON = 1e-6
"""Keeps the logarithm of a saturated tanh finite, as the authors' code and Stable-Baselines3 do."""
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class SquashedActor:
    """``tanh`` of a Gaussian, all commands continuous (Haarnoja et al. 2018, arXiv 1812.05905, appendix C).

        x = normalise(features);  relu layers;  linear head (mean, log of the deviation);  a = tanh(mean + std z)

    ``S`` stacks: 1, shared by all assets, or one an asset. ``feature_mean``, ``feature_std``: ``[F]``; ``weights[i]``:
    ``[S, inputs, outputs]``; ``biases[i]``: ``[S, outputs]``, ``2 K`` outputs in the last. ``is_random``: actions are
    uniform in [-1, 1] whatever is seen, which is how a learner warms up.
    """

    feature_mean: Float32
    feature_std: Float32
    feature_clip: float
    weights: tuple[Float32, ...]
    biases: tuple[Float32, ...]
    is_random: bool = False

    @property
    def n_actions(self) -> int:
        return int(self.biases[-1].shape[-1]) // 2

    @property
    def n_memory(self) -> int:
        return 0

    @property
    def n_normal(self) -> int:
        return 0 if self.is_random else self.n_actions

    @property
    def n_uniform(self) -> int:
        return self.n_actions if self.is_random else 0

    def at_random(self) -> SquashedActor:
        """The same actor before it has learnt anything: uniform actions."""
        return replace(self, is_random=True)

    def head(self, features: Float32) -> Float32:
        """Means and logarithms of the deviation ``[B, N, 2K]`` of raw features ``[B, N, F]``."""
        n_assets, n_stacks = features.shape[-2], len(self.weights[0])
        h = normalise(to_rows(features, n_stacks), self.feature_mean, self.feature_std, self.feature_clip)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = affine(h, weight, bias)
            if i < last:
                np.maximum(h, np.float32(0), out=h)
        return from_rows(h, n_assets, n_stacks)

    def act(
        self,
        features: Float32,
        memory: Float32,
        normal: Float32 | None,
        uniform: Float32 | None,
        legal: NDArray[np.bool_] | None,
    ) -> ActorStep:
        """Decide once, as :class:`~twinloop.agents.actor.Actor` says; ``density`` is the log density itself."""
        if self.is_random and uniform is not None:
            shape = (*uniform.shape[:-1], 1)
            return ActorStep(uniform * 2.0 - 1.0, memory, np.full(shape, -self.n_actions * math.log(2.0), np.float32))
        head, n = self.head(features), self.n_actions
        mean = head[..., :n]
        if normal is None:
            return ActorStep(np.tanh(mean), memory, np.zeros((*mean.shape[:-1], 1), np.float32))
        log_std = np.clip(head[..., n:], LOG_STD_MINIMUM, LOG_STD_MAXIMUM)
        actions = np.tanh(mean + np.exp(log_std) * normal)
        terms = np.log(1.0 - np.square(actions) + np.float32(SQUASH_EPSILON))
        terms += 0.5 * np.square(normal) + log_std + np.float32(_HALF_LOG_2_PI)
        return ActorStep(actions, memory, -terms.sum(-1, keepdims=True))

    def log_prob(self, normal: Float32 | None, density: Float32) -> Float32:
        """Log density ``[T, B, N]``; 0 for the mode, which is not drawn."""
        found: Float32 = density[..., 0]
        return found

    def network(self, layout: ActionLayout) -> PolicyNetwork:
        """What the actor does without exploration, as the network of an artifact: the means alone."""
        last, n = len(self.weights) - 1, self.n_actions
        layers = [
            Dense(weight[..., :n], bias[..., :n], "linear") if i == last else Dense(weight, bias, "relu")
            for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True))
        ]
        return PolicyNetwork(
            self.feature_mean, self.feature_std, self.feature_clip, tuple(layers), layout, squash="tanh"
        )
