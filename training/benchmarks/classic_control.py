"""Gymnasium's classic tasks, learnt from scratch, beside what RL-Zoo reports for Stable-Baselines3."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...envs.configuration import load
from ...envs.errors import ConfigurationError
from ..configuration import TrainConfiguration, training_model
from ..problem import Problem
from ..report import Cell, Table, print_table, provenance
from ..run_statistics import interquartile_mean_interval
from .foreign_jobs import (
    FEWEST_SEEDS,
    Job,
    Result,
    add_seed_arguments,
    chosen,
    first_episodes,
    learn,
    run_jobs,
    seed_range,
)

NAME = "classic_control"
SUMMARY = "learner: CartPole, Pendulum, MountainCarContinuous, LunarLander from scratch, beside RL-Zoo's scores"


@dataclass(frozen=True)
class ClassicTask:
    """``zoo`` and ``zoo_std`` are RL-Zoo's mean return and its deviation over the episodes of one trained agent."""

    config: str
    zoo: float
    zoo_std: float
    zoo_steps: str


TASKS = {
    "cartpole": ClassicTask("cartpole_ppo", 500.0, 0.0, "PPO 100k"),
    "pendulum": ClassicTask("pendulum_ppo", -172.2, 104.2, "PPO 100k"),
    "pendulum_sac": ClassicTask("pendulum_masac", -157.0, 88.7, "SAC 20k"),
    "mountain_car": ClassicTask("mountain_car_continuous_ppo", 88.3, 2.6, "PPO 20k"),
    "lunar_lander": ClassicTask("lunar_lander_ppo", 242.1, 31.8, "PPO 1M, v2"),
}
EPISODES = 100

DESCRIPTION = f"""\
Train each task's configuration in configs/foreign with every seed, play {EPISODES} episodes without exploration with
what was learnt last, and give the interquartile mean of the seeds' mean returns with its 95 % bootstrap interval.

Passed where the interval reaches RL-Zoo's score less two standard errors of that score as an estimate from
{EPISODES} episodes: RL-Zoo's figure is itself one agent's mean, over other episodes. Cost in CPU s a seed: cartpole 15,
pendulum 25, pendulum_sac 150, mountain_car 40, lunar_lander 300.
"""
EPILOG = """\
examples:
  twinloop bench classic_control --tasks cartpole,pendulum --seeds 0..4 --parallel 2 --out results/classic_control
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--tasks", default=",".join(TASKS), help="between commas, default %(default)s")
    parser.add_argument(
        "--configs", type=Path, default=Path("configs/foreign"), metavar="DIR", help="default %(default)s"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for every task, such as seed=1"
    )
    parser.add_argument("--episodes", type=int, default=EPISODES, help="a seed, default %(default)s")
    add_seed_arguments(parser, seeds="0..4")


def run(arguments: argparse.Namespace) -> int:
    """Train, evaluate, and print; 1 where a task misses its bar."""
    seeds = seed_range(arguments.seeds)
    if len(seeds) < FEWEST_SEEDS:
        raise ConfigurationError(f"--seeds: {len(seeds)} seeds are no interval; give {FEWEST_SEEDS} or more")
    names = chosen(arguments.tasks, list(TASKS), "--tasks")
    jobs = [
        Job(name, seed, train_and_play, (_load(arguments, name), arguments.episodes))
        for name in names
        for seed in seeds
    ]
    results = run_jobs(jobs, arguments.out, arguments.parallel)
    rows: list[tuple[Cell, ...]] = []
    passed = True
    for i, name in enumerate(names):
        mine = results[i * len(seeds) : (i + 1) * len(seeds)]
        task = TASKS[name]
        interval = interquartile_mean_interval([[r["return"] for r in mine]])
        bar = task.zoo - 2.0 * task.zoo_std / np.sqrt(arguments.episodes)
        met = interval.high >= bar
        passed = passed and met
        rows.append(
            (
                name, f"{interval.estimate:.1f} [{interval.low:.1f}, {interval.high:.1f}]",
                f"{min(r['return'] for r in mine):.1f}", f"{task.zoo:g} ({task.zoo_steps})", f"{bar:.1f}",
                int(mine[0]["agent_steps"]), f"{np.mean([r['cpu_s'] for r in mine]):.0f}", "yes" if met else "NO",
            )
        )  # fmt: skip
    columns = ("task", "IQM [95 %]", "worst seed", "RL-Zoo", "bar", "steps", "CPU s", "met")
    notes = (f"{len(seeds)} seeds, {arguments.episodes} episodes each, without exploration, last weights.",)
    data = {"results": [{"task": j.name, "seed": j.seed, **r} for j, r in zip(jobs, results, strict=True)]}
    table = Table("Classic control", columns, tuple(rows), notes, data)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(seeds))
    return 0 if passed else 1


def train_and_play(config: TrainConfiguration, n_episodes: int, seed: int) -> Result:
    """Train one seed and play: its mean return over episodes, steps taken."""
    config = config.model_copy(update={"seed": seed})
    problem = Problem.of(config)
    learning = learn(config, problem)
    returns = first_episodes(problem, learning.policy_weights(), seed, n_episodes)
    return {"return": float(returns.mean()), "deviation": float(returns.std()), "agent_steps": learning.agent_steps}


def _load(arguments: argparse.Namespace, name: str) -> TrainConfiguration:
    path = arguments.configs / f"{TASKS[name].config}.yaml"
    return load(path, training_model(path, arguments.set), arguments.set)
