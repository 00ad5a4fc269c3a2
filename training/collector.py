"""Who runs the shards of a run, and the simplest of them: this very process.

Whoever does, the batch is the same, bit for bit, because a shard's rollout depends on its plan and the policy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

import torch

from ..envs.errors import RunError
from .configuration import TrainConfiguration
from .problem import Problem
from .rollout_batch import PolicyWeights, Rollout
from .shard import Shard, ShardPlan, ShardState


class Collector(Protocol):
    """A context manager that gathers one rollout a shard, in shard order."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def collect(self, weights: PolicyWeights) -> list[Rollout]: ...
    def snapshots(self) -> Callable[[], list[ShardState]]:
        """Hold on to the states of all shards after the last rollout; calling the result fetches them. An empty state
        is a shard that has not begun."""
        ...

    def restore(self, states: Sequence[ShardState]) -> None: ...
    def figures(self) -> Mapping[str, float]:
        """What a run should tell of how it gathers, beyond what it gathered: these may differ between equal runs."""
        ...


class Gatherer(Collector, Protocol):
    """A collector whose :meth:`collect` comes in two halves, with something else in between."""

    def start(self, weights: PolicyWeights) -> None:
        """Begin a rollout."""
        ...

    def finish(self) -> list[Rollout]:
        """Wait for the rollout that began."""
        ...


def shard_plans(config: TrainConfiguration) -> list[ShardPlan]:
    """Replicas ``0 .. replicas - 1`` of a run, shard by shard."""
    rollout, learner = config.rollout, config.learner
    return [
        ShardPlan(
            config.seed,
            first,
            rollout.per_shard,
            bootstrap=getattr(learner, "gamma", 1.0) > 0,
            wants_state=getattr(learner, "critic_view", "own") == "state",
        )
        for first in range(0, rollout.replicas, rollout.per_shard)
    ]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: small batches run up to ten times slower on more, and sums then depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class InProcessCollector:
    """All shards in this process."""

    def __init__(self, problem: Problem, plans: Sequence[ShardPlan], n_steps: int) -> None:
        self._problem = problem
        self._plans = list(plans)
        self._shards = [Shard(problem, plan) for plan in plans]
        self._n_steps = n_steps
        self._weights: PolicyWeights | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def collect(self, weights: PolicyWeights) -> list[Rollout]:
        self.start(weights)
        return self.finish()

    def start(self, weights: PolicyWeights) -> None:
        """Remember the weights: nothing runs beside this process, so :meth:`finish` does the work."""
        self._weights = weights

    def finish(self) -> list[Rollout]:
        if self._weights is None:
            raise RunError("no rollout was begun; call start first")
        weights, self._weights = self._weights, None
        with one_thread():
            return [shard.collect(weights, self._n_steps) for shard in self._shards]

    def snapshots(self) -> Callable[[], list[ShardState]]:
        with one_thread():
            states = [shard.snapshot() for shard in self._shards]
        return lambda: states

    def restore(self, states: Sequence[ShardState]) -> None:
        self._weights = None
        self._close()
        self._shards = [Shard(self._problem, plan) for plan in self._plans]
        with one_thread():
            for shard, state in zip(self._shards, states, strict=True):
                if state:
                    shard.restore(state)

    def figures(self) -> Mapping[str, float]:
        return {}

    def _close(self) -> None:
        for shard in self._shards:
            shard.close()
