"""Multi-agent soft actor-critic over rollouts: gather, remember, learn from what is remembered, resume exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import Float32
from ..agents.forward import PolicyNetwork
from ..agents.replay import ReplayBuffer
from ..agents.sac import SacLearner, Transitions
from ..agents.sac_settings import SacConfiguration
from ..agents.squashed_actor import SquashedActor
from ..envs.errors import ConfigurationError, NumericalError
from .actor_evaluation import evaluate_actors, mean_reward
from .configuration import TrainConfiguration
from .differentiable_commands import check_continuous
from .normaliser import RunningMoments
from .problem import Problem
from .rollout import GroupRollout, Rollout, concatenate
from .run_length import n_iterations
from .seeds import initial_generator, replay_generator
from .workers import Collector, one_thread


class OffPolicyTrainer:
    """SAC over shards of a twin, all groups of like assets in one update.

    An iteration gathers ``rollout.steps`` steps of all replicas with the policy as it is, then makes the gradient steps
    that fell due. Raises :class:`~twinloop.envs.errors.ConfigurationError` for discrete commands, and
    :class:`~twinloop.envs.errors.NumericalError` when the twin gives a NaN or the weights are no longer finite.
    """

    def __init__(self, config: TrainConfiguration, problem: Problem, collector: Collector) -> None:
        if not isinstance(config.learner, SacConfiguration):
            raise ConfigurationError(f"learner kind {config.learner.kind}: this trainer is for kind masac")
        self.config, self.problem, self.collector = config, problem, collector
        self._settings = s = config.learner
        self.nameplate = problem.nameplate()
        self.encoders = problem.encoders(self.nameplate)
        self.layouts = problem.layouts(self.nameplate)
        self.iteration = 0
        self.agent_steps = 0
        check_continuous(problem, config.learner.kind)
        self._sizes = {
            name: (self.nameplate.group(name).n_assets, encoder.n_features, self.layouts[name].n_actions)
            for name, encoder in self.encoders.items()
        }
        generators = {name: initial_generator(config.seed, k) for k, name in enumerate(self._sizes)}
        self._learner = SacLearner(self._sizes, s, generators)
        self._moments = {name: RunningMoments(f) for name, (_, f, _) in self._sizes.items()}
        self._per_iteration = config.rollout.replicas * config.rollout.steps
        self._warm_iterations = math.ceil(s.warm_up / self._per_iteration)
        width = 1 + sum(n * (2 * f + k + 3) for n, f, k in self._sizes.values())
        self._buffer = ReplayBuffer(min(s.buffer, self.n_iterations * self._per_iteration), width)

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        return n_iterations(self.config, sum(n for n, _, _ in self._sizes.values()))

    def policy_weights(self) -> dict[str, SquashedActor]:
        """The acting half of every group, as rollouts run it."""
        clip = self._settings.feature_clip
        actors = {}
        for name, group in self._learner.groups.items():
            weights, biases = (
                tuple(t.numpy().copy() for t in part) for part in (group.actor.weights, group.actor.biases)
            )
            mean, std = self._standard(name)
            actors[name] = SquashedActor(mean, std, clip, weights, tuple(b[:, 0] for b in biases))
        return actors

    def export(self) -> dict[str, PolicyNetwork]:
        """The acting half of every group, as an artifact ships it."""
        return {name: actor.network(self.layouts[name]) for name, actor in self.policy_weights().items()}

    def iterate(self) -> dict[str, float]:
        """Gather one batch, learn from memory, and return the iteration's figures."""
        is_warm = self.iteration >= self._warm_iterations
        actors = self.policy_weights()
        batch = concatenate(
            self.collector.collect(actors if is_warm else {k: a.at_random() for k, a in actors.items()})
        )
        with one_thread():
            figures = self._figures(batch)
            self._remember(batch, is_warm)
            if is_warm:
                figures |= self._learn()
        self.iteration += 1
        figures["agent_steps"] = float(self.agent_steps)
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def evaluate(self) -> float:
        """Mean reward an agent-step of the policy without exploration, on replicas that it does not learn from."""
        return evaluate_actors(self.config, self.problem, self.policy_weights())

    def _figures(self, batch: Rollout) -> dict[str, float]:
        figures = {"reward/mean": mean_reward((g.reward, g.present) for g in batch.groups.values())}
        if batch.episode_returns.size:
            figures["episode_return/mean"] = float(batch.episode_returns.mean(dtype=np.float64))
        return figures | {f"cost/{name}": float(v.mean(dtype=np.float64)) for name, v in batch.costs.items()}

    def _remember(self, batch: Rollout, is_warm: bool) -> None:
        """Put an iteration's joint steps into memory, oldest first; whatever belongs to an absent asset is zero."""
        rewards = self._rewards(batch)
        is_over = batch.terminated
        for group in batch.groups.values():
            if group.cut is not None:  # there each asset's own flag says for whom it is over
                is_over = is_over & ~group.cut.any(2)
        columns: list[NDArray[Any]] = [is_over[..., None]]
        for name, group in batch.groups.items():
            actions = group.actions if group.executed is None else np.clip(group.executed, -1.0, 1.0)
            goes_on = group.goes_on(batch.terminated)
            now, after = group.present[..., None], goes_on[..., None]
            parts = [
                np.where(now, group.features, np.float32(0)),
                np.where(now, actions, np.float32(0)),
                np.where(after, _what_followed(batch, group), np.float32(0)),
            ]
            columns += [x.reshape(*x.shape[:2], -1) for x in parts]
            columns += [rewards[name], group.present, goes_on]
            self.agent_steps += int(group.present.sum())
            if self._settings.normalise_features and not is_warm:
                self._moments[name].add(group.features[group.present])
        rows = np.concatenate([c.astype(np.float32, copy=False) for c in columns], -1)
        self._buffer.add(rows.reshape(-1, rows.shape[-1]))

    def _rewards(self, batch: Rollout) -> dict[str, Float32]:
        """What every asset learns from ``[T, B, N]``, zero where it is absent."""
        scale = np.float32(self._settings.reward_scale)
        own = {}
        for name, group in batch.groups.items():
            own[name] = np.where(group.present, group.reward * scale, np.float32(0))
        if not self._settings.team_reward:
            return own
        total = np.sum([r.sum(2, dtype=np.float64) for r in own.values()], axis=0)
        count = np.sum([g.present.sum(2) for g in batch.groups.values()], axis=0)
        mean = (total / np.maximum(count, 1)).astype(np.float32)
        return {name: np.where(g.present, mean[..., None], np.float32(0)) for name, g in batch.groups.items()}

    def _learn(self) -> dict[str, float]:
        """The gradient steps that fell due with this iteration; returns their mean figures."""
        steps = self.config.rollout.steps * self._settings.updates_per_step
        done = self.iteration - self._warm_iterations
        sums: dict[str, torch.Tensor] = {}
        first, last = math.floor(done * steps), math.floor((done + 1) * steps)
        for number in range(first, last):
            generator = replay_generator(self.config.seed, number)
            drawn = torch.randint(len(self._buffer), (self._settings.batch,), generator=generator)
            batch = self._transitions(torch.from_numpy(self._buffer.sample(drawn.numpy())))
            figures = self._learner.update(batch, self._learner.noise(self._settings.batch, generator))
            sums = {name: sums[name] + value if sums else value for name, value in figures.items()}
        for name, group in self._learner.groups.items():
            if not group.is_finite():
                raise NumericalError(
                    f"learner of group {name!r}: weights are no longer finite after iteration {self.iteration + 1}; "
                    "lower learner.lr, or scale the reward with learner.reward_scale"
                )
        return {name: float(value) / (last - first) for name, value in sums.items()} | {"updates": float(last)}

    def _transitions(self, rows: torch.Tensor) -> dict[str, Transitions]:
        """Rows of memory ``[b, W]`` as what a gradient step learns from, features normalised."""
        found, at = {}, 1
        for name, (n, f, k) in self._sizes.items():
            widths = [n * f, n * k, n * f, n, n, n]
            features, actions, after, reward, present, present_after = torch.split(
                rows[:, at : at + sum(widths)], widths, 1
            )
            at += sum(widths)
            found[name] = Transitions(
                features=self._normalise(name, features.reshape(-1, n, f), present),
                actions=actions.reshape(-1, n, k),
                reward=reward,
                present=present,
                next_features=self._normalise(name, after.reshape(-1, n, f), present_after),
                present_after=present_after,
                terminated=rows[:, 0],
            )
        return found

    def _normalise(self, name: str, features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        if self._settings.normalise_features:
            mean, std = (torch.from_numpy(a) for a in self._standard(name))
            features = (features - mean) / std * present[..., None]
        return features.clamp(-self._settings.feature_clip, self._settings.feature_clip)

    def _standard(self, name: str) -> tuple[Float32, Float32]:
        if self._settings.normalise_features and self._moments[name].count:
            return self._moments[name].standard()
        n = self.encoders[name].n_features
        return np.zeros(n, np.float32), np.ones(n, np.float32)

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Hold on to everything that the rest of the run depends on; memory is copied only when the result is called,
        and is then what it was here, whatever was added since."""
        held = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "learners": {name: group.state() for name, group in self._learner.groups.items()},
            "moments": {name: moments.state() for name, moments in self._moments.items()},
        }
        shards, memory = self.collector.snapshots(), self._buffer.hold()
        return lambda: {**held, "shards": shards(), "memory": memory()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        for name, group in self._learner.groups.items():
            group.restore(state["learners"][name])
            self._moments[name].restore(state["moments"][name])
        self._buffer.restore(state["memory"])
        self.collector.restore(state["shards"])


def _what_followed(batch: Rollout, group: GroupRollout) -> Float32:
    """Features after every step ``[T, B, N, F]``: those that a cut episode ended with, never those after a reset."""
    following = np.concatenate([group.features[1:], group.last_features[None]])
    if len(group.final_features):
        t, b = batch.final_index[:, 0], batch.final_index[:, 1]
        ended = batch.valued_at_end(group)[..., None]
        following[t, b] = np.where(ended, group.final_features, following[t, b])
    return following
