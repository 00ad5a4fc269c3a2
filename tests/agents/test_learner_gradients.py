"""Closed-form gradients of every kind of learner against automatic differentiation of the definition."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from twinloop.agents.minibatches import Batch, Samples, View, gather, minibatches
from twinloop.agents.networks import ActorCritic, Mlp
from twinloop.agents.ppo import GroupLearner, loss_and_gradients, standardise
from twinloop.agents.ppo_settings import PpoConfiguration

F, T, ROWS, WIDTH = 4, 8, 6, 5
SETTINGS = PpoConfiguration(hidden=(8, 7), critic_hidden=(6,), entropy_coefficient=0.02, sequence_steps=4)
VARIANTS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "separate": {"n_stacks": 3},
    "categorical": {"n_continuous": 0, "level_counts": (4,)},
    "multi-discrete with masks": {"n_continuous": 0, "level_counts": (3, 2), "masked": True, "n_stacks": 3},
    "hybrid": {"level_counts": (3,), "masked": True},
    "some absent": {"n_stacks": 3, "absent": True},
    "central critic": {"view": True},
    "central critic, separate": {"view": True, "n_stacks": 3},
    "recurrent": {"gru": 5},
    "recurrent, separate, some absent": {"gru": 5, "n_stacks": 3, "absent": True},
    "everything": {
        "gru": 5, "n_stacks": 3, "absent": True, "view": True, "level_counts": (3,), "masked": True, "factor": True
    },
}  # fmt: skip


def network_and_samples(
    n_stacks: int = 1,
    n_continuous: int = 2,
    level_counts: tuple[int, ...] = (),
    masked: bool = False,
    absent: bool = False,
    view: bool = False,
    gru: int = 0,
    factor: bool = False,
) -> tuple[ActorCritic, Samples]:
    """A network with sizeable weights and samples that its policy might have drawn."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    n_levels, n_rows = sum(level_counts), T * ROWS
    net = ActorCritic(
        F, n_continuous + n_levels, (8, 7), (6,),
        level_counts=level_counts, n_stacks=n_stacks, n_view=3 * WIDTH if view else 0, n_memory=gru,
    )  # fmt: skip
    net.initialise(-0.2, generator)
    net.parameters.add_(0.2 * normal(*net.parameters.shape))
    levels = [torch.randint(n, (n_stacks, n_rows, 1), generator=generator) for n in level_counts]
    legal = None
    if masked:
        legal = torch.rand(n_stacks, n_rows, n_levels, generator=generator) > 0.3
        at = 0
        for n, level in zip(level_counts, levels, strict=True):
            legal[..., at : at + n].scatter_(-1, level, True)
            at += n
    samples = Samples(
        features=normal(n_stacks, n_rows, F),
        actions=torch.cat([normal(n_stacks, n_rows, n_continuous), *(x.float() for x in levels)], -1),
        log_prob=-3.0 + 0.3 * normal(n_stacks, n_rows),
        advantages=normal(n_stacks, n_rows),
        returns=normal(n_stacks, n_rows),
        present=torch.rand(n_stacks, n_rows, generator=generator) > 0.3 if absent else None,
        legal=legal,
        factor=normal(n_stacks, n_rows).exp() if factor else None,
        view=View(
            normal(30, 3 * WIDTH),
            torch.randint(30, (n_stacks, n_rows), generator=generator),
            torch.randint(3, (n_stacks, n_rows), generator=generator),
            0,
            WIDTH,
        )
        if view
        else None,
        keep=(torch.rand(n_stacks, n_rows, 1, generator=generator) > 0.2).float() if gru else None,
        memory=normal(n_stacks, n_rows // 4, gru) if gru else None,
        sequence_steps=4 if gru else 1,
        rows_per_step=ROWS,
    )
    return net, samples


def defined_loss(net: ActorCritic, row: torch.Tensor, batch: Batch, stack: int) -> torch.Tensor:
    """Policy + c_v value - c_e entropy of one stack, from its row of parameters, by the book."""

    def own(x: torch.Tensor | None) -> Any:
        return x if x is None or net.n_stacks == 1 else x[stack]

    distribution, at = net.distribution, 0

    def block(*shape: int) -> torch.Tensor:
        nonlocal at
        size = torch.Size(shape).numel()
        at += size
        return row[at - size : at].view(*shape)

    x, memory, keep = own(batch.features), own(batch.memory), own(batch.keep)
    if net.n_memory:
        width = net.n_memory
        wi, wh, bi, bh = block(F, 3 * width), block(width, 3 * width), block(3 * width), block(3 * width)
        n, out = len(memory), []
        for t in range(len(x) // n):
            memory = memory * keep[t * n : (t + 1) * n]
            memory = torch.gru_cell(x[t * n : (t + 1) * n], memory, wi.t(), wh.t(), bi, bh)
            out.append(memory)
        x = torch.cat([x, torch.cat(out)], -1)

    def mlp(sizes: tuple[int, ...], h: torch.Tensor) -> torch.Tensor:
        for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            h = h @ block(n_in, n_out) + block(n_out)
            h = torch.tanh(h) if i < len(sizes) - 2 else h
        return h

    head = mlp(net.actor.sizes, x)
    log_std = block(distribution.n_continuous)
    seen = x if batch.view is None else torch.cat([x, own(batch.view)], -1)
    value = mlp(net.critic.sizes, seen).squeeze(-1)
    n_continuous = distribution.n_continuous
    gaussian: Any = torch.distributions.Normal(head[:, :n_continuous], log_std.exp())
    actions, legal = own(batch.actions), own(batch.legal)
    log_prob, entropy = gaussian.log_prob(actions[:, :n_continuous]).sum(-1), gaussian.entropy().sum(-1)
    first = n_continuous
    for k, count in enumerate(distribution.level_counts):
        logits = head[:, first : first + count]
        if legal is not None:
            logits = logits.masked_fill(~legal[:, first - n_continuous : first - n_continuous + count], -1e9)
        level: Any = torch.distributions.Categorical(logits=logits)
        log_prob = log_prob + level.log_prob(actions[:, n_continuous + k])
        entropy = entropy + level.entropy()
        first += count
    ratio = torch.exp(log_prob - own(batch.log_prob))
    advantages = own(batch.advantages) * (1.0 if batch.factor is None else own(batch.factor))
    surrogate = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    loss = -surrogate + 0.5 * (value - own(batch.returns)).square() - 0.02 * entropy
    counted = torch.ones(len(x), dtype=torch.bool) if batch.weight is None else own(batch.weight) > 0
    return loss[counted].mean() if counted.any() else 0.0 * row.sum()


@pytest.mark.parametrize("name", VARIANTS)
def test_closed_form_gradients_equal_automatic_differentiation(name: str) -> None:
    net, samples = network_and_samples(**VARIANTS[name])
    for batch in minibatches(samples, 2, torch.Generator().manual_seed(0)):
        loss_and_gradients(net, batch, SETTINGS)
        for stack in range(net.n_stacks):
            row = net.parameters[stack].clone().requires_grad_()
            (expected,) = torch.autograd.grad(defined_loss(net, row, batch, stack), [row])
            assert float(expected.abs().max()) > 1e-3
            torch.testing.assert_close(net.gradients[stack], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if v.get("absent")])
def test_rows_of_absent_assets_change_no_bit_of_an_update(name: str) -> None:
    learnt = []
    for junk in (0.0, 7.0):
        net, samples = network_and_samples(**VARIANTS[name])
        assert samples.present is not None
        away = ~samples.present

        def filled(x: torch.Tensor, junk: float = junk, away: torch.Tensor = away) -> torch.Tensor:
            return torch.where(away if x.dim() == 2 else away[..., None], junk, x)

        changed = replace(
            samples,
            features=filled(samples.features),
            log_prob=filled(samples.log_prob),
            advantages=filled(samples.advantages),
            returns=filled(samples.returns),
        )
        if changed.keep is not None:
            # what an absent asset remembers is not carried on
            after = torch.cat([away[:, :ROWS] & False, away[:, :-ROWS]], 1)
            changed = replace(changed, keep=changed.keep * ~after[..., None])
        learner = GroupLearner(net, SETTINGS)
        figures = learner.update(changed, 0.0, 3)
        learnt.append((figures, net.parameters.clone()))
    assert learnt[0][0] == learnt[1][0]
    assert torch.equal(learnt[0][1], learnt[1][1])


def test_a_row_is_in_one_minibatch_an_epoch_and_an_absent_one_in_none() -> None:
    _, samples = network_and_samples(n_stacks=3, absent=True)
    present = samples.present
    assert present is not None
    samples = replace(samples, returns=torch.arange(T * ROWS).expand(3, -1))
    batches = list(minibatches(samples, 5, torch.Generator().manual_seed(0)))
    for stack in range(3):
        parts: list[torch.Tensor] = []
        for batch in batches:
            own = batch.returns[stack]
            parts.append(own if batch.weight is None else own[batch.weight[stack] > 0])
        rows = torch.cat(parts).sort().values
        assert rows.tolist() == present[stack].nonzero().flatten().tolist()
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_sequences_stay_whole_and_in_order() -> None:
    _, samples = network_and_samples(gru=5)
    samples = replace(samples, returns=torch.arange(T * ROWS)[None])
    batch = gather(samples, torch.tensor([2, ROWS + 1]), None)
    # sequence 2: steps 0 to 3 of row 2; sequence ROWS + 1: steps 4 to 7 of row 1
    assert batch.returns.view(4, 2).t().tolist() == [
        [2 + ROWS * t for t in range(4)],
        [1 + ROWS * t for t in range(4, 8)],
    ]


@pytest.mark.parametrize("variant", ["separate", "some absent", "recurrent, separate, some absent"])
@pytest.mark.parametrize("target_kl", [None, 0.01])
def test_separate_weights_learn_as_independent_runs_do(variant: str, target_kl: float | None) -> None:
    settings = SETTINGS.model_copy(update={"target_kl": target_kl, "minibatches": 3, "lr": 3e-3})
    net, samples = network_and_samples(**VARIANTS[variant])
    alone: list[tuple[list[dict[str, float]], torch.Tensor]] = []
    for stack in range(3):
        single, _ = network_and_samples(**{**VARIANTS[variant], "n_stacks": 1, "absent": False})
        single.parameters.copy_(net.parameters[stack : stack + 1])
        learner = GroupLearner(single, settings)
        told = [learner.update(samples.stack(stack), 0.0, seed) for seed in (0, 1)]
        alone.append((told, single.parameters[0]))
    together = GroupLearner(net, settings)
    figures = [together.update(samples, 0.0, seed) for seed in (0, 1)]
    for stack in range(3):
        torch.testing.assert_close(net.parameters[stack], alone[stack][1], rtol=0, atol=1e-5)
    for turn in (0, 1):
        epochs = [told[turn]["epochs"] for told, _ in alone]
        assert figures[turn]["epochs"] == pytest.approx(sum(epochs) / 3)
    if target_kl is not None:
        assert figures[0]["epochs"] < settings.epochs


def test_an_asset_that_was_never_there_is_not_moved_by_its_momentum() -> None:
    net, samples = network_and_samples(n_stacks=3)
    learner = GroupLearner(net, SETTINGS)
    learner.update(samples, 0.0, 0)
    before = net.parameters.clone()
    present = torch.ones(3, T * ROWS, dtype=torch.bool)
    present[1] = False
    learner.update(replace(samples, present=present), 0.0, 1)
    assert torch.equal(net.parameters[1], before[1])
    assert not torch.equal(net.parameters[0], before[0])


def test_advantages_are_standardised_over_the_rows_that_count() -> None:
    x = torch.tensor([[1.0, 2.0, 6.0, 100.0], [5.0, 3.0, 0.0, 0.0]])
    weight = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0.0], [1.0, 0.0, 0.0, 0.0]])
    found = standardise(x, weight, torch.tensor([3, 1]))
    expected = standardise(x[0, :3], None, None)
    torch.testing.assert_close(found[0, :3], expected)
    assert found[1, 0] == 5.0
    assert expected.std().item() == pytest.approx(1.0, abs=1e-6)


def test_sizes_of_layers_count_their_parameters() -> None:
    assert Mlp.n_parameters((3, 2, 1)) == 3 * 2 + 2 + 2 * 1 + 1
