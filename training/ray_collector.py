"""Shards in Ray actors that own whole shards and return whole rollouts; whatever befalls an actor, the data is whole.

A worker that dies, hangs or raises is replaced: its shards go on from where the iteration began and gather again, so
that the batch keeps its size and its bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ..envs.errors import RunError
from .problem import Problem
from .ray_session import RaySession
from .rollout_batch import PolicyWeights, Rollout
from .shard import ShardPlan, ShardState
from .shard_worker import pack, unpack, versions
from .worker_handle import START_S, WorkerHandle

_POLL_S, _POLL_RECOVERING_S = 0.5, 0.05


class RayCollector:
    """Shards shared out in contiguous blocks among ``n_workers`` actors, which are spread over the nodes there are.

    ``address``: see :class:`~twinloop.training.ray_session.RaySession`. A worker that takes no step for
    ``hang_timeout_s`` counts as hung.
    """

    def __init__(
        self,
        problem: Problem,
        plans: Sequence[ShardPlan],
        n_steps: int,
        n_workers: int,
        address: str | None = None,
        hang_timeout_s: float = 30.0,
    ) -> None:
        self._problem = problem
        self._n_steps = n_steps
        self._hang_timeout_s = hang_timeout_s
        bounds = [len(plans) * k // n_workers for k in range(n_workers + 1)]
        self._plans = [list(plans[a:b]) for a, b in itertools.pairwise(bounds)]
        self._session = RaySession(address, n_workers)
        self._ray: Any = None
        self._workers: list[WorkerHandle] = []

    def __enter__(self) -> Self:
        self._ray = self._session.open()
        self._workers = [
            WorkerHandle(self._ray, k, self._problem, plans, self._hang_timeout_s)
            for k, plans in enumerate(self._plans)
        ]
        try:
            for worker in self._workers:
                worker.launch()
            if self._session.is_cluster:
                self._check_versions()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close()
        self._workers = []
        self._session.close()

    def processes(self) -> list[dict[str, str]]:
        """Process id, host and versions of the workers, in order."""
        told: list[dict[str, str]] = self._ray.get([w.describe() for w in self._workers], timeout=START_S)
        return told

    def process_ids(self) -> list[int]:
        """Of the workers, in order."""
        return [int(told["pid"]) for told in self.processes()]

    def recoveries_s(self) -> list[float]:
        """Seconds from each failure that was noticed to the first step of the worker that took over."""
        return [seconds for worker in self._workers for seconds in worker.recoveries_s]

    def collect(self, weights: PolicyWeights) -> list[Rollout]:
        self.start(weights)
        return self.finish()

    def start(self, weights: PolicyWeights) -> None:
        shared = self._ray.put(dict(weights))
        for worker in self._workers:
            worker.ask(shared, self._n_steps)

    def finish(self) -> list[Rollout]:
        for worker in self._workers:
            worker.wait_from_now()
        while waiting := [w for w in self._workers if w.result is None]:
            poll_s = _POLL_RECOVERING_S if any(w.is_recovering for w in waiting) else _POLL_S
            ready, _ = self._ray.wait(
                [w.pending for w in waiting], num_returns=1, timeout=min(poll_s, self._hang_timeout_s / 4)
            )
            for worker in waiting:
                if worker.pending in ready:
                    worker.take()
                elif not ready:
                    worker.watch()
        return [rollout for worker in self._workers for rollout in worker.settle()]

    def snapshots(self) -> Callable[[], list[ShardState]]:
        held = [w.states for w in self._workers]

        def fetch() -> list[ShardState]:
            states: list[ShardState] = []
            for plans, packed in zip(self._plans, held, strict=True):
                states += [{} for _ in plans] if packed is None else map(unpack, packed)
            return states

        return fetch

    def restore(self, states: Sequence[ShardState]) -> None:
        at = 0
        for worker, plans in zip(self._workers, self._plans, strict=True):
            worker.restore([pack(state) for state in states[at : at + len(plans)]])
            at += len(plans)

    def figures(self) -> Mapping[str, float]:
        return {
            "rollout/workers": float(len(self._workers)),
            "rollout/replaced_workers": float(sum(w.restarts for w in self._workers)),
        }

    def _check_versions(self) -> None:
        """Raise RunError where a node computes with other versions than this process: results would differ."""
        errors = self._ray.exceptions
        ours = versions()
        try:
            told = self.processes()
        except (errors.RayActorError, errors.RayTaskError) as error:
            raise RunError(
                "a worker could not start on the Ray cluster; install the same wheel of twinloop on every node:\n"
                f"{error}"
            ) from error
        except errors.GetTimeoutError as error:
            raise RunError(
                f"the Ray cluster placed no worker within {START_S:g} s; it has "
                f"{self._ray.cluster_resources().get('CPU', 0):g} CPUs, see `ray status`"
            ) from error
        for process in told:
            for package, version in ours.items():
                if process[package] != version:
                    raise RunError(
                        f"node {process['host']} has {package} {process[package]}, this process {version}: results "
                        "would depend on where they are computed; install the same versions on every node"
                    )
