"""Learning by the gradient of the reward through a differentiable twin.

For a task that answers at once (a steady farm), the reward's derivative by each command is exact and costs one
backward pass through the twin, where a likelihood-ratio learner estimates it from noise. The reward is smoothed by
noise on the commands, because a twin may have thresholds; the noise shrinks with the iterations. Every iteration
plays episodes of its own, so nothing but the weights, the moments and a counter goes into a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..agents.action_layout import Float32
from ..agents.actor import ActorWeights, to_policy_network
from ..agents.analytic_settings import AnalyticConfiguration
from ..agents.forward import PolicyNetwork
from ..agents.networks import ActorCritic
from ..agents.ppo import learning_rate
from ..envs import noise
from ..envs.errors import ConfigurationError, NumericalError
from ..envs.twin import Readings
from .actor_evaluation import evaluate_actors, mean_reward
from .configuration import TrainConfiguration
from .differentiable_commands import check_continuous, differentiable_commands
from .normaliser import RunningMoments
from .numerical_guard import Where, check_readings, check_reward
from .problem import Problem
from .seeds import ACTION_STREAM, episode_seeds, initial_generator, row_seeds
from .workers import one_thread

_OUTLIER = 5.0
"""Gradients beyond so many times their root mean square are cut: a threshold of the twin, not a slope."""


class AnalyticTrainer:
    """Drop-in for :class:`~twinloop.training.trainer.Trainer`, without a collector.

    Raises :class:`~twinloop.envs.errors.ConfigurationError` for a twin that gives no gradient and for discrete
    commands.
    """

    def __init__(self, config: TrainConfiguration, problem: Problem, settings: AnalyticConfiguration) -> None:
        check_continuous(problem, settings.kind)
        self.config, self.problem, self._settings = config, problem, settings
        self.nameplate = problem.nameplate()
        self.encoders = problem.encoders(self.nameplate)
        self.layouts = problem.layouts(self.nameplate)
        self.iteration = 0
        self.agent_steps = 0
        self._twin = problem.twin(config.rollout.replicas)
        self._task = problem.task()
        self._networks: dict[str, ActorCritic] = {}
        self._adams: dict[str, torch.optim.Adam] = {}
        self._moments: dict[str, RunningMoments] = {}
        for number, (name, encoder) in enumerate(self.encoders.items()):
            network = ActorCritic(encoder.n_features, len(self.layouts[name].columns), settings.hidden, (1,))
            network.initialise(0.0, initial_generator(config.seed, number))
            parameter = torch.nn.Parameter(network.parameters, requires_grad=False)
            parameter.grad = network.gradients
            self._networks[name] = network
            self._adams[name] = torch.optim.Adam([parameter], lr=settings.lr, eps=settings.adam_epsilon, fused=True)
            self._moments[name] = RunningMoments(encoder.n_features)

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        if self.config.iterations is None:
            raise ConfigurationError("learner kind analytic: give iterations, not agent_steps")
        return self.config.iterations

    def iterate(self) -> dict[str, float]:
        """Play fresh episodes, follow the gradient, and return the iteration's figures."""
        with one_thread():
            figures = self._iterate()
        self.iteration += 1
        figures["agent_steps"] = float(self.agent_steps)
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def _iterate(self) -> dict[str, float]:
        progress = self.iteration / self.n_iterations
        rows = row_seeds(self.config.seed, torch.arange(self.config.rollout.replicas))
        turn = torch.full_like(rows, self.iteration)
        before = self._twin.reset(episode_seeds(rows, turn))
        self._check(before, rows, 0)
        memory = {
            name: encoder.start(len(rows), before.measured[name].shape[1], before.measured[name])
            for name, encoder in self.encoders.items()
        }
        steps = self.config.rollout.steps
        for step in range(steps):
            features = self._features(before, memory)
            heads = {name: self._forward(name, x) for name, x in features.items()}
            if step < steps - 1:
                with torch.no_grad():
                    before = self._twin.step(self._commands({k: h[-1] for k, h in heads.items()}, before))
                    self._check(before, rows, step + 1)
        actions = {}
        for number, (name, outputs) in enumerate(heads.items()):
            shaken = outputs[-1].clamp(-1.0, 1.0) + self._noise(rows, turn, number, outputs[-1].shape, progress)
            actions[name] = shaken.clamp(-1.0, 1.0).requires_grad_()
        commands = self._commands(actions, before)
        after = self._twin.step(commands)
        self._check(after, rows, steps)
        reward = self._task.score(before, commands, after).reward
        for name in actions:
            given, present = (x.numpy(force=True) for x in (reward[name], before.present[name]))
            check_reward(given, present, self.nameplate, name, 0, self._where(rows, steps))
        total = sum(reward[name].sum() for name in actions)
        if not isinstance(total, torch.Tensor) or not total.requires_grad:
            raise ConfigurationError(
                "learner kind analytic: the reward of this twin and task has no gradient by the commands; use kind ppo"
            )
        slopes = torch.autograd.grad(total, list(actions.values()))
        figures = {"reward/mean": mean_reward((reward[n].detach(), before.present[n]) for n in actions)}
        for (name, outputs), slope in zip(heads.items(), slopes, strict=True):
            figures |= {f"{name}/{k}": v for k, v in self._update(name, outputs, slope, before, progress).items()}
            if self.iteration < self._settings.normalise_iterations:
                present = before.present[name].cpu().numpy()
                self._moments[name].add(features[name].numpy()[present])
            self.agent_steps += steps * int(before.present[name].sum())
        return figures

    def _check(self, readings: Readings, rows: torch.Tensor, step: int) -> None:
        """Raise NumericalError for a measured signal of a present asset that is not finite."""
        where = self._where(rows, step)
        check_readings(readings, self.nameplate, tuple(self.encoders), 0, where, hidden=False)

    def _where(self, rows: torch.Tensor, step: int) -> Where:
        def told(row: int) -> str:
            seed = int(episode_seeds(rows[row : row + 1], torch.tensor([self.iteration])))
            return f"step {step} of episode {self.iteration} (seed {seed})"

        return told

    def _features(self, readings: Readings, memory: dict[str, Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Raw features ``[B, N, F]`` of every group; ``memory`` moves on."""
        found = {}
        for name, encoder in self.encoders.items():
            seen = (readings.measured[name].detach(), readings.statics[name], readings.present[name])
            x, memory[name] = encoder.encode(*seen, memory[name], self._twin.dt_s)
            found[name] = x.detach().to("cpu", torch.float32)
        return found

    def _forward(self, name: str, features: torch.Tensor) -> list[torch.Tensor]:
        mean, std = (torch.from_numpy(a) for a in self._standard(name))
        clip = self._settings.feature_clip
        x = ((features - mean) / std).clamp(-clip, clip)
        outputs = self._networks[name].actor.forward(x.reshape(-1, x.shape[-1]))
        outputs[-1] = outputs[-1].reshape(*x.shape[:-1], -1)
        return outputs

    def _commands(self, actions: Mapping[str, torch.Tensor], readings: Readings) -> dict[str, torch.Tensor]:
        return differentiable_commands(self.nameplate, self.layouts, actions, readings)

    def _noise(
        self, rows: torch.Tensor, turn: torch.Tensor, number: int, shape: torch.Size, progress: float
    ) -> torch.Tensor:
        s = self._settings
        size = s.noise_initial + (s.noise_final - s.noise_initial) * progress
        draws = noise.normal(rows, turn, ACTION_STREAM + number, shape[1] * shape[2], torch.float32)
        return draws.reshape(shape) * size

    def _update(
        self, name: str, outputs: list[torch.Tensor], slope: torch.Tensor, readings: Readings, progress: float
    ) -> dict[str, float]:
        """One Adam step along ``slope`` ``[B, N, K]``, the reward's derivative by the actions."""
        network, present = self._networks[name], readings.present[name].cpu()[..., None]
        head = outputs[-1]
        # beyond a stop only a slope that leads back counts
        free = (head.abs() < 1.0) | (head * slope < 0)
        slope = torch.nan_to_num(slope, 0.0, 0.0, 0.0) * present * free
        count = max(1, int(present.sum()))
        size = float(torch.sqrt(slope.square().sum() / count))
        slope = slope.clamp(-_OUTLIER * size, _OUTLIER * size) / (max(size, 1e-12) * count)
        network.gradients.zero_()
        network.actor.backward(outputs, -slope.reshape(-1, slope.shape[-1]))
        norm = float(torch.linalg.vector_norm(network.gradients))
        network.gradients.mul_(min(1.0, self._settings.max_grad_norm / (norm + 1e-6)))
        lr = learning_rate(self._settings, progress)
        self._adams[name].param_groups[0]["lr"] = lr
        self._adams[name].step()
        if not torch.isfinite(network.parameters).all():
            raise NumericalError(
                f"learner of group {name!r}: weights are no longer finite after iteration {self.iteration + 1}; "
                "lower learner.lr or learner.max_grad_norm"
            )
        return {"slope": size, "gradient_norm": norm, "lr": lr}

    def _standard(self, name: str) -> tuple[Float32, Float32]:
        return self._moments[name].standard()

    def policy_weights(self) -> dict[str, ActorWeights]:
        """The acting half of every group."""
        clip = self._settings.feature_clip
        return {n: net.actor_weights(*self._standard(n), clip) for n, net in self._networks.items()}

    def export(self) -> dict[str, PolicyNetwork]:
        """The acting half of every group, as an artifact ships it."""
        weights = self.policy_weights()
        return {n: to_policy_network(w, self.layouts[n]) for n, w in weights.items()}

    def evaluate(self) -> float:
        """Mean reward an agent-step, on replicas that it does not learn from."""
        return evaluate_actors(self.config, self.problem, self.policy_weights())

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Everything that the rest of the run depends on."""
        held = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "moments": {name: moments.state() for name, moments in self._moments.items()},
            "networks": {name: network.parameters.clone() for name, network in self._networks.items()},
            "adams": {name: _copy(adam) for name, adam in self._adams.items()},
        }
        return lambda: held

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        for name, network in self._networks.items():
            network.parameters.copy_(state["networks"][name])
            self._moments[name].restore(state["moments"][name])
            parameter = self._adams[name].param_groups[0]["params"][0]
            if state["adams"][name]:
                self._adams[name].state[parameter] = {k: v.clone() for k, v in state["adams"][name].items()}


def _copy(adam: torch.optim.Adam) -> dict[str, torch.Tensor]:
    moments = adam.state.get(adam.param_groups[0]["params"][0], {})
    return {k: v.clone() for k, v in moments.items()}
