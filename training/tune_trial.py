"""One trial of a search, inside a process that Ray Tune started: a run in a run folder of its own, reported as it goes.

What Tune holds as a trial's checkpoint is a copy of the run's own, so that a trial that is paused, lost or handed a
better trial's state carries on exactly there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..envs.configuration import dump
from .configuration import TrainConfiguration
from .run import IterationReport, resume, train
from .run_folder import RunFolder
from .tune_space import configured

TRIAL = "trial"
NUMBER = "number"
"""A trial's configuration as Tune knows it: ``{trial: {number: 3, learner.lr: 0.001, ...}}``."""

ITERATION, AGENT_STEPS, DONE = "iteration", "agent_steps", "done"


@dataclass(frozen=True)
class TrialPlan:
    """What all trials share. ``base``: the mapping that values go into; ``every``: iterations between two reports."""

    trials: Path
    base: Mapping[str, Any]
    model: type[TrainConfiguration]
    every: int

    def folder(self, number: int) -> RunFolder:
        return RunFolder(self.trials / f"{number:04d}")

    def configuration(self, number: int, values: Mapping[str, Any]) -> TrainConfiguration:
        """Of one trial, checked; it saves whenever it reports."""
        config = configured(self.base, values, self.model, f"trial {number}")
        return config.model_copy(update={"checkpoint_every": self.every})


def trainable(plan: TrialPlan) -> Callable[[dict[str, Any]], None]:
    """The function that Tune calls for each trial, with its name in Tune's files."""

    def twinloop_trial(config: dict[str, Any]) -> None:
        run_trial(plan, config)

    return twinloop_trial


def run_trial(plan: TrialPlan, config: Mapping[str, Any]) -> None:
    """Train from the beginning, or from the checkpoint that Tune gives, to the end."""
    import torch
    from ray import tune

    torch.set_num_threads(1)
    values = dict(config[TRIAL])
    number = int(values.pop(NUMBER))
    configuration = plan.configuration(number, values)
    folder = plan.folder(number)

    def report(progress: IterationReport) -> None:
        if progress.iteration % plan.every == 0 and progress.iteration < progress.n_iterations:
            _report(folder, progress.iteration, progress.agent_steps, progress.figures)

    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        shutil.rmtree(folder.path, ignore_errors=True)  # it ended before its first report
        _note(folder, values, 0)
        result = train(configuration, folder.path, report)
    else:
        with checkpoint.as_directory() as given:
            iteration = _install(Path(given), folder, configuration)
        _note(folder, values, iteration)
        result = resume(folder.path, report)
    _report(folder, result.iterations, result.agent_steps, result.figures, is_over=True)


def _install(given: Path, folder: RunFolder, configuration: TrainConfiguration) -> int:
    """Make a checkpoint the run folder's newest, and ``configuration`` the one that it goes on with."""
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.config_file.write_text(dump(configuration), encoding="utf-8")
    own = folder.path / "checkpoints"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(given, own)
    newest = folder.checkpoints(configuration.keep_checkpoints).paths()[-1]
    return int(newest.stem.rpartition("_")[2])


def _report(
    folder: RunFolder, iteration: int, agent_steps: int, figures: Mapping[str, Any], is_over: bool = False
) -> None:
    """Hand figures and the newest checkpoint to Tune, and wait for its word; it may end the trial here."""
    from ray import tune

    newest = folder.checkpoints(1).paths()[-1]
    with tempfile.TemporaryDirectory(prefix="twinloop-trial-") as holder:
        for file in (newest, newest.with_suffix(".pt.sha256")):
            shutil.copy2(file, holder)
        told = {**figures, ITERATION: iteration, AGENT_STEPS: agent_steps, **({DONE: True} if is_over else {})}
        tune.report(told, checkpoint=tune.Checkpoint.from_directory(holder))


def _note(folder: RunFolder, values: Mapping[str, Any], iteration: int) -> None:
    """Append to the trial's history which values hold from which iteration on."""
    history = folder.path.parent / f"{folder.path.name}.jsonl"
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"after_iteration": iteration, "values": dict(values)}) + "\n")
