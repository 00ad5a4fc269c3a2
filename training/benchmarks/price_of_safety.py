"""What the shield costs on a wind farm under limits: for good policies, for hostile ones, and for learners."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...envs.configuration import load
from ...envs.wind_farm.config import WindFarmConfig
from ..configuration import TrainConfiguration, training_model
from ..problem import Problem
from ..report import Cell, Table, print_table, provenance
from ..rollout_settings import ShieldedConfiguration
from ..run_statistics import FEWEST_RUNS, interquartile_mean, interquartile_mean_interval
from .foreign_jobs import Job, Result, add_seed_arguments, chosen, learn, run_jobs, seed_range
from .shielded_play import NetworkActor, Play, good_actors, hostile_actors, play

NAME = "price_of_safety"
SUMMARY = "the shield on a farm under limits: interventions, return lost and violations, with it and without"

MOST_INTERVENED, MOST_LOST = 0.01, 0.01
"""Bars for a good policy: share of asset-steps that are changed, and share of the energy that is lost."""
_REPLICAS, _PERIODS = 16, 60
_WIND = 0
"""The seed of the episodes that everyone plays; learners meet other ones."""
_PENALTY = 5.0
_TRAININGS: dict[str, str] = {
    "free": "trained without the shield",
    "priced": "trained without it, violations priced",
    "shielded": "trained behind the shield",
    "penalised": f"trained behind it, {_PENALTY:g} lost a unit of change",
}

DESCRIPTION = f"""\
A farm whose set-points may sum to half of its rated power, may not rise steeply, and that prefers small yaw offsets
(configs/wind_farm/limited_ablaincourt.yaml). Every policy plays the same {_REPLICAS} hours of drifting wind in the
dynamic twin twice, with the shield and without: power, the share of asset-steps that the shield changed and by how much
of the commands' ranges, asset-steps that it gave to fallback or safe state, and constraints that broke by what was
executed.

Good policies share out the cap, equally or by the wind that each turbine has. Hostile ones are noise beyond the ranges,
all commands from end to end, and the steepest way into violation. Learners (ippo, with the settings of farm_learners)
get the same agent-steps without the shield, with a price on violations, behind the shield, and behind it at a price on
its changes.

Passed where no hard constraint is violated behind the shield, and good policies are changed in at most
{MOST_INTERVENED:.0%} of the asset-steps and lose at most {MOST_LOST:.0%} of their power. Cost: 15 to 30 CPU s a seed
and training.
"""
EPILOG = """\
examples:
  twinloop bench price_of_safety --seeds 0..4 --out results/price_of_safety
  twinloop bench price_of_safety --trainings free,shielded --seeds 0..2 --iterations 50
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--trainings", default=",".join(_TRAININGS), help="default %(default)s")
    parser.add_argument(
        "--config", type=Path, default=Path("configs/wind_farm/limited_ablaincourt.yaml"), metavar="FILE",
        help="site, task, encoder and learner, default %(default)s",
    )  # fmt: skip
    parser.add_argument("--iterations", type=int, metavar="K", help="of every training, instead of the file's")
    parser.add_argument("--periods", type=int, default=_PERIODS, metavar="K", help="of an evaluation, %(default)s")
    add_seed_arguments(parser, seeds="0..4")


def run(arguments: argparse.Namespace) -> int:
    """Play, learn, print; 1 where a bar is missed."""
    seeds = seed_range(arguments.seeds)
    trainings = chosen(arguments.trainings, list(_TRAININGS), "--trainings")
    config = load(arguments.config, training_model(arguments.config))
    if arguments.iterations is not None:
        config = config.model_copy(update={"iterations": arguments.iterations})
    fixed = [*good_actors(), *hostile_actors()]
    jobs = [Job(_file_name(name), 0, play_fixed, (config, name, arguments.periods)) for name in fixed]
    jobs += [Job(name, seed, play_learner, (config, name, arguments.periods)) for name in trainings for seed in seeds]
    results = run_jobs(jobs, arguments.out, arguments.parallel)
    of_fixed = dict(zip(fixed, results, strict=False))
    of_learners = {
        name: results[len(fixed) + i * len(seeds) : len(fixed) + (i + 1) * len(seeds)]
        for i, name in enumerate(trainings)
    }
    rows = [_row(f"{_kind(name)}: {name}", [result]) for name, result in of_fixed.items()]
    rows += [_row(f"learnt: {_TRAININGS[name]}", mine) for name, mine in of_learners.items()]
    good = [of_fixed[name]["with"] for name in good_actors()]
    good_lost = [_lost(of_fixed[name]) for name in good_actors()]
    unbroken = all(r["with"]["hard_broken"] == 0.0 for r in results)
    near_nothing = all(g["intervened"] <= MOST_INTERVENED for g in good) and max(good_lost) <= MOST_LOST
    columns = (
        "policy", "MW without", "MW with", "lost", "changed", "mean change", "in backup",
        "hard broken", "with", "soft broken", "with",
    )  # fmt: skip
    notes = (
        f"{_REPLICAS} replicas of {arguments.periods} periods; learnt: {len(seeds)} seeds, interquartile mean"
        + (" [95 % interval]." if len(seeds) >= FEWEST_RUNS else "."),
        "lost: power with the shield against the same policy without it; a negative loss is a gain. A policy that "
        "breaks the cap without the shield was never entitled to all that it loses.",
        "changed: share of asset-steps; mean change: of all asset-steps, in shares of the commands' ranges; in backup: "
        "asset-steps decided by fallback, stored plan or safe state.",
        "broken: share of periods in which a constraint was violated by what was executed, without and with shield.",
        "Only rises of the sum are limited: from neutral, at full rated power, a limit on falls would leave no way to "
        "the cap within a period.",
        "A price on changes must be high here: under a shared cap all are cut alike, so that what is cut of one asset "
        "hardly depends on what it asked for itself.",
        f"Bars: no hard constraint broken behind the shield: {'met' if unbroken else 'MISSED'}; good policies changed "
        f"in at most {MOST_INTERVENED:.0%} of asset-steps at {MOST_LOST:.0%} lost: "
        f"{'met' if near_nothing else 'MISSED'}.",
    )
    passed = unbroken and near_nothing
    told = [{"policy": job.name, "seed": job.seed, **result} for job, result in zip(jobs, results, strict=True)]
    table = Table("The price of safety", columns, tuple(rows), notes, {"results": told, "passed": passed})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(seeds))
    return 0 if passed else 1


