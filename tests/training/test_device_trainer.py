"""Learning on the twin's device is learning on the host up to rounding, resumes exactly, and leaves no device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.lever_site import lever_configuration, lever_problem

from twinloop.agents.advantages import generalised_advantages as on_host
from twinloop.agents.minibatches import Samples, minibatches
from twinloop.agents.networks import ActorCritic
from twinloop.agents.ppo import loss_and_gradients
from twinloop.agents.ppo_settings import PpoConfiguration
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.twin import Readings
from twinloop.training.benchmarks.drift_site import (
    GROUP,
    DriftConfig,
    DriftSite,
    DriftTwin,
    drift_configuration,
    drift_problem,
)
from twinloop.training.device_samples import generalised_advantages
from twinloop.training.device_trainer import DeviceTrainer, device_obstacle
from twinloop.training.problem import Problem
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.trainer import Trainer
from twinloop.training.workers import make_collector

SMALL = RolloutConfiguration(replicas=4, steps=24)


class ChurnTwin(DriftTwin):
    """Asset 1 is away after every third and fourth step; what its sensors say in the end is no number."""

    def _read(self) -> Readings:
        readings, phase = super()._read(), self._steps % 7
        away = ((phase == 3) | (phase == 4))[:, None] & (torch.arange(3) == 1)
        silent = away & (phase == 4)[:, None]
        measured = readings.measured[GROUP].masked_fill(silent[..., None], torch.nan)
        return replace(readings, measured={GROUP: measured}, present={GROUP: ~away})


class ChurnSite(DriftSite):
    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        return ChurnTwin(config, n_replicas, device, dtype)


def drift(learner: dict[str, Any], churn: bool = False) -> tuple[Any, Problem]:
    settings = PpoConfiguration(minibatches=3, epochs=2, hidden=(8, 8), **learner)
    config = drift_configuration(3, site=DriftConfig(n_assets=3), learner=settings, rollout=SMALL)
    problem = drift_problem(config)
    return config, replace(problem, site=ChurnSite()) if churn else problem


def levers(learner: dict[str, Any]) -> tuple[Any, Problem]:
    config = lever_configuration({"kind": "ppo", "hidden": (8,), **learner}, "both", crank=True)
    return config, lever_problem(config)


CASES: dict[str, Any] = {
    "shared": lambda: drift({}),
    "separate": lambda: drift({"weights": "separate"}),
    "assets away": lambda: drift({}, churn=True),
    "separate, assets away": lambda: drift({"weights": "separate"}, churn=True),
    "team reward, no normaliser": lambda: drift({"team_reward": True, "normalise_features": False}),
    "levels": lambda: levers({}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_iterations_learn_what_the_trainer_on_the_host_learns(case: Any) -> None:
    config, problem = case()
    with make_collector(problem, config) as collector:
        host, device = Trainer(config, problem, collector), DeviceTrainer(config, problem)
        for _ in range(2):
            expected, found = host.iterate(), device.iterate()
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=2e-4, err_msg=name)
        for name, actor in host.policy_weights().items():
            ours = device.policy_weights()[name]
            for one, other in zip(ours.weights, actor.weights, strict=True):
                np.testing.assert_allclose(one, other, atol=2e-5)
            np.testing.assert_allclose(ours.feature_mean, actor.feature_mean, atol=1e-6)
            np.testing.assert_allclose(ours.feature_std, actor.feature_std, rtol=1e-5)
        np.testing.assert_allclose(device.evaluate(), host.evaluate(), rtol=1e-4, atol=1e-5)


def test_a_run_resumed_at_a_boundary_is_the_run_to_the_last_bit() -> None:
    config, problem = levers({"weights": "separate"})
    whole = DeviceTrainer(config, problem)
    whole.iterate()
    state = whole.boundary()()
    figures = whole.iterate()
    resumed = DeviceTrainer(config, problem)
    resumed.restore(state)
    assert resumed.iterate() == figures
    for name, actor in whole.policy_weights().items():
        for one, other in zip(actor.weights, resumed.policy_weights()[name].weights, strict=True):
            assert np.array_equal(one, other)


def test_advantages_equal_those_on_the_host() -> None:
    rng = np.random.default_rng(0)
    reward, value, next_value = (rng.normal(size=(30, 4, 3)).astype(np.float32) for _ in range(3))
    terminated = rng.random((30, 4, 3)) < 0.1
    ended = terminated | (rng.random((30, 4, 3)) < 0.1)
    expected = on_host(reward, value, next_value, terminated, ended, 0.97, 0.9)
    r, v, after, over, cut = (torch.from_numpy(a) for a in (reward, value, next_value, terminated, ended))
    for one, other in zip(generalised_advantages(r, v, after, over, cut, 0.97, 0.9), expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stacks", [1, 3])
@pytest.mark.parametrize("level_counts", [(), (3, 2)])
def test_a_minibatchs_gradient_leaves_no_device(stacks: int, level_counts: tuple[int, ...]) -> None:
    """A meta tensor has no numbers: whatever asked for one on the host, or mixed devices, would raise."""
    n_outputs, rows = 2 + sum(level_counts), 24
    parameters = ActorCritic(5, n_outputs, (8,), (4,), level_counts=level_counts, n_stacks=stacks).parameters
    network = ActorCritic(
        5, n_outputs, (8,), (4,), level_counts=level_counts, n_stacks=stacks, parameters=parameters.to("meta")
    )

    def numbers(*shape: int) -> torch.Tensor:
        return torch.zeros(stacks, rows, *shape, device="meta")

    samples = Samples(
        features=numbers(5),
        actions=numbers(2 + len(level_counts)),
        log_prob=numbers(),
        advantages=numbers(),
        returns=numbers(),
        legal=numbers(sum(level_counts)) == 0 if level_counts else None,
    )
    for batch in minibatches(samples, 3, torch.Generator().manual_seed(0)):
        losses = loss_and_gradients(network, batch, PpoConfiguration())
        assert losses is not None
        assert losses.policy.device.type == "meta"
    assert network.gradients.device.type == "meta"


def test_what_needs_the_host_is_named() -> None:
    recurrent: dict[str, Any] = {"gru": 4, "sequence_steps": 8}
    for learner, words in ((recurrent, "learner.gru"), ({"reward_scaling": "return_std"}, "reward_scaling")):
        config, problem = drift(learner)
        assert words in str(device_obstacle(config))
        with pytest.raises(ConfigurationError, match=words):
            DeviceTrainer(config, problem)
    assert device_obstacle(drift({})[0]) is None
