"""One training run's mathematics: rollouts in, better policy out, and everything that an exact resume needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import ActionLayout, Float32
from ..agents.actor import ActorWeights, to_policy_network
from ..agents.forward import PolicyNetwork
from ..agents.happo import HappoLearner
from ..agents.minibatches import Samples
from ..agents.networks import ActorCritic
from ..agents.ppo import GroupLearner
from ..agents.ppo_settings import PpoConfiguration
from ..envs.errors import ConfigurationError, NumericalError
from .actor_evaluation import evaluate_actors, mean_reward
from .configuration import TrainConfiguration
from .normaliser import ReturnScale, RunningMoments
from .problem import Problem
from .rollout import Rollout, concatenate
from .run_length import n_iterations
from .samples import CentralTable, Sampling, joint_table, rewards, seen, state_table
from .seeds import initial_seed, update_seed
from .site_state import SiteState
from .workers import Collector, one_thread

if TYPE_CHECKING:
    from .learner_actors import LearnerActors


def make_group_learner(
    settings: PpoConfiguration, n_features: int, layout: ActionLayout, n_assets: int, n_view: int, seed: int | None
) -> GroupLearner:
    """A learner for a group of ``n_assets``; ``n_view``: columns that its critic sees beside the features; ``seed``: of
    its first weights, which are left as they come where it is None."""
    network = ActorCritic(
        n_features,
        layout.n_outputs,
        settings.hidden,
        settings.critic_hidden or settings.hidden,
        level_counts=layout.level_counts,
        n_stacks=n_assets if settings.weights == "separate" else 1,
        n_view=n_view,
        n_memory=settings.gru or 0,
    )
    if seed is not None:
        network.initialise(settings.log_std_initial, torch.Generator().manual_seed(seed))
    return (HappoLearner if settings.is_sequential else GroupLearner)(network, settings)


class Trainer:
    """PPO over shards of a twin, one learner a group of like assets.

    Raises :class:`~twinloop.envs.errors.NumericalError` when the twin gives a NaN, and
    :class:`~twinloop.envs.errors.ConfigurationError` for commands that the site does not have.
    """

    def __init__(self, config: TrainConfiguration, problem: Problem, collector: Collector) -> None:
        self.config = config
        self.problem = problem
        self.collector = collector
        self.nameplate = problem.nameplate()
        self.encoders = problem.encoders(self.nameplate)
        self.layouts = problem.layouts(self.nameplate)
        self.iteration = 0
        self.agent_steps = 0
        self.recipes: dict[str, Callable[[], GroupLearner]] = {}
        """What makes a learner of the same shape anywhere else, by group."""
        self._learners: dict[str, GroupLearner] = {}
        self._learner_actors: LearnerActors | None = None
        self._moments: dict[str, RunningMoments] = {}
        self._reward_scales: dict[str, ReturnScale] = {}
        if not isinstance(config.learner, PpoConfiguration):
            raise ConfigurationError(f"learner kind {config.learner.kind}: this trainer is for kind ppo")
        self._settings = s = config.learner
        self._n_view = self._view_width()
        self._state_moments = RunningMoments(self._n_view if s.critic_view == "state" else 0)
        for number, (name, encoder) in enumerate(self.encoders.items()):
            n_assets = self.nameplate.group(name).n_assets
            shape_of = (s, encoder.n_features, self.layouts[name], n_assets, self._n_view)
            self._learners[name] = make_group_learner(*shape_of, initial_seed(config.seed, number))
            self.recipes[name] = partial(make_group_learner, *shape_of, None)
            self._moments[name] = RunningMoments(encoder.n_features)
            shape = (config.rollout.replicas, self.nameplate.group(name).n_assets)
            self._reward_scales[name] = ReturnScale(shape, s.gamma)

    def learn_in(self, actors: LearnerActors) -> None:
        """Leave the updates to actors of :attr:`recipes`; results stay the same."""
        self._learner_actors = actors

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        return n_iterations(self.config, sum(self.nameplate.group(name).n_assets for name in self._learners))

    def _view_width(self) -> int:
        """Columns that critics see beside their own asset's."""
        if self._settings.critic_view == "state":
            return SiteState(self.nameplate).n_features
        assets = {name: self.nameplate.group(name).n_assets for name in self.encoders}
        if self._settings.critic_view == "own" or sum(assets.values()) == 1:
            return 0
        return sum(n * self.encoders[name].n_features for name, n in assets.items())

    def policy_weights(self) -> dict[str, ActorWeights]:
        """The acting half of every group, as rollouts run it."""
        return {name: learner.actor(*self._standard(name)) for name, learner in self._learners.items()}

    def export(self) -> dict[str, PolicyNetwork]:
        """The acting half of every group, as an artifact ships it."""
        return {name: to_policy_network(actor, self.layouts[name]) for name, actor in self.policy_weights().items()}

    def iterate(self) -> dict[str, float]:
        """Gather one batch, learn from it, and return the iteration's figures."""
        batch = concatenate(self.collector.collect(self.policy_weights()))
        with one_thread():
            figures = self._learn(batch)
        self.iteration += 1
        figures |= self.collector.figures()
        figures["agent_steps"] = float(self.agent_steps)
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def evaluate(self) -> float:
        """Mean reward an agent-step of the policy without exploration, on replicas that it does not learn from."""
        return evaluate_actors(self.config, self.problem, self.policy_weights())

    def _standard(self, name: str) -> tuple[Float32, Float32]:
        n = self.encoders[name].n_features
        if self._settings.normalise_features and self._moments[name].count:
            return self._moments[name].standard()
        return np.zeros(n, np.float32), np.ones(n, np.float32)

    def _state_standard(self) -> tuple[Float32, Float32]:
        if self._settings.normalise_features and self._state_moments.count:
            return self._state_moments.standard()
        return np.zeros(self._n_view, np.float32), np.ones(self._n_view, np.float32)

    def _learn(self, batch: Rollout) -> dict[str, float]:
        figures = {"reward/mean": _mean_reward(batch), "episodes": float(len(batch.episode_returns))}
        if len(batch.episode_returns):
            figures["episode_return/mean"] = float(batch.episode_returns.mean(dtype=np.float64))
        figures |= {f"cost/{name}": float(values.mean(dtype=np.float64)) for name, values in batch.costs.items()}
        made = self._samples(batch)
        progress = self.iteration / self.n_iterations
        for name, update in self._updates({name: samples for name, (samples, _) in made.items()}, progress).items():
            if not self._learners[name].is_finite():
                raise NumericalError(
                    f"learner of group {name!r}: weights are no longer finite after iteration {self.iteration + 1}; "
                    "lower learner.lr or learner.max_grad_norm, or scale the reward with learner.reward_scaling"
                )
            update["explained_variance"] = made[name][1]
            figures |= {f"{name}/{key}": value for key, value in update.items()}
        self.agent_steps += sum(len(samples) for samples, _ in made.values())
        if self._settings.normalise_features:
            for name in self._learners:
                group = batch.groups[name]
                self._moments[name].add(_rows(group.features, group.present))
            if self._settings.critic_view == "state" and batch.state is not None:
                self._state_moments.add(batch.state.reshape(-1, batch.state.shape[-1]))
        return figures

    def _samples(self, batch: Rollout) -> dict[str, tuple[Samples, float]]:
        """What each group learns from, and the share of the returns' variance that its critic explains."""
        s, names = self._settings, tuple(self._learners)
        own = {n: seen(batch.groups[n], batch, self._standard(n), s.feature_clip) for n in names}
        central: CentralTable | None = None
        if self._n_view and s.critic_view == "joint":
            central = joint_table(own)
        elif s.critic_view == "state":
            central = state_table(batch, self._state_standard(), s.feature_clip)
        reward = rewards(batch, names, s)
        if s.reward_scaling == "return_std":
            done = batch.terminated | batch.truncated
            reward = {n: self._reward_scales[n].scale(reward[n], batch.groups[n].present, done) for n in names}
        return {
            n: Sampling(n, s).make(batch, own[n], central, reward[n], learner) for n, learner in self._learners.items()
        }

    def _updates(self, samples: Mapping[str, Samples], progress: float) -> dict[str, dict[str, float]]:
        """Figures of every group's update; sequential learners hand on the ratios from group to group."""
        names = list(self._learners)
        seeds = {name: update_seed(self.config.seed, self.iteration, number) for number, name in enumerate(names)}
        if self._learner_actors is not None:
            return self._learner_actors.update(self._learners, samples, progress, seeds)
        if not self._settings.is_sequential:
            return {n: self._learners[n].update(samples[n], progress, seeds[n]) for n in names}
        figures: dict[str, dict[str, float]] = {}
        factor: torch.Tensor | None = None
        # seeds are hashes, so their order is a random order of the groups
        for name in sorted(names, key=lambda n: seeds[n]):
            learner = self._learners[name]
            if not isinstance(learner, HappoLearner):
                raise TypeError("a sequential learner hands on ratios")
            figures[name], factor = learner.update_after(samples[name], progress, seeds[name], factor)
        return {name: figures[name] for name in names}

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Hold on to everything that the rest of the run depends on; the result makes :meth:`restore`'s state of it,
        tensors and plain values, even when the trainer has moved on."""
        held = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "learners": {name: learner.state() for name, learner in self._learners.items()},
            "moments": {name: moments.state() for name, moments in self._moments.items()},
            "state_moments": self._state_moments.state(),
            "reward_scales": {name: scale.state() for name, scale in self._reward_scales.items()},
        }
        shards = self.collector.snapshots()
        return lambda: {**held, "shards": shards()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        if self._learner_actors is not None:
            self._learner_actors.forget()
        for name, learner in self._learners.items():
            learner.restore(state["learners"][name])
            self._moments[name].restore(state["moments"][name])
            self._reward_scales[name].restore(state["reward_scales"][name])
        self._state_moments.restore(state["state_moments"])
        self.collector.restore(state["shards"])


def _rows(array: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[Any]:
    """Rows of present assets, ``[n, ...]``."""
    if present.all():
        return array.reshape(-1, *array.shape[present.ndim :])
    return array[present]


def _mean_reward(batch: Rollout) -> float:
    return mean_reward((g.reward, g.present) for g in batch.groups.values())
