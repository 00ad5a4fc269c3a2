"""Soft actor-critic against Stable-Baselines3 on the same tensors, and what must not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from twinloop.agents.relu_network import ReluNetwork
from twinloop.agents.sac import SacLearner, Transitions
from twinloop.agents.sac_group import squash
from twinloop.agents.sac_settings import SacConfiguration

BATCH, FEATURES, ACTIONS = 64, 5, 3
GROUP = "asset"


def settings(**changes: Any) -> SacConfiguration:
    return SacConfiguration(**{"hidden": (32, 16), "batch": BATCH, "lr": 1e-3, **changes})


def learner(config: SacConfiguration, sizes: Mapping[str, tuple[int, int, int]] | None = None) -> SacLearner:
    sizes = sizes or {GROUP: (1, FEATURES, ACTIONS)}
    generators = {name: torch.Generator().manual_seed(k) for k, name in enumerate(sizes)}
    return SacLearner(sizes, config, generators)


def transitions(n_assets: int = 1, seed: int = 0, n_features: int = FEATURES, n_actions: int = ACTIONS) -> Transitions:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(BATCH, *shape)).astype(np.float32))

    present = torch.from_numpy((rng.random((BATCH, n_assets)) < (1.0 if n_assets == 1 else 0.7)).astype(np.float32))
    after = torch.from_numpy((rng.random((BATCH, n_assets)) < (1.0 if n_assets == 1 else 0.7)).astype(np.float32))
    return Transitions(
        features=normal(n_assets, n_features) * present[..., None],
        actions=normal(n_assets, n_actions).tanh() * present[..., None],
        reward=normal(n_assets) * present,
        present=present,
        next_features=normal(n_assets, n_features) * after[..., None],
        present_after=after,
        terminated=torch.from_numpy((rng.random(BATCH) < 0.3).astype(np.float32)),
    )


class SameBatch:
    """A replay buffer that gives one batch."""

    def __init__(self, t: Transitions) -> None:
        self._samples = ReplayBufferSamples(
            t.features[:, 0], t.actions[:, 0], t.next_features[:, 0], t.terminated[:, None], t.reward
        )

    def sample(self, *args: Any, **kwargs: Any) -> ReplayBufferSamples:
        return self._samples


class Watch(Logger):
    """Keeps what is recorded."""

    def __init__(self) -> None:
        super().__init__(None, [])
        self.figures: dict[str, Any] = {}

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        self.figures[key] = value


def load(network: ReluNetwork, k: int, linears: list[torch.nn.Linear]) -> None:
    """Copy linear layers into network ``k`` of a stack."""
    for weight, bias, linear in zip(network.weights, network.biases, linears, strict=True):
        weight[k], bias[k, 0] = linear.weight.detach().t(), linear.bias.detach()


def linears_of(*modules: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for m in modules for layer in m.modules() if isinstance(layer, torch.nn.Linear)]


def actor_linears(model: SAC) -> list[torch.nn.Linear]:
    """Both heads of Stable-Baselines3 as one layer."""
    actor: Any = model.policy.actor
    head = torch.nn.Linear(16, 2 * ACTIONS)
    head.weight.data = torch.cat([actor.mu.weight.data, actor.log_std.weight.data])
    head.bias.data = torch.cat([actor.mu.bias.data, actor.log_std.bias.data])
    return [*linears_of(actor.latent_pi), head]


Layers = list[tuple[torch.Tensor, torch.Tensor]]


def slopes_of(network: ReluNetwork, k: int) -> Layers:
    """Gradients of network ``k`` of a stack, shaped as a linear layer has them."""
    return [
        (weight[k].t(), bias[k, 0])
        for weight, bias in zip(network.weight_gradients, network.bias_gradients, strict=True)
    ]


def layers_of(network: ReluNetwork, k: int) -> Layers:
    return [(weight[k].t(), bias[k, 0]) for weight, bias in zip(network.weights, network.biases, strict=True)]


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_losses_gradients_and_weights_equal_those_of_stable_baselines3() -> None:
    spaces = SimpleNamespace(
        observation=gymnasium.spaces.Box(-10, 10, (FEATURES,)), action=gymnasium.spaces.Box(-1, 1, (ACTIONS,))
    )

    class Nothing(gymnasium.Env[Any, Any]):
        observation_space, action_space = spaces.observation, spaces.action

    model = SAC("MlpPolicy", Nothing(), learning_rate=1e-3, ent_coef="auto_0.3", gamma=0.9, tau=0.02, seed=5,
                policy_kwargs={"net_arch": [32, 16]})  # fmt: skip
    for parameter in model.critic_target.parameters():  # targets that differ from the critics show a mix-up
        parameter.data += 0.01
    batch = transitions()
    model.replay_buffer = SameBatch(batch)  # type: ignore[assignment]  # all that train() asks of it
    watch = Watch()
    model.set_logger(watch)

    ours = learner(settings(gamma=0.9, tau=0.02, temperature_initial=0.3))
    group = ours.groups[GROUP]
    with torch.no_grad():
        load(group.actor, 0, actor_linears(model))
        for k, (net, target) in enumerate(zip(model.critic.q_networks, model.critic_target.q_networks, strict=True)):
            load(group.critics, k, linears_of(net))
            load(group.targets, k, linears_of(target))

    gradients: dict[str, Any] = {}

    def keep(optimiser: torch.optim.Optimizer, name: str, what: Any) -> None:
        optimiser.register_step_pre_hook(lambda *_: gradients.__setitem__(name, what()))

    def slopes(linears: list[torch.nn.Linear]) -> list[Any]:
        return [(m.weight.grad.clone(), m.bias.grad.clone()) for m in linears]  # type: ignore[union-attr]  # after backward

    actor: Any = model.policy.actor
    temperature: Any = model.ent_coef_optimizer
    keep(model.critic.optimizer, "critics", lambda: [slopes(linears_of(q)) for q in model.critic.q_networks])
    keep(actor.optimizer, "actor", lambda: slopes(linears_of(actor.latent_pi)) + slopes([actor.mu, actor.log_std]))
    keep(temperature, "log_temperature", lambda: torch.clone(temperature.param_groups[0]["params"][0].grad))
    for step in range(3):
        torch.manual_seed(step)
        noise = [torch.normal(torch.zeros(BATCH, ACTIONS), torch.ones(BATCH, ACTIONS)) for _ in range(2)]
        torch.manual_seed(step)
        model.train(1, BATCH)
        figures = ours.update({GROUP: batch}, {GROUP: torch.cat(noise)[None]})
        theirs = {key.removeprefix("train/"): value for key, value in watch.figures.items()}
        assert float(figures[f"{GROUP}/critic_loss"]) == pytest.approx(theirs["critic_loss"], rel=1e-5)
        assert float(figures[f"{GROUP}/actor_loss"]) == pytest.approx(theirs["actor_loss"], rel=1e-5, abs=1e-5)
        close([slopes_of(group.critics, k) for k in range(2)], gradients["critics"])
        *body, mean, log_std = gradients["actor"]
        close(slopes_of(group.actor, 0), [*body, tuple(torch.cat(pair) for pair in zip(mean, log_std, strict=True))])
        close(group.log_temperature_gradient, gradients["log_temperature"])
    close(layers_of(group.actor, 0), [(m.weight.data, m.bias.data) for m in actor_linears(model)])
    for k, target in enumerate(model.critic_target.q_networks):
        close(layers_of(group.targets, k), [(m.weight.data, m.bias.data) for m in linears_of(target)])
    assert model.log_ent_coef is not None
    close(group.log_temperature, model.log_ent_coef.detach())


def referee(ours: SacLearner, batch: Mapping[str, Transitions], noise: Mapping[str, torch.Tensor]) -> dict[str, Layers]:
    """Gradients of every network by automatic differentiation, one asset and one network after another, in plain sums
    over present assets; from the weights as they are."""
    s, found = ours.settings, {}
    order = [(name, i) for name, g in ours.groups.items() for i in range(g.n_assets)]

    def run(layers: Layers, x: torch.Tensor) -> torch.Tensor:
        for weight, bias in layers[:-1]:
            x = torch.relu(x @ weight.t() + bias)
        return x @ layers[-1][0].t() + layers[-1][1]

    def act(layers: Layers, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = run(layers, x).chunk(2, -1)
        u = mean + log_std.clamp(-20, 2).exp() * z
        normal: Any = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        return u.tanh(), (normal.log_prob(u) - torch.log(1 - u.tanh().square() + 1e-6)).sum(-1)

    def copies(layers: Layers) -> Layers:
        return [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in layers]

    def asset_noise(name: str, i: int, late: bool) -> torch.Tensor:
        g, z = ours.groups[name], noise[name]
        part = z[:, z.shape[1] // 2 :] if late else z[:, : z.shape[1] // 2]
        return part[i] if g.is_separate else part[0].reshape(BATCH, g.n_assets, -1)[:, i]

    def stack(name: str, i: int) -> int:
        return i if ours.groups[name].is_separate else 0

    actors = {(n, k): copies(layers_of(g.actor, k)) for n, g in ours.groups.items() for k in range(g.n_stacks)}
    chosen = {(n, i): act(actors[n, stack(n, i)], batch[n].features[:, i], asset_noise(n, i, False)) for n, i in order}
    later = {
        (n, i): act(actors[n, stack(n, i)], batch[n].next_features[:, i], asset_noise(n, i, True)) for n, i in order
    }

    def view(
        name: str, i: int, features: str, actions: Mapping[tuple[str, int], torch.Tensor], mask: str
    ) -> torch.Tensor:
        parts = [getattr(batch[name], features)[:, i], actions[name, i]]
        for n, j in order if s.critic == "joint" else []:
            own = torch.cat([getattr(batch[n], features)[:, j], actions[n, j].detach()], -1)
            parts.append(own * (getattr(batch[n], mask)[:, j, None] * ((n, j) != (name, i))))
        return torch.cat(parts, -1)

    for name, g in ours.groups.items():
        b = batch[name]
        temperature = g.log_temperature.exp().expand(g.n_assets)
        for k in range(g.n_stacks):
            mine = [i for i in range(g.n_assets) if stack(name, i) == k]
            twins = [copies(layers_of(g.critics, t * g.n_stacks + k)) for t in (0, 1)]
            targets = [layers_of(g.targets, t * g.n_stacks + k) for t in (0, 1)]
            count = b.present[:, mine].sum()
            loss = torch.zeros(())
            for i in mine:
                after = view(name, i, "next_features", {key: a for key, (a, _) in later.items()}, "present_after")
                best = torch.minimum(*(run(t, after)[:, 0] for t in targets)) - temperature[i] * later[name, i][1]
                wanted = b.reward[:, i] + s.gamma * (1 - b.terminated) * b.present_after[:, i] * best
                was = {key: batch[key[0]].actions[:, key[1]] for key in order}
                for twin in twins:
                    value = run(twin, view(name, i, "features", was, "present"))[:, 0]
                    loss = loss + 0.5 * ((value - wanted.detach()).square() * b.present[:, i]).sum() / count
            for t, twin in enumerate(twins):
                slopes = torch.autograd.grad(loss, [x for pair in twin for x in pair], retain_graph=True)
                found[f"{name}/critic/{t}/{k}"] = list(zip(slopes[::2], slopes[1::2], strict=True))
            loss = torch.zeros(())
            for i in mine:
                now = view(name, i, "features", {key: a for key, (a, _) in chosen.items()}, "present")
                worst = torch.minimum(*(run(twin, now)[:, 0] for twin in twins))
                loss = loss + ((temperature[i] * chosen[name, i][1] - worst) * b.present[:, i]).sum() / count
            slopes = torch.autograd.grad(loss, [x for pair in actors[name, k] for x in pair], retain_graph=True)
            found[f"{name}/actor/0/{k}"] = list(zip(slopes[::2], slopes[1::2], strict=True))
    return found


UNLIKE = {"pump": (3, 4, 2), "valve": (2, 3, 1)}


@pytest.mark.parametrize("weights", ["shared", "separate"])
@pytest.mark.parametrize("critic", ["own", "joint"])
def test_gradients_equal_automatic_differentiation_asset_by_asset(weights: Any, critic: Any) -> None:
    # so small a step leaves the critics as they are when the actor follows them
    ours = learner(settings(weights=weights, critic=critic, temperature_per="asset", lr=1e-12), UNLIKE)
    batch = {n: transitions(k, seed, f, a) for seed, (n, (k, f, a)) in enumerate(UNLIKE.items())}
    noise = ours.noise(BATCH, torch.Generator().manual_seed(3))
    expected = referee(ours, batch, noise)
    ours.update(batch, noise)
    assert len(expected) == (2 + 1) * (2 if weights == "shared" else 5)
    for key, slopes in expected.items():
        name, what, twin, k = key.split("/")
        group = ours.groups[name]
        network = group.critics if what == "critic" else group.actor
        close(slopes_of(network, int(twin) * group.n_stacks + int(k)), slopes)


def test_each_temperature_follows_the_entropy_of_its_own_asset() -> None:
    sizes = {GROUP: (2, FEATURES, ACTIONS)}
    each = learner(settings(temperature_per="asset", entropy_target=-2.0), sizes)
    batch = {GROUP: transitions(2)}
    noise = each.noise(BATCH, torch.Generator().manual_seed(3))
    group = each.groups[GROUP]
    head = group.actor.forward(group.rows(batch[GROUP].features))[-1]
    log_prob = group.assets(squash(head, noise[GROUP][:, : 2 * BATCH]).log_prob)
    expected = [-(log_prob[batch[GROUP].present[:, i] > 0, i] - 2.0 * ACTIONS).mean() for i in (0, 1)]
    each.update(batch, noise)
    close(group.log_temperature_gradient, torch.stack(expected))


def test_a_fixed_temperature_stays() -> None:
    ours = learner(settings(temperature_learnt=False, temperature_initial=0.2))
    ours.update({GROUP: transitions()}, ours.noise(BATCH, torch.Generator().manual_seed(3)))
    assert ours.groups[GROUP].log_temperature.exp().item() == pytest.approx(0.2)


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_with_one_agent_a_joint_critic_is_an_own_one_bit_for_bit(weights: Any) -> None:
    learnt = []
    for critic in ("own", "joint"):
        ours = learner(settings(weights=weights, critic=critic))
        for seed in range(3):
            ours.update({GROUP: transitions(seed=seed)}, ours.noise(BATCH, torch.Generator().manual_seed(seed)))
        learnt.append(ours.groups[GROUP].state())
    assert torch.equal(learnt[0]["policy"]["values"], learnt[1]["policy"]["values"])
    assert torch.equal(learnt[0]["targets"], learnt[1]["targets"])


@pytest.mark.parametrize("critic", ["own", "joint"])
def test_separate_weights_of_an_asset_that_is_always_away_do_not_move(critic: Any) -> None:
    ours = learner(settings(weights="separate", critic=critic), {GROUP: (2, FEATURES, ACTIONS)})
    before = layers_of(ours.groups[GROUP].actor, 1)
    kept = [(w.clone(), b.clone()) for w, b in before]
    b = transitions(2)
    away = torch.tensor([1.0, 0.0])
    b = replace(
        b, features=b.features * away[:, None], actions=b.actions * away[:, None], reward=b.reward * away,
        next_features=b.next_features * away[:, None], present=b.present * away, present_after=b.present_after * away,
    )  # fmt: skip
    ours.update({GROUP: b}, ours.noise(BATCH, torch.Generator().manual_seed(3)))
    assert all(torch.equal(x, y) for old, new in zip(kept, before, strict=True) for x, y in zip(old, new, strict=True))


def test_the_state_holds_all_that_further_updates_depend_on() -> None:
    def step(ours: SacLearner, k: int) -> None:
        ours.update({GROUP: transitions(seed=k)}, ours.noise(BATCH, torch.Generator().manual_seed(k)))

    first, second = learner(settings()), learner(settings())
    step(first, 0)
    second.groups[GROUP].restore(first.groups[GROUP].state())
    for ours in (first, second):
        step(ours, 1)
    states = [ours.groups[GROUP].state() for ours in (first, second)]
    for part in ("policy", "critics"):
        assert torch.equal(states[0][part]["values"], states[1][part]["values"])
    assert torch.equal(states[0]["targets"], states[1]["targets"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"buffer": 10}, "smaller than learner.batch"),
        ({"buffer": 100}, "smaller than the 128 joint steps of an iteration"),
        ({"normalise_features": True, "warm_up": 0}, "takes its moments from the warm-up"),
        ({"entropy_target": -1.0, "temperature_learnt": False}, "leave one out"),
    ],
)
def test_settings_that_do_not_agree_are_refused(changes: dict[str, Any], words: str) -> None:
    complaint = settings(**changes).disagreement(replicas=2, steps=64, workers=0, shards=1, iterations=True)
    assert complaint is not None
    assert words in complaint
