"""Whether workers pay: one short rollout in this process tells, before any worker is started."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from .collector import Gatherer, InProcessCollector, one_thread
from .problem import Problem
from .rollout_batch import PolicyWeights, Rollout
from .shard import Shard, ShardPlan, ShardState

PROBE_REPLICA = 1 << 41
"""Replicas of the probe count from here, far from those that learn or are evaluated."""
PROBE_STEPS = 4
FIXED_S, PER_BYTE_S = 0.01, 10e-9
"""What a rollout costs more through Ray: a call a worker, and the way of a byte into shared memory and out of it."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """What one shard costs in this process: seconds and bytes a replica-step."""

    replica_step_s: float
    replica_step_bytes: float


def probe(problem: Problem, plan: ShardPlan, weights: PolicyWeights) -> Probe:
    """Gather a few steps in replicas of their own; the first ones, which build the twin, are not timed."""
    shard = Shard(problem, replace(plan, first_replica=PROBE_REPLICA))
    times: list[float] = []
    with one_thread():
        shard.collect(weights, 1)
        while len(times) < 12 and sum(times) < 1.0:  # the least of many, since others use the machine too
            began = time.perf_counter()
            rollout = shard.collect(weights, PROBE_STEPS)
            times.append(time.perf_counter() - began)
    shard.close()
    replica_steps = PROBE_STEPS * plan.n_replicas
    n_bytes = sum(a.nbytes for group in rollout.groups.values() for a in vars(group).values() if a is not None)
    return Probe(min(times) / replica_steps, n_bytes / replica_steps)


def gain_s(found: Probe, replica_steps: int, n_workers: int, is_overlapped: bool, n_cores: int) -> float:
    """Seconds of an iteration that ``n_workers`` would save; negative where they lose."""
    at_once = min(n_workers + is_overlapped, n_cores)
    alone_s = found.replica_step_s * replica_steps
    return alone_s * (1.0 - 1.0 / at_once) - FIXED_S * n_workers - PER_BYTE_S * found.replica_step_bytes * replica_steps


class MeasuredCollector:
    """Workers where they pay, else this process; decided by the first weights that come."""

    def __init__(
        self,
        problem: Problem,
        plans: Sequence[ShardPlan],
        n_steps: int,
        n_workers: int,
        make_workers: Callable[[], Gatherer],
        *,
        is_overlapped: bool,
        is_local: bool,
    ) -> None:
        self._problem = problem
        self._plans = list(plans)
        self._n_steps = n_steps
        self._n_workers = n_workers
        self._make_workers = make_workers
        self._is_overlapped = is_overlapped
        self._n_cores = len(os.sched_getaffinity(0)) if is_local else n_workers + 1
        self._stack = ExitStack()
        self._inner: Gatherer | None = None
        self._states: list[ShardState] | None = None
        self._figures: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._inner = None

    @property
    def inner(self) -> Gatherer | None:
        """Who gathers; None before the first weights."""
        return self._inner

    def collect(self, weights: PolicyWeights) -> list[Rollout]:
        self.start(weights)
        return self.finish()

    def start(self, weights: PolicyWeights) -> None:
        if self._inner is None:
            self._inner = self._stack.enter_context(self._chosen(weights))
            if self._states is not None:
                self._inner.restore(self._states)
        self._inner.start(weights)

    def finish(self) -> list[Rollout]:
        return self._begun().finish()

    def snapshots(self) -> Callable[[], list[ShardState]]:
        if self._inner is not None:
            return self._inner.snapshots()
        states: list[ShardState] = self._states if self._states is not None else [{} for _ in self._plans]
        return lambda: states

    def restore(self, states: Sequence[ShardState]) -> None:
        self._states = list(states)
        if self._inner is not None:
            self._inner.restore(states)

    def figures(self) -> Mapping[str, float]:
        return self._figures | (dict(self._inner.figures()) if self._inner is not None else {})

    def _begun(self) -> Gatherer:
        if self._inner is None:
            raise RuntimeError("no rollout was begun; call start first")
        return self._inner

    def _chosen(self, weights: PolicyWeights) -> Gatherer:
        found = probe(self._problem, self._plans[0], weights)
        replica_steps = sum(plan.n_replicas for plan in self._plans) * self._n_steps
        gain = gain_s(found, replica_steps, self._n_workers, self._is_overlapped, self._n_cores)
        self._figures = {"rollout/replica_step_ms": 1e3 * found.replica_step_s}
        if gain > 0:
            return self._make_workers()
        _LOG.warning(
            "gathering stays in this process: a replica-step takes %.3f ms, so %d Ray workers would cost an iteration "
            "%.0f ms more than they save; rollout.workers_forced uses them all the same",
            1e3 * found.replica_step_s,
            self._n_workers,
            -1e3 * gain,
        )
        self._figures["rollout/workers"] = 0.0
        return InProcessCollector(self._problem, self._plans, self._n_steps)
