"""What a rollout runs is what the artifact ships, stack by stack, with memory, levels and masks."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.actor import ActorWeights, normalise, to_policy_network
from twinloop.agents.layers import GruWeights
from twinloop.envs.errors import ContractError
from twinloop.envs.nameplate import Group, Signal

GROUP = Group(
    name="valve",
    assets=("V1", "V2", "V3"),
    measured=(Signal("flow_kgps", "kg/s", 0.0, 10.0),),
    commanded=(
        Signal("mode", "1", 0.0, 9.0, levels=(0.0, 9.0), neutral=0.0),
        Signal("angle_deg", "deg", -40.0, 40.0),
        Signal("gear", "1", 0.0, 3.0, neutral=1.0, levels=(0.0, 1.0, 3.0)),
        Signal("opening_pu", "pu", 0.1, 1.0, neutral=1.0),
    ),
)
N, F, H = 3, 5, 4
CONTROLLED: dict[str, list[str] | None] = {
    "continuous": ["opening_pu", "angle_deg"],
    "discrete": ["gear"],
    "both": None,
}


def actor(layout: ActionLayout, stacks: int = 1, gru: bool = False, seed: int = 0) -> ActorWeights:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return (rng.normal(size=shape) * 0.6).astype(np.float32)

    width, n_continuous = F + (H if gru else 0), len(layout.continuous)
    return ActorWeights(
        feature_mean=draw(F),
        feature_std=np.full(F, 1.5, np.float32),
        feature_clip=3.0,
        weights=(draw(stacks, width, 8), draw(stacks, 8, layout.n_outputs)),
        biases=(draw(stacks, 8), draw(stacks, layout.n_outputs)),
        log_std=draw(stacks, n_continuous),
        n_continuous=n_continuous,
        level_counts=layout.level_counts,
        gru=GruWeights(
            draw(stacks, F, 3 * H), draw(stacks, H, 3 * H), draw(stacks, 3 * H), draw(stacks, 3 * H)
        ) if gru else None,
    )  # fmt: skip


def inputs(n_rows: int, acting: ActorWeights, seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shape = (n_rows, N)
    legal = rng.random((*shape, acting.n_uniform)) < 0.5
    legal[..., [int(c) for c in np.cumsum([0, *acting.level_counts])[:-1]]] = True
    return {
        "features": rng.normal(0, 3, (*shape, F)).astype(np.float32),
        "memory": rng.uniform(-1, 1, (*shape, acting.n_memory)).astype(np.float32),
        "normal": rng.normal(size=(*shape, acting.n_normal)).astype(np.float32),
        "uniform": rng.uniform(0.01, 0.99, (*shape, acting.n_uniform)).astype(np.float32),
        "legal": legal if acting.level_counts else None,
    }


@pytest.mark.parametrize("gru", [False, True])
@pytest.mark.parametrize("stacks", [1, N])
@pytest.mark.parametrize("controlled", CONTROLLED.values(), ids=CONTROLLED)
def test_without_exploration_the_actor_does_what_the_artifact_will_do(
    controlled: list[str] | None, stacks: int, gru: bool
) -> None:
    layout = ActionLayout.of(GROUP, controlled)
    acting = actor(layout, stacks, gru)
    network = to_policy_network(acting, layout)
    told = inputs(6, acting)
    memory = told["memory"]
    for seed in range(3):
        seen = inputs(6, acting, seed)
        step = acting.act(seen["features"], told["memory"], None, None, seen["legal"])
        commands, memory = network.forward(seen["features"], memory, seen["legal"])
        np.testing.assert_allclose(layout.commands(step.actions), commands, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(step.memory, memory, atol=1e-6)
        told["memory"] = step.memory


@pytest.mark.parametrize("gru", [False, True])
@pytest.mark.parametrize("controlled", CONTROLLED.values(), ids=CONTROLLED)
def test_separate_weights_act_as_each_assets_own_actor_alone(controlled: list[str] | None, gru: bool) -> None:
    layout = ActionLayout.of(GROUP, controlled)
    acting = actor(layout, N, gru)
    told = inputs(7, acting)
    together = acting.act(**told)
    density = acting.log_prob(told["normal"], together.density)
    for asset in range(N):
        mine = slice(asset, asset + 1)
        cell = acting.gru and replace(
            acting.gru, **{key: getattr(acting.gru, key)[mine] for key in acting.gru.shapes()}
        )
        alone = replace(
            acting,
            weights=tuple(w[mine] for w in acting.weights),
            biases=tuple(b[mine] for b in acting.biases),
            log_std=acting.log_std[mine],
            gru=cell,
        )
        its: dict[str, Any] = {key: None if value is None else value[:, mine] for key, value in told.items()}
        step = alone.act(**its)
        for one, other in zip(step, together, strict=True):
            np.testing.assert_allclose(one, other[:, mine], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(alone.log_prob(its["normal"], step.density), density[:, mine], rtol=1e-5, atol=1e-5)


def test_the_log_probability_of_a_hybrid_decision_is_torchs() -> None:
    layout = ActionLayout.of(GROUP, None)
    acting = actor(layout)
    told = inputs(40, acting)
    step = acting.act(**told)
    head, _ = acting.head(told["features"], told["memory"])
    normal: Any = torch.distributions.Normal(
        torch.from_numpy(head[..., :2]), torch.from_numpy(np.exp(acting.log_std)).expand(40, N, 2)
    )
    expected = normal.log_prob(torch.from_numpy(step.actions[..., :2])).sum(-1)
    at = 2
    for k, count in enumerate(layout.level_counts):
        part = np.where(told["legal"][..., at - 2 : at - 2 + count], head[..., at : at + count], -np.inf)
        peer: Any = torch.distributions.Categorical(logits=torch.from_numpy(part))
        expected = expected + peer.log_prob(torch.from_numpy(step.actions[..., 2 + k]))
        at += count
    np.testing.assert_allclose(acting.log_prob(told["normal"], step.density), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_memory_is_torchs_gru_and_a_zeroed_row_starts_afresh() -> None:
    layout = ActionLayout.of(GROUP, None)
    acting = actor(layout, 1, True)
    assert acting.gru is not None
    cell = torch.nn.GRUCell(F, H)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.from_numpy(acting.gru.input[0].T))
        cell.weight_hh.copy_(torch.from_numpy(acting.gru.recurrent[0].T))
        cell.bias_ih.copy_(torch.from_numpy(acting.gru.input_bias[0]))
        cell.bias_hh.copy_(torch.from_numpy(acting.gru.recurrent_bias[0]))
        told = inputs(6, acting)
        memory, h = told["memory"], torch.from_numpy(told["memory"].reshape(-1, H))
        for seed in range(4):
            features = inputs(6, acting, seed)["features"]
            x = normalise(features, acting.feature_mean, acting.feature_std, acting.feature_clip)
            h = cell(torch.from_numpy(x.reshape(-1, F)), h)
            memory = acting.act(features, memory, None, None, None).memory
            np.testing.assert_allclose(memory.reshape(-1, H), h.numpy(), atol=2e-6)


def test_an_actor_survives_a_pickle_bit_for_bit() -> None:
    layout = ActionLayout.of(GROUP, None)
    acting = actor(layout, N, True)
    told = inputs(4, acting)
    first = acting.act(**told)
    for again in (pickle.loads(pickle.dumps(acting)).act(**told), acting.act(**told)):
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_continuous_actors_density_comes_from_its_draws_alone() -> None:
    layout = ActionLayout.of(GROUP, ["opening_pu", "angle_deg"])
    acting = actor(layout)
    told = inputs(5, acting)
    step = acting.act(**told)
    assert step.density.shape == (5, N, 0)
    normal: Any = torch.distributions.Normal(0.0, torch.from_numpy(np.exp(acting.log_std)))
    means = acting.head(told["features"], told["memory"])[0]
    expected = normal.log_prob(torch.from_numpy(step.actions - means)).sum(-1).numpy()
    np.testing.assert_allclose(acting.log_prob(told["normal"], step.density), expected, rtol=1e-4, atol=1e-4)


def test_separate_weights_serve_no_other_number_of_assets() -> None:
    acting = actor(ActionLayout.of(GROUP, None), N + 1)
    told = inputs(2, acting)
    with pytest.raises(ContractError, match="separate weights for 4 assets and was given 3"):
        acting.act(**told)


def test_the_layout_picks_the_flags_of_its_own_commands_and_frees_absent_assets() -> None:
    layout = ActionLayout.of(GROUP, ["gear", "angle_deg"])
    flags = np.zeros((2, N, 5), np.bool_)
    flags[..., 3] = True  # the nameplate's order: mode 0, 1; gear 2, 3, 4
    present = np.ones((2, N), np.bool_)
    present[1, 2] = False
    for found in (
        layout.legal(flags, present),
        layout.legal(torch.from_numpy(flags), torch.from_numpy(present)).numpy(),
    ):
        np.testing.assert_array_equal(found[0], np.tile([False, True, False], (N, 1)))
        assert found[1, 2].all()
