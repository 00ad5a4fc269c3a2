"""Stable-Baselines3 from the same configuration, saved as the same artifact, and resumed bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..agents.forward import PolicyNetwork
from ..agents.sb3_settings import Sb3Configuration
from ..agents.stable_baselines import RewardOf, TwinVecEnv
from ..envs.adapters.episodes import Episodes
from ..envs.errors import ConfigurationError
from ..envs.twin import Twin
from .configuration import TrainConfiguration
from .episode_tally import EpisodeTally
from .meeting import Meeting
from .network_evaluation import evaluate_networks
from .problem import Problem
from .run_length import n_iterations
from .sb3_learner import Sb3Learner
from .sb3_options import recipe
from .sb3_state import Generators
from .seeds import row_seeds
from .shielded_twin import ShieldedTwin
from .workers import one_thread

_GENERATORS, _ENVIRONMENT, _SPACE = -1, -2, -3  # replicas that no run has, whose seeds are for these


def derived_seed(run_seed: int, purpose: int) -> int:
    """A seed of its own for a purpose, as a hash, below 2**31."""
    return int(row_seeds(run_seed, torch.tensor([purpose]))[0] % (1 << 31))


class Sb3Trainer:
    """One learner of SB3 a group, each shared by the group's assets; every asset of every replica is a slot of it.

    Raises :class:`~twinloop.envs.errors.ConfigurationError` for what SB3, or the artifact, can't do.
    """

    def __init__(self, config: TrainConfiguration, problem: Problem) -> None:
        settings = sb3_settings(config)
        self.config, self.problem = config, problem
        self.nameplate = problem.nameplate()
        self.encoders = problem.encoders(self.nameplate)
        self.layouts = problem.layouts(self.nameplate)
        self.iteration = 0
        self.agent_steps = 0
        if settings.algorithm == "ARS" and len(self.layouts) > 1:
            raise ConfigurationError(
                f"learner.algorithm: ARS judges a policy by whole episodes, and here {len(self.layouts)} groups would "
                f"learn in the same ones ({', '.join(self.layouts)}); name one group in learner.controlled"
            )
        recipes = {name: recipe(config, settings, name, layout) for name, layout in self.layouts.items()}
        n_replicas = config.rollout.replicas
        twin, task = problem.twin(n_replicas), problem.task()
        n_assets = {name: self.nameplate.group(name).n_assets for name in self.layouts}
        shield = twin if isinstance(twin, ShieldedTwin) else None
        self._tally = EpisodeTally(n_replicas, {name: range(n) for name, n in n_assets.items()}, shield)
        self._meeting = Meeting(Episodes(twin, task), list(self.layouts)) if len(self.layouts) > 1 else None
        self._learners: dict[str, Sb3Learner] = {}
        device = str(settings.options.get("device", "cpu"))
        self._generators = Generators(derived_seed(config.seed, _GENERATORS), cuda=device.startswith("cuda"))
        with self._generators.current():
            for number, name in enumerate(self.layouts):
                env = TwinVecEnv(
                    twin,
                    task,
                    encoder=self.encoders[name],
                    group=name,
                    controlled=[self.nameplate.group(name).commanded[c].name for c in self.layouts[name].columns],
                    episodes=self._meeting.face(name) if self._meeting else None,
                    on_step=self._tally if number == 0 else None,
                    reward_of=penalised(config, twin, name),
                )
                env.seed(int(row_seeds(config.seed, torch.tensor([_ENVIRONMENT]))[0]) >> 1)
                seed = derived_seed(config.seed, _SPACE - number)
                self._learners[name] = Sb3Learner(recipes[name], env, self.layouts[name], seed, self.n_iterations)

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        return n_iterations(self.config, sum(self.nameplate.group(name).n_assets for name in self.layouts))

    def iterate(self) -> dict[str, float]:
        """One round of SB3: collect, train, and return the iteration's figures."""
        figures: dict[str, float] = {}
        with one_thread(), self._generators.current():
            self._collect()
            for name, learner in self._learners.items():
                figures |= {f"{name}/{key}": value for key, value in learner.train().items()}
        told, n_steps = self._tally.take()
        self.iteration += 1
        self.agent_steps += n_steps
        figures = told | figures | {"agent_steps": float(self.agent_steps)}
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def _collect(self) -> None:
        gather = [lambda learner=learner: learner.collect(self.iteration) for learner in self._learners.values()]
        if self._meeting is None:
            gather[0]()
        else:
            self._meeting.run(gather)

    def evaluate(self) -> float:
        """Mean reward an agent-step of what would be shipped now, on replicas that it does not learn from."""
        return evaluate_networks(self.config, self.problem, self.export())

    def export(self) -> dict[str, PolicyNetwork]:
        """The acting half of every group, as an artifact ships it."""
        return {name: learner.network() for name, learner in self._learners.items()}

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Everything that the rest of the run depends on."""
        with self._generators.current():
            learners = {name: learner.boundary() for name, learner in self._learners.items()}
        held = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "generators": self._generators.state(),
            "tally": self._tally.state(),
        }
        return lambda: {**held, "learners": {name: state() for name, state in learners.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        with self._generators.current():
            for name, learner in self._learners.items():
                learner.restore(state["learners"][name])
        self._generators.restore(state["generators"])
        self._tally.restore(state["tally"])


def sb3_settings(config: TrainConfiguration) -> Sb3Configuration:
    """The learner's settings; raises ConfigurationError for those of another kind."""
    if not isinstance(config.learner, Sb3Configuration):
        raise ConfigurationError(f"learner kind {config.learner.kind}: this trainer is for kind sb3")
    return config.learner


def penalised(config: TrainConfiguration, twin: Twin, group: str) -> RewardOf | None:
    """What a group earns behind a shield: its reward less the price of what the shield had to change.

    SB3 keeps the action that it chose; to its learners the shield is part of the world.
    """
    if config.shield is None or not isinstance(twin, ShieldedTwin):
        return None
    price = config.shield.intervention_penalty
    return lambda outcome: outcome.rewards[group] - price * twin.last().change[group]


def check(config: TrainConfiguration, problem: Problem) -> None:
    """Raise ConfigurationError for what SB3, or the artifact, can't do, by making the learners once."""
    Sb3Trainer(config, problem).export()
