"""The learner's mathematics against Stable-Baselines3 on the same tensors."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.logger import Logger

from twinloop.agents.advantages import generalised_advantages
from twinloop.agents.distributions import entropy, log_prob, log_prob_of_noise
from twinloop.agents.networks import ActorCritic
from twinloop.agents.ppo import GroupLearner, Samples, learning_rate, loss_and_gradients
from twinloop.agents.ppo_settings import PpoConfiguration

T, SLOTS, F, K = 24, 6, 5, 2
OBSERVATIONS, ACTIONS = Box(-np.inf, np.inf, (F,), np.float32), Box(-1.0, 1.0, (K,), np.float32)


class Still(gymnasium.Env[Any, Any]):
    """Spaces alone: Stable-Baselines3 wants an environment to build a policy."""

    observation_space, action_space = OBSERVATIONS, ACTIONS

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(F, np.float32), {}


def filled_buffer(rng: np.random.Generator, gamma: float = 0.97, gae_lambda: float = 0.9) -> tuple[Any, Any, Any]:
    """A full SB3 buffer, the value after its last step, and whether an episode ended with it."""
    buffer = RolloutBuffer(T, OBSERVATIONS, ACTIONS, gamma=gamma, gae_lambda=gae_lambda, n_envs=SLOTS)
    start = np.ones(SLOTS, np.float32)
    done = start
    for _ in range(T):
        buffer.add(
            rng.normal(size=(SLOTS, F)).astype(np.float32),
            rng.normal(size=(SLOTS, K)).astype(np.float32),
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


def test_log_probability_and_entropy_equal_those_of_stable_baselines3() -> None:
    rng = np.random.default_rng(2)
    mean, noise = (torch.from_numpy(rng.normal(size=(50, K)).astype(np.float32)) for _ in range(2))
    log_std = torch.tensor([-0.7, 0.4])
    peer = DiagGaussianDistribution(K).proba_distribution(mean, log_std)
    actions = mean + log_std.exp() * noise
    torch.testing.assert_close(log_prob((actions - mean) / log_std.exp(), log_std), peer.log_prob(actions))
    np.testing.assert_allclose(
        log_prob_of_noise(noise.numpy(), log_std.numpy()), peer.log_prob(actions).numpy(), rtol=1e-5, atol=1e-5
    )
    assert float(entropy(log_std)) == pytest.approx(float(torch.as_tensor(peer.entropy())[0]), abs=1e-6)


def peer_and_ours(settings: PpoConfiguration) -> tuple[Any, GroupLearner, Samples]:
    """SB3's PPO with a full buffer, our learner with the same weights, and the same samples."""
    buffer, _, _ = filled_buffer(np.random.default_rng(3))
    peer = PPO(
        "MlpPolicy", Still(), n_steps=T * SLOTS, batch_size=T * SLOTS, n_epochs=settings.epochs, seed=5, device="cpu",
        learning_rate=settings.lr, clip_range=settings.clip, vf_coef=settings.value_coefficient,
        ent_coef=settings.entropy_coefficient, max_grad_norm=settings.max_grad_norm, target_kl=settings.target_kl,
        policy_kwargs={"net_arch": list(settings.hidden), "activation_fn": torch.nn.Tanh},
    )  # fmt: skip
    peer.rollout_buffer = buffer
    peer.set_logger(Logger(folder=None, output_formats=[]))
    ours = ActorCritic(F, K, settings.hidden, settings.hidden)
    copy_peer(peer, ours)

    def flat(array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(RolloutBuffer.swap_and_flatten(array).copy())

    samples = Samples(
        features=flat(buffer.observations),
        actions=flat(buffer.actions),
        log_prob=flat(buffer.log_probs).flatten(),
        advantages=flat(buffer.advantages).flatten(),
        returns=flat(buffer.returns).flatten(),
    )
    return peer, GroupLearner(ours, settings), samples


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
    ours.log_std.copy_(policy.log_std.detach())


@pytest.mark.parametrize(
    "settings",
    [
        PpoConfiguration(hidden=(16, 16), epochs=3, minibatches=1, lr=1e-3),
        PpoConfiguration(hidden=(16, 16), epochs=2, minibatches=1, entropy_coefficient=0.05, max_grad_norm=0.1),
        PpoConfiguration(hidden=(16, 16), epochs=8, minibatches=1, lr=1e-2, target_kl=0.002),
    ],
    ids=["plain", "entropy and a tight gradient clip", "early stop"],
)
def test_an_update_moves_the_weights_as_stable_baselines3_moves_them(settings: PpoConfiguration) -> None:
    peer, learner, samples = peer_and_ours(settings)
    before = learner.network.parameters.clone()
    # The buffer's log probabilities are not the policy's; SB3's own train() takes them as they come, and so do we.
    if settings.target_kl is not None:
        mean = learner.network.actor.forward(samples.features)[-1]
        own = log_prob((samples.actions - mean) / learner.network.log_std.exp(), learner.network.log_std)
        samples = Samples(**{**vars(samples), "log_prob": own})
        shape = peer.rollout_buffer.log_probs.shape
        peer.rollout_buffer.log_probs = own.numpy().reshape(shape[1], shape[0]).T.copy()
    peer.train()
    figures = learner.update(samples, 0.0, torch.Generator().manual_seed(0))
    expected = ActorCritic(F, K, settings.hidden, settings.hidden)
    copy_peer(peer, expected)
    assert float((expected.parameters - before).abs().max()) > 1e-4
    torch.testing.assert_close(learner.network.parameters, expected.parameters, rtol=0, atol=1e-6)
    if settings.target_kl is not None:
        assert figures["epochs"] < settings.epochs


def test_losses_equal_the_definition() -> None:
    settings = PpoConfiguration(hidden=(16, 16))
    _, learner, samples = peer_and_ours(settings)
    losses = loss_and_gradients(learner.network, samples, settings)
    mean = learner.network.actor.forward(samples.features)[-1]
    peer = DiagGaussianDistribution(K).proba_distribution(mean, learner.network.log_std)
    ratio = torch.exp(peer.log_prob(samples.actions) - samples.log_prob)
    surrogate = torch.min(ratio * samples.advantages, ratio.clamp(0.8, 1.2) * samples.advantages)
    assert float(losses.policy) == pytest.approx(-float(surrogate.mean()), rel=1e-5)
    value = learner.network.values(samples.features)
    assert float(losses.value) == pytest.approx(float((value - samples.returns).square().mean()), rel=1e-5)
    assert float(losses.approximate_kl) == pytest.approx(float((ratio - 1 - ratio.log()).mean()), rel=1e-4)
    assert float(losses.clip_fraction) == pytest.approx(float(((ratio - 1).abs() > 0.2).float().mean()))


def test_a_learner_restored_from_its_state_takes_the_same_next_step() -> None:
    settings = PpoConfiguration(hidden=(16, 16), minibatches=4)
    _, learner, samples = peer_and_ours(settings)
    learner.update(samples, 0.0, torch.Generator().manual_seed(0))
    state = learner.state()
    learner.update(samples, 0.0, torch.Generator().manual_seed(1))
    other = GroupLearner(ActorCritic(F, K, settings.hidden, settings.hidden), settings)
    other.restore(state)
    other.update(samples, 0.0, torch.Generator().manual_seed(1))
    assert torch.equal(learner.network.parameters, other.network.parameters)


def test_the_deviation_stays_above_its_floor() -> None:
    settings = PpoConfiguration(hidden=(16, 16), lr=0.1, log_std_minimum=-0.05)
    _, learner, samples = peer_and_ours(settings)
    quiet = Samples(**{**vars(samples), "actions": samples.actions * 0.01})
    for _ in range(3):
        learner.update(quiet, 0.0, torch.Generator().manual_seed(0))
    assert float(learner.network.log_std.min()) >= -0.05


@pytest.mark.parametrize(
    ("schedule", "half", "end"), [("constant", 1.0, 1.0), ("linear", 0.5, 0.0), ("cosine", 0.5, 0.0)]
)
def test_schedules(schedule: Any, half: float, end: float) -> None:
    settings = PpoConfiguration(lr=1e-3, lr_schedule=schedule)
    assert learning_rate(settings, 0.0) == pytest.approx(1e-3)
    assert learning_rate(settings, 0.5) == pytest.approx(half * 1e-3)
    assert learning_rate(settings, 1.0) == pytest.approx(end * 1e-3, abs=1e-12)
