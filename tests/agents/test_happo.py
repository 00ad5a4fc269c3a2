"""The sequential update against its definition."""

from __future__ import annotations

from dataclasses import replace

import torch

from twinloop.agents.happo import HappoLearner
from twinloop.agents.minibatches import Samples
from twinloop.agents.networks import ActorCritic
from twinloop.agents.ppo import GroupLearner
from twinloop.agents.ppo_settings import HappoConfiguration

SETTINGS = HappoConfiguration(hidden=(8,), lr=1e-2, minibatches=2, critic="own")
ROWS = 40


def made(n_stacks: int) -> tuple[ActorCritic, Samples]:
    generator = torch.Generator().manual_seed(0)
    net = ActorCritic(3, 2, (8,), (8,), n_stacks=n_stacks)
    net.initialise(0.0, generator)
    features, actions = (torch.randn(n_stacks, ROWS, k, generator=generator) for k in (3, 2))
    advantages, returns = (torch.randn(n_stacks, ROWS, generator=generator) for _ in range(2))
    samples = Samples(features, actions, log_prob(net, features, actions), advantages, returns)
    return net, samples


def log_prob(net: ActorCritic, features: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    rows = []
    for stack in range(net.n_stacks):
        own = net.stack(stack)
        head = own.forward(features[stack]).head
        rows.append(own.distribution.evaluate(head, own.log_std, actions[stack]).log_prob)
    return torch.stack(rows)


def test_one_agent_learns_as_with_ppo_bit_for_bit() -> None:
    (net, samples), (other, _) = made(1), made(1)
    one, peer = HappoLearner(net, SETTINGS), GroupLearner(other, SETTINGS)
    for seed in range(3):
        assert one.update(samples, 0.0, seed) == peer.update(samples, 0.0, seed)
    assert torch.equal(net.parameters, other.parameters)


def test_each_asset_weighs_its_advantages_with_the_ratios_of_those_before_it() -> None:
    net, samples = made(3)
    initial = net.parameters.clone()
    learner = HappoLearner(net, SETTINGS)
    _, product = learner.update_after(samples, 0.0, 5, None)
    ratios = torch.exp(log_prob(net, samples.features, samples.actions) - samples.log_prob)
    torch.testing.assert_close(product, ratios.prod(0), rtol=1e-4, atol=1e-5)
    assert float((product - 1).abs().max()) > 0.01
    orders = []
    for first in range(3):
        for second in range(3):
            if first == second:
                continue
            order = (first, second, 3 - first - second)
            factor, rows = torch.ones(ROWS), []
            for stack in order:
                alone, _ = made(1)
                alone.parameters.copy_(initial[stack : stack + 1])
                own = replace(samples.stack(stack), factor=factor[None])
                GroupLearner(alone, SETTINGS).update(own, 0.0, 5)
                rows.append(alone.parameters[0].clone())
                factor = factor * torch.exp(log_prob(alone, own.features, own.actions) - own.log_prob)[0]
            if all(torch.equal(net.parameters[stack], row) for stack, row in zip(order, rows, strict=True)):
                orders.append(order)
    assert len(orders) == 1


def test_orders_differ_from_update_to_update() -> None:
    firsts = set()
    for seed in range(8):
        net, samples = made(3)
        before = net.parameters.clone()
        HappoLearner(net, SETTINGS).update(samples, 0.0, seed)
        for stack in range(3):
            alone, _ = made(1)
            alone.parameters.copy_(before[stack : stack + 1])
            GroupLearner(alone, SETTINGS).update(samples.stack(stack), 0.0, seed)
            if torch.equal(alone.parameters[0], net.parameters[stack]):
                firsts.add(stack)
    assert firsts == {0, 1, 2}


def test_an_absent_asset_hands_on_a_ratio_of_one() -> None:
    net, samples = made(2)
    present = torch.ones(2, ROWS, dtype=torch.bool)
    present[:, : ROWS // 2] = False
    _, product = HappoLearner(net, SETTINGS).update_after(replace(samples, present=present), 0.0, 0, None)
    assert bool((product[: ROWS // 2] == 1).all())
    assert not bool((product[ROWS // 2 :] == 1).any())
