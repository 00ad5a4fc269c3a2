"""The torch actor decides as the numpy one, and on its device alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.actor import ActorWeights
from twinloop.agents.layers import GruWeights
from twinloop.agents.networks import ActorCritic
from twinloop.agents.torch_actor import TorchActor, TorchLayout
from twinloop.envs.nameplate import Group, Signal

GROUP = Group(
    name="valve",
    assets=("V1", "V2", "V3"),
    measured=(Signal("flow_kgps", "kg/s", 0.0, 10.0),),
    commanded=(
        Signal("mode", "1", 0.0, 9.0, levels=(9.0, 0.0), neutral=0.0),
        Signal("angle_deg", "deg", -40.0, 40.0),
        Signal("gear", "1", 0.0, 3.0, neutral=1.0, levels=(0.0, 1.0, 3.0)),
        Signal("opening_pu", "pu", 0.1, 1.0, neutral=1.0),
    ),
)
N, F, H, B = 3, 5, 4, 6
NAMES = [s.name for s in GROUP.commanded]


def actor(layout: ActionLayout, stacks: int, gru: bool, seed: int = 0) -> ActorWeights:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return (rng.normal(size=shape) * 0.6).astype(np.float32)

    width, n = F + (H if gru else 0), len(layout.continuous)
    cell = GruWeights(draw(stacks, F, 3 * H), draw(stacks, H, 3 * H), draw(stacks, 3 * H), draw(stacks, 3 * H))
    return ActorWeights(
        feature_mean=draw(F),
        feature_std=np.full(F, 1.5, np.float32),
        feature_clip=3.0,
        weights=(draw(stacks, width, 8), draw(stacks, 8, layout.n_outputs)),
        biases=(draw(stacks, 8), draw(stacks, layout.n_outputs)),
        log_std=draw(stacks, n),
        n_continuous=n,
        level_counts=layout.level_counts,
        gru=cell if gru else None,
    )


def inputs(acting: ActorWeights, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    legal = rng.random((B, N, acting.n_uniform)) < 0.5
    legal[..., [int(c) for c in np.cumsum([0, *acting.level_counts])[:-1]]] = True
    return {
        "features": rng.normal(0, 3, (B, N, F)).astype(np.float32),
        "memory": rng.uniform(-1, 1, (B, N, acting.n_memory)).astype(np.float32),
        "normal": rng.normal(size=(B, N, acting.n_normal)).astype(np.float32),
        "uniform": rng.uniform(0.01, 0.99, (B, N, acting.n_uniform)).astype(np.float32),
        "legal": legal if acting.level_counts else None,
    }


def tensors(told: dict[str, Any], device: str = "cpu") -> dict[str, Any]:
    return {k: None if v is None else torch.from_numpy(v).to(device) for k, v in told.items()}


@settings(max_examples=60, deadline=None)
@given(
    controlled=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    stacks=st.sampled_from([1, N]),
    gru=st.booleans(),
    explores=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_decisions_memory_density_and_commands_equal_those_of_the_numpy_actor(
    controlled: list[str], stacks: int, gru: bool, explores: bool, seed: int
) -> None:
    layout = ActionLayout.of(GROUP, controlled)
    ours = actor(layout, stacks, gru, seed)
    told = inputs(ours, seed)
    if not explores:
        told["normal"] = told["uniform"] = None
    given_, peer = tensors(told), TorchActor.of(ours)
    expected, found = ours.act(**told), peer.act(**given_)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-6, atol=2e-6)
    density = peer.log_prob(given_["normal"], found.density)
    np.testing.assert_allclose(density.numpy(), ours.log_prob(told["normal"], expected.density), rtol=1e-6, atol=5e-6)
    turned = TorchLayout(layout, torch.device("cpu"), torch.float64)
    commands = turned.commands(found.actions)
    assert commands.dtype == torch.float64
    np.testing.assert_allclose(commands.numpy(), layout.commands(expected.actions), rtol=1e-5, atol=1e-4)
    flags, present = torch.rand(B, N, 5) < 0.5, torch.rand(B, N) < 0.7
    assert torch.equal(turned.legal(flags, present), torch.as_tensor(layout.legal(flags, present)))


@pytest.mark.parametrize("gru", [False, True])
@pytest.mark.parametrize("stacks", [1, N])
def test_a_learners_network_acts_in_place_as_its_copy_does(stacks: int, gru: bool) -> None:
    layout = ActionLayout.of(GROUP, None)
    network = ActorCritic(
        F, layout.n_outputs, (8, 8), (4,), level_counts=layout.level_counts, n_stacks=stacks, n_memory=H if gru else 0
    )
    network.initialise(-0.3, torch.Generator().manual_seed(0))
    mean, std = torch.randn(F), torch.rand(F) + 0.5
    acting = TorchActor.of_network(network, mean, std, 3.0)
    with torch.no_grad():
        network.parameters.mul_(1.5)  # views follow what is learnt
    copy = network.actor_weights(mean.numpy(), std.numpy(), 3.0)
    told = inputs(copy, 1)
    for one, other in zip(acting.act(**tensors(told)), copy.act(**told), strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gru", [False, True])
@pytest.mark.parametrize("stacks", [1, N])
def test_nothing_leaves_the_device(stacks: int, gru: bool) -> None:
    """A meta tensor has no numbers: whatever asked for one on the host would raise."""
    layout = ActionLayout.of(GROUP, None)
    ours = actor(layout, stacks, gru)
    acting = TorchActor.of(ours, "meta")
    turned = TorchLayout(layout, torch.device("meta"), torch.float32)
    told = tensors(inputs(ours, 0), "meta")
    present = torch.ones(B, N, dtype=torch.bool, device="meta")
    told["legal"] = turned.legal(torch.ones(B, N, 5, dtype=torch.bool, device="meta"), present)
    step = acting.act(**told)
    found = [*step, acting.log_prob(told["normal"], step.density), turned.commands(step.actions)]
    assert all(t.device.type == "meta" for t in found)
    assert found[-1].shape == (B, N, 4)
