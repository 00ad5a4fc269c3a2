"""Log-probabilities, entropies and their derivatives against Stable-Baselines3's distributions."""

from typing import Any

import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from stable_baselines3.common.distributions import make_proba_distribution

from twinloop.agents.distributions import ActionDistribution

ROWS = 40
SPACES = {
    "gaussian": (Box(-1.0, 1.0, (3,)), ActionDistribution(3)),
    "categorical": (Discrete(5), ActionDistribution(0, (5,))),
    "multi-discrete": (MultiDiscrete([4, 2, 3]), ActionDistribution(0, (4, 2, 3))),
}


def gaussian(mean: torch.Tensor, std: torch.Tensor) -> Any:
    return torch.distributions.Normal(mean, std)


def categorical(logits: torch.Tensor) -> Any:
    return torch.distributions.Categorical(logits=logits)


def drawn(ours: ActionDistribution, *stack: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A head, a log deviation and actions."""
    generator = torch.Generator().manual_seed(3)
    head = 2.0 * torch.randn(*stack, ROWS, ours.n_outputs, generator=generator)
    log_std = 0.5 * torch.randn(*stack, *(1,) * len(stack), ours.n_continuous, generator=generator)
    levels = [torch.randint(n, (*stack, ROWS, 1), generator=generator).float() for n in ours.level_counts]
    continuous = torch.randn(*stack, ROWS, ours.n_continuous, generator=generator)
    return head, log_std, torch.cat([continuous, *levels], -1)


@pytest.mark.parametrize("name", SPACES)
def test_values_and_gradients_equal_those_of_stable_baselines3(name: str) -> None:
    space, ours = SPACES[name]
    head, log_std, actions = drawn(ours)
    peer: Any = make_proba_distribution(space)
    leaf, deviation = head.clone().requires_grad_(), log_std.clone().requires_grad_()
    peer.proba_distribution(leaf, deviation) if name == "gaussian" else peer.proba_distribution(leaf)
    taken = actions if name != "categorical" else actions[:, 0]
    log_prob, entropy = peer.log_prob(taken), peer.entropy()
    density = ours.evaluate(head, log_std, actions)
    torch.testing.assert_close(density.log_prob, log_prob.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(density.entropy().expand(ROWS), entropy.detach(), rtol=1e-6, atol=1e-6)

    generator = torch.Generator().manual_seed(4)
    d_log_prob, d_entropy = (torch.randn(ROWS, generator=generator) for _ in range(2))
    if name == "gaussian":
        d_entropy = torch.full((ROWS,), 0.3 / ROWS)
    leaves = [leaf, deviation] if name == "gaussian" else [leaf]
    expected = torch.autograd.grad((log_prob * d_log_prob).sum() + (entropy * d_entropy).sum(), leaves)
    d_head, d_log_std = ours.backward(density, actions, d_log_prob, d_entropy, 0.3)
    torch.testing.assert_close(d_head, expected[0], rtol=1e-5, atol=1e-6)
    if name == "gaussian":
        assert d_log_std is not None
        torch.testing.assert_close(d_log_std[0], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stack", [(), (3,)])
def test_a_hybrid_is_the_sum_of_its_parts(stack: tuple[int, ...]) -> None:
    ours = ActionDistribution(2, (3, 4))
    head, log_std, actions = drawn(ours, *stack)
    density = ours.evaluate(head, log_std, actions)
    means, *logits = head[..., :2], head[..., 2:5], head[..., 5:]
    expected = gaussian(means, log_std.exp()).log_prob(actions[..., :2]).sum(-1)
    entropy = gaussian(means, log_std.exp()).entropy().sum(-1)
    for k, part in enumerate(logits):
        level = categorical(part)
        expected, entropy = expected + level.log_prob(actions[..., 2 + k]), entropy + level.entropy()
    torch.testing.assert_close(density.log_prob, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(density.entropy(), entropy, rtol=1e-5, atol=1e-5)


def test_masks_equal_those_of_sb3_contrib() -> None:
    # sb3-contrib is an extra of its own; without it the next test holds the masks to torch's Categorical
    masked = pytest.importorskip("sb3_contrib.common.maskable.distributions", reason="sb3-contrib is not installed")
    ours = ActionDistribution(0, (4, 3))
    head, log_std, actions = drawn(ours)
    legal = torch.rand(ROWS, 7, generator=torch.Generator().manual_seed(5)) > 0.4
    legal.scatter_(1, actions[:, :1].long(), True)
    legal.scatter_(1, 4 + actions[:, 1:].long(), True)
    peer = masked.MaskableMultiCategoricalDistribution([4, 3])
    leaf = head.clone().requires_grad_()
    peer.proba_distribution(leaf)
    peer.apply_masking(legal.numpy())
    density = ours.evaluate(head, log_std, actions, legal)
    log_prob, entropy = peer.log_prob(actions), peer.entropy()
    torch.testing.assert_close(density.log_prob, log_prob.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(density.entropy(), entropy.detach(), rtol=1e-6, atol=1e-6)
    (expected,) = torch.autograd.grad((log_prob + 0.5 * entropy).sum(), [leaf])
    d_head, _ = ours.backward(density, actions, torch.ones(ROWS), torch.full((ROWS,), 0.5), 0.0)
    torch.testing.assert_close(d_head, expected, rtol=1e-5, atol=1e-6)


def test_an_illegal_level_has_no_chance_no_entropy_and_no_gradient() -> None:
    ours = ActionDistribution(0, (4,))
    head, log_std, _ = drawn(ours)
    legal = torch.tensor([True, False, True, True]).expand(ROWS, 4)
    actions = torch.zeros(ROWS, 1)
    density = ours.evaluate(head, log_std, actions, legal)
    leaf = head[:, [0, 2, 3]].clone().requires_grad_()
    level = categorical(leaf)
    log_prob, entropy = level.log_prob(actions[:, 0]), level.entropy()
    torch.testing.assert_close(density.log_prob, log_prob.detach())
    torch.testing.assert_close(density.entropy(), entropy.detach())
    (expected,) = torch.autograd.grad((log_prob + 0.5 * entropy).sum(), [leaf])
    d_head, _ = ours.backward(density, actions, torch.ones(ROWS), torch.full((ROWS,), 0.5), 0.0)
    torch.testing.assert_close(d_head[:, [0, 2, 3]], expected, rtol=1e-5, atol=1e-6)
    assert not d_head[:, 1].any()
    assert bool((ours.evaluate(head, log_std, actions + 1, legal).log_prob == -torch.inf).all())


def test_a_single_legal_level_is_certain() -> None:
    ours = ActionDistribution(0, (3,))
    legal = torch.tensor([[False, True, False]])
    density = ours.evaluate(torch.randn(1, 3), torch.zeros(0), torch.ones(1, 1), legal)
    assert density.log_prob.item() == 0.0
    assert density.entropy().item() == 0.0
    d_head, _ = ours.backward(density, torch.ones(1, 1), torch.ones(1), torch.ones(1), 1.0)
    assert not d_head.any()
