"""Federated learning: one SB3 learner an asset, each in a Ray actor with a site of its own.

Experience stays where it was made. What travels is figures, and weights: where averaging is asked, and to make the
artifact. An actor that dies is built again from its last checkpoint and repeats what it did since, bit for bit.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch

from ..agents.forward import PolicyNetwork
from ..envs.errors import ConfigurationError, RunError
from .configuration import TrainConfiguration
from .federated_site import FederatedSite, Weights
from .network_evaluation import evaluate_networks
from .problem import Problem
from .ray_session import RaySession
from .run_length import n_iterations
from .sb3_export import stack
from .sb3_trainer import sb3_settings

ATTEMPTS = 3
"""Times that an actor may die in one iteration before the run ends."""


class FederatedTrainer:
    """Context manager. Assets learn apart; the artifact, and evaluations, put them together on one site."""

    def __init__(self, config: TrainConfiguration, problem: Problem) -> None:
        settings = sb3_settings(config)
        if settings.federated is None:
            raise ConfigurationError("learner.federated: absent; this trainer is for federated runs")
        self.config, self.problem = config, problem
        self._average_every = settings.federated.average_every
        self.nameplate = problem.nameplate()
        self.encoders = problem.encoders(self.nameplate)
        self.iteration = 0
        self.agent_steps = 0
        groups = list(problem.layouts(self.nameplate))
        self._places = [(g, column) for g in groups for column in range(self.nameplate.group(g).n_assets)]
        self._session = RaySession(config.rollout.ray_address, min(len(self._places), os.cpu_count() or 1))
        self._ray: Any = None
        self._actors: list[Any] = []
        self._run_key = uuid.uuid4().hex[:12]
        # What a new actor needs to catch up: where its site stood last, and the means that it took since.
        self._known: list[dict[str, Any] | None] = [None] * len(self._places)
        self._known_at = 0
        self._means: dict[int, dict[str, Weights]] = {}
        self.restarts = 0

    def __enter__(self) -> Self:
        self._ray = self._session.open()
        self._actors = [self._launch(k) for k in range(len(self._places))]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._session.close()

    @property
    def n_iterations(self) -> int:
        """Length of the run."""
        return n_iterations(self.config, len(self._places))

    def process_ids(self) -> list[int]:
        """Of the actors, asset by asset."""
        return self._ask("process_id")

    def iterate(self) -> dict[str, float]:
        """One round at every asset, and the mean of their weights where it is time for it."""
        outcomes = self._ask("iterate", self.iteration)
        self.iteration += 1
        if self._averages_after(self.iteration):
            self._average()
        self.agent_steps += sum(n_steps for _, _, n_steps in outcomes)
        figures = _mean([told for _, told, _ in outcomes], [n for _, _, n in outcomes])
        figures["episodes"] = float(sum(told["episodes"] for _, told, _ in outcomes))
        for group in dict.fromkeys(g for g, _ in self._places):
            own = [learnt for (g, _), (learnt, _, _) in zip(self._places, outcomes, strict=True) if g == group]
            figures |= {f"{group}/{key}": value for key, value in _mean(own, [1] * len(own)).items()}
        figures["agent_steps"] = float(self.agent_steps)
        figures["restarts"] = float(self.restarts)
        every = self.config.evaluation.every
        if every and self.iteration % every == 0:
            figures["evaluation/reward"] = self.evaluate()
        return figures

    def _averages_after(self, iteration: int) -> bool:
        """Every so many iterations, and after the last: what is shipped shall be the mean."""
        if self._average_every is None:
            return False
        return iteration % self._average_every == 0 or iteration == self.n_iterations

    def _average(self) -> None:
        """Everyone takes the mean of its group's weights; all gathered as much, so all count alike."""
        weights: list[Weights] = self._ask("weights")
        means: dict[str, Weights] = {}
        for group in dict.fromkeys(g for g, _ in self._places):
            own = [w for (g, _), w in zip(self._places, weights, strict=True) if g == group]
            means[group] = {
                name: torch.stack([w[name].double() for w in own]).mean(0).to(own[0][name].dtype) for name in own[0]
            }
        self._means[self.iteration] = means
        self._ask_each("set_weights", [(means[group], self.iteration) for group, _ in self._places])

    def evaluate(self) -> float:
        """Mean reward an agent-step with all assets acting on one site, each by its own network."""
        return evaluate_networks(self.config, self.problem, self.export())

    def export(self) -> dict[str, PolicyNetwork]:
        """Per group: one network where all have just taken the mean, else one with separate weights for each asset."""
        networks: list[PolicyNetwork] = self._ask("network")
        exported = {}
        for group in dict.fromkeys(g for g, _ in self._places):
            own = [n for (g, _), n in zip(self._places, networks, strict=True) if g == group]
            exported[group] = own[0] if self.iteration and self._averages_after(self.iteration) else stack(own)
        return exported

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Everything that the rest of the run depends on; it can be asked for until two iterations later."""
        iteration, agent_steps, restarts = self.iteration, self.agent_steps, self.restarts

        def state() -> dict[str, Any]:
            sites = self._ask("state", iteration, self._run_key)
            if iteration >= self._known_at:
                self._know(sites, iteration)
            head = {"iteration": iteration, "agent_steps": agent_steps, "restarts": restarts}
            return {**head, "run_key": self._run_key, "sites": sites}

        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.iteration, self.agent_steps = int(state["iteration"]), int(state["agent_steps"])
        self.restarts, self._run_key = int(state["restarts"]), str(state["run_key"])
        self._means = {}
        self._know(state["sites"], self.iteration)
        self._ask_each("restore", [(site, self.iteration) for site in state["sites"]])

    def _know(self, sites: Sequence[dict[str, Any]], iteration: int) -> None:
        self._known, self._known_at = list(sites), iteration
        self._means = {at: means for at, means in self._means.items() if at > iteration}

    def _launch(self, k: int) -> Any:
        group, column = self._places[k]
        # Sites share the machine's cores: assets may outnumber them, and a round is short.
        actor = self._ray.remote(FederatedSite).options(num_cpus=0, scheduling_strategy="SPREAD")
        return actor.remote(self.config, self.problem, group, column, k, self.n_iterations)

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        return self._ask_each(method, [arguments] * len(self._actors))

    def _ask_each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers of all actors; one that died is built again first, and asked once more."""
        pending = [getattr(a, method).remote(*given) for a, given in zip(self._actors, arguments, strict=True)]
        return [self._answer(k, pending[k], method, arguments[k]) for k in range(len(pending))]

    def _answer(self, k: int, pending: Any, method: str, arguments: tuple[Any, ...]) -> Any:
        errors = self._ray.exceptions
        for attempt in range(ATTEMPTS):
            try:
                if attempt:
                    self._revive(k)
                    pending = getattr(self._actors[k], method).remote(*arguments)
                return self._ray.get(pending)
            except errors.RayTaskError as error:
                group, column = self._places[k]
                cause = error.cause if isinstance(error.cause, Exception) else error
                cause.add_note(f"at the site of {group}/{self.nameplate.group(group).assets[column]}")
                raise cause from None
            except errors.RayError as error:
                last = error
        group, column = self._places[k]
        raise RunError(
            f"the actor of {group}/{self.nameplate.group(group).assets[column]} died {ATTEMPTS} times in a row "
            f"({type(last).__name__}); look for memory running out: an actor takes some 300 MB"
        ) from last

    def _revive(self, k: int) -> None:
        """A new actor where the dead one stood: its last known state, then the same rounds and means again."""
        self.restarts += 1
        self._ray.kill(self._actors[k])
        self._actors[k] = actor = self._launch(k)
        known = self._known[k]
        if known is not None:
            actor.restore.remote(known, self._known_at)
        for iteration in range(self._known_at, self.iteration):
            actor.iterate.remote(iteration)
            if iteration + 1 in self._means:
                actor.set_weights.remote(self._means[iteration + 1][self._places[k][0]], iteration + 1)


def check(config: TrainConfiguration, problem: Problem) -> None:
    """Raise ConfigurationError for what SB3, or the artifact, can't do, by making one learner a group, without Ray."""
    length = FederatedTrainer(config, problem).n_iterations
    for group in problem.layouts(problem.nameplate()):
        FederatedSite(config, problem, group, 0, 0, length).network()


def _mean(figures: Sequence[Mapping[str, float]], counts: Sequence[int]) -> dict[str, float]:
    """Means of what each of several sites tells, weighted."""
    found = {}
    for key in dict.fromkeys(k for one in figures for k in one):
        told = [(one[key], n) for one, n in zip(figures, counts, strict=True) if key in one]
        found[key] = sum(value * n for value, n in told) / max(1, sum(n for _, n in told))
    return found
