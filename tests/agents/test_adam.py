import torch

from twinloop.agents.adam import StackedAdam

S, P = 3, 50


def test_each_row_moves_as_under_an_adam_of_its_own_and_rests_when_it_is_told_to() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(S, P, generator=generator)
    peers = [torch.nn.Parameter(row.clone()) for row in parameters]
    adams = [torch.optim.Adam([p], lr=0.1, eps=1e-5, fused=True) for p in peers]
    ours = StackedAdam(parameters, 1e-5)
    for turn, rows in enumerate([None, (0, 1, 2), None, (1,), (), (2, 0), None]):
        moved = range(S) if rows is None else rows
        gradients = torch.randn(len(moved), P, generator=generator)
        ours.step(rows, gradients, 0.1 / (turn + 1))
        for row, gradient in zip(moved, gradients, strict=True):
            peers[row].grad = gradient
            adams[row].param_groups[0]["lr"] = 0.1 / (turn + 1)
            adams[row].step()
    for row, peer in enumerate(peers):
        torch.testing.assert_close(parameters[row], peer.detach(), rtol=1e-6, atol=1e-7)


def test_a_restored_one_goes_on_alike() -> None:
    parameters = torch.zeros(S, P)
    ours = StackedAdam(parameters, 1e-8)
    ours.step([0, 2], torch.ones(2, P), 0.1)
    other_parameters = parameters.clone()
    other = StackedAdam(other_parameters, 1e-8)
    other.restore(ours.state())
    for one in (ours, other):
        one.step(None, torch.ones(3, P), 0.1)
    assert torch.equal(parameters, other_parameters)
    assert parameters[1].abs().max() > 0
