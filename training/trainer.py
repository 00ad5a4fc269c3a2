"""One training run's mathematics: rollouts in, better policy out, and everything that an exact resume needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import Float32
from ..agents.actor import ActorWeights, normalise, to_policy_network
from ..agents.advantages import generalised_advantages
from ..agents.forward import PolicyNetwork
from ..agents.networks import ActorCritic
from ..agents.ppo import GroupLearner, Samples
from ..agents.ppo_settings import PpoConfiguration
from ..envs.errors import ConfigurationError, NumericalError
from .configuration import TrainConfiguration
from .normaliser import ReturnScale, RunningMoments
from .problem import Problem
from .rollout import GroupRollout, Rollout, Shard, ShardPlan, concatenate
from .seeds import initial_generator, shuffle_generator
from .workers import Collector, one_thread

EVALUATION_REPLICA = 1 << 40  # evaluation replicas count from here, far from those that learn


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
        self._learners: dict[str, GroupLearner] = {}
        self._moments: dict[str, RunningMoments] = {}
        self._reward_scales: dict[str, ReturnScale] = {}
        if not isinstance(config.learner, PpoConfiguration):
            raise ConfigurationError(f"learner kind {config.learner.kind}: this trainer is for kind ppo")
        self._settings = s = config.learner
        for number, (name, encoder) in enumerate(self.encoders.items()):
            network = ActorCritic(
                encoder.n_features, len(self.layouts[name].columns), s.hidden, s.critic_hidden or s.hidden
            )
            network.initialise(s.log_std_initial, initial_generator(config.seed, number))
            self._learners[name] = GroupLearner(network, s)
            self._moments[name] = RunningMoments(encoder.n_features)
            shape = (config.rollout.replicas, self.nameplate.group(name).n_assets)
            self._reward_scales[name] = ReturnScale(shape, s.gamma)

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        if self.config.iterations is not None:
            return self.config.iterations
        n_assets = sum(self.nameplate.group(name).n_assets for name in self._learners)
        per_iteration = self.config.rollout.replicas * self.config.rollout.steps * n_assets
        return math.ceil((self.config.agent_steps or 0) / per_iteration)

    def policy_weights(self) -> dict[str, ActorWeights]:
        """The acting half of every group, as rollouts run it."""
        return {
            name: learner.network.actor_weights(*self._standard(name), self._settings.feature_clip)
            for name, learner in self._learners.items()
        }

    def export(self) -> dict[str, PolicyNetwork]:
        """The acting half of every group, as an artifact ships it."""
        return {
            name: to_policy_network(actor, self.layouts[name])
            for name, actor in self.policy_weights().items()
        }

    def iterate(self) -> dict[str, float]:
        """Gather one batch, learn from it, and return the iteration's figures."""
        batch = concatenate(self.collector.collect(self.policy_weights()))
        with one_thread():
            figures = self._learn(batch)
        self.iteration += 1
        figures["agent_steps"] = float(self.agent_steps)
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def evaluate(self) -> float:
        """Mean reward an agent-step of the policy without exploration, on replicas that it does not learn from."""
        settings = self.config.evaluation
        plan = ShardPlan(self.config.seed, EVALUATION_REPLICA, settings.replicas, explore=False, bootstrap=False)
        n_steps = settings.steps or self.problem.task().horizon
        with one_thread():
            rollout = Shard(self.problem, plan).collect(self.policy_weights(), n_steps)
        return _mean_reward(rollout)

    def _standard(self, name: str) -> tuple[Float32, Float32]:
        n = self.encoders[name].n_features
        if self._settings.normalise_features and self._moments[name].count:
            return self._moments[name].standard()
        return np.zeros(n, np.float32), np.ones(n, np.float32)

    def _learn(self, batch: Rollout) -> dict[str, float]:
        progress = self.iteration / self.n_iterations
        generator = shuffle_generator(self.config.seed, self.iteration)
        figures = {"reward/mean": _mean_reward(batch), "episodes": float(len(batch.episode_returns))}
        if len(batch.episode_returns):
            figures["episode_return/mean"] = float(batch.episode_returns.mean(dtype=np.float64))
        figures |= {f"cost/{name}": float(values.mean(dtype=np.float64)) for name, values in batch.costs.items()}
        for name, learner in self._learners.items():
            samples, explained = self._samples(name, batch)
            self.agent_steps += len(samples)
            update = learner.update(samples, progress, generator)
            if not torch.isfinite(learner.network.parameters).all():
                raise NumericalError(
                    f"learner of group {name!r}: weights are no longer finite after iteration {self.iteration + 1}; "
                    "lower learner.lr or learner.max_grad_norm, or scale the reward with learner.reward_scaling"
                )
            update["explained_variance"] = explained
            figures |= {f"{name}/{key}": value for key, value in update.items()}
            if self._settings.normalise_features:
                group = batch.groups[name]
                self._moments[name].add(_rows(group.features, group.present))
        return figures

    def _samples(self, name: str, batch: Rollout) -> tuple[Samples, float]:
        """Present agent-steps of one group with their advantages; and the share of the returns' variance that the
        critic explains."""
        group, settings = batch.groups[name], self._settings
        features, value, next_value = self._values(name, batch, group)
        reward = group.reward * np.float32(settings.reward_scale)
        done = batch.terminated | batch.truncated
        if settings.reward_scaling == "return_std":
            reward = self._reward_scales[name].scale(reward, group.present, done)
        # An asset that is gone after the step has nothing to come; one that is back starts afresh.
        terminated = batch.terminated[..., None] | ~group.present_after
        ended = done[..., None] | ~group.present_after
        reward, value = (np.where(group.present, x, np.float32(0)) for x in (reward, value))
        advantage, returns = generalised_advantages(
            reward, value, next_value, terminated, ended, settings.gamma, settings.gae_lambda
        )
        kept = group.present
        spread = returns[kept].var(dtype=np.float64) if kept.any() else 0.0
        left = (returns[kept] - value[kept]).var(dtype=np.float64) if kept.any() else 0.0
        samples = Samples(
            *(torch.from_numpy(_rows(x, kept)) for x in (features, group.actions, group.log_prob, advantage, returns))
        )
        return samples, float(1.0 - left / spread) if spread > 0 else 0.0

    def _values(self, name: str, batch: Rollout, group: GroupRollout) -> tuple[Float32, Float32, Float32]:
        """Normalised features ``[T, B, N, F]``, their values ``[T, B, N]``, and the values of what followed."""
        critic = self._learners[name].network.values
        mean, std = self._standard(name)

        def values(features: Float32) -> tuple[Float32, Float32]:
            x = normalise(features, mean, std, self._settings.feature_clip)
            flat: Float32 = critic(torch.from_numpy(x.reshape(-1, x.shape[-1]))).numpy()
            return x, flat.reshape(x.shape[:-1])

        x, value = values(group.features)
        _, last = values(group.last_features)
        next_value = np.concatenate([value[1:], last[None]])
        if len(group.final_features):
            _, final = values(group.final_features)
            next_value[batch.final_index[:, 0], batch.final_index[:, 1]] = final
        return x, value, next_value

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Hold on to everything that the rest of the run depends on; the result makes :meth:`restore`'s state of it,
        tensors and plain values, even when the trainer has moved on."""
        held = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "learners": {name: learner.state() for name, learner in self._learners.items()},
            "moments": {name: moments.state() for name, moments in self._moments.items()},
            "reward_scales": {name: scale.state() for name, scale in self._reward_scales.items()},
        }
        shards = self.collector.snapshots()
        return lambda: {**held, "shards": shards()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        for name, learner in self._learners.items():
            learner.restore(state["learners"][name])
            self._moments[name].restore(state["moments"][name])
            self._reward_scales[name].restore(state["reward_scales"][name])
        self.collector.restore(state["shards"])


def _rows(array: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[Any]:
    """Rows of present assets, ``[n, ...]``."""
    if present.all():
        return array.reshape(-1, *array.shape[present.ndim :])
    return array[present]


def _mean_reward(batch: Rollout) -> float:
    return mean_reward((g.reward, g.present) for g in batch.groups.values())


def mean_reward(groups: Iterable[tuple[Any, Any]]) -> float:
    """Mean over present agent-steps of ``(reward, present)`` pairs, numpy arrays or tensors of equal shapes."""
    total, count = 0.0, 0
    for reward, present in groups:
        kept = np.asarray(present)
        total += float(np.asarray(reward)[kept].sum(dtype=np.float64))
        count += int(kept.sum())
    return total / max(1, count)
