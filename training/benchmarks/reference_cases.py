"""The cases of the reference task that are ours, each timed in a process of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...agents.ppo_settings import MappoConfiguration, PpoConfiguration
from ..configuration import EncoderChoice, TaskChoice, TrainConfiguration
from ..problem import Problem
from ..rollout_settings import RolloutConfiguration
from ..trainer import Trainer
from ..workers import make_collector
from .drift_site import HORIZON, ITERATIONS, WARM_UP, DriftConfig, drift_configuration, drift_problem
from .process_family import FamilyMeter

BUSY_S, BUSY_ITERATIONS, N_WORKERS = 1e-3, 4, 2


@dataclass(frozen=True)
class Case:
    """``minimum``: the smallest ratio to its reference that passes; for workers a ratio of wall time."""

    title: str
    minimum: float | None = None


CASES = {
    "shared": Case("twinloop, weights shared", 1.4),
    "separate": Case("twinloop, 8 unshared actor-critics", 1.35),
    "mappo": Case("twinloop, MAPPO on the twin's state"),
    "pettingzoo": Case("twinloop, PettingZoo ParallelEnv stepped as dicts", 0.6),
}
WORKER_CASES = {
    "alone": Case("in process"),
    "workers": Case(f"{N_WORKERS} workers", 1.5),
    "overlap": Case(f"{N_WORKERS} workers, overlapped", 1.85),
}


def measure(name: str) -> dict[str, Any]:
    """Time sampling and learning of one case, after iterations that are not timed, as the reference loop does."""
    config, problem = _run(name)
    n_iterations = config.iterations or 0
    rewards: list[float] = []
    with make_collector(problem, config) as collector:
        trainer = Trainer(config, problem, collector)
        for iteration in range(n_iterations):
            if iteration == WARM_UP:
                meter, steps = FamilyMeter(), trainer.agent_steps
            rewards.append(trainer.iterate()["reward/mean"])
        cost, steps = meter.read(), trainer.agent_steps - steps
    return {
        "name": name,
        "agent_steps": steps,
        **{key: round(value, 3) for key, value in asdict(cost).items()},
        "sps_cpu": round(steps / cost.cpu_s),
        "sps_wall": round(steps / cost.wall_s),
        "r0": rewards[0],
        "r1": rewards[-1],
    }


def _run(name: str) -> tuple[TrainConfiguration, Problem]:
    n = WARM_UP + ITERATIONS
    match name:
        case "separate":
            config = drift_configuration(n, learner=PpoConfiguration(normalise_features=False, weights="separate"))
        case "mappo":
            config = drift_configuration(n, learner=MappoConfiguration(normalise_features=False))
        case "pettingzoo":
            return _pettingzoo(n)
        case "alone" | "workers" | "overlap":
            rollout = RolloutConfiguration(
                replicas=16,
                shard_replicas=16 // N_WORKERS,
                steps=64,
                workers=0 if name == "alone" else N_WORKERS,
                overlap=name == "overlap",
            )
            site = DriftConfig(busy_s=BUSY_S)
            config = drift_configuration(WARM_UP + BUSY_ITERATIONS, site=site, rollout=rollout)
        case _:
            config = drift_configuration(n)
    return config, drift_problem(config)


def _pettingzoo(n_iterations: int) -> tuple[TrainConfiguration, Problem]:
    """The reference folder's own ParallelEnv, found on the path, 16 copies of it stepped one by one."""
    from ...envs.adapters.environment_site import EnvironmentConfig, EnvironmentSite

    config = drift_configuration(
        n_iterations,
        site=EnvironmentConfig(parallel="drift_env", horizon=HORIZON),
        task=TaskChoice(name="native"),
        encoder=EncoderChoice(name="raw"),
    )
    site: Any = EnvironmentSite()  # by itself, so that no registry needs to know it
    return config, Problem.of(config, site)
