"""One Ray session serves all tests of this file: starting one costs seconds."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from twinloop.envs.errors import NumericalError
from twinloop.envs.twin import Readings, Tensors
from twinloop.training import worker_handle
from twinloop.training.benchmarks.reference_task import (
    GROUP,
    DriftConfig,
    DriftSite,
    DriftTwin,
    drift_configuration,
    drift_problem,
)
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.overlapped import OverlappedCollector
from twinloop.training.problem import Problem
from twinloop.training.rollout import concatenate
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.trainer import Trainer
from twinloop.training.worker_choice import MeasuredCollector
from twinloop.training.workers import InProcessCollector, RayCollector, make_collector


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    # "local": without it Ray joins any cluster that it finds running.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def configuration(workers: int, busy_s: float = 0.0, **rollout: Any) -> TrainConfiguration:
    settings = {"replicas": 6, "shard_replicas": 2, "steps": 60, "workers": workers, "workers_forced": True}
    return drift_configuration(
        site=DriftConfig(n_assets=3, busy_s=busy_s),
        rollout=RolloutConfiguration(**{**settings, **rollout}),
        iterations=5,
    )


def arrays(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [a for v in value.values() for a in arrays(v)]
    if isinstance(value, list | tuple):
        return [a for v in value for a in arrays(v)]
    if is_dataclass(value):
        return arrays(vars(value))
    return [np.asarray(value)]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def run(
    workers: int, iterations: int, state: Any = None, **rollout: Any
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    config = configuration(workers, **rollout)
    with make_collector(drift_problem(config), config) as collector:
        trainer = Trainer(config, drift_problem(config), collector)
        if state is not None:
            trainer.restore(state)
        learnt = [trainer.iterate() for _ in range(iterations)]
        figures = [{k: v for k, v in x.items() if not k.startswith("rollout/")} for x in learnt]
        return figures, trainer.boundary()()


@pytest.mark.parametrize("overlap", [False, True], ids=["one after the other", "overlapped"])
def test_batches_weights_and_states_are_the_same_for_0_1_and_2_workers(overlap: bool) -> None:
    alone = run(0, 3, overlap=overlap)
    for workers in (1, 2):
        assert same(alone, run(workers, 3, overlap=overlap)), f"{workers} workers"


@pytest.mark.parametrize("overlap", [False, True], ids=["one after the other", "overlapped"])
def test_a_run_resumes_at_any_iteration(overlap: bool) -> None:
    figures, whole = run(0, 4, overlap=overlap)
    for at in range(5):
        first, half = run(0, at, overlap=overlap)
        second, end = run(0, 4 - at, half, overlap=overlap)
        assert same(whole, end), at
        assert same(figures, [*first, *second]), at


@pytest.mark.parametrize("overlap", [False, True], ids=["one after the other", "overlapped"])
def test_a_run_resumes_on_another_number_of_workers(overlap: bool) -> None:
    _, whole = run(0, 4, overlap=overlap)
    _, half = run(0, 2, overlap=overlap)
    # The other way round follows, as the states of 2 workers are those of none.
    assert same(whole, run(2, 2, half, overlap=overlap)[1])


def test_overlapped_collection_learns_otherwise() -> None:
    assert not same(run(0, 3)[1]["learners"], run(0, 3, overlap=True)[1]["learners"])


def undisturbed(n: int) -> tuple[Any, list[Any]]:
    """Weights, and ``n`` batches that they gather in this process."""
    quiet = configuration(0)
    with make_collector(drift_problem(quiet), quiet) as collector:
        weights = Trainer(quiet, drift_problem(quiet), collector).policy_weights()
        return weights, [concatenate(collector.collect(weights)) for _ in range(n)]


@pytest.mark.parametrize(
    ("kind", "in_first"),
    [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGSTOP, False)],
    ids=["killed", "killed in the first rollout", "hung"],
)
def test_a_worker_that_dies_or_hangs_amid_a_rollout_costs_no_data(kind: signal.Signals, in_first: bool) -> None:
    weights, expected = undisturbed(3)
    config = configuration(2, busy_s=0.002, hang_timeout_s=1.0)
    with make_collector(drift_problem(config), config) as collector:
        assert isinstance(collector, RayCollector)
        batches = [] if in_first else [concatenate(collector.collect(weights))]
        before = collector.process_ids()
        began = time.monotonic()
        killer = threading.Timer(0.1, os.kill, (before[1], kind))
        killer.start()
        batches.append(concatenate(collector.collect(weights)))
        assert time.monotonic() - began > 0.1, "the rollout was over before the worker died"
        killer.join()
        while len(batches) < 3:
            batches.append(concatenate(collector.collect(weights)))
        after = collector.process_ids()
        (recovery_s,) = collector.recoveries_s()
        assert collector.figures() == {"rollout/workers": 2.0, "rollout/replaced_workers": 1.0}
    print(f"the replacement sampled {recovery_s:.1f} s after the fault was noticed")  # seen with pytest -s
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert batches[0].terminated.shape == expected[0].terminated.shape
    assert same(expected, batches)


def test_a_fault_amid_overlapped_collection_changes_nothing() -> None:
    alone = run(0, 4, overlap=True)
    config = configuration(2, overlap=True, busy_s=0.001)
    with make_collector(drift_problem(config), config) as collector:
        assert isinstance(collector, OverlappedCollector)
        trainer = Trainer(config, drift_problem(config), collector)
        workers = collector.inner
        assert isinstance(workers, RayCollector)
        for iteration in range(4):
            if iteration == 2:  # while the rollout under way is another iteration's
                os.kill(workers.process_ids()[0], signal.SIGKILL)
            trainer.iterate()
        assert same(alone[1], trainer.boundary()())


class RaisesOnceTwin(DriftTwin):
    """Meets a passing trouble in the step that finds no file at ``where``."""

    def step(self, commands: Tensors) -> Readings:
        where = Path(os.environ["TWINLOOP_TEST_TROUBLE"])
        if int(self._steps[0]) == 20 and not where.exists():
            where.touch()
            raise OSError("the licence server does not answer")
        return super().step(commands)


class RaisesOnceSite(DriftSite):
    def __init__(self, where: Path) -> None:
        self._where = where

    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        os.environ["TWINLOOP_TEST_TROUBLE"] = str(self._where)
        return RaisesOnceTwin(config, n_replicas, device, dtype)


class StopsOnceSite(DriftSite):
    """The first process that builds the twin stops there, as one does that waits for a licence for ever."""

    def __init__(self, where: Path) -> None:
        self._where = where

    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        if not self._where.exists():
            self._where.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().twin(config, n_replicas, device, dtype)


def test_a_worker_that_stops_before_its_first_step_is_replaced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "SILENT_S", 1.0)
    # It may stop before it answers a first question; then it is silent for as long as a new worker may take to start.
    monkeypatch.setattr(worker_handle, "START_S", 30.0)
    weights, expected = undisturbed(1)
    config = configuration(1, hang_timeout_s=1.0)
    by_value()
    with make_collector(Problem.of(config, StopsOnceSite(tmp_path / "stopped")), config) as collector:
        batches = [concatenate(collector.collect(weights))]
        # At least: with so little patience a busy machine's next one may be given up as well.
        assert collector.figures()["rollout/replaced_workers"] >= 1.0
    assert same(expected, batches)


def test_a_driver_that_is_busy_for_longer_than_a_hang_gives_no_worker_up() -> None:
    weights, expected = undisturbed(2)
    config = configuration(1, busy_s=0.006, hang_timeout_s=1.0)
    with make_collector(drift_problem(config), config) as collector:
        assert isinstance(collector, RayCollector)
        batches = [concatenate(collector.collect(weights))]
        before = collector.figures()
        collector._workers[0]._life = None  # no earlier answer waits, from which it could learn that steps were taken
        collector.start(weights)  # 2 s of work
        time.sleep(1.5)  # as when it learns while the next rollout is gathered
        batches.append(concatenate(collector.finish()))
        assert collector.figures() == before
    assert same(expected, batches)


def test_an_error_that_does_not_come_again_costs_no_data(tmp_path: Path) -> None:
    weights, expected = undisturbed(2)
    config = configuration(1)
    by_value()
    problem = Problem.of(config, RaisesOnceSite(tmp_path / "trouble"))
    with make_collector(problem, config) as collector:
        batches = [concatenate(collector.collect(weights)) for _ in range(2)]
        assert collector.figures()["rollout/replaced_workers"] == 1.0
    assert (tmp_path / "trouble").exists()
    assert same(expected, batches)


def by_value() -> None:
    """Send this file's classes as code: a worker cannot import a test file."""
    ray.cloudpickle.register_pickle_by_value(  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        sys.modules[__name__]
    )


