"""Learning from a site that knows the best answers in small layouts: imitation, weighed by what is at stake.

Where the best control of a small layout can be computed, a policy for all layouts need not find it by trial. The loss
is the cross entropy to the best level of each command, times what the others lose on average (as in cost-sensitive
classification; the states are those that the best policy comes by, and others, so that it finds back: Ross & Bagnell
2010, "Efficient reductions for imitation learning"). Lessons are made anew from their seeds on resume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..agents.action_layout import Float32
from ..agents.actor import ActorWeights, to_policy_network
from ..agents.forward import PolicyNetwork
from ..agents.networks import ActorCritic
from ..agents.ppo import learning_rate
from ..agents.taught_settings import TaughtConfiguration
from ..envs.encoder import Encoder
from ..envs.errors import ConfigurationError, NumericalError
from ..envs.teacher import TeachingSite
from .actor_evaluation import evaluate_actors
from .configuration import TrainConfiguration
from .normaliser import RunningMoments
from .problem import Problem
from .seeds import initial_generator, lesson_seed, update_seed
from .workers import one_thread


@dataclass(frozen=True, eq=False)
class _Lessons:
    """Of all lessons: features ``[R, F]`` of present assets, normalised, and regrets ``[R, L]``, level by level."""

    features: torch.Tensor
    regret: torch.Tensor


class TaughtTrainer:
    """Drop-in for :class:`~twinloop.training.trainer.Trainer`, without a collector.

    Raises :class:`~twinloop.envs.errors.ConfigurationError` for a site that does not teach, for commands that it does
    not teach, and for layouts whose best answer it does not know.
    """

    def __init__(self, config: TrainConfiguration, problem: Problem, settings: TaughtConfiguration) -> None:
        check(problem)
        self.config, self.problem, self._settings = config, problem, settings
        self.nameplate = problem.nameplate()
        self.encoders: dict[str, Encoder] = problem.encoders(self.nameplate)
        self.layouts = problem.layouts(self.nameplate)
        self.iteration = 0
        self.agent_steps = 0
        ((self._name, self._layout),) = self.layouts.items()
        n_features = self.encoders[self._name].n_features
        counts = self._layout.level_counts
        self._network = ActorCritic(n_features, sum(counts), settings.hidden, (1,), level_counts=counts)
        self._network.initialise(0.0, initial_generator(config.seed, 0))
        self._parameter = torch.nn.Parameter(self._network.parameters, requires_grad=False)
        self._parameter.grad = self._network.gradients
        self._adam = torch.optim.Adam([self._parameter], lr=settings.lr, eps=settings.adam_epsilon, fused=True)
        self._moments = RunningMoments(n_features)
        self._lessons: _Lessons | None = None

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        if self.config.iterations is None:
            raise ConfigurationError("learner kind taught: give iterations, not agent_steps")
        return self.config.iterations

    def iterate(self) -> dict[str, float]:
        """Take the iteration's gradient steps, and return its figures."""
        with one_thread():
            if self._lessons is None:
                self._lessons = self._all_lessons()
            figures = self._learn(self._lessons)
        self.iteration += 1
        figures["agent_steps"] = float(self.agent_steps)
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def _all_lessons(self) -> _Lessons:
        s, site = self._settings, self.problem.site
        assert isinstance(site, TeachingSite)  # check has looked
        encoder, features, regrets = self.encoders[self._name], [], []
        for number in range(s.lessons):
            lesson = site.lesson(
                self.problem.site_config, self.problem.task_name, self.problem.task_options,
                lesson_seed(self.config.seed, number), s.states,
            )  # fmt: skip
            _check_group(self._name, lesson.group)
            seen, group = lesson.observation, self.nameplate.group(self._name)
            names = [group.commanded[k].name for k in self._layout.discrete]
            _check_commands(names, tuple(lesson.regret))
            measured, statics, present = (p[self._name] for p in (seen.measured, seen.statics, seen.present))
            memory = encoder.start(len(measured), measured.shape[1], measured)
            found, _ = encoder.encode(measured, statics, present, memory, seen.dt_s)
            features.append(np.asarray(found, np.float32)[present])
            regrets.append(np.concatenate([lesson.regret[n] for n in names], -1)[present].astype(np.float32))
        rows = np.concatenate(features)
        if not self._moments.count:  # a run that goes on has them
            self._moments.add(rows)
        mean, deviation = self._moments.standard()
        rows = np.clip((rows - mean) / deviation, -s.feature_clip, s.feature_clip)
        return _Lessons(torch.from_numpy(rows), torch.from_numpy(np.concatenate(regrets)).clamp(max=s.most_regret))

    def _learn(self, lessons: _Lessons) -> dict[str, float]:
        s, rollout = self._settings, self.config.rollout
        lr = learning_rate(s, self.iteration / self.n_iterations)
        generator = torch.Generator().manual_seed(update_seed(self.config.seed, self.iteration, 0))
        loss, lost = 0.0, 0.0
        for _ in range(rollout.steps):
            rows = torch.randint(len(lessons.features), (rollout.replicas,), generator=generator)
            a, b = self._step(lessons.features[rows], lessons.regret[rows], lr)
            loss, lost = loss + a / rollout.steps, lost + b / rollout.steps
        self.agent_steps += rollout.steps * rollout.replicas
        if not torch.isfinite(self._network.parameters).all():
            raise NumericalError(
                f"learner of group {self._name!r}: weights are no longer finite after iteration {self.iteration + 1}; "
                "lower learner.lr or learner.max_grad_norm"
            )
        return {f"{self._name}/{key}": value for key, value in (("loss", loss), ("regret", lost), ("lr", lr))}

    def _step(self, features: torch.Tensor, regret: torch.Tensor, lr: float) -> tuple[float, float]:
        """One Adam step; the loss before it, and what the likeliest levels lose, a state and command."""
        outputs = self._network.actor.forward(features)
        slopes, loss, lost = [], 0.0, 0.0
        n, counts = len(features), list(self._layout.level_counts)
        for logits, cost in zip(torch.split(outputs[-1], counts, -1), torch.split(regret, counts, -1), strict=True):
            best, stake = cost.argmin(-1, keepdim=True), cost.sum(-1, keepdim=True) / max(1, cost.shape[-1] - 1)
            log_p = torch.log_softmax(logits, -1)
            slopes.append(stake / n * (log_p.exp() - torch.zeros_like(log_p).scatter_(-1, best, 1.0)))
            loss -= float((stake * log_p.gather(-1, best)).mean())
            lost += float(cost.gather(-1, logits.argmax(-1, keepdim=True)).mean()) / len(counts)
        self._network.gradients.zero_()
        self._network.actor.backward(outputs, torch.cat(slopes, -1))
        norm = float(torch.linalg.vector_norm(self._network.gradients))
        self._network.gradients.mul_(min(1.0, self._settings.max_grad_norm / (norm + 1e-6)))
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()
        return loss, lost

    def _standard(self) -> tuple[Float32, Float32]:
        return self._moments.standard()

    def policy_weights(self) -> dict[str, ActorWeights]:
        """The acting half."""
        return {self._name: self._network.actor_weights(*self._standard(), self._settings.feature_clip)}

    def export(self) -> Mapping[str, PolicyNetwork]:
        """What acts, as an artifact ships it."""
        return {name: to_policy_network(w, self.layouts[name]) for name, w in self.policy_weights().items()}

    def evaluate(self) -> float:
        """Mean reward an agent-step in the twin."""
        return evaluate_actors(self.config, self.problem, self.policy_weights())

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Everything that the rest of the run depends on, but for the lessons, which their seeds make again."""
        moments = self._adam.state.get(self._parameter, {})
        held = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "moments": self._moments.state(),
            "network": self._network.parameters.clone(),
            "adam": {k: v.clone() for k, v in moments.items()},
        }
        return lambda: held

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        self._network.parameters.copy_(state["network"])
        self._moments.restore(state["moments"])
        if state["adam"]:
            self._adam.state[self._parameter] = {k: v.clone() for k, v in state["adam"].items()}


def check(problem: Problem) -> None:
    """Raise :class:`ConfigurationError` for a site that does not teach, and where not just levels of one group are to
    be learnt."""
    if not isinstance(problem.site, TeachingSite):
        raise ConfigurationError(
            f"learner kind taught: site {problem.site.name!r} does not know the best answers of its layouts; take "
            "kind ppo, which learns by trial"
        )
    layouts = problem.layouts(problem.nameplate())
    if len(layouts) != 1 or any(layout.continuous for layout in layouts.values()):
        raise ConfigurationError(
            f"learner kind taught: it learns commands with levels of one group, and controlled are those of "
            f"{', '.join(layouts)}; set learner.controlled"
        )


def _check_group(name: str, taught: str) -> None:
    if name != taught:
        raise ConfigurationError(f"learner kind taught: the site teaches group {taught!r}, and controlled is {name!r}")


def _check_commands(names: list[str], taught: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in taught]
    if unknown:
        raise ConfigurationError(
            f"learner kind taught: the site teaches {', '.join(taught)}, and controlled is also {', '.join(unknown)}; "
            "set learner.controlled"
        )
