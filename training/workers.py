"""Who gathers a run's experience, as its settings have it: this process, Ray workers, one rollout ahead or not."""

from __future__ import annotations

import os

from .collector import Collector, Gatherer, InProcessCollector, one_thread, shard_plans
from .configuration import TrainConfiguration
from .overlapped import OverlappedCollector
from .problem import Problem
from .ray_collector import RayCollector
from .worker_choice import MeasuredCollector


def make_collector(problem: Problem, config: TrainConfiguration) -> Collector:
    """In process for 0 workers (Ray is then never imported), else Ray actors where those pay or are forced."""
    rollout, plans = config.rollout, shard_plans(config)
    inner: Gatherer

    def workers() -> RayCollector:
        return RayCollector(problem, plans, rollout.steps, rollout.workers, rollout.ray_address, rollout.hang_timeout_s)

    if rollout.workers == 0:
        inner = InProcessCollector(problem, plans, rollout.steps)
    elif rollout.workers_forced:
        inner = workers()
    else:
        inner = MeasuredCollector(
            problem,
            plans,
            rollout.steps,
            rollout.workers,
            workers,
            is_overlapped=rollout.overlap,
            is_local=rollout.ray_address is None and "RAY_ADDRESS" not in os.environ,
        )
    return OverlappedCollector(inner) if rollout.overlap else inner


__all__ = [
    "Collector",
    "InProcessCollector",
    "RayCollector",
    "make_collector",
    "one_thread",
    "shard_plans",
]
