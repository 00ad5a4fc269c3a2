import numpy as np
import pytest
import torch

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.actor import to_policy_network
from twinloop.agents.networks import ActorCritic, Mlp, Workspace
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Signal

GROUP = Group(
    name="valve",
    assets=("V1", "V2"),
    measured=(Signal("flow_kgps", "kg/s", 0.0, 10.0),),
    commanded=(
        Signal("opening_pu", "pu", 0.0, 1.0, neutral=0.3),
        Signal("heat_kw", "kW", -20.0, 60.0, neutral=5.0),
        Signal("mode", "1", 0.0, 2.0, neutral=1.0),
    ),
)


def network(n_features: int = 7, n_actions: int = 2, seed: int = 0) -> ActorCritic:
    made = ActorCritic(n_features, n_actions, (16, 8), (12,))
    made.initialise(-0.3, torch.Generator().manual_seed(seed))
    return made


@pytest.mark.parametrize("n_stacks", [1, 3])
def test_gradients_equal_those_of_automatic_differentiation(n_stacks: int) -> None:
    generator = torch.Generator().manual_seed(1)
    net = ActorCritic(7, 2, (16, 8), (12,), n_stacks=n_stacks)
    net.initialise(-0.3, generator)
    shape = (50,) if n_stacks == 1 else (n_stacks, 50)
    x, weighting = (torch.randn(*shape, width, generator=generator) for width in (7, 2))
    outputs = net.actor.forward(x)
    found = net.actor.backward(outputs, weighting, wants_input=True)
    assert found is not None
    weights = [w.clone().requires_grad_() for w in net.actor.weights]
    biases = [b.clone().requires_grad_() for b in net.actor.biases]
    h = x = x.requires_grad_()
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = torch.tanh(h @ weight + bias)
    loss = ((h @ weights[-1] + biases[-1]) * weighting).sum()
    gradients = torch.autograd.grad(loss, [x, *weights, *biases])
    ours = [found, *net.actor.weight_gradients, *net.actor.bias_gradients]
    for mine, expected in zip(ours, gradients, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_a_workspace_changes_no_bit() -> None:
    net, space, x = network(), Workspace(), torch.randn(20, 7)
    plain = net.actor.forward(x)
    net.actor.backward(plain, plain[-1])
    expected = net.gradients.clone()
    for rows in (20, 5, 20):
        again = net.actor.forward(x[:rows], space)
        net.actor.backward(again, again[-1].clone(), space)
    assert torch.equal(again[-1], plain[-1])
    assert torch.equal(net.gradients, expected)


@pytest.mark.parametrize("n_stacks", [1, 3])
def test_layers_are_views_that_cover_the_flat_matrix_exactly(n_stacks: int) -> None:
    net = ActorCritic(7, 5, (16, 8), (12,), level_counts=(3,), n_stacks=n_stacks, n_view=4, n_memory=6)
    assert net.gru is not None
    gru = net.gru
    for view in (gru.input_weight, gru.recurrent_weight, gru.input_bias, gru.recurrent_bias, net.log_std):
        view += 1.0
    for part in (net.actor, net.critic):
        for view in (*part.weights, *part.biases):
            view += 1.0
    assert torch.equal(net.parameters, torch.ones_like(net.parameters))
    n_parameters = Mlp.n_parameters((13, 16, 8, 5)) + 2 + Mlp.n_parameters((17, 12, 1)) + 18 * (7 + 6 + 2)
    assert net.parameters.shape == (n_stacks, n_parameters)


def test_hidden_weights_start_orthogonal_and_the_actor_starts_near_zero() -> None:
    net = network()
    first = net.actor.weights[1]  # [16, 8]: columns are orthogonal with norm sqrt(2)
    torch.testing.assert_close(first.t() @ first, 2.0 * torch.eye(8), rtol=1e-5, atol=1e-5)
    assert float(net.actor.forward(torch.randn(100, 7))[-1].abs().max()) < 0.05
    assert torch.equal(network(seed=3).parameters, network(seed=3).parameters)
    assert not torch.equal(network(seed=3).parameters, network(seed=4).parameters)


def test_each_stack_draws_its_own_weights_and_the_first_those_of_a_single_one() -> None:
    stacked = ActorCritic(7, 2, (16, 8), (12,), n_stacks=3)
    stacked.initialise(-0.3, torch.Generator().manual_seed(0))
    assert torch.equal(stacked.parameters[0], network().parameters[0])
    assert not torch.equal(stacked.parameters[1], stacked.parameters[2])


def test_one_stack_alone_shares_memory_and_equals_its_part_of_the_whole() -> None:
    net = ActorCritic(7, 2, (16, 8), (12,), n_stacks=3)
    net.initialise(-0.3, torch.Generator().manual_seed(0))
    x = torch.randn(3, 20, 7)
    whole, alone = net.forward(x), net.stack(1).forward(x[1])
    torch.testing.assert_close(whole.head[1], alone.head, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole.value[1], alone.value, rtol=1e-6, atol=1e-6)
    net.stack(1).parameters.zero_()
    assert not net.parameters[1].any()
    assert net.parameters[0].any()


@pytest.mark.parametrize("n_stacks", [1, 2])
def test_the_acting_half_decides_and_remembers_as_the_learner_does(n_stacks: int) -> None:
    net = ActorCritic(7, 5, (16, 8), (12,), level_counts=(3,), n_stacks=n_stacks, n_memory=6)
    net.initialise(-0.3, torch.Generator().manual_seed(0))
    net.parameters.add_(0.1 * torch.randn(net.parameters.shape, generator=torch.Generator().manual_seed(1)))
    rng = np.random.default_rng(0)
    features, memory = (rng.normal(size=(10, 2, width)).astype(np.float32) for width in (7, 6))
    actor = net.actor_weights(np.zeros(7, np.float32), np.ones(7, np.float32), 10.0)
    head, after = actor.head(features, memory)

    def rows(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> torch.Tensor:
        if n_stacks == 1:
            return torch.from_numpy(array.reshape(20, -1))
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 1, 0)))

    passed = net.forward(rows(features), None, rows(memory))
    assert passed.memory is not None
    torch.testing.assert_close(rows(head), passed.head, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows(after), passed.memory, rtol=1e-5, atol=1e-5)
    assert actor.log_std.shape == (n_stacks, 2)


