"""Learning by the gradient of many steps through a differentiable twin, with a critic at the window's end.

For tasks where what is done now pays later. An iteration rolls all replicas ``rollout.steps`` steps on, follows the
gradient of their discounted rewards and of the value of where they lead, and then fits the critic to TD(lambda)
returns (Xu et al. 2022, arXiv 2204.07137, algorithm 1). Replicas carry on from one iteration to the next, and their
state is part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..agents.actor import ActorWeights, to_policy_network
from ..agents.advantages import generalised_advantages
from ..agents.analytic_settings import AnalyticConfiguration, ShortHorizonConfiguration
from ..agents.forward import PolicyNetwork
from ..agents.ppo import learning_rate
from ..agents.short_horizon import ShortHorizonGroup
from ..envs import noise
from ..envs.errors import ConfigurationError, NumericalError
from .actor_evaluation import evaluate_actors, mean_reward
from .configuration import TrainConfiguration
from .differentiable_commands import check_continuous, shaken
from .differentiable_rollout import DifferentiableReplicas, GroupWindow, Window
from .normaliser import RunningMoments
from .problem import Problem
from .seeds import ACTION_STREAM, initial_generator, update_seed
from .workers import one_thread


class ShortHorizonTrainer:
    """One learner a group of like assets; all follow the gradient of the sum of all rewards.

    Raises :class:`~twinloop.envs.errors.ConfigurationError` for a twin that gives no gradient and for discrete
    commands, and :class:`~twinloop.envs.errors.NumericalError` for a gradient or weights that are not finite.
    """

    def __init__(
        self,
        config: TrainConfiguration,
        problem: Problem,
        settings: AnalyticConfiguration,
        window: ShortHorizonConfiguration,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_continuous(problem, settings.kind)
        self.config, self.problem, self._settings, self._window = config, problem, settings, window
        self.nameplate = problem.nameplate()
        self.encoders = problem.encoders(self.nameplate)
        self.layouts = problem.layouts(self.nameplate)
        self.iteration = 0
        self.agent_steps = 0
        self._replicas = DifferentiableReplicas(
            problem, config.seed, config.rollout.replicas, config.rollout.steps, window.gamma, window.reward_scale
        )
        self._groups: dict[str, ShortHorizonGroup] = {}
        self._moments: dict[str, RunningMoments] = {}
        for number, (name, encoder) in enumerate(self.encoders.items()):
            self._groups[name] = ShortHorizonGroup(
                encoder.n_features,
                self.layouts[name].n_actions,
                self.nameplate.group(name).n_assets,
                settings,
                window,
                initial_generator(config.seed, number),
                dtype,
            )
            self._moments[name] = RunningMoments(encoder.n_features)
        self._streams = {name: ACTION_STREAM + number for number, name in enumerate(self.encoders)}

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        if self.config.iterations is None:
            raise ConfigurationError("learner.kind analytic: give iterations, not agent_steps")
        return self.config.iterations

    def iterate(self) -> dict[str, float]:
        """Roll one window, follow its gradient, fit the critics, and return the iteration's figures."""
        with one_thread():
            figures = self._iterate()
        self.iteration += 1
        figures["agent_steps"] = float(self.agent_steps)
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def _iterate(self) -> dict[str, float]:
        window, slopes = self.follow()
        lr = learning_rate(self._settings, self.iteration / self.n_iterations)
        scale = self._window.reward_scale
        rewards = ((g.reward / scale, g.present) for g in window.groups.values())
        figures = {"reward/mean": mean_reward(rewards), "objective": float(window.objective.detach()), "lr": lr}
        if len(window.episode_returns):
            figures["episode_return/mean"] = float(window.episode_returns.mean())
        for number, (name, group) in enumerate(self._groups.items()):
            if not torch.isfinite(slopes[name]).all():
                raise NumericalError(
                    f"learner of group {name!r}: the gradient through {self.config.rollout.steps} steps of the twin is "
                    f"not finite in iteration {self.iteration + 1}; take fewer rollout.steps, or dtype float64"
                )
            figures[f"{name}/gradient_norm"] = group.learn_actor(slopes[name], lr)
            figures[f"{name}/critic_loss"] = self._fit(name, window.groups[name], number)
            if not group.is_finite():
                raise NumericalError(
                    f"learner of group {name!r}: weights are no longer finite after iteration {self.iteration + 1}; "
                    "lower learner.lr or learner.short_horizon.critic_lr"
                )
            seen = window.groups[name]
            if self.iteration < self._settings.normalise_iterations:
                self._moments[name].add(seen.features.numpy()[seen.present.numpy()])
            self.agent_steps += int(seen.present.sum())
        return figures

    def follow(self) -> tuple[Window, dict[str, torch.Tensor]]:
        """Roll one window on; its gradient ``[S, P]`` by each group's actor."""
        followed = [group.follow() for group in self._groups.values()]
        window = self._replicas.roll(self._act, self._value)
        slopes = torch.autograd.grad(window.objective, followed, allow_unused=True, materialize_grads=True)
        return window, dict(zip(self._groups, slopes, strict=True))

    def _act(self, name: str, features: torch.Tensor, seeds: torch.Tensor, step: int) -> torch.Tensor:
        group, s = self._groups[name], self._settings
        means = group.means(self._normalise(name, features))
        size = s.noise_initial + (s.noise_final - s.noise_initial) * self.iteration / self.n_iterations
        steps = torch.full_like(seeds, step)
        draws = noise.normal(seeds, steps, self._streams[name], group.n_assets * group.n_actions, means.dtype)
        return shaken(means, draws.reshape(means.shape) * size)

    def _value(self, name: str, features: torch.Tensor) -> torch.Tensor:
        return self._groups[name].target_values(self._normalise(name, features))

    def _normalise(self, name: str, features: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.from_numpy(a).to(features.dtype) for a in self._moments[name].standard())
        clip = self._settings.feature_clip
        return ((features - mean) / std).clamp(-clip, clip)

    def _fit(self, name: str, seen: GroupWindow, number: int) -> float:
        """Fit the critic to the TD(lambda) returns of a window, which the target critic's values make."""
        group = self._groups[name]
        x = self._normalise(name, seen.features)
        value = torch.stack([group.target_values(step) for step in x]).double()
        _, returns = generalised_advantages(
            seen.reward.numpy(),
            torch.where(seen.present, value, 0.0).numpy(),
            seen.next_value.numpy(),
            (seen.terminated | ~seen.present).numpy(),
            (seen.ended | ~seen.present).numpy(),
            self._window.gamma,
            self._window.td_lambda,
        )
        flat = (x.flatten(0, 1), torch.from_numpy(returns).flatten(0, 1), seen.present.flatten(0, 1))
        return group.learn_critic(*flat, update_seed(self.config.seed, self.iteration, number))

    def policy_weights(self) -> dict[str, ActorWeights]:
        """The acting half of every group."""
        return {name: group.actor_weights(*self._moments[name].standard()) for name, group in self._groups.items()}

    def export(self) -> dict[str, PolicyNetwork]:
        """The acting half of every group, as an artifact ships it."""
        return {name: to_policy_network(w, self.layouts[name]) for name, w in self.policy_weights().items()}

    def evaluate(self) -> float:
        """Mean reward an agent-step, on replicas that it does not learn from."""
        return evaluate_actors(self.config, self.problem, self.policy_weights())

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Everything that the rest of the run depends on, the replicas' states included."""
        held = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "moments": {name: moments.state() for name, moments in self._moments.items()},
            "groups": {name: group.state() for name, group in self._groups.items()},
            "replicas": self._replicas.snapshot(),
        }
        return lambda: held

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        for name, group in self._groups.items():
            group.restore(state["groups"][name])
            self._moments[name].restore(state["moments"][name])
        self._replicas.restore(state["replicas"])
