"""One Ray session serves all tests of this file: starting one costs seconds."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
import torch

from twinloop.envs.errors import NumericalError
from twinloop.envs.twin import Readings, Tensors
from twinloop.training.benchmarks.reference_task import (
    GROUP,
    DriftConfig,
    DriftSite,
    DriftTwin,
    drift_configuration,
    drift_problem,
)
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.problem import Problem
from twinloop.training.rollout import concatenate
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.trainer import Trainer
from twinloop.training.workers import RayCollector, make_collector


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    # "local": without it Ray joins any cluster that it finds running.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def configuration(workers: int, busy_s: float = 0.0) -> TrainConfiguration:
    return drift_configuration(
        site=DriftConfig(n_assets=3, busy_s=busy_s),
        rollout=RolloutConfiguration(replicas=6, shard_replicas=2, steps=60, workers=workers, workers_forced=True),
        iterations=4,
    )


def arrays(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [a for v in value.values() for a in arrays(v)]
    if isinstance(value, list | tuple):
        return [a for v in value for a in arrays(v)]
    return arrays(vars(value)) if hasattr(value, "__dict__") else [np.asarray(value)]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def run(workers: int, iterations: int, state: Any = None) -> tuple[list[dict[str, float]], dict[str, Any]]:
    config = configuration(workers)
    with make_collector(drift_problem(config), config) as collector:
        trainer = Trainer(config, drift_problem(config), collector)
        if state is not None:
            trainer.restore(state)
        figures = [trainer.iterate() for _ in range(iterations)]
        return figures, trainer.boundary()()


def test_batches_weights_and_states_are_the_same_for_0_1_and_2_workers() -> None:
    alone = run(0, 3)
    for workers in (1, 2):
        assert same(alone, run(workers, 3)), f"{workers} workers"


def test_a_run_resumes_on_another_number_of_workers() -> None:
    _, whole = run(0, 4)
    _, half = run(0, 2)
    # The other way round follows, as the states of 2 workers are those of none.
    assert same(whole, run(2, 2, half)[1])


def test_a_worker_that_is_killed_amid_a_rollout_costs_no_data() -> None:
    quiet = configuration(0)
    with make_collector(drift_problem(quiet), quiet) as collector:
        weights = Trainer(quiet, drift_problem(quiet), collector).policy_weights()
        expected = [concatenate(collector.collect(weights)) for _ in range(3)]
    config = configuration(2, busy_s=0.002)
    with make_collector(drift_problem(config), config) as collector:
        assert isinstance(collector, RayCollector)
        batches = [concatenate(collector.collect(weights))]
        before = collector.process_ids()
        began = time.monotonic()
        killer = threading.Timer(0.1, os.kill, (before[1], signal.SIGKILL))
        killer.start()
        batches.append(concatenate(collector.collect(weights)))
        assert time.monotonic() - began > 0.1, "the rollout was over before the worker died"
        killer.join()
        batches.append(concatenate(collector.collect(weights)))
        after = collector.process_ids()
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert same(expected, batches)


class FaultyTwin(DriftTwin):
    def step(self, commands: Tensors) -> Readings:
        after = super().step(commands)
        after.measured[GROUP][0, 0, 0] = torch.nan
        return after


class FaultySite(DriftSite):
    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        return FaultyTwin(config, n_replicas, device, dtype)


def test_an_error_in_a_worker_arrives_as_itself() -> None:
    config = configuration(1)
    # By value: the worker cannot import this test file.
    ray.cloudpickle.register_pickle_by_value(  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        sys.modules[__name__]
    )
    problem = Problem.of(config, FaultySite())
    with make_collector(problem, config) as collector:
        weights = Trainer(config, problem, collector).policy_weights()
        with pytest.raises(NumericalError, match="replica 0, asset/A1/x0"):
            collector.collect(weights)


def test_ray_is_not_imported_for_0_workers() -> None:
    code = (
        "import sys\n"
        "from twinloop.training.benchmarks.reference_task import *\n"
        "config = drift_configuration()\n"
        "with make_collector(drift_problem(config), config) as collector:\n"
        "    Trainer(config, drift_problem(config), collector).iterate()\n"
        "sys.exit('ray' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
