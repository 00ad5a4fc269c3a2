"""``twinloop train``: launch a run or many, or carry on with them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...envs.commands.overrides import add_overrides

if TYPE_CHECKING:
    from rich.console import Console

    from ..configuration import TrainConfiguration
    from ..seeds_run import Study

DESCRIPTION = """\
Train the agents that a configuration describes and write everything into a run folder: the resolved
configuration, versions, seeds, figures (metrics.jsonl, TensorBoard; MLflow and Weights & Biases by log.mlflow and
log.wandb), checkpoints, and the artifact at the end. learner.kind says who learns: ppo, mappo, happo, masac, analytic
or sb3; docs/learners.md says which for what.

Ctrl-C, or a SIGTERM, stops after saving the last whole iteration; --resume carries on from there, bit for bit, and
may use another number of workers. Results never depend on the number of workers.

With --seeds the folder is a study: a run folder a seed below it, each seed in a process of its own with one thread,
--parallel of them at a time, and a summary with the interquartile mean and its interval. A seed that fails is told
with its log, and the others go on. Ctrl-C lets all save; --resume on the study's folder goes on with those that have
not ended. `twinloop compare` compares runs and studies.
"""
EPILOG = """\
examples:
  twinloop train configs/wind_farm/train_ablaincourt.yaml
  twinloop train configs/wind_farm/train_ablaincourt.yaml --set learner.lr=1e-4 --set iterations=50 --workers 2
  twinloop train --resume runs/ablaincourt-20260102T030405Z
  twinloop train configs/wind_farm/train_turb3.yaml --seeds 0..9 --parallel 2 --set evaluation.every=50

exit status: 0 done, 1 a seed failed, 130 stopped by Ctrl-C, 2 wrong input.
"""
FAILED = 1
INTERRUPTED = 130  # what shells give a program that Ctrl-C ended

Say = Callable[[str], None]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="YAML file of kind train")
    add_overrides(parser, "learner.lr=1e-4")
    parser.add_argument("--workers", type=int, metavar="N", help="rollout processes of a run; 0 collects in its own")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the run")
    parser.add_argument("--seeds", metavar="LIST", help="a study of many seeds: 0..9, or 0,3,7, or 0..4,9")
    parser.add_argument("--parallel", type=int, metavar="N", help="with --seeds: processes side by side (1)")
    parser.add_argument("--device", metavar="D", help="cpu or cuda, in place of the configuration's")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where run folders go (runs)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="carry on with this run folder, or this study's")


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 at the end, 1 after a failed seed, 130 after Ctrl-C. Raises TwinloopError for what can be mended."""
    from rich.console import Console

    from ...deploy.commands.termination import terminate_as_interrupt
    from ..run import RunInterrupted
    from ..seeds_run import Study

    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    _check(arguments, resumes_study=arguments.resume is not None and Study.is_study(arguments.resume))
    try:
        with terminate_as_interrupt():
            if arguments.seeds is not None:
                return _run_study(_new_study(arguments, say), arguments, console, say)
            if arguments.resume is not None and Study.is_study(arguments.resume):
                return _run_study(Study.open(arguments.resume), arguments, console, say)
            return _run_one(arguments, console, say)
    except RunInterrupted as stop:
        say(f"\n{stop}")
        return INTERRUPTED


def _check(arguments: argparse.Namespace, *, resumes_study: bool) -> None:
    """Raise for arguments that do not go together."""
    from ...envs.errors import ConfigurationError

    given = [
        name
        for name, value in (
            ("CONFIG", arguments.config),
            ("--set", arguments.overrides),
            ("--seed", arguments.seed),
            ("--seeds", arguments.seeds),
        )
        if value not in (None, [])
    ]
    if arguments.resume is not None and given:
        raise ConfigurationError(
            f"--resume: {', '.join(given)} cannot change a run that has begun; only --workers, --device and --parallel "
            "can. For other settings start a new run"
        )
    if arguments.resume is None and arguments.config is None:
        raise ConfigurationError("train: give a configuration file, or --resume with a run folder")
    if arguments.seed is not None and arguments.seeds is not None:
        raise ConfigurationError("--seed and --seeds: give one of them; --seeds 3 makes a study of the one seed 3")
    if arguments.parallel is not None:
        if arguments.seeds is None and not resumes_study:
            raise ConfigurationError("--parallel: one run is one process; it goes with --seeds, or with a study")
        if arguments.parallel < 1:
            raise ConfigurationError(f"--parallel: {arguments.parallel}; give a positive number of processes")


def _load(arguments: argparse.Namespace) -> TrainConfiguration:
    """The configuration, its site, task and plant looked at, so that what is wrong is said before a folder is made."""
    from ...envs.configuration import load
    from ...envs.errors import located
    from ..configuration import training_model
    from ..problem import Problem
    from ..run import check

    extra = [("rollout.workers", arguments.workers), ("seed", arguments.seed), ("device", arguments.device)]
    overrides = [*arguments.overrides, *(f"{key}={value}" for key, value in extra if value is not None)]
    config = load(arguments.config, training_model(arguments.config, overrides), overrides)
    with located(arguments.config):
        check(config, Problem.of(config))
    return config


def _run_one(arguments: argparse.Namespace, console: Console, say: Say) -> int:
    from ..progress import ProgressDisplay
    from ..run import resume, train
    from ..run_folder import RunFolder

    if arguments.resume is not None:
        with ProgressDisplay(console) as display:
            result = resume(
                arguments.resume, display, workers=arguments.workers, device=arguments.device, on_warning=say
            )
    else:
        config = _load(arguments)
        folder = RunFolder.named(arguments.out, config.name).path
        say(f"run folder: {folder}")
        with ProgressDisplay(console) as display:
            result = train(config, folder, display, on_warning=say)
    early = ", stopped early" if result.stopped_early else ""
    say(f"done: {result.iterations} iterations, {result.agent_steps:,} agent-steps{early}")
    of = f" (of iteration {result.artifact_iteration})" if result.artifact_iteration != result.iterations else ""
    say(f"artifact: {result.artifact}{of}")
    return 0


def _new_study(arguments: argparse.Namespace, say: Say) -> Study:
    from ..run_folder import RunFolder
    from ..seed_list import parse_seeds
    from ..seeds_run import Study

    seeds = parse_seeds(arguments.seeds)
    config = _load(arguments)
    study = Study.create(RunFolder.named(arguments.out, config.name).path, config, seeds)
    say(f"study folder: {study.folder}")
    return study


def _run_study(study: Study, arguments: argparse.Namespace, console: Console, say: Say) -> int:
    from ..progress import StudyDisplay
    from ..report import print_table
    from ..seeds_run import SeedState

    with StudyDisplay(console) as display:
        statuses = study.run(arguments.parallel or 1, display, workers=arguments.workers, device=arguments.device)
    states = [status.state for status in statuses]
    again = f"go on with: twinloop train --resume {study.folder}"
    if SeedState.STOPPED in states or SeedState.WAITING in states:
        say(f"\nstopped with {states.count(SeedState.DONE)} of {len(states)} seeds done; {again}")
        return INTERRUPTED
    if SeedState.DONE in states:
        table = study.summary()
        print_table(table)
        for path in study.write_summary(table):
            say(str(path))
    if SeedState.FAILED in states:
        say(f"{states.count(SeedState.FAILED)} of {len(states)} seeds failed; see their logs. When mended, {again}")
        return FAILED
    return 0
