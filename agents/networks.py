"""Actors and critics of one group of like assets: tanh networks with their gradient in closed form.

All parameters of a group lie in one matrix ``[S, P]``, one row a stack of weights (one where assets share, one an asset
where they do not), all gradients in another; layers are views of them. One batched product then serves all stacks, and
the backward pass of a tanh network is four lines a layer, which halves the time of an update against automatic
differentiation at the batch sizes of asset control. With one stack arrays carry no stack axis: plain matrix products
are faster than batches of one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .action_layout import Float32
from .actor import ActorWeights
from .distributions import ActionDistribution
from .layers import GruWeights
from .recurrent import GruLayer, Unrolled

HIDDEN_GAIN = math.sqrt(2.0)
ACTOR_HEAD_GAIN = 0.01
CRITIC_HEAD_GAIN = 1.0
_NARROW = 8
"""Heads up to this width are computed transposed: the library is two to three times faster at few rows than at few
columns."""


class Workspace:
    """Arrays that are used again by every minibatch: fresh memory of this size costs more than the arithmetic."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._held: dict[tuple[int, int], torch.Tensor] = {}

    def take(self, slot: int, shape: Sequence[int]) -> torch.Tensor:
        """An array of that shape with whatever it held; the same one until another number of rows is asked for."""
        key = (slot, shape[-1])
        held = self._held.get(key)
        if held is None or held.shape != shape:
            held = self._held[key] = torch.empty(*shape, device=self._device)
        return held


