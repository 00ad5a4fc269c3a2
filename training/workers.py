"""Who runs the shards: this process, or Ray actors that own whole shards and return whole rollouts.

Either way the batch is the same, bit for bit, because a shard's rollout depends on its plan and the policy alone.
A worker that dies is replaced: its shards are restored from where the iteration began, and collect again.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from ..agents.ppo_settings import PpoConfiguration
from ..agents.sac_settings import SacConfiguration
from ..envs.errors import MissingExtraError, RunError
from .configuration import TrainConfiguration
from .problem import Problem
from .rollout import PolicyWeights, Rollout, Shard, ShardPlan, ShardState

ATTEMPTS = 2


class Collector(Protocol):
    """A context manager that gathers one rollout a shard, in shard order."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def collect(self, weights: PolicyWeights) -> list[Rollout]: ...
    def snapshots(self) -> Callable[[], list[ShardState]]:
        """Hold on to the states of all shards after the last rollout; calling the result fetches them."""
        ...

    def restore(self, states: Sequence[ShardState]) -> None: ...


def make_collector(problem: Problem, config: TrainConfiguration) -> Collector:
    """In process for 0 workers (Ray is then never imported), else Ray actors."""
    plans = shard_plans(config)
    if config.rollout.workers == 0:
        return InProcessCollector(problem, plans, config.rollout.steps)
    return RayCollector(problem, plans, config.rollout.steps, config.rollout.workers)


def shard_plans(config: TrainConfiguration) -> list[ShardPlan]:
    """Replicas ``0 .. replicas - 1`` of a run, shard by shard."""
    rollout = config.rollout
    bootstrap = isinstance(config.learner, PpoConfiguration | SacConfiguration) and config.learner.gamma > 0
    wants_state = isinstance(config.learner, PpoConfiguration) and config.learner.critic_view == "state"
    return [
        ShardPlan(config.seed, first, rollout.per_shard, bootstrap=bootstrap, wants_state=wants_state)
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
        self._shards = [Shard(problem, plan) for plan in plans]
        self._n_steps = n_steps

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def collect(self, weights: PolicyWeights) -> list[Rollout]:
        with one_thread():
            return [shard.collect(weights, self._n_steps) for shard in self._shards]

    def snapshots(self) -> Callable[[], list[ShardState]]:
        with one_thread():
            states = [shard.snapshot() for shard in self._shards]
        return lambda: states

    def restore(self, states: Sequence[ShardState]) -> None:
        with one_thread():
            for shard, state in zip(self._shards, states, strict=True):
                shard.restore(state)


class ShardWorker:
    """What runs inside a Ray actor: some of the shards."""

    def __init__(self, problem: Problem, plans: Sequence[ShardPlan], states: Sequence[ShardState] | None) -> None:
        torch.set_num_threads(1)
        self._shards = [Shard(problem, plan) for plan in plans]
        if states is not None:
            self.restore(states)

    def process_id(self) -> int:
        return os.getpid()

    def collect(self, weights: PolicyWeights, n_steps: int) -> tuple[list[Rollout], list[ShardState]]:
        rollouts = [shard.collect(weights, n_steps) for shard in self._shards]
        return rollouts, self.snapshots()

    def snapshots(self) -> list[ShardState]:
        return [shard.snapshot() for shard in self._shards]

    def restore(self, states: Sequence[ShardState]) -> None:
        for shard, state in zip(self._shards, states, strict=True):
            shard.restore(state)


class RayCollector:
    """Shards in ``n_workers`` Ray actors on this machine, shared out in contiguous blocks.

    A Ray session that runs already is used and left running; else one is started without dashboard and stopped. Ray's
    own ports listen on every interface of the machine, which no option of it prevents: train behind a firewall.
    """

    def __init__(self, problem: Problem, plans: Sequence[ShardPlan], n_steps: int, n_workers: int) -> None:
        self._problem = problem
        self._n_steps = n_steps
        bounds = [len(plans) * k // n_workers for k in range(n_workers + 1)]
        self._plans = [list(plans[a:b]) for a, b in itertools.pairwise(bounds)]
        self._ray: Any = None
        self._owns_session = False
        self._actors: list[Any] = []
        self._states: list[Any] = [None] * n_workers  # object references to the states at the last iteration's end

    def __enter__(self) -> Self:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray", "rollout.workers above 0") from error
        self._ray = ray
        if not ray.is_initialized():
            # No usage report leaves the machine.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                address="local",  # a session of its own: without it Ray joins any cluster that it finds running
                num_cpus=len(self._plans),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
            )
            self._owns_session = True
        self._actors = [self._start(k) for k in range(len(self._plans))]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._states = [None] * len(self._plans)
        if self._owns_session:
            self._ray.shutdown()
            self._owns_session = False

    def process_ids(self) -> list[int]:
        """Of the workers, in order."""
        ids: list[int] = self._ray.get([a.process_id.remote() for a in self._actors])
        return ids

    def collect(self, weights: PolicyWeights) -> list[Rollout]:
        shared = self._ray.put(dict(weights))
        pending = [self._ask(k, shared) for k in range(len(self._actors))]
        rollouts: list[Rollout] = []
        states: list[Any] = []
        for k, (first, state) in enumerate(pending):
            gathered, kept = self._await(k, shared, first, state)
            rollouts += gathered
            states.append(kept)
        self._states = states
        return rollouts

    def snapshots(self) -> Callable[[], list[ShardState]]:
        held = [self._actors[k].snapshots.remote() if state is None else state for k, state in enumerate(self._states)]
        return lambda: [shard for worker in self._ray.get(held) for shard in worker]

    def restore(self, states: Sequence[ShardState]) -> None:
        at = 0
        for k, plans in enumerate(self._plans):
            self._states[k] = self._ray.put(list(states[at : at + len(plans)]))
            at += len(plans)
        self._ray.get([a.restore.remote(state) for a, state in zip(self._actors, self._states, strict=True)])

    def _start(self, k: int) -> Any:
        actor = self._ray.remote(num_cpus=0)(ShardWorker)
        return actor.remote(self._problem, self._plans[k], self._states[k])

    def _ask(self, k: int, weights: Any) -> tuple[Any, Any]:
        rollouts, states = self._actors[k].collect.options(num_returns=2).remote(weights, self._n_steps)
        return rollouts, states

    def _await(self, k: int, weights: Any, rollouts: Any, states: Any) -> tuple[list[Rollout], Any]:
        """The rollouts of worker ``k``; once more from the iteration's beginning when the worker died."""
        for attempt in range(ATTEMPTS):
            try:
                return self._ray.get(rollouts), states
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as error:
                if attempt + 1 == ATTEMPTS:
                    raise RunError(
                        f"rollout worker {k} died {ATTEMPTS} times in one iteration ({type(error).__name__}); "
                        "look for memory running out, or run with --workers 0 to see the error itself"
                    ) from error
                self._actors[k] = self._start(k)
                rollouts, states = self._ask(k, weights)
        raise AssertionError("unreachable: the loop returns or raises")
