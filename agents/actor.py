"""The acting half of a learner's network, as plain numpy arrays: what rollouts run and what an artifact ships."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..envs.nameplate import Group
from .action_layout import ActionLayout, Float32
from .forward import MlpWeights


@dataclass(frozen=True, eq=False)
class ActorWeights:
    """Mean of a Gaussian policy, in float32: normalise, clip, tanh layers, linear head.

    ``feature_mean``, ``feature_std``: ``[F]``; ``weights[i]``: ``[inputs, outputs]``; ``biases[i]``: ``[outputs]``;
    ``log_std``: ``[K]``, one a controlled command. The same arithmetic as :class:`~twinloop.agents.forward.MlpWeights`
    before its output clip.
    """

    feature_mean: Float32
    feature_std: Float32
    feature_clip: float
    weights: tuple[Float32, ...]
    biases: tuple[Float32, ...]
    log_std: Float32

    def mean(self, features: Float32) -> Float32:
        """Mean action ``[rows, K]`` of features ``[rows, F]``."""
        h = normalise(features, self.feature_mean, self.feature_std, self.feature_clip)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = h @ weight
            h += bias
            if i < last:
                np.tanh(h, out=h)
        return h


def normalise(features: Float32, mean: Float32, std: Float32, clip: float) -> Float32:
    """``clip((features - mean) / std, -clip, clip)``, float32 whatever comes in."""
    x = np.subtract(features, mean, dtype=np.float32)
    np.divide(x, std, out=x)
    np.minimum(x, np.float32(clip), out=x)
    np.maximum(x, np.float32(-clip), out=x)
    return x


def to_mlp_weights(actor: ActorWeights, group: Group, layout: ActionLayout) -> MlpWeights:
    """The actor's mean as the network of an artifact."""
    return MlpWeights(
        feature_mean=actor.feature_mean,
        feature_std=actor.feature_std,
        feature_clip=actor.feature_clip,
        weights=actor.weights,
        biases=actor.biases,
        command_lower=group.lower("commanded"),
        command_upper=group.upper("commanded"),
        command_neutral=group.neutral(),
        controlled=layout.columns,
    )
