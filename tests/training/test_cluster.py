"""A cluster of three nodes on one machine: what runs where, what is lost when a node dies, and that nothing changes.

One cluster serves all tests of this file: starting it costs seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import ray
import tests.linear_site
import torch
from pydantic import BaseModel, ValidationError
from ray.cluster_utils import Cluster
from tests.linear_site import HoldTemperature, TankTwin, tank_nameplate

from twinloop.agents.ppo_settings import PpoConfiguration
from twinloop.envs.configuration import Strict
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.task import Task
from twinloop.envs.twin import Readings, Tensors, Twin
from twinloop.training.configuration import TaskChoice, TrainConfiguration
from twinloop.training.learner_actors import LearnerActors
from twinloop.training.learner_settings import LearnerActorsConfiguration
from twinloop.training.learning import make_learning
from twinloop.training.problem import Problem
from twinloop.training.ray_collector import RayCollector
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.trainer import Trainer

ITERATIONS = 4


class TankConfig(Strict):
    kind: Literal["tanks"] = "tanks"
    pause_s: float = 0.0


class SlowTanks(TankTwin):
    """Two groups, some tanks absent; a step takes a while, so that there is a middle of a rollout to kill in."""

    pause_s = 0.0

    def step(self, commands: Tensors) -> Readings:
        time.sleep(self.pause_s)
        return super().step(commands)


class TankSite:
    name, summary = "tanks", "a battery of tanks"
    config_model: type[BaseModel] = TankConfig
    plant_config_model: type[BaseModel] = TankConfig

    def nameplate(self, config: TankConfig) -> Nameplate:
        return tank_nameplate(3, pump=True)

    def twin(self, config: TankConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        twin = SlowTanks(n_replicas, 3, n_min=2, pump=True, dtype=dtype)
        twin.pause_s = config.pause_s
        return twin

    def tasks(self) -> tuple[str, ...]:
        return ("hold",)

    def task(self, name: str, config: TankConfig, options: Mapping[str, Any]) -> Task:
        return HoldTemperature(horizon=15)

    def encoders(self) -> tuple[str, ...]:
        return ()

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def plant(self, config: TankConfig, plant_config: TankConfig) -> Any:
        raise NotImplementedError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # By value: processes on other nodes cannot import the tests.
    for module in (sys.modules[__name__], tests.linear_site):
        ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # The head takes no work, so that a node's end is never the cluster's.
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=4)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made
    ray.shutdown()
    made.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped


def configuration(workers: int, pause_s: float = 0.0, actors: bool = False, **learner: Any) -> TrainConfiguration:
    return TrainConfiguration(
        site=TankConfig(pause_s=pause_s),
        task=TaskChoice(name="hold"),
        learner=PpoConfiguration(hidden=(16,), minibatches=4, epochs=2, **learner),
        rollout=RolloutConfiguration(
            replicas=4, shard_replicas=2, steps=20, workers=workers, workers_forced=bool(workers)
        ),
        learner_actors=LearnerActorsConfiguration(hang_timeout_s=1.0) if actors else None,
        iterations=ITERATIONS,
    )


def problem(config: TrainConfiguration) -> Problem:
    return Problem.of(config, TankSite())


def arrays(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [a for v in value.values() for a in arrays(v)]
    if isinstance(value, list | tuple):
        return [a for v in value for a in arrays(v)]
    return [np.asarray(value)]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def figures_of(trainer: Any) -> dict[str, float]:
    return {k: v for k, v in trainer.iterate().items() if not k.startswith("rollout/")}


@pytest.fixture(scope="module")
def alone() -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """Figures and states of every iteration in one process without Ray."""
    with ExitStack() as stack:
        config = configuration(0)
        trainer = make_learning(config, problem(config), stack)
        figures, states = [], [trainer.boundary()()]
        for _ in range(ITERATIONS):
            figures.append(figures_of(trainer))
            states.append(trainer.boundary()())
        return figures, states


def opened(config: TrainConfiguration, stack: ExitStack) -> tuple[Trainer, RayCollector, LearnerActors]:
    trainer = make_learning(config, problem(config), stack)
    assert isinstance(trainer, Trainer)
    assert isinstance(trainer.collector, RayCollector)
    assert trainer._learner_actors is not None
    return trainer, trainer.collector, trainer._learner_actors


def nodes_of(collector: RayCollector) -> set[str]:
    pids = collector.process_ids()
    told = ray.get([w._actor.__ray_call__.remote(_node) for w in collector._workers])
    assert len(pids) == len(told)
    return set(told)


def _node(worker: Any) -> str:
    return ray.get_runtime_context().get_node_id()


def test_workers_and_learners_are_spread_over_nodes_and_change_nothing(cluster: Cluster, alone: Any) -> None:
    figures, states = alone
    with ExitStack() as stack:
        trainer, collector, actors = opened(configuration(2, actors=True), stack)
        # Ray spreads as well as it can: of four processes on two nodes not all are on one.
        learners = {node for _, node in actors.places().values()}
        assert nodes_of(collector) | learners == {n.node_id for n in cluster.worker_nodes}
        for iteration in range(ITERATIONS):
            assert figures_of(trainer) == figures[iteration]
        assert same(trainer.boundary()(), states[-1])


def test_learners_that_die_or_hang_amid_a_run_are_replaced_and_repeat_their_updates(
    cluster: Cluster, alone: Any
) -> None:
    figures, states = alone
    with ExitStack() as stack:
        trainer, _, actors = opened(configuration(2, actors=True), stack)
        assert figures_of(trainer) == figures[0]
        for number, (group, how) in enumerate((("tank", signal.SIGKILL), ("pump", signal.SIGSTOP)), start=1):
            pid, _ = actors.places()[group]
            os.kill(pid, how)
            assert figures_of(trainer) == figures[number]
            assert actors.restarts == number
            assert actors.places()[group][0] != pid
        assert same(trainer.boundary()(), states[3])


def test_a_node_that_dies_amid_a_rollout_costs_nothing_but_time_and_a_run_resumes_on_fewer_nodes(
    cluster: Cluster, alone: Any
) -> None:
    figures, states = alone
    with ExitStack() as stack:
        trainer, collector, _ = opened(configuration(2, pause_s=0.02, actors=True), stack)
        assert figures_of(trainer) == figures[0]
        doomed = next(n for n in cluster.worker_nodes if n.node_id in nodes_of(collector))
        started = time.monotonic()
        killer = threading.Timer(0.2, cluster.remove_node, (doomed,), {"allow_graceful": False})
        killer.start()
        assert figures_of(trainer) == figures[1]
        took_s = time.monotonic() - started
        killer.join()
        assert took_s > 0.2, "the rollout was over before the node died"
        assert same(trainer.boundary()(), states[2])
        assert figures_of(trainer) == figures[2]
        state = trainer.boundary()()
        assert collector.recoveries_s()
        print(f"recovered in {max(collector.recoveries_s()):.1f} s; iteration took {took_s:.1f} s")
        # On a machine that is busy with other things starting a process alone takes seconds.
        assert max(collector.recoveries_s()) < 30.0
    with ExitStack() as stack:
        trainer, collector, _ = opened(configuration(1, actors=True), stack)
        assert len(nodes_of(collector)) == 1
        trainer.restore(state)
        assert figures_of(trainer) == figures[3]
        assert same(trainer.boundary()(), states[4])


def test_learners_without_separate_updates_are_refused() -> None:
    with pytest.raises(ValidationError, match="happo updates one group after another"):
        TrainConfiguration.model_validate(
            {
                "site": {"kind": "wind_farm"},
                "task": {"name": "farm_power"},
                "iterations": 1,
                "learner": {"kind": "happo"},
                "learner_actors": {},
            }
        )
    with pytest.raises(ValidationError, match="learner kind masac has none of its own"):
        TrainConfiguration.model_validate(
            {
                "site": {"kind": "wind_farm"},
                "task": {"name": "farm_power"},
                "iterations": 1,
                "learner": {"kind": "masac"},
                "learner_actors": {},
            }
        )


def test_the_clusters_file_is_what_ray_up_takes() -> None:
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    path = Path(__file__).parents[2] / "docs" / "cluster.yaml"
    config = yaml.safe_load(path.read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])
