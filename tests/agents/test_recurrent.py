"""The recurrent layer against ``torch.nn.GRU`` and automatic differentiation."""

import pytest
import torch

from twinloop.agents.recurrent import GruLayer

STEPS, ROWS, F, H = 6, 5, 4, 3


def layer(n_stacks: int) -> tuple[GruLayer, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = GruLayer.n_parameters(F, H)
    parameters, gradients = torch.randn(n_stacks, size, generator=generator), torch.zeros(n_stacks, size)
    return GruLayer(F, H, parameters, gradients), gradients


def peer(made: GruLayer, stack: int) -> torch.nn.GRU:
    gru = torch.nn.GRU(F, H)
    parts = (made.input_weight, made.recurrent_weight, made.input_bias, made.recurrent_bias)
    stacked = made.input_weight.dim() == 3
    with torch.no_grad():
        for target, part in zip(
            (gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0), parts, strict=True
        ):
            own = part[stack] if stacked else part
            assert isinstance(target, torch.Tensor)
            target.copy_(own.t() if target.dim() == 2 else own.flatten())
    return gru


@pytest.mark.parametrize("n_stacks", [1, 3])
@pytest.mark.parametrize("resets", [False, True])
def test_memory_and_gradients_equal_those_of_torch(n_stacks: int, resets: bool) -> None:
    made, gradients = layer(n_stacks)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n_stacks, STEPS, ROWS, F, generator=generator)
    first = torch.randn(n_stacks, ROWS, H, generator=generator)
    weighting = torch.randn(n_stacks, STEPS, ROWS, H, generator=generator)
    keep = (torch.rand(n_stacks, STEPS, ROWS, 1, generator=generator) > 0.3).float() if resets else None

    def own(t: torch.Tensor) -> torch.Tensor:
        return t[0] if n_stacks == 1 else t

    unrolled = made.unroll(own(x), own(first), None if keep is None else own(keep))
    made.backward(unrolled, own(weighting))
    memory = unrolled.memory if n_stacks > 1 else unrolled.memory[None]
    for stack in range(n_stacks):
        gru = peer(made, stack)
        h, outputs = first[stack][None], []
        for t in range(STEPS):
            if keep is not None:
                h = h * keep[stack, t]
            out, h = gru(x[stack, t][None], h)
            outputs.append(out[0])
        torch.testing.assert_close(memory[stack], torch.stack(outputs).detach(), rtol=1e-6, atol=1e-6)
        loss = (torch.stack(outputs) * weighting[stack]).sum()
        slopes = torch.autograd.grad(loss, list(gru.parameters()))  # input, recurrent, and their biases
        expected = torch.cat([g.t().flatten() if g.dim() == 2 else g for g in slopes])
        torch.testing.assert_close(gradients[stack], expected, rtol=1e-5, atol=1e-5)


def test_a_memory_that_was_zeroed_hands_nothing_on_and_nothing_back() -> None:
    made, _ = layer(1)
    x, keep = torch.randn(2, ROWS, F), torch.ones(2, ROWS, 1)
    keep[1] = 0.0
    one, other = (made.unroll(x, first, keep) for first in (torch.zeros(ROWS, H), torch.randn(ROWS, H)))
    assert torch.equal(one.memory[1], other.memory[1])
    assert not torch.equal(one.memory[0], other.memory[0])
    d_memory = torch.zeros(2, ROWS, H)
    d_memory[1] = 1.0
    made.backward(one, d_memory)
    step = made._gradients[0].clone()
    made.backward(made.unroll(x[1:], torch.zeros(ROWS, H), None), d_memory[1:])
    torch.testing.assert_close(step, made._gradients[0], rtol=1e-6, atol=1e-6)


def test_gates_start_orthogonal() -> None:
    made, _ = layer(1)
    made.initialise(0, torch.Generator().manual_seed(0))
    for gate in made.recurrent_weight.chunk(3, 1):
        torch.testing.assert_close(gate.t() @ gate, torch.eye(H), rtol=1e-5, atol=1e-5)
    assert not made.input_bias.any()