def _file_name(name: str) -> str:
    return name.replace(" ", "_").replace(",", "")


def _kind(name: str) -> str:
    return "good" if name in good_actors() else "hostile"


def _lost(result: Mapping[str, Any]) -> float:
    return 1.0 - float(result["with"]["power_kw"]) / float(result["without"]["power_kw"])


def _row(name: str, results: Sequence[Result]) -> tuple[Cell, ...]:
    def plain(value: Callable[[Result], float], text: str, scale: float = 1.0) -> str:
        return format(interquartile_mean([scale * value(r) for r in results]), text)

    def shown(value: Callable[[Result], float], text: str, scale: float = 1.0) -> str:
        middle = plain(value, text, scale)
        if len(results) < FEWEST_RUNS:
            return middle
        found = interquartile_mean_interval([np.array([scale * value(r) for r in results])])
        return f"{middle} [{found.low:{text}}, {found.high:{text}}]"

    def of(side: str, figure: str) -> Callable[[Result], float]:
        return lambda r: float(r[side][figure])

    return (
        name,
        shown(of("without", "power_kw"), ".2f", 1e-3), shown(of("with", "power_kw"), ".2f", 1e-3),
        shown(_lost, ".1f", 100.0) + " %",
        plain(of("with", "intervened"), ".1f", 100.0) + " %",
        plain(of("with", "change"), ".3f"),
        plain(of("with", "in_backup"), ".1f", 100.0) + " %",
        plain(of("without", "hard_broken"), ".1f", 100.0) + " %", plain(of("with", "hard_broken"), ".1f", 100.0) + " %",
        plain(of("without", "soft_broken"), ".1f", 100.0) + " %", plain(of("with", "soft_broken"), ".1f", 100.0) + " %",
    )  # fmt: skip


def evaluation_site(config: WindFarmConfig) -> WindFarmConfig:
    """The same farm as it runs: wakes travel, drives turn, the wind drifts."""
    drift = {"speed_drift_std_mps": 0.7, "direction_drift_std_deg": 3.0}
    return config.model_copy(
        update={
            "inflow": config.inflow.model_copy(update=drift),
            "dynamics": config.dynamics.model_copy(update={"kind": "dynamic"}),
        }
    )


def _stage(config: TrainConfiguration) -> Problem:
    assert isinstance(config.site, WindFarmConfig)
    farm = config.model_copy(
        update={"site": evaluation_site(config.site), "shield": None, "constraint_prices": {}, "dtype": "float64"}
    )
    return Problem.of(farm)


def play_fixed(config: TrainConfiguration, name: str, n_periods: int, seed: int) -> Result:
    """A rule, with the shield and without; it learns nothing, so that ``seed`` is of no use to it."""
    del seed
    make = {**good_actors(), **hostile_actors()}[name]
    stage = Play(_stage(config), _REPLICAS, n_periods, _WIND)
    return {"with": play(stage, make, shielded=True), "without": play(stage, make, shielded=False)}


def play_learner(config: TrainConfiguration, training: str, n_periods: int, seed: int) -> Result:
    """Learn one seed, then play, with the shield and without."""
    config = trained_as(config, training).model_copy(update={"seed": seed})
    learning = learn(config, Problem.of(config))
    networks, encoders = learning.export(), learning.encoders
    stage = Play(_stage(config), _REPLICAS, n_periods, _WIND)

    def make(stage: Play) -> NetworkActor:
        return NetworkActor(stage, encoders, networks)

    return {
        "agent_steps": learning.agent_steps,
        "with": play(stage, make, shielded=True),
        "without": play(stage, make, shielded=False),
    }


def trained_as(config: TrainConfiguration, training: str) -> TrainConfiguration:
    """The run with the shield, or with prices on what the site declares, or with neither."""
    changes: dict[str, Any] = {}
    if training in ("shielded", "penalised"):
        penalty = _PENALTY if training == "penalised" else 0.0
        changes["shield"] = ShieldedConfiguration(intervention_penalty=penalty)
    if training == "priced":
        from ...envs.constraint import constraints_of_site

        problem = Problem.of(config)
        declared = constraints_of_site(problem.site, problem.site_config)
        changes["constraint_prices"] = {c.name: 10.0 for c in declared}
    return config.model_copy(update=changes)
