"""One seed of a study, in a process of its own: ``python -m twinloop.training.seed_process STUDY SEED``.

Standard output carries one line of JSON for a report of progress; whatever else is printed goes to standard error,
which the study keeps as the seed's log. Exit status: 0 done, 130 stopped, 2 wrong input, 1 anything else.
"""

# ruff: noqa: T201  (a program of its own: what it prints is its log)

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

CONFIG_FILE = "config.yaml"
EXIT_STOPPED = 130
EXIT_WRONG = 2
_REPORT_EVERY_S = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """Begin the seed, or go on with it; returns the exit status."""
    # A shell that puts a study into the background has SIGINT ignored, and processes inherit that. SIGTERM is how a
    # cluster's scheduler tells all processes of a job that its time is over.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="twinloop.training.seed_process", description="one seed of a study")
    parser.add_argument("study", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--device")
    arguments = parser.parse_args(argv)
    channel = _take_stdout()
    try:
        return _run(arguments, channel)
    except KeyboardInterrupt as stop:
        print(stop or "stopped", file=sys.stderr)
        return EXIT_STOPPED


def _run(arguments: argparse.Namespace, channel: IO[str]) -> int:
    from ..envs.configuration import load
    from ..envs.errors import TwinloopError
    from .comparison_runs import seed_folder
    from .configuration import training_model
    from .run import IterationReport, resume, train
    from .run_folder import RunFolder

    told_s = float("-inf")

    def tell(report: IterationReport) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if report.iteration == report.n_iterations or now_s - told_s >= _REPORT_EVERY_S:
            told_s = now_s
            print(json.dumps(asdict(report)), file=channel, flush=True)

    def warn(line: str) -> None:
        print(f"warning: {line}", file=sys.stderr, flush=True)

    folder = RunFolder(seed_folder(arguments.study, arguments.seed))
    try:
        if folder.checkpoints(1).paths():
            resume(folder.path, tell, workers=arguments.workers, device=arguments.device, on_warning=warn)
            return 0
        if folder.path.is_dir():  # it ended before its first checkpoint: nothing is lost
            with folder.hold():
                shutil.rmtree(folder.path)
        settings = {"seed": arguments.seed, "rollout.workers": arguments.workers, "device": arguments.device}
        overrides = [f"{key}={value}" for key, value in settings.items() if value is not None]
        file = arguments.study / CONFIG_FILE
        train(load(file, training_model(file, overrides), overrides), folder.path, tell, on_warning=warn)
    except TwinloopError as error:
        print(f"error: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", []):
            print(note, file=sys.stderr)
        return EXIT_WRONG
    return 0


def _take_stdout() -> IO[str]:
    """Standard output for reports alone; prints of anyone else go to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(2, 1)
    return channel


if __name__ == "__main__":
    sys.exit(main())