def test_rollout_learner_and_artifact_give_the_same_commands() -> None:
    rng = np.random.default_rng(0)
    net = network()
    net.actor.weights[-1].mul_(200.0)  # so that some actions leave [-1, 1]
    mean, std = rng.normal(size=7).astype(np.float32), rng.uniform(0.5, 2, 7).astype(np.float32)
    actor = net.actor_weights(mean, std, 2.0)
    scale = ActionLayout.of(GROUP, ["heat_kw", "opening_pu"])
    features = rng.normal(size=(40, 7)).astype(np.float32) * 3
    ours = actor.act(features[None], np.zeros((1, 40, 0), np.float32), None, None, None).actions[0]
    x = torch.from_numpy(np.clip((features - mean) / std, -2, 2))
    np.testing.assert_allclose(ours, net.actor.forward(x)[-1].numpy(), rtol=1e-5, atol=1e-5)
    assert (np.abs(ours) > 1).any()
    commands = scale.commands(ours)
    np.testing.assert_allclose(
        commands, to_policy_network(actor, scale).forward(features[None])[0][0], rtol=1e-6, atol=1e-5
    )


def test_commands_span_the_nameplate_and_the_rest_stays_neutral() -> None:
    scale = ActionLayout.of(GROUP, ["heat_kw"])
    commands = scale.commands(np.array([[-3.0], [-1.0], [0.0], [1.0], [2.0]], np.float32))
    np.testing.assert_allclose(commands[:, 1], [-20.0, -20.0, 20.0, 60.0, 60.0])
    np.testing.assert_allclose(commands[:, [0, 2]], np.tile(np.array([0.3, 1.0], np.float32), (5, 1)))


@pytest.mark.parametrize(
    ("names", "said"),
    [(["heat_kv"], "did you mean 'heat_kw'"), ([], "at least one command"), (["mode", "mode"], "each once")],
)
def test_a_command_that_is_not_there_is_named(names: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ActionLayout.of(GROUP, names)
