"""Learners of separate groups in Ray actors of their own: they update side by side, on whatever nodes there are.

This process keeps a twin of every learner for acting and for values; an actor gets samples and gives back its state
after the update. So the twin always holds what an actor began the update with: one that dies or no longer answers is
replaced by a new one from there, which repeats the update with the same result, bit for bit.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any, Self

import torch

from ..agents.minibatches import Samples, View
from ..agents.ppo import GroupLearner
from ..envs.errors import RunError
from .learner_settings import LearnerActorsConfiguration

ATTEMPTS = 3
"""Times that a learner may fail in one update before the run ends."""
START_S = 300.0
"""What a new actor has to come up, on a machine under load."""

_POLL_S = 0.25
_LOG = logging.getLogger(__name__)

LearnerRecipe = Callable[[], GroupLearner]
"""Makes a group's learner anywhere; its first weights do not matter. Must pickle."""
LearnerState = Mapping[str, Any]


class LearnerWorker:
    """What runs inside a Ray actor: one group's learner."""

    def __init__(self, recipe: LearnerRecipe, device: str) -> None:
        torch.set_num_threads(1)
        self._device = torch.device(device)
        with self._device:
            self._learner = recipe()

    def place(self) -> tuple[int, str]:
        """Process id, and Ray's id of the node; that there is an answer also says that the process is alive."""
        import ray

        return os.getpid(), ray.get_runtime_context().get_node_id()

    def update(
        self, samples: Samples, progress: float, seed: int, state: LearnerState | None
    ) -> tuple[dict[str, float], LearnerState]:
        """Update from ``state``, or from where the last update ended; return the figures and the state after it."""
        if state is not None:
            self._learner.restore(_moved(state, self._device))
        figures = self._learner.update(moved_samples(samples, self._device), progress, seed)
        return figures, _moved(self._learner.state(), torch.device("cpu"))


@dataclass
class _Handle:
    """One learner, seen from here. ``is_current``: its actor holds the same state as the twin in this process."""

    name: str
    recipe: LearnerRecipe
    actor: Any = None
    is_current: bool = False
    pending: Any = None
    ping: Any = None
    answered_at: float = 0.0
    has_answered: bool = False
    failures: int = 0


class LearnerActors:
    """A context manager that holds the actors of ``recipes``, by group; ``ray`` is the module, connected."""

    def __init__(self, recipes: Mapping[str, LearnerRecipe], settings: LearnerActorsConfiguration, ray: Any) -> None:
        self._settings = settings
        self._handles = {name: _Handle(name, recipe) for name, recipe in recipes.items()}
        self._ray = ray
        self.restarts = 0

    def __enter__(self) -> Self:
        for handle in self._handles.values():
            self._launch(handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles.values():
            if handle.actor is not None:
                self._ray.kill(handle.actor)
                handle.actor = None

    def places(self) -> dict[str, tuple[int, str]]:
        """Process id, and Ray's id of the node, of each group's learner."""
        asked = {name: self._ping(handle) for name, handle in self._handles.items()}
        return {name: self._ray.get(reference, timeout=START_S) for name, reference in asked.items()}

    def forget(self) -> None:
        """The twins were restored: actors take their state over with the next update."""
        for handle in self._handles.values():
            handle.is_current = False

    def update(
        self,
        learners: Mapping[str, GroupLearner],
        samples: Mapping[str, Samples],
        progress: float,
        seeds: Mapping[str, int],
    ) -> dict[str, dict[str, float]]:
        """Figures of every group's update, and ``learners``, the twins, as the updates left them.

        Raises what a learner raised, and RunError for one that failed ``ATTEMPTS`` times.
        """
        asked = {name: (self._ray.put(samples[name]), progress, seeds[name]) for name in learners}
        for name, learner in learners.items():
            self._handles[name].failures = 0
            self._ask(self._handles[name], learner, asked[name])
        figures: dict[str, dict[str, float]] = {}
        while len(figures) < len(learners):
            waiting = [self._handles[name] for name in learners if name not in figures]
            ready, _ = self._ray.wait([h.pending for h in waiting], num_returns=1, timeout=_POLL_S)
            for handle in waiting:
                if handle.pending in ready:
                    told = self._take(handle)
                    if told is not None:
                        figures[handle.name], state = told
                        learners[handle.name].restore(state)
                        handle.is_current = True
                        continue
                elif not self._is_hung(handle):
                    continue
                self._replace(handle)
                self._ask(handle, learners[handle.name], asked[handle.name])
        return {name: figures[name] for name in learners}

    def _launch(self, handle: _Handle) -> None:
        gpus = self._settings.gpus_each
        # A concurrency group has a thread of its own, which answers while an update runs.
        remote = self._ray.remote(
            concurrency_groups={"life": 1}, scheduling_strategy="SPREAD", **({"num_gpus": gpus} if gpus else {})
        )(LearnerWorker)
        handle.actor = remote.remote(handle.recipe, "cuda" if gpus else "cpu")
        handle.is_current, handle.ping, handle.has_answered = False, None, False
        handle.answered_at = time.monotonic()

    def _ask(self, handle: _Handle, learner: GroupLearner, asked: tuple[Any, float, int]) -> None:
        state = None if handle.is_current else learner.state()
        handle.pending = handle.actor.update.remote(*asked, state)
        handle.answered_at = time.monotonic()

    def _take(self, handle: _Handle) -> tuple[dict[str, float], LearnerState] | None:
        """Figures and state of an update that has ended; None when its actor is no more."""
        try:
            told: tuple[dict[str, float], LearnerState] = self._ray.get(handle.pending)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except self._ray.exceptions.RayError as error:
            _LOG.debug("learner of group %s: %s", handle.name, error)
            return None
        return told

    def _is_hung(self, handle: _Handle) -> bool:
        now = time.monotonic()
        if handle.ping is None:
            handle.ping = self._ping(handle)
        elif self._ray.wait([handle.ping], timeout=0)[0]:
            handle.ping, handle.answered_at, handle.has_answered = None, now, True
        allowed_s = self._settings.hang_timeout_s if handle.has_answered else START_S
        return now - handle.answered_at > allowed_s

    def _ping(self, handle: _Handle) -> Any:
        return handle.actor.place.options(concurrency_group="life").remote()

    def _replace(self, handle: _Handle) -> None:
        handle.failures += 1
        if handle.failures >= ATTEMPTS:
            raise RunError(
                f"the learner of group {handle.name!r} failed {ATTEMPTS} times in one update; look for memory running "
                "out, or leave learner_actors out to see the error itself"
            )
        self.restarts += 1
        self._ray.kill(handle.actor)
        self._launch(handle)


def moved_samples(samples: Samples, device: torch.device) -> Samples:
    """A copy on ``device``; what Ray hands over lies in memory that cannot be written to."""
    parts: dict[str, Any] = {}
    for f in fields(samples):
        value = getattr(samples, f.name)
        if isinstance(value, View):
            value = replace(value, **{k: _moved(v, device) for k, v in vars(value).items()})
        parts[f.name] = _moved(value, device)
    return Samples(**parts)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, copy=True)
    if isinstance(value, Mapping):
        return {key: _moved(x, device) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(x, device) for x in value)
    return value
