import numpy as np
import pytest
import torch

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.actor import to_policy_network
from twinloop.agents.networks import ActorCritic, Mlp
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


def test_gradients_equal_those_of_automatic_differentiation() -> None:
    generator = torch.Generator().manual_seed(1)
    net = network()
    x = torch.randn(50, 7, generator=generator)
    weighting = torch.randn(50, 2, generator=generator)
    net.actor.backward(net.actor.forward(x), weighting)
    weights = [w.clone().requires_grad_() for w in net.actor.weights]
    biases = [b.clone().requires_grad_() for b in net.actor.biases]
    h = x
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = torch.tanh(h @ weight + bias)
    loss = ((h @ weights[-1] + biases[-1]) * weighting).sum()
    gradients = torch.autograd.grad(loss, [*weights, *biases])
    ours = [*net.actor.weight_gradients, *net.actor.bias_gradients]
    for found, expected in zip(ours, gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_layers_are_views_that_cover_the_flat_vector_exactly() -> None:
    net = network()
    net.parameters.zero_()
    for part in (net.actor, net.critic):
        for view in (*part.weights, *part.biases):
            view += 1.0
    net.log_std.add_(1.0)
    assert torch.equal(net.parameters, torch.ones_like(net.parameters))
    assert net.parameters.numel() == Mlp.n_parameters((7, 16, 8, 2)) + 2 + Mlp.n_parameters((7, 12, 1))


def test_hidden_weights_start_orthogonal_and_the_actor_starts_near_zero() -> None:
    net = network()
    first = net.actor.weights[1]  # [16, 8]: columns are orthogonal with norm sqrt(2)
    torch.testing.assert_close(first.t() @ first, 2.0 * torch.eye(8), rtol=1e-5, atol=1e-5)
    assert float(net.actor.forward(torch.randn(100, 7))[-1].abs().max()) < 0.05
    assert torch.equal(network(seed=3).parameters, network(seed=3).parameters)
    assert not torch.equal(network(seed=3).parameters, network(seed=4).parameters)


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
    np.testing.assert_allclose(commands, to_policy_network(actor, GROUP, scale).forward(features), rtol=1e-6, atol=1e-5)


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