class Mlp:
    """``tanh`` layers and a linear head over views of parameters ``[S, P]`` and gradients ``[S, P]``.

    ``weights[i]``: ``[in, out]`` for one stack, else ``[S, in, out]``; ``biases[i]``: ``[out]`` or ``[S, 1, out]``.
    """

    def __init__(self, sizes: Sequence[int], parameters: torch.Tensor, gradients: torch.Tensor) -> None:
        self.sizes = tuple(sizes)
        self.n_stacks = len(parameters)
        self.weights, self.biases = _views(self.sizes, parameters)
        self.weight_gradients, self.bias_gradients = _views(self.sizes, gradients)
        # transposed once: making a view costs as much as a small product's start
        self._transposed = [w.transpose(-2, -1) for w in self.weights]
        self._is_narrow = self.sizes[-1] <= _NARROW and (self.n_stacks > 1 or self.sizes[-1] > 1)

    @property
    def _product(self) -> Callable[..., torch.Tensor]:
        return torch.mm if self.n_stacks == 1 else torch.bmm

    @staticmethod
    def n_parameters(sizes: Sequence[int]) -> int:
        """Of one stack."""
        return sum(i * o + o for i, o in itertools.pairwise(sizes))

    def initialise(self, stack: int, head_gain: float, generator: torch.Generator) -> None:
        """Orthogonal weights (Saxe et al. 2014, arXiv 1312.6120), gain sqrt(2) and ``head_gain``; zero biases."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            gain = head_gain if i == len(self.weights) - 1 else HIDDEN_GAIN
            torch.nn.init.orthogonal_(weight if weight.dim() == 2 else weight[stack], gain=gain, generator=generator)
            (bias if bias.dim() == 1 else bias[stack]).zero_()

    def forward(self, x: torch.Tensor, workspace: Workspace | None = None) -> list[torch.Tensor]:
        """Input, output of each tanh layer and head, ``[(S,) rows, width]`` each; the last is the result.

        With a ``workspace`` the arrays hold until its next use, by whatever network.
        """
        affine = torch.addmm if self.n_stacks == 1 else torch.baddbmm
        outputs, last = [x], len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i == last and self._is_narrow:
                turned = self._product(self._transposed[i].contiguous(), outputs[-1].transpose(-2, -1))
                outputs.append(turned.transpose(-2, -1) + bias)
                break
            out = None if workspace is None else workspace.take(i, (*x.shape[:-1], self.sizes[i + 1]))
            y = affine(bias, outputs[-1], weight, out=out)
            outputs.append(y if i == last else y.tanh_())
        return outputs

    def backward(
        self,
        outputs: Sequence[torch.Tensor],
        d_head: torch.Tensor,
        workspace: Workspace | None = None,
        *,
        wants_input: bool = False,
    ) -> torch.Tensor | None:
        """Overwrite the gradients, from :meth:`forward`'s outputs and the loss's derivative by the head
        ``[(S,) rows, M]``; return the derivative by the input if it is wanted."""
        product, last = self._product, len(self.weights) - 1
        d = d_head
        for i in range(last, -1, -1):
            if i == last and self._is_narrow:
                self.weight_gradients[i].copy_(product(d.transpose(-2, -1), outputs[i]).transpose(-2, -1))
            else:
                product(outputs[i].transpose(-2, -1), d, out=self.weight_gradients[i])
            torch.sum(d, -2, keepdim=self.n_stacks > 1, out=self.bias_gradients[i])
            if i > 0 or wants_input:
                out = None if workspace is None else workspace.take(-1 - i, outputs[i].shape)
                d = product(d, self._transposed[i], out=out)
            if i > 0:
                # d tanh(z) / dz = 1 - tanh(z)^2
                d = torch.ops.aten.tanh_backward.grad_input(d, outputs[i], grad_input=d)
        return d if wants_input else None


def _views(sizes: Sequence[int], flat: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    weights, biases, at, n_stacks = [], [], 0, len(flat)
    for n_in, n_out in itertools.pairwise(sizes):
        weight = flat[:, at : at + n_in * n_out].view(n_stacks, n_in, n_out)
        at += n_in * n_out
        bias = flat[:, at : at + n_out].view(n_stacks, 1, n_out)
        at += n_out
        weights.append(weight[0] if n_stacks == 1 else weight)
        biases.append(bias[0, 0] if n_stacks == 1 else bias)
    return weights, biases


@dataclass(frozen=True, eq=False)
class Passed:
    """``head``: ``[(S,) rows, M]``; ``value``: ``[(S,) rows, 1]``; ``memory`` after each row ``[(S,) rows, H]``."""

    head: torch.Tensor
    value: torch.Tensor
    memory: torch.Tensor | None


class ActorCritic:
    """Actor, deviation of its Gaussian and critic of one group, ``n_stacks`` of them side by side.

    ``parameters`` and ``gradients``: float32 ``[S, P]``, in a row: recurrent layer if any, actor, log of the deviation
    ``[Kc]``, critic. Both networks see the features; with ``n_memory`` also the memory of the recurrent layer; the
    critic sees ``n_view`` columns more. The head's first columns are means, the rest a logit a level of each discrete
    command.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        actor_hidden: Sequence[int],
        critic_hidden: Sequence[int],
        *,
        level_counts: Sequence[int] = (),
        n_stacks: int = 1,
        n_view: int = 0,
        n_memory: int = 0,
        parameters: torch.Tensor | None = None,
        gradients: torch.Tensor | None = None,
    ) -> None:
        self.n_features, self.n_outputs = n_features, n_outputs
        self.actor_hidden, self.critic_hidden = tuple(actor_hidden), tuple(critic_hidden)
        self.distribution = ActionDistribution(n_outputs - sum(level_counts), level_counts)
        self.n_stacks, self.n_view, self.n_memory = n_stacks, n_view, n_memory
        n_seen = n_features + n_memory
        actor_sizes, critic_sizes = (n_seen, *actor_hidden, n_outputs), (n_seen + n_view, *critic_hidden, 1)
        lengths = (
            GruLayer.n_parameters(n_features, n_memory) if n_memory else 0,
            Mlp.n_parameters(actor_sizes),
            self.distribution.n_continuous,
            Mlp.n_parameters(critic_sizes),
        )
        self.parameters = torch.zeros(n_stacks, sum(lengths)) if parameters is None else parameters
        self.gradients = torch.zeros_like(self.parameters) if gradients is None else gradients
        at = tuple(itertools.accumulate(lengths))
        rows, slopes = self.parameters, self.gradients
        self.gru = GruLayer(n_features, n_memory, rows[:, : at[0]], slopes[:, : at[0]]) if n_memory else None
        self.actor = Mlp(actor_sizes, rows[:, at[0] : at[1]], slopes[:, at[0] : at[1]])
        self.log_std, self.log_std_gradient = (
            part[0, at[1] : at[2]] if n_stacks == 1 else part[:, None, at[1] : at[2]] for part in (rows, slopes)
        )
        self.critic = Mlp(critic_sizes, rows[:, at[2] :], slopes[:, at[2] :])

    def initialise(self, log_std: float, generator: torch.Generator) -> None:
        """Each stack draws its own weights, one after another; the first one's are those of a network of one stack."""
        for stack in range(self.n_stacks):
            self.actor.initialise(stack, ACTOR_HEAD_GAIN, generator)
            self.critic.initialise(stack, CRITIC_HEAD_GAIN, generator)
            if self.gru is not None:
                self.gru.initialise(stack, generator)
        self.log_std.fill_(log_std)

    def stack(self, index: int) -> ActorCritic:
        """One of the stacks as a network of its own, on the same memory."""
        return ActorCritic(
            self.n_features,
            self.n_outputs,
            self.actor_hidden,
            self.critic_hidden,
            level_counts=self.distribution.level_counts,
            n_view=self.n_view,
            n_memory=self.n_memory,
            parameters=self.parameters[index : index + 1],
            gradients=self.gradients[index : index + 1],
        )

    def perceive(
        self, x: torch.Tensor, memory: torch.Tensor | None = None, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Unrolled | None]:
        """What the actor sees ``[(S,) rows, F + H]`` of normalised features ``[(S,) rows, F]``.

        With a recurrent layer rows are whole sequences, step by step: ``memory`` ``[(S,) n, H]`` is what each started
        with, ``keep`` ``[(S,) rows, 1]`` is 0 where it was zeroed on the way.
        """
        if self.gru is None or memory is None:
            return x, None
        n = memory.shape[-2]
        unrolled = self.gru.unroll(_steps(x, n), memory, None if keep is None else _steps(keep, n))
        return torch.cat([x, unrolled.memory.flatten(-3, -2)], -1), unrolled

    def forward(
        self,
        x: torch.Tensor,
        view: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
        keep: torch.Tensor | None = None,
    ) -> Passed:
        """Head and value of normalised features; ``view``: ``[(S,) rows, V]``; the rest as in :meth:`perceive`."""
        seen, unrolled = self.perceive(x, memory, keep)
        value = self.critic.forward(seen if view is None else torch.cat([seen, view], -1))[-1]
        after = None if unrolled is None else unrolled.memory.flatten(-3, -2)
        return Passed(self.actor.forward(seen)[-1], value, after)

    def remember_backward(self, unrolled: Unrolled, d_actor: torch.Tensor, d_critic: torch.Tensor) -> None:
        """Overwrite the recurrent layer's gradients, from the loss's derivatives by the inputs of both networks."""
        memory = slice(self.n_features, self.n_features + self.n_memory)
        d_memory = d_actor[..., memory] + d_critic[..., memory]
        if self.gru is not None:
            self.gru.backward(unrolled, _steps(d_memory, unrolled.memory.shape[-2]))

    def values(
        self,
        x: torch.Tensor,
        view: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
        workspace: Workspace | None = None,
    ) -> torch.Tensor:
        """Critic's values ``[(S,) rows]`` of normalised features; ``memory`` ``[(S,) rows, H]`` as the recurrent layer
        leaves it after these features."""
        seen = [part for part in (x, memory, view) if part is not None]
        return self.critic.forward(seen[0] if len(seen) == 1 else torch.cat(seen, -1), workspace)[-1].squeeze(-1)

    def actor_weights(self, feature_mean: Float32, feature_std: Float32, feature_clip: float) -> ActorWeights:
        """A copy of the acting half, as numpy arrays."""

        def copy(tensor: torch.Tensor, *shape: int) -> Float32:
            return np.array(tensor.numpy(force=True), np.float32).reshape(self.n_stacks, *shape)

        gru = None
        if self.gru is not None:
            wide = 3 * self.n_memory
            gru = GruWeights(
                copy(self.gru.input_weight, self.n_features, wide),
                copy(self.gru.recurrent_weight, self.n_memory, wide),
                copy(self.gru.input_bias, wide),
                copy(self.gru.recurrent_bias, wide),
            )
        return ActorWeights(
            feature_mean=feature_mean.copy(),
            feature_std=feature_std.copy(),
            feature_clip=feature_clip,
            weights=tuple(copy(w, *w.shape[-2:]) for w in self.actor.weights),
            biases=tuple(copy(b, b.shape[-1]) for b in self.actor.biases),
            log_std=copy(self.log_std, self.distribution.n_continuous),
            n_continuous=self.distribution.n_continuous,
            level_counts=self.distribution.level_counts,
            gru=gru,
        )


def _steps(rows: torch.Tensor, n: int) -> torch.Tensor:
    """Rows ``[(S,) L n, X]`` as ``[(S,) L, n, X]``."""
    return rows.reshape(*rows.shape[:-2], -1, n, rows.shape[-1])
