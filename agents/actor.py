"""The acting half of a learner's network, as plain numpy arrays: what rollouts run and what an artifact ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.errors import ConfigurationError, nearest
from ..envs.nameplate import Group
from .forward import MlpWeights

Float32 = NDArray[np.float32]


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


@dataclass(frozen=True, eq=False)
class CommandScale:
    """From actions in [-1, 1] to a group's commands in physical units; commands that are not controlled stay neutral.

    ``middle``, ``half``: ``[K]``; ``neutral``: ``[A]``; ``columns``: the command column of each action.
    """

    columns: tuple[int, ...]
    middle: Float32
    half: Float32
    neutral: Float32

    @staticmethod
    def of(group: Group, controlled: Sequence[str] | None) -> CommandScale:
        """Scale for the named commands of a group, all when None; raises ConfigurationError for an unknown name."""
        names = [s.name for s in group.commanded]
        wanted = names if controlled is None else list(controlled)
        for name in wanted:
            if name not in names:
                raise ConfigurationError(
                    f"learner.controlled.{group.name}: no command {name!r}; commands here: {', '.join(names)}"
                    f"{nearest(name, names)}"
                )
        columns = tuple(names.index(name) for name in wanted)
        if not columns or len(set(columns)) != len(columns):
            raise ConfigurationError(
                f"learner.controlled.{group.name}: {wanted} must name at least one command, each once; "
                f"commands here: {', '.join(names)}"
            )
        lower, upper = group.lower("commanded")[list(columns)], group.upper("commanded")[list(columns)]
        return CommandScale(
            columns=columns,
            middle=((upper + lower) / 2.0).astype(np.float32),
            half=((upper - lower) / 2.0).astype(np.float32),
            neutral=group.neutral().astype(np.float32),
        )

    def commands(self, actions: Float32) -> NDArray[Any]:
        """Commands ``[..., A]`` of actions ``[..., K]``, which are clipped to [-1, 1] first."""
        scaled = np.maximum(np.minimum(actions, np.float32(1)), np.float32(-1))
        scaled *= self.half
        scaled += self.middle
        if self.columns == tuple(range(self.neutral.size)):
            return scaled
        commands = np.empty((*actions.shape[:-1], self.neutral.size), np.float32)
        commands[...] = self.neutral
        commands[..., self.columns] = scaled
        return commands


def to_mlp_weights(actor: ActorWeights, group: Group, scale: CommandScale) -> MlpWeights:
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
        controlled=scale.columns,
    )
