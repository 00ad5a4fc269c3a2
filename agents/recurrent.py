"""A gated recurrent layer in front of actor and critic, with its gradient through time in closed form.

Cho et al. (2014, arXiv 1406.1078) in the form of ``torch.nn.GRU``, gates in the order reset, update, new:
``r = s(W_r x + U_r h)``, ``z = s(W_z x + U_z h)``, ``n = tanh(W_n x + r (U_n h))``, ``h' = (1 - z) n + z h``, each with
two biases.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    new: torch.Tensor
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
        flat = inputs.flatten(-3, -2)
        from_input = _affine(self.input_bias, flat, self.input_weight).view(*inputs.shape[:-1], _GATES * self.width)
        shape, width = inputs.shape[:-1], self.width
        memory, before, new = (inputs.new_empty(*shape, width) for _ in range(3))
        gates, from_memory = inputs.new_empty(*shape, 2 * width), torch.empty_like(from_input)
        kept: Sequence[torch.Tensor | None] = [None] * shape[-2] if keep is None else keep.unbind(-3)
        h = first
        steps = (x.unbind(-3) for x in (from_input, before, gates, new, memory, from_memory))
        for k, x, now, both, n, after, u in zip(kept, *steps, strict=True):
            h = now.copy_(h) if k is None else torch.mul(h, k, out=now)
            _affine(self.recurrent_bias, h, self.recurrent_weight, out=u)
            torch.add(x[..., : 2 * width], u[..., : 2 * width], out=both).sigmoid_()
            torch.addcmul(x[..., 2 * width :], both[..., :width], u[..., 2 * width :], out=n).tanh_()
            h = torch.addcmul(n, both[..., width:], h - n, out=after)
        return Unrolled(inputs, keep, memory, before, gates, new, from_memory[..., 2 * width :])

    def backward(self, done: Unrolled, d_memory: torch.Tensor) -> None:
        """Overwrite the gradients, from the loss's derivative by the memory after each step ``[(S,) L, n, H]``."""
        (r, z), n = done.gates.chunk(2, -1), done.new
        # What the derivative by the memory is multiplied with does not depend on it, so it is made for all steps at
        # once: by what goes into reset, update, U_n h and new.
        d_new = (1.0 - z) * (1.0 - n * n)
        d_kept = d_new * r
        slopes = torch.stack(
            [d_kept * done.from_memory * (1.0 - r), (done.before - n) * z * (1.0 - z), d_kept, d_new], -2
        )
        d_gates = torch.empty_like(slopes)
        back = self.recurrent_weight.transpose(-2, -1).contiguous()
        kept: Sequence[torch.Tensor | None] = [None] * d_memory.shape[-3] if done.keep is None else done.keep.unbind(-3)
        steps = zip(d_memory.unbind(-3), slopes.unbind(-4), d_gates.unbind(-4), z.unbind(-3), kept, strict=True)
        carried: torch.Tensor | None = None
        for d, slope, by_gate, update, k in reversed(list(steps)):
            if carried is not None:
                d = d + carried
            torch.mul(d.unsqueeze(-2), slope, out=by_gate)
            carried = _affine(d * update, by_gate[..., :_GATES, :].flatten(-2), back)
            if k is not None:
                carried.mul_(k)
        d_recurrent = d_gates[..., :_GATES, :].flatten(-2)
        d_input = torch.cat([d_gates[..., :2, :].flatten(-2), d_gates[..., 3, :]], -1)
        inputs, before, d_input, d_recurrent = (
            x.flatten(-3, -2) for x in (done.inputs, done.before, d_input, d_recurrent)
        )
        for target, value in zip(
            self._gradients,
            (
                inputs.transpose(-2, -1) @ d_input,
                before.transpose(-2, -1) @ d_recurrent,
                d_input.sum(-2, keepdim=d_input.dim() == 3),
                d_recurrent.sum(-2, keepdim=d_recurrent.dim() == 3),
            ),
            strict=True,
        ):
            target.copy_(value)


def _affine(bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    return torch.addmm(bias, x, weight, out=out) if weight.dim() == 2 else torch.baddbmm(bias, x, weight, out=out)


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
