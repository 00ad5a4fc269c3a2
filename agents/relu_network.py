"""Stacked ReLU networks with their gradients in closed form: what the off-policy learner's actor and critics are.

All ``S`` networks of a stack are one batched product a layer. Parameters lie in one vector, layer by layer, and
gradients in another; layers are views of them, so that Adam and the targets' averaging are one call each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch


class ReluNetwork:
    """``relu`` layers and a linear head for a stack of ``S`` networks over flat vectors of
    :meth:`n_parameters` numbers; without ``gradients`` it only looks forward.

    ``weights[i]``, ``weight_gradients[i]``: ``[S, inputs, outputs]``; ``biases[i]``, ``bias_gradients[i]``:
    ``[S, 1, outputs]``.
    """

    def __init__(
        self, n_stacks: int, sizes: Sequence[int], parameters: torch.Tensor, gradients: torch.Tensor | None = None
    ) -> None:
        self.weights, self.biases = _views(n_stacks, sizes, parameters)
        self.weight_gradients, self.bias_gradients = (
            ([], []) if gradients is None else _views(n_stacks, sizes, gradients)
        )

    @staticmethod
    def n_parameters(n_stacks: int, sizes: Sequence[int]) -> int:
        return n_stacks * sum(i * o + o for i, o in itertools.pairwise(sizes))

    def initialise(self, generator: torch.Generator) -> None:
        """Uniform in +-1 / sqrt(inputs), weights and biases alike, which is what ``torch.nn.Linear`` starts from."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1.0 / math.sqrt(weight.shape[1])
            for tensor in (weight, bias):
                tensor.copy_((torch.rand(tensor.shape, generator=generator) * 2.0 - 1.0) * bound)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Input, output of each hidden layer and head, ``[S, rows, width]`` each; the last is the result."""
        outputs = [x]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            outputs.append(torch.baddbmm(bias, outputs[-1], weight).relu_())
        outputs.append(torch.baddbmm(self.biases[-1], outputs[-1], self.weights[-1]))
        return outputs

    def backward(self, outputs: Sequence[torch.Tensor], d_head: torch.Tensor) -> None:
        """Overwrite the gradients, from :meth:`forward`'s outputs and the loss's gradient by the head."""
        d = d_head
        for i in reversed(range(len(self.weights))):
            torch.bmm(outputs[i].transpose(1, 2), d, out=self.weight_gradients[i])
            torch.sum(d, 1, keepdim=True, out=self.bias_gradients[i])
            if i > 0:
                d = self._through(outputs[i], d, i)

    def input_gradient(self, outputs: Sequence[torch.Tensor], d_head: torch.Tensor) -> torch.Tensor:
        """The loss's gradient by the input ``[S, rows, inputs]``; parameters' gradients stay as they are."""
        d = d_head
        for i in reversed(range(1, len(self.weights))):
            d = self._through(outputs[i], d, i)
        return torch.bmm(d, self.weights[0].transpose(1, 2))

    def _through(self, output: torch.Tensor, d: torch.Tensor, i: int) -> torch.Tensor:
        """From the gradient by layer ``i``'s result to that by the result of the layer before its ReLU."""
        d = torch.bmm(d, self.weights[i].transpose(1, 2))
        passed: torch.Tensor = torch.ops.aten.threshold_backward.grad_input(d, output, 0, grad_input=d)
        return passed


def _views(n_stacks: int, sizes: Sequence[int], flat: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    weights, biases, at = [], [], 0
    for n_in, n_out in itertools.pairwise(sizes):
        end = at + n_stacks * n_in * n_out
        weights.append(flat[at:end].view(n_stacks, n_in, n_out))
        at = end + n_stacks * n_out
        biases.append(flat[end:at].view(n_stacks, 1, n_out))
    return weights, biases
