"""Actor and critic of one group of like assets: tanh networks with their gradient in closed form.

All parameters of a group lie in one flat vector and all gradients in another; layers are views of them. Clipping and
Adam are then one call each, and the backward pass of a tanh network is four lines a layer, which halves the time of
an update against automatic differentiation at the batch sizes of asset control.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from .action_layout import Float32
from .actor import ActorWeights

HIDDEN_GAIN = math.sqrt(2.0)
ACTOR_HEAD_GAIN = 0.01
CRITIC_HEAD_GAIN = 1.0


class Mlp:
    """``tanh`` layers and a linear head over views of a flat parameter vector and a flat gradient vector."""

    def __init__(self, sizes: Sequence[int], parameters: torch.Tensor, gradients: torch.Tensor) -> None:
        self.sizes = tuple(sizes)
        self.weights, self.biases = _views(self.sizes, parameters)
        self.weight_gradients, self.bias_gradients = _views(self.sizes, gradients)

    @staticmethod
    def n_parameters(sizes: Sequence[int]) -> int:
        return sum(i * o + o for i, o in itertools.pairwise(sizes))

    def initialise(self, head_gain: float, generator: torch.Generator) -> None:
        """Orthogonal weights (Saxe et al. 2014, arXiv 1312.6120), gain sqrt(2) and ``head_gain``; zero biases."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            gain = head_gain if i == len(self.weights) - 1 else HIDDEN_GAIN
            torch.nn.init.orthogonal_(weight, gain=gain, generator=generator)
            bias.zero_()

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Input, output of each tanh layer and head, ``[rows, width]`` each; the last is the result."""
        outputs = [x]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            outputs.append(torch.addmm(bias, outputs[-1], weight).tanh_())
        outputs.append(torch.addmm(self.biases[-1], outputs[-1], self.weights[-1]))
        return outputs

    def backward(self, outputs: Sequence[torch.Tensor], d_head: torch.Tensor) -> None:
        """Overwrite the gradients, from :meth:`forward`'s outputs and the loss's gradient ``[rows, K]`` by the head."""
        d = d_head
        for i in reversed(range(len(self.weights))):
            torch.mm(outputs[i].t(), d, out=self.weight_gradients[i])
            torch.sum(d, 0, out=self.bias_gradients[i])
            if i > 0:
                # d tanh(z) / dz = 1 - tanh(z)^2
                d = torch.ops.aten.tanh_backward(d @ self.weights[i].t(), outputs[i])


def _views(sizes: Sequence[int], flat: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    weights, biases, at = [], [], 0
    for n_in, n_out in itertools.pairwise(sizes):
        weights.append(flat[at : at + n_in * n_out].view(n_in, n_out))
        at += n_in * n_out
        biases.append(flat[at : at + n_out])
        at += n_out
    return weights, biases


class ActorCritic:
    """Gaussian actor with a state-independent deviation, and critic, of one group.

    ``parameters`` and ``gradients`` are flat float32 vectors: actor, log of the deviation ``[K]``, critic.
    """

    def __init__(
        self, n_features: int, n_actions: int, actor_hidden: Sequence[int], critic_hidden: Sequence[int]
    ) -> None:
        actor_sizes, critic_sizes = (n_features, *actor_hidden, n_actions), (n_features, *critic_hidden, 1)
        n_actor, n_critic = Mlp.n_parameters(actor_sizes), Mlp.n_parameters(critic_sizes)
        self.parameters = torch.zeros(n_actor + n_actions + n_critic)
        self.gradients = torch.zeros_like(self.parameters)
        ends = (n_actor, n_actor + n_actions)
        self.actor = Mlp(actor_sizes, self.parameters[: ends[0]], self.gradients[: ends[0]])
        self.log_std = self.parameters[ends[0] : ends[1]]
        self.log_std_gradient = self.gradients[ends[0] : ends[1]]
        self.critic = Mlp(critic_sizes, self.parameters[ends[1] :], self.gradients[ends[1] :])

    def initialise(self, log_std: float, generator: torch.Generator) -> None:
        self.actor.initialise(ACTOR_HEAD_GAIN, generator)
        self.log_std.fill_(log_std)
        self.critic.initialise(CRITIC_HEAD_GAIN, generator)

    def values(self, x: torch.Tensor) -> torch.Tensor:
        """Critic's values ``[rows]`` of normalised features ``[rows, F]``."""
        return self.critic.forward(x)[-1].squeeze(-1)

    def actor_weights(self, feature_mean: Float32, feature_std: Float32, feature_clip: float) -> ActorWeights:
        """A copy of the acting half, as numpy arrays."""

        def copies(tensors: Sequence[torch.Tensor]) -> tuple[Float32, ...]:
            return tuple(np.array(t.numpy(), np.float32)[None] for t in tensors)

        (log_std,) = copies([self.log_std])
        return ActorWeights(
            feature_mean=feature_mean.copy(),
            feature_std=feature_std.copy(),
            feature_clip=feature_clip,
            weights=copies(self.actor.weights),
            biases=copies(self.actor.biases),
            log_std=log_std,
            n_continuous=log_std.shape[-1],
        )
