"""PPO whose twin and learner share a device: rollouts, advantages and updates without an array on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..agents.actor import ActorWeights, to_policy_network
from ..agents.forward import PolicyNetwork
from ..agents.networks import ActorCritic
from ..agents.ppo import GroupLearner
from ..agents.ppo_settings import PpoConfiguration
from ..agents.torch_actor import TorchActor
from ..envs.errors import ConfigurationError, NumericalError
from .actor_evaluation import EVALUATION_REPLICA
from .configuration import TrainConfiguration
from .device_batch import DeviceRollout
from .device_rollout import DeviceShard
from .device_samples import DeviceMoments, device_rewards, device_samples
from .problem import Problem
from .rollout import ShardPlan
from .run_length import n_iterations
from .seeds import initial_seed, update_seed
from .trainer import make_group_learner


def device_obstacle(config: TrainConfiguration) -> str | None:
    """What of a configuration keeps learning on the host, or None where all of it can stay on the device."""
    s = config.learner
    if not isinstance(s, PpoConfiguration):
        return f"learner kind {s.kind}"
    obstacles = {
        "learner.gru": s.gru is not None,
        f"learner.critic_view {s.critic_view}": s.critic_view != "own",
        f"learner kind {s.kind} (one asset after another)": s.is_sequential,
        "learner.reward_scaling return_std": s.reward_scaling == "return_std",
        "shield": config.shield is not None,
        "learner_actors": config.learner_actors is not None,
        "rollout.workers": config.rollout.workers > 0,
        "rollout.overlap": config.rollout.overlap,
        "rollout.shard_replicas": config.rollout.n_shards > 1,
    }
    return next((name for name, holds in obstacles.items() if holds), None)


class DeviceTrainer:
    """As :class:`~twinloop.training.trainer.Trainer` for independent critics, wholly on ``problem.device``.

    The same hashes seed weights, rollouts and minibatches, so on a CPU it learns what ``Trainer`` learns, up to
    rounding. ``is_compiled``: see :class:`~twinloop.training.device_rollout.DeviceShard`. Raises
    :class:`~twinloop.envs.errors.ConfigurationError` for what :func:`device_obstacle` names.
    """

    def __init__(self, config: TrainConfiguration, problem: Problem, *, is_compiled: bool = False) -> None:
        obstacle = device_obstacle(config)
        if obstacle is not None or not isinstance(config.learner, PpoConfiguration):
            raise ConfigurationError(f"learning on the device: {obstacle} works on the host alone; use device cpu")
        self.config, self.problem = config, problem
        self.nameplate = problem.nameplate()
        self.encoders = problem.encoders(self.nameplate)
        self.layouts = problem.layouts(self.nameplate)
        self.iteration = 0
        self.agent_steps = 0
        self._settings = s = config.learner
        self._device = torch.device(problem.device)
        self._shard = DeviceShard(problem, ShardPlan(config.seed, 0, config.rollout.replicas), is_compiled=is_compiled)
        self._learners: dict[str, GroupLearner] = {}
        self._moments: dict[str, DeviceMoments] = {}
        for number, (name, encoder) in enumerate(self.encoders.items()):
            n_assets, seed = self.nameplate.group(name).n_assets, initial_seed(config.seed, number)
            on_host = make_group_learner(s, encoder.n_features, self.layouts[name], n_assets, 0, seed)
            self._learners[name] = _moved(on_host, self._device)
            self._moments[name] = DeviceMoments(encoder.n_features, self._device)

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        return n_iterations(self.config, sum(self.nameplate.group(name).n_assets for name in self._learners))

    def actors(self) -> dict[str, TorchActor]:
        """The acting half of every group, as views of what is learnt."""
        clip = self._settings.feature_clip
        return {n: TorchActor.of_network(x.network, *self._standard(n), clip) for n, x in self._learners.items()}

    def policy_weights(self) -> dict[str, ActorWeights]:
        """The acting half of every group, copied to the host."""
        standards = {n: [t.numpy(force=True) for t in self._standard(n)] for n in self._learners}
        return {n: learner.actor(*standards[n]) for n, learner in self._learners.items()}

    def export(self) -> dict[str, PolicyNetwork]:
        """The acting half of every group, as an artifact ships it."""
        return {name: to_policy_network(actor, self.layouts[name]) for name, actor in self.policy_weights().items()}

    def iterate(self) -> dict[str, float]:
        """Gather one batch, learn from it, and return the iteration's figures."""
        figures = self.learn(self.gather())
        figures["agent_steps"] = float(self.agent_steps)
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def gather(self) -> DeviceRollout:
        """The next batch."""
        return self._shard.collect(self.actors(), self.config.rollout.steps)

    def state_bytes(self) -> int:
        """Size of the twin's state."""
        return sum(t.numel() * t.element_size() for t in self._shard.snapshot()["twin"].values())

    def evaluate(self) -> float:
        """Mean reward an agent-step of the policy without exploration, on replicas that it does not learn from."""
        settings = self.config.evaluation
        plan = ShardPlan(self.config.seed, EVALUATION_REPLICA, settings.replicas, explore=False, bootstrap=False)
        n_steps = settings.steps or self.problem.task().horizon
        return float(_mean_reward(DeviceShard(self.problem, plan).collect(self.actors(), n_steps)))

    def _standard(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        if self._settings.normalise_features:
            return self._moments[name].standard()
        n = self.encoders[name].n_features
        return torch.zeros(n, device=self._device), torch.ones(n, device=self._device)

    def learn(self, batch: DeviceRollout) -> dict[str, float]:
        """Learn from a batch of :meth:`gather`, which ends the iteration; return its figures."""
        figures = {"reward/mean": float(_mean_reward(batch)), "episodes": float(len(batch.episode_returns))}
        if len(batch.episode_returns):
            figures["episode_return/mean"] = float(batch.episode_returns.double().mean())
        figures |= {f"cost/{name}": float(values.double().mean()) for name, values in batch.costs.items()}
        rewards, progress = device_rewards(batch, self._settings), self.iteration / self.n_iterations
        for number, (name, learner) in enumerate(self._learners.items()):
            group, standard = batch.groups[name], self._standard(name)
            samples, explained = device_samples(
                group, batch, rewards[name], learner.network, standard, self._settings, bool(group.present.all())
            )
            update = learner.update(samples, progress, update_seed(self.config.seed, self.iteration, number))
            if not learner.is_finite():
                raise NumericalError(
                    f"learner of group {name!r}: weights are no longer finite after iteration {self.iteration + 1}; "
                    "lower learner.lr or learner.max_grad_norm, or scale the reward with learner.reward_scale"
                )
            figures |= {f"{name}/{k}": v for k, v in {**update, "explained_variance": float(explained)}.items()}
            self.agent_steps += len(samples)
            if self._settings.normalise_features:
                self._moments[name].add(group.features, group.present)
        self.iteration += 1
        return figures

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Hold on to everything that the rest of the run depends on; the result makes :meth:`restore`'s state of it."""
        held = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "learners": {name: learner.state() for name, learner in self._learners.items()},
            "moments": {name: moments.state() for name, moments in self._moments.items()},
            "shard": self._shard.snapshot(),
        }
        return lambda: held

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        for name, learner in self._learners.items():
            learner.restore(state["learners"][name])
            self._moments[name].restore(state["moments"][name])
        self._shard.restore(state["shard"])


def _moved(learner: GroupLearner, device: torch.device) -> GroupLearner:
    """The same first weights on another device."""
    network = learner.network
    moved = ActorCritic(
        network.n_features,
        network.n_outputs,
        network.actor_hidden,
        network.critic_hidden,
        level_counts=network.distribution.level_counts,
        n_stacks=network.n_stacks,
        parameters=network.parameters.to(device),
    )
    return GroupLearner(moved, learner.settings)


def _mean_reward(batch: DeviceRollout) -> torch.Tensor:
    """Mean over present agent-steps of all groups."""
    groups = list(batch.groups.values())
    total = torch.stack([g.reward.double().masked_fill(~g.present, 0.0).sum() for g in groups]).sum()
    count = torch.stack([g.present.sum() for g in groups]).sum()
    return total / count.clamp(min=1)
