"""A gated recurrent layer in front of actor and critic, with its gradient through time in closed form.

Cho et al. (2014, arXiv 1406.1078) in the form of ``torch.nn.GRU``, gates in the order reset, update, new:
``r = s(W_r x + U_r h)``, ``z = s(W_z x + U_z h)``, ``n = tanh(W_n x + r (U_n h))``, ``h' = (1 - z) n + z h``, each with
two biases.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_GATES = 3


@dataclass(frozen=True, eq=False)
class Unrolled:
    """A forward pass. ``memory``: after each step, ``[(S,) L, n, H]``; the rest is kept for the backward pass."""

    inputs: torch.Tensor
    keep: torch.Tensor | None
    memory: torch.Tensor
    before: torch.Tensor
    gates: torch.Tensor
    from_memory: torch.Tensor


class GruLayer:
    """Views of a flat parameter matrix ``[S, P]`` and a flat gradient matrix: ``inputs -> width``.

    With one stack arrays carry no stack axis.
    """

    def __init__(self, n_inputs: int, width: int, parameters: torch.Tensor, gradients: torch.Tensor) -> None:
        self.n_inputs, self.width = n_inputs, width
        self.input_weight, self.recurrent_weight, self.input_bias, self.recurrent_bias = _views(
            n_inputs, width, parameters
        )
        self._gradients = _views(n_inputs, width, gradients)

    @staticmethod
    def n_parameters(n_inputs: int, width: int) -> int:
        """Of one stack."""
        return _GATES * width * (n_inputs + width + 2)

    def initialise(self, stack: int, generator: torch.Generator) -> None:
        """Orthogonal weights, gate by gate, and zero biases."""
        for weight in (self.input_weight, self.recurrent_weight):
            matrix = weight if weight.dim() == 2 else weight[stack]
            for gate in matrix.chunk(_GATES, 1):
                torch.nn.init.orthogonal_(gate, generator=generator)
        for bias in (self.input_bias, self.recurrent_bias):
            (bias if bias.dim() == 1 else bias[stack]).zero_()

    def unroll(self, inputs: torch.Tensor, first: torch.Tensor, keep: torch.Tensor | None) -> Unrolled:
        """Carry ``first`` ``[(S,) n, H]`` through ``inputs`` ``[(S,) L, n, F]``.

        ``keep`` ``[(S,) L, n, 1]``: 0 where the memory was zeroed before the step, else 1.
        """
        steps = inputs.shape[-3]
        flat = inputs.flatten(-3, -2)
        from_input = _affine(self.input_bias, flat, self.input_weight).view(*inputs.shape[:-1], _GATES * self.width)
        memory = inputs.new_empty(*inputs.shape[:-1], self.width)
        before, gates = torch.empty_like(memory), torch.empty_like(from_input)
        from_memory = torch.empty_like(memory)
        h = first
        for t in range(steps):
            if keep is not None:
                h = h * keep.select(-3, t)
            before.select(-3, t).copy_(h)
            x = from_input.select(-3, t)
            u = _affine(self.recurrent_bias, h, self.recurrent_weight)
            two = torch.sigmoid(x[..., : 2 * self.width] + u[..., : 2 * self.width])
            r, z = two.chunk(2, -1)
            v = u[..., 2 * self.width :]
            n = torch.tanh(x[..., 2 * self.width :] + r * v)
            h = n + z * (h - n)
            memory.select(-3, t).copy_(h)
            gates.select(-3, t).copy_(torch.cat([two, n], -1))
            from_memory.select(-3, t).copy_(v)
        return Unrolled(inputs, keep, memory, before, gates, from_memory)

    def backward(self, done: Unrolled, d_memory: torch.Tensor) -> None:
        """Overwrite the gradients, from the loss's derivative by the memory after each step ``[(S,) L, n, H]``."""
        d_input, d_recurrent = torch.empty_like(done.gates), torch.empty_like(done.gates)
        carried: torch.Tensor | None = None
        for t in reversed(range(d_memory.shape[-3])):
            d = d_memory.select(-3, t)
            if carried is not None:
                d = d + carried
            r, z, n = done.gates.select(-3, t).chunk(_GATES, -1)
            h, v = done.before.select(-3, t), done.from_memory.select(-3, t)
            d_new = d * (1.0 - z) * (1.0 - n * n)
            d_reset = d_new * v * r * (1.0 - r)
            d_update = d * (h - n) * z * (1.0 - z)
            d_input.select(-3, t).copy_(torch.cat([d_reset, d_update, d_new], -1))
            through = torch.cat([d_reset, d_update, d_new * r], -1)
            d_recurrent.select(-3, t).copy_(through)
            carried = through @ self.recurrent_weight.transpose(-2, -1) + d * z
            if done.keep is not None:
                carried = carried * done.keep.select(-3, t)
        flat = [x.flatten(-3, -2) for x in (done.inputs, done.before, d_input, d_recurrent)]
        for target, value in zip(
            self._gradients,
            (
                flat[0].transpose(-2, -1) @ flat[2],
                flat[1].transpose(-2, -1) @ flat[3],
                flat[2].sum(-2, keepdim=flat[2].dim() == 3),
                flat[3].sum(-2, keepdim=flat[3].dim() == 3),
            ),
            strict=True,
        ):
            target.copy_(value)


def _affine(bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.addmm(bias, x, weight) if weight.dim() == 2 else torch.baddbmm(bias, x, weight)


def _views(
    n_inputs: int, width: int, flat: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights ``[(S,) in, 3 H]`` of input and memory, and their biases ``[3 H]`` or ``[S, 1, 3 H]``."""
    wide, n_stacks = _GATES * width, len(flat)
    ends = [n_inputs * wide, (n_inputs + width) * wide, (n_inputs + width + 1) * wide]
    parts = (flat[:, : ends[0]], flat[:, ends[0] : ends[1]], flat[:, ends[1] : ends[2]], flat[:, ends[2] :])
    shapes = ((n_inputs, wide), (width, wide), (1, wide), (1, wide))
    views = [part.view(n_stacks, *shape) for part, shape in zip(parts, shapes, strict=True)]
    if n_stacks == 1:
        return views[0][0], views[1][0], views[2][0, 0], views[3][0, 0]
    return views[0], views[1], views[2], views[3]
