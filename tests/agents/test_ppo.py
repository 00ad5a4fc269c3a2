"""The learner's mathematics against Stable-Baselines3 on the same tensors."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger

from twinloop.agents.advantages import generalised_advantages
from twinloop.agents.minibatches import Samples, gather
from twinloop.agents.networks import ActorCritic
from twinloop.agents.ppo import GroupLearner, entropy_coefficient, learning_rate, loss_and_gradients
from twinloop.agents.ppo_settings import PpoConfiguration

T, SLOTS, F = 24, 6, 5
OBSERVATIONS = Box(-np.inf, np.inf, (F,), np.float32)
SPACES: dict[str, tuple[Space[Any], int, tuple[int, ...]]] = {
    "gaussian": (Box(-1.0, 1.0, (2,), np.float32), 2, ()),
    "categorical": (Discrete(4), 0, (4,)),
    "multi-discrete": (MultiDiscrete([3, 2]), 0, (3, 2)),
}


class Still(gymnasium.Env[Any, Any]):
    """Spaces alone: Stable-Baselines3 wants an environment to build a policy."""

    observation_space = OBSERVATIONS

    def __init__(self, action_space: Space[Any]) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(F, np.float32), {}


def filled_buffer(rng: np.random.Generator, name: str = "gaussian") -> tuple[Any, Any, Any]:
    """A full SB3 buffer, the value after its last step, and whether an episode ended with it."""
    space, n_continuous, level_counts = SPACES[name]
    buffer = RolloutBuffer(T, OBSERVATIONS, space, gamma=0.97, gae_lambda=0.9, n_envs=SLOTS)
    start = np.ones(SLOTS, np.float32)
    done = start
    for _ in range(T):
        buffer.add(
            rng.normal(size=(SLOTS, F)).astype(np.float32),
            np.concatenate(
                [rng.normal(size=(SLOTS, n_continuous)), *(rng.integers(n, size=(SLOTS, 1)) for n in level_counts)], 1
            ).astype(np.float32),
            rng.normal(size=SLOTS).astype(np.float32),
            start,
            torch.from_numpy(rng.normal(size=SLOTS).astype(np.float32)),
            torch.from_numpy((rng.normal(size=SLOTS) * 0.2 - 2.5).astype(np.float32)),
        )
        done = (rng.random(SLOTS) < 0.15).astype(np.float32)
        start = done
    last = rng.normal(size=SLOTS).astype(np.float32)
    buffer.compute_returns_and_advantage(torch.from_numpy(last), done)
    return buffer, last, done


def test_advantages_and_returns_equal_those_of_stable_baselines3() -> None:
    buffer, last, done = filled_buffer(np.random.default_rng(0))
    ended = np.concatenate([buffer.episode_starts[1:], done[None]]).astype(bool)
    following = np.concatenate([buffer.values[1:], last[None]])
    advantage, returns = generalised_advantages(buffer.rewards, buffer.values, following, ended, ended, 0.97, 0.9)
    np.testing.assert_allclose(advantage, buffer.advantages, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(returns, buffer.returns, rtol=1e-6, atol=1e-6)


def test_truncation_bootstraps_with_the_final_observation_and_termination_does_not() -> None:
    reward, value = np.ones((3, 2), np.float32), np.zeros((3, 2), np.float32)
    following = np.full((3, 2), 10.0, np.float32)
    ended = np.array([[False, False], [True, True], [False, False]])
    terminated = np.array([[False, False], [True, False], [False, False]])
    _, returns = generalised_advantages(reward, value, following, terminated, ended, 0.5, 1.0)
    # terminated: 1 and nothing; truncated: 1 + 0.5 * 10. Before it: delta + 0.5 * that, with values of zero here.
    np.testing.assert_allclose(returns[1], [1.0, 6.0])
    np.testing.assert_allclose(returns[0], [6.0 + 0.5 * 1.0, 6.0 + 0.5 * 6.0])
    np.testing.assert_allclose(returns[2], [6.0, 6.0])


def test_what_follows_a_termination_is_never_read() -> None:
    following = np.full((1, 1), np.nan, np.float32)
    done = np.ones((1, 1), bool)
    one = np.ones((1, 1), np.float32)
    advantage, returns = generalised_advantages(one, one, following, done, done, 0.9, 0.9)
    assert advantage.item() == 0.0
    assert returns.item() == 1.0


def test_gamma_zero_is_a_contextual_bandit() -> None:
    buffer, last, _ = filled_buffer(np.random.default_rng(1))
    nothing = np.zeros((T, SLOTS), bool)
    following = np.concatenate([buffer.values[1:], last[None]])
    _, returns = generalised_advantages(buffer.rewards, buffer.values, following, nothing, nothing, 0.0, 0.95)
    np.testing.assert_allclose(returns, buffer.rewards, rtol=1e-6, atol=1e-6)


def peer_and_ours(settings: PpoConfiguration, name: str = "gaussian") -> tuple[Any, GroupLearner, Samples]:
    """SB3's PPO with a full buffer, our learner with the same weights, and the same samples."""
    buffer, _, _ = filled_buffer(np.random.default_rng(3), name)
    space = SPACES[name][0]
    peer = PPO(
        "MlpPolicy", Still(space), n_steps=T * SLOTS, batch_size=T * SLOTS, n_epochs=settings.epochs, seed=5,
        learning_rate=settings.lr, clip_range=settings.clip, vf_coef=settings.value_coefficient, device="cpu",
        ent_coef=settings.entropy_coefficient, max_grad_norm=settings.max_grad_norm, target_kl=settings.target_kl,
        policy_kwargs={"net_arch": list(settings.hidden), "activation_fn": torch.nn.Tanh},
    )  # fmt: skip
    peer.rollout_buffer = buffer
    peer.set_logger(Logger(folder=None, output_formats=[]))
    ours = network_like(settings, name)
    copy_peer(peer, ours)

    def flat(array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(RolloutBuffer.swap_and_flatten(array).copy())[None]

    samples = Samples(
        features=flat(buffer.observations),
        actions=flat(buffer.actions),
        log_prob=flat(buffer.log_probs).flatten(1),
        advantages=flat(buffer.advantages).flatten(1),
        returns=flat(buffer.returns).flatten(1),
    )
    return peer, GroupLearner(ours, settings), samples


def network_like(settings: PpoConfiguration, name: str) -> ActorCritic:
    _, n_continuous, level_counts = SPACES[name]
    n_outputs = n_continuous + sum(level_counts)
    return ActorCritic(F, n_outputs, settings.hidden, settings.hidden, level_counts=level_counts)


def copy_peer(peer: Any, ours: ActorCritic) -> None:
    policy = peer.policy
    for part, body, head in (
        (ours.actor, policy.mlp_extractor.policy_net, policy.action_net),
        (ours.critic, policy.mlp_extractor.value_net, policy.value_net),
    ):
        layers = [m for m in (*body, head) if isinstance(m, torch.nn.Linear)]
        for layer, weight, bias in zip(layers, part.weights, part.biases, strict=True):
            weight.copy_(layer.weight.detach().t())
            bias.copy_(layer.bias.detach())
    if ours.log_std.numel():
        ours.log_std.copy_(policy.log_std.detach())


def own_log_prob(learner: GroupLearner, samples: Samples) -> torch.Tensor:
    net = learner.network
    head = net.actor.forward(samples.features[0])[-1]
    return net.distribution.evaluate(head, net.log_std, samples.actions[0]).log_prob[None]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(
    "settings",
    [
        PpoConfiguration(hidden=(16, 16), epochs=3, minibatches=1, lr=1e-3),
        PpoConfiguration(hidden=(16, 16), epochs=2, minibatches=1, entropy_coefficient=0.05, max_grad_norm=0.1),
        PpoConfiguration(hidden=(16, 16), epochs=8, minibatches=1, lr=1e-2, target_kl=0.002),
    ],
    ids=["plain", "entropy and a tight gradient clip", "early stop"],
)
def test_an_update_moves_the_weights_as_stable_baselines3_moves_them(settings: PpoConfiguration, name: str) -> None:
    peer, learner, samples = peer_and_ours(settings, name)
    before = learner.network.parameters.clone()
    # The buffer's log probabilities are not the policy's; SB3's own train() takes them as they come, and so do we.
    if settings.target_kl is not None or name != "gaussian":
        samples = replace(samples, log_prob=own_log_prob(learner, samples))
        shape = peer.rollout_buffer.log_probs.shape
        peer.rollout_buffer.log_probs = samples.log_prob[0].numpy().reshape(shape[1], shape[0]).T.copy()
    peer.train()
    figures = learner.update(samples, 0.0, 0)
    expected = network_like(settings, name)
    copy_peer(peer, expected)
    assert float((expected.parameters - before).abs().max()) > 1e-4
    torch.testing.assert_close(learner.network.parameters, expected.parameters, rtol=0, atol=1e-6)
    if settings.target_kl is not None:
        assert figures["epochs"] < settings.epochs


@pytest.mark.parametrize("name", SPACES)
def test_losses_and_gradients_equal_those_of_stable_baselines3(name: str) -> None:
    settings = PpoConfiguration(hidden=(16, 16), entropy_coefficient=0.03)
    peer, learner, samples = peer_and_ours(settings, name)
    samples = replace(samples, log_prob=own_log_prob(learner, samples) + samples.log_prob + 2.5)
    batch = gather(samples, torch.arange(T * SLOTS), None)
    losses = loss_and_gradients(learner.network, batch, settings)
    assert losses is not None
    taken = batch.actions.long().flatten() if name == "categorical" else batch.actions
    values, log_prob, entropy = peer.policy.evaluate_actions(batch.features, taken)
    log_ratio = log_prob - batch.log_prob
    ratio = log_ratio.exp()
    policy = -torch.min(ratio * batch.advantages, ratio.clamp(0.8, 1.2) * batch.advantages).mean()
    value = torch.nn.functional.mse_loss(batch.returns, values.flatten())
    assert losses.policy.item() == pytest.approx(policy.item(), rel=1e-6, abs=1e-6)
    assert losses.value.item() == pytest.approx(value.item(), rel=1e-6)
    assert losses.entropy.item() == pytest.approx(entropy.mean().item(), rel=1e-6)
    assert losses.approximate_kl.item() == pytest.approx((ratio - 1 - log_ratio).mean().item(), rel=1e-4, abs=1e-6)
    assert losses.clip_fraction.item() == pytest.approx(((ratio - 1).abs() > 0.2).float().mean().item())
    assert 0.1 < losses.clip_fraction.item() < 0.9
    peer.policy.zero_grad()
    (policy + 0.5 * value - 0.03 * entropy.mean()).backward()
    for parameter in peer.policy.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    slopes = network_like(settings, name)
    copy_peer(peer, slopes)
    torch.testing.assert_close(learner.network.gradients, slopes.parameters, rtol=1e-5, atol=1e-6)


def test_a_learner_restored_from_its_state_takes_the_same_next_step() -> None:
    settings = PpoConfiguration(hidden=(16, 16), minibatches=4)
    _, learner, samples = peer_and_ours(settings)
    learner.update(samples, 0.0, 0)
    state = learner.state()
    learner.update(samples, 0.0, 1)
    other = GroupLearner(network_like(settings, "gaussian"), settings)
    other.restore(state)
    other.update(samples, 0.0, 1)
    assert torch.equal(learner.network.parameters, other.network.parameters)


def test_the_deviation_stays_above_its_floor() -> None:
    settings = PpoConfiguration(hidden=(16, 16), lr=0.1, log_std_minimum=-0.05)
    _, learner, samples = peer_and_ours(settings)
    quiet = replace(samples, actions=samples.actions * 0.01)
    for _ in range(3):
        learner.update(quiet, 0.0, 0)
    assert float(learner.network.log_std.min()) >= -0.05


@pytest.mark.parametrize(
    ("schedule", "half", "end"), [("constant", 1.0, 1.0), ("linear", 0.5, 0.0), ("cosine", 0.5, 0.0)]
)
def test_schedules(schedule: Any, half: float, end: float) -> None:
    settings = PpoConfiguration(lr=1e-3, lr_schedule=schedule)
    assert learning_rate(settings, 0.0) == pytest.approx(1e-3)
    assert learning_rate(settings, 0.5) == pytest.approx(half * 1e-3)
    assert learning_rate(settings, 1.0) == pytest.approx(end * 1e-3, abs=1e-12)


@pytest.mark.parametrize(("schedule", "half", "end"), [("constant", 1.0, 1.0), ("linear", 0.5, 0.0)])
def test_the_weight_of_the_entropy_falls_as_scheduled(schedule: Any, half: float, end: float) -> None:
    settings = PpoConfiguration(entropy_coefficient=0.02, entropy_schedule=schedule)
    assert [entropy_coefficient(settings, at) for at in (0.0, 0.5, 1.0)] == pytest.approx(
        [0.02, half * 0.02, end * 0.02]
    )


def test_an_update_at_half_way_is_one_with_half_the_entropy() -> None:
    falling = PpoConfiguration(hidden=(16, 16), entropy_coefficient=0.2, entropy_schedule="linear")
    halved = PpoConfiguration(hidden=(16, 16), entropy_coefficient=0.1)
    full = PpoConfiguration(hidden=(16, 16), entropy_coefficient=0.2)
    after = []
    for settings in (falling, halved, full):
        _, learner, samples = peer_and_ours(settings)
        learner.update(samples, 0.5, 0)
        after.append(learner.network.parameters.clone())
    torch.testing.assert_close(after[0], after[1], rtol=0, atol=0)
    assert not torch.equal(after[0], after[2])
