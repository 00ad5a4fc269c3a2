"""``twinloop train``: launch a run, or carry on with one."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...envs.commands.overrides import add_overrides

DESCRIPTION = """\
Train the agents that a configuration describes and write everything into a run folder: the resolved
configuration, versions, seeds, figures (metrics.jsonl, TensorBoard), checkpoints, and the artifact at the end.

Ctrl-C stops after saving the last whole iteration; --resume carries on from there, bit for bit, and may use
another number of workers. Results never depend on the number of workers.
"""
EPILOG = """\
examples:
  twinloop train configs/wind_farm/train_ablaincourt.yaml
  twinloop train configs/wind_farm/train_ablaincourt.yaml --set learner.lr=1e-4 --set iterations=50 --workers 2
  twinloop train --resume runs/ablaincourt-20260102T030405Z

exit status: 0 done, 130 stopped by Ctrl-C, 2 wrong input.
"""
INTERRUPTED = 130  # what shells give a program that Ctrl-C ended


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="YAML file of kind train")
    add_overrides(parser, "learner.lr=1e-4")
    parser.add_argument("--workers", type=int, metavar="N", help="rollout processes; 0 collects in this one")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the run")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where run folders go (runs)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="carry on with this run folder")


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 at the end, 130 after Ctrl-C. Raises TwinloopError for what the user can mend."""
    from rich.console import Console

    from ...envs.configuration import load
    from ...envs.errors import ConfigurationError, located
    from ..configuration import training_model
    from ..problem import Problem
    from ..progress import ProgressDisplay
    from ..run import RunInterrupted, resume, train
    from ..run_folder import RunFolder

    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    if arguments.resume is not None:
        given = [
            name
            for name, value in (
                ("CONFIG", arguments.config),
                ("--set", arguments.overrides),
                ("--seed", arguments.seed),
            )
            if value not in (None, [])
        ]
        if given:
            raise ConfigurationError(
                f"--resume: {', '.join(given)} cannot change a run that has begun; only --workers can. "
                "For other settings start a new run"
            )
    elif arguments.config is None:
        raise ConfigurationError("train: give a configuration file, or --resume with a run folder")

    try:
        if arguments.resume is not None:
            with ProgressDisplay(console) as display:
                result = resume(arguments.resume, display, workers=arguments.workers, on_warning=say)
        else:
            extra = [("rollout.workers", arguments.workers), ("seed", arguments.seed)]
            overrides = [*arguments.overrides, *(f"{key}={value}" for key, value in extra if value is not None)]
            config = load(arguments.config, training_model(arguments.config, overrides), overrides)
            folder = RunFolder.named(arguments.out, config.name).path
            problem = Problem.of(config)
            with located(arguments.config):
                problem.check()
            say(f"run folder: {folder}")
            with ProgressDisplay(console) as display:
                result = train(config, folder, display, problem=problem)
    except RunInterrupted as stop:
        say(f"\n{stop}")
        return INTERRUPTED
    say(f"done: {result.iterations} iterations, {result.agent_steps:,} agent-steps")
    say(f"artifact: {result.artifact}")
    return 0
