"""The gradient through many steps of a twin: exact, cut where it must be, blind to absent assets, and optimal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.linear_quadratic_site import (
    GAMMA,
    GROUP,
    REACH,
    A,
    B,
    HoldAtZero,
    MassConfig,
    MassSite,
    MassTwin,
    Q,
    R,
    mass_problem,
    riccati,
)

from twinloop.agents.analytic_settings import AnalyticConfiguration, ShortHorizonConfiguration
from twinloop.envs.errors import ConfigurationError, NumericalError
from twinloop.envs.twin import Readings, Tensors
from twinloop.training.configuration import TaskChoice, TrainConfiguration
from twinloop.training.problem import Problem
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.run import resume, train
from twinloop.training.run_folder import RunFolder
from twinloop.training.short_horizon_trainer import ShortHorizonTrainer


def configuration(
    iterations: int = 5,
    window: Mapping[str, Any] | None = None,
    learner: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    **changes: Any,
) -> TrainConfiguration:
    settings = {"hidden": (8,), "noise_initial": 0.05, "noise_final": 0.0, "lr": 6e-3, **(learner or {})}
    short = ShortHorizonConfiguration(**{"gamma": GAMMA, "td_lambda": 0.9, **(window or {})})
    data: dict[str, Any] = {
        "name": "mass",
        "site": MassConfig(),
        "task": TaskChoice(name="hold", options=dict(task or {})),
        "learner": AnalyticConfiguration(**settings, short_horizon=short),
        "rollout": RolloutConfiguration(replicas=6, steps=8),
        "iterations": iterations,
    }
    return TrainConfiguration(**{**data, **changes})


def trainer_of(
    config: TrainConfiguration, dtype: torch.dtype = torch.float32, problem: Problem | None = None
) -> ShortHorizonTrainer:
    learner: Any = config.learner
    return ShortHorizonTrainer(config, problem or mass_problem(config), learner, learner.short_horizon, dtype)


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v)]
    return [torch.as_tensor(value)]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.mark.parametrize("weights", ["shared", "separate"])
@pytest.mark.parametrize("task", [{"horizon": 16}, {"horizon": 5}, {"ends_at_step": 3}])
@pytest.mark.parametrize("leaves", [False, True])
def test_the_gradient_is_that_of_finite_differences(weights: str, task: dict[str, int], leaves: bool) -> None:
    config = configuration(
        window={"weights": weights}, task=task, dtype="float64", site=MassConfig(n_assets=2, noise=0.1, leaves=leaves)
    )
    trainer = trainer_of(config, torch.float64)
    for _ in range(2):
        trainer.iterate()
    state = trainer.boundary()()
    _, slopes = trainer.follow()
    actor = trainer._groups[GROUP].actor_values
    theta, step = actor.clone(), 1e-6
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
        found = []
        for sign in (1.0, -1.0):
            trainer.restore(state)
            actor.copy_(theta + sign * step * direction)
            found.append(float(trainer.follow()[0].objective.detach()))
        expected = (found[0] - found[1]) / (2 * step)
        assert float((slopes[GROUP] * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_gradient_is_that_of_equation_5_unrolled_by_hand() -> None:
    config = configuration(
        dtype="float64", site=MassConfig(noise=0.0), task={"horizon": 8}, learner={"noise_initial": 0.0}
    )
    trainer = trainer_of(config, torch.float64)
    group = trainer._groups[GROUP]
    group.actor_values.mul_(5.0)
    x = trainer.boundary()()["replicas"]["twin"]["x"]
    window, slopes = trainer.follow()
    theta = group.actor_values.clone().requires_grad_()
    sizes = [(2, 8), (8, 1)]
    layers, at = [], 0
    for n_in, n_out in sizes:
        layers.append((theta[0, at : at + n_in * n_out].view(n_in, n_out), theta[0, at + n_in * n_out :][:n_out]))
        at += n_in * n_out + n_out
    total = torch.zeros((), dtype=torch.float64)
    a, b, q = (torch.from_numpy(m.copy()) for m in (A, B, Q))
    for t in range(8):
        u = REACH * (torch.tanh(x / REACH @ layers[0][0] + layers[0][1]) @ layers[1][0] + layers[1][1])
        total = total - GAMMA**t * ((x @ q * x).sum() + float(R[0, 0]) * u.square().sum())
        x = x @ a.T + u @ b.T
    total = total + GAMMA**8 * group.target_values(x / REACH).sum()
    torch.testing.assert_close(window.objective, total / (6 * 8), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes[GROUP], torch.autograd.grad(total / (6 * 8), [theta])[0], rtol=1e-9, atol=1e-12)


def test_the_cost_comes_within_two_percent_of_riccatis() -> None:
    config = configuration(
        180, learner={"hidden": (32, 32), "noise_initial": 0.02}, rollout=RolloutConfiguration(replicas=64, steps=12)
    )
    trainer = trainer_of(config)
    for _ in range(180):
        trainer.iterate()
    network, encoder = trainer.export()[GROUP], trainer.encoders[GROUP]
    twin, task = MassTwin(MassConfig(), 256, torch.float32), HoldAtZero()
    readings = twin.reset(torch.arange(256))
    start = twin.x[:, 0].double().numpy()
    cost = 0.0
    for t in range(250):
        x, present = readings.measured[GROUP].numpy(), readings.present[GROUP].numpy()
        features, _ = encoder.encode(x, x[..., :0], present, {}, 0.1)
        commands = {GROUP: torch.from_numpy(network.forward(features)[0])}
        after = twin.step(commands)
        cost -= GAMMA**t * float(task.score(readings, commands, after).reward[GROUP].mean())
        readings = after
    p, _ = riccati()
    assert cost == pytest.approx(np.einsum("bi,ij,bj->b", start, p, start).mean(), rel=0.02)


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_the_data_of_an_absent_asset_change_no_bit_of_what_is_learnt(weights: str) -> None:
    learnt = []
    for junk in (0.0, 1e3, float("nan")):
        site = MassConfig(n_assets=3, leaves=True, junk=junk)
        trainer = trainer_of(configuration(site=site, window={"weights": weights}, task={"horizon": 12}))
        figures = [trainer.iterate() for _ in range(4)]
        learnt.append((figures, {k: trainer.boundary()()[k] for k in ("groups", "moments")}))
    assert learnt[0][0] == learnt[1][0] == learnt[2][0]
    assert same(learnt[0][1], learnt[1][1])
    assert same(learnt[0][1], learnt[2][1])


@pytest.mark.parametrize("window", [{}, {"weights": "separate"}])
def test_resuming_after_any_iteration_equals_never_having_stopped(window: dict[str, Any]) -> None:
    def fresh() -> ShortHorizonTrainer:
        site = MassConfig(n_assets=2, noise=0.1, leaves=True)
        return trainer_of(configuration(site=site, window=window, task={"horizon": 12}))

    trainer = fresh()
    boundaries = [trainer.boundary()]
    figures = []
    for _ in range(5):
        figures.append(trainer.iterate())
        boundaries.append(trainer.boundary())
    states = [boundary() for boundary in boundaries]
    for stopped_after in range(5):
        again = fresh()
        again.restore(states[stopped_after])
        assert [again.iterate() for _ in range(5 - stopped_after)] == figures[stopped_after:]
        assert same(again.boundary()(), states[-1])


def test_a_run_that_is_stopped_and_resumed_equals_one_that_is_not(tmp_path: Path) -> None:
    config = configuration(6, checkpoint_every=2)
    whole = train(config, tmp_path / "whole", problem=mass_problem(config))

    def stop(report: object) -> None:
        if getattr(report, "iteration", 0) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", stop, problem=mass_problem(config))
    again = resume(tmp_path / "broken", problem=mass_problem(config))
    states = [RunFolder(r.folder).checkpoints(3).load_newest()[0] for r in (whole, again)]
    for part in ("groups", "replicas", "moments"):
        assert same(states[0][part], states[1][part])


class DeafTwin(MassTwin):
    """A simulator that is called, not differentiated."""

    def step(self, commands: Tensors) -> Readings:
        with torch.no_grad():
            return super().step(commands)


class DeafSite(MassSite):
    def twin(self, config: MassConfig, n_replicas: int, device: str, dtype: torch.dtype) -> MassTwin:
        return DeafTwin(config, n_replicas, dtype)

    def task(self, name: str, config: MassConfig, options: Mapping[str, Any]) -> HoldAtZero:
        return NoEffort()


class NoEffort(HoldAtZero):
    def score(self, before: Readings, commands: Tensors, after: Readings) -> Any:
        return super().score(before, {GROUP: torch.zeros_like(commands[GROUP])}, after)


def test_a_twin_without_gradient_is_refused_with_the_kinds_that_need_none() -> None:
    config = configuration()
    trainer = trainer_of(config, problem=Problem.of(config, DeafSite()))
    with pytest.raises(ConfigurationError, match="a gradient by the commands; use kind ppo, or masac"):
        trainer.iterate()


class CliffTwin(MassTwin):
    """Its square root has no slope at zero."""

    def _read(self) -> Readings:
        self.x = self.x + 0.0 * (self.x - self.x).sqrt()
        return super()._read()


class CliffSite(MassSite):
    def twin(self, config: MassConfig, n_replicas: int, device: str, dtype: torch.dtype) -> MassTwin:
        return CliffTwin(config, n_replicas, dtype)


def test_a_gradient_that_is_not_finite_says_so() -> None:
    config = configuration()
    trainer = trainer_of(config, problem=Problem.of(config, CliffSite()))
    with pytest.raises(NumericalError, match=r"gradient through 8 steps of the twin is not finite in iteration 1"):
        trainer.iterate()


def test_more_critic_minibatches_than_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="critic_minibatches 49 exceeds the 48 steps of an iteration"):
        configuration(window={"critic_minibatches": 49})