class FaultyTwin(DriftTwin):
    def step(self, commands: Tensors) -> Readings:
        after = super().step(commands)
        after.measured[GROUP][0, 0, 0] = torch.nan
        return after


class FaultySite(DriftSite):
    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        return FaultyTwin(config, n_replicas, device, dtype)


def test_an_error_that_comes_again_arrives_as_itself() -> None:
    config = configuration(1)
    by_value()
    problem = Problem.of(config, FaultySite())
    with make_collector(problem, config) as collector:
        weights = Trainer(config, problem, collector).policy_weights()
        with pytest.raises(NumericalError, match="replica 0, asset/A1/x0") as raised:
            collector.collect(weights)
    assert "again by a new worker" in "".join(raised.value.__notes__)


def test_a_rollout_that_was_given_up_is_gathered_again() -> None:
    weights, expected = undisturbed(2)
    config = configuration(2)
    with make_collector(drift_problem(config), config) as collector:
        assert isinstance(collector, RayCollector)
        batches = [concatenate(collector.collect(weights))]
        collector.start(weights)
        batches.append(concatenate(collector.collect(weights)))
    assert same(expected, batches)


@pytest.mark.parametrize(("busy_s", "pays"), [(0.0, False), (0.005, True)], ids=["cheap", "dear"])
def test_workers_are_used_where_they_pay_and_else_a_sentence_says_why_not(
    busy_s: float, pays: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("on one core local workers never pay")
    config = configuration(2, busy_s=busy_s, workers_forced=False)
    weights, expected = undisturbed(2)
    with make_collector(drift_problem(config), config) as collector:
        assert isinstance(collector, MeasuredCollector)
        batches = [concatenate(collector.collect(weights)) for _ in range(2)]
        assert isinstance(collector.inner, RayCollector if pays else InProcessCollector)
        figures = collector.figures()
    assert figures["rollout/workers"] == (2.0 if pays else 0.0)
    assert figures["rollout/replica_step_ms"] > 1e3 * busy_s
    said = [r.message for r in caplog.records if "stays in this process" in r.message]
    assert len(said) == (0 if pays else 1)
    assert same(expected, batches)


def test_an_address_where_no_cluster_answers_is_said_at_once() -> None:
    code = (
        "from twinloop.envs.errors import RunError\n"
        "from twinloop.training.ray_session import RaySession\n"
        "try:\n"
        "    RaySession('127.0.0.1:1', 1).open()\n"
        "except RunError as error:\n"
        "    assert 'rollout.ray_address' in str(error) and 'ray start --head' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


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
