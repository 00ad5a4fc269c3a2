"""A training run from its configuration to its artifact, interruptible and exactly resumable at every iteration."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..agents.artifact import save_artifact
from ..agents.own_signals import OwnSignalsEncoder
from ..envs.configuration import dump
from ..envs.errors import MissingExtraError, RunError
from .checkpoint import CheckpointStore
from .configuration import TrainConfiguration
from .learning import Learning, make_learning
from .logging_sinks import Sinks
from .problem import Problem
from .run_folder import RunFolder, versions


@dataclass(frozen=True)
class IterationReport:
    """One iteration as progress displays want it. ``figures`` also go to metrics.jsonl and TensorBoard."""

    iteration: int
    n_iterations: int
    agent_steps: int
    agent_steps_per_s: float
    remaining_s: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class RunResult:
    """A run that came to its end; ``figures`` are those of its last iteration."""

    folder: Path
    artifact: Path
    iterations: int
    agent_steps: int
    figures: Mapping[str, float]


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C came; all whole iterations are saved in ``folder``."""

    def __init__(self, folder: Path, iteration: int) -> None:
        super().__init__(f"stopped after iteration {iteration}; resume with: twinloop train --resume {folder}")
        self.folder = folder
        self.iteration = iteration


OnIteration = Callable[[IterationReport], None]
OnWarning = Callable[[str], None]


def train(
    config: TrainConfiguration,
    folder: Path,
    on_iteration: OnIteration | None = None,
    *,
    problem: Problem | None = None,
) -> RunResult:
    """Train in ``folder``, which must be new or empty, and return where the artifact lies.

    ``problem`` replaces what the configuration names, for a site that is not announced. Ctrl-C saves the last whole
    iteration and raises :class:`RunInterrupted`; an error saves it too.
    """
    run = RunFolder(folder)
    problem = problem or Problem.of(config)
    problem.check()  # what is wrong is said before a folder is made
    _check_packages(config)
    run.create(config)
    return _run(config, run, problem, None, on_iteration)


def resume(
    folder: Path,
    on_iteration: OnIteration | None = None,
    *,
    workers: int | None = None,
    problem: Problem | None = None,
    on_warning: OnWarning | None = None,
) -> RunResult:
    """Carry on with a run as if it had never stopped, bit for bit, on any number of workers.

    A damaged checkpoint is passed over for the one before, and ``on_warning`` is told. Raises
    :class:`~twinloop.envs.errors.RunError` for a folder without a run or without a checkpoint that is whole.
    """
    run = RunFolder(folder)
    config = run.configuration() if problem is None else _configuration_beside(run, problem)
    if workers is not None:
        rollout = type(config.rollout).model_validate({**config.rollout.model_dump(), "workers": workers})
        config = config.model_copy(update={"rollout": rollout})
    state, complaints = run.checkpoints(config.keep_checkpoints).load_newest()
    for complaint in complaints:
        if on_warning is not None:
            on_warning(complaint)
    run.forget_after(int(state["iteration"]))
    return _run(config, run, problem or Problem.of(config), state, on_iteration)


def _configuration_beside(run: RunFolder, problem: Problem) -> TrainConfiguration:
    """The configuration of a run whose site is not announced: its site part is the problem's."""
    from ..envs.configuration import load_mapping, validate

    data = {**load_mapping(run.config_file), "site": problem.site_config}
    return validate(data, TrainConfiguration, str(run.config_file))


def _check_packages(config: TrainConfiguration) -> None:
    """Raise for an absent package that would otherwise be missed only after hours, when the policy is saved."""
    needed = [("onnx", "train"), ("tensorboard", "train"), *([("ray", "ray")] if config.rollout.workers else [])]
    for package, extra in needed:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra, "this training run")


def _run(
    config: TrainConfiguration,
    run: RunFolder,
    problem: Problem,
    state: Mapping[str, Any] | None,
    on_iteration: OnIteration | None,
) -> RunResult:
    store = run.checkpoints(config.keep_checkpoints)
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        trainer = make_learning(config, problem, stack)
        if state is not None:
            trainer.restore(state)
        first = trainer.iteration
        boundary = trainer.boundary()
        try:
            with Sinks(run, first + 1) as sinks:
                started = time.perf_counter()
                steps_before = trainer.agent_steps
                while trainer.iteration < trainer.n_iterations:
                    figures = trainer.iterate()
                    boundary = trainer.boundary()
                    elapsed_s = time.perf_counter() - started
                    rate = (trainer.agent_steps - steps_before) / elapsed_s
                    figures |= {"agent_steps_per_s": rate}
                    sinks.write(trainer.iteration, figures)
                    if trainer.iteration % config.checkpoint_every == 0:
                        store.save(boundary())
                    if on_iteration is not None:
                        left = (trainer.n_iterations - trainer.iteration) * elapsed_s / (trainer.iteration - first)
                        on_iteration(
                            IterationReport(
                                trainer.iteration, trainer.n_iterations, trainer.agent_steps, rate, left, figures
                            )
                        )
        except KeyboardInterrupt:
            saved = _save(store, boundary)
            raise RunInterrupted(run.path, saved) from None
        except Exception as error:
            saved = _save(store, boundary)
            error.add_note(f"iteration {saved} is saved; resume with: twinloop train --resume {run.path}")
            raise
        store.save(boundary())
        artifact = _save_artifact(config, run, problem, trainer, figures)
        return RunResult(run.path, artifact, trainer.iteration, trainer.agent_steps, figures)


def _save(store: CheckpointStore, boundary: Callable[[], dict[str, Any]]) -> int:
    state = boundary()
    store.save(state)
    return int(state["iteration"])


def _save_artifact(
    config: TrainConfiguration,
    run: RunFolder,
    problem: Problem,
    trainer: Learning,
    figures: Mapping[str, float],
) -> Path:
    own = {
        name: {"name": encoder.name, "settings": encoder.settings()}
        for name, encoder in trainer.encoders.items()
        if not isinstance(encoder, OwnSignalsEncoder)
    }
    return save_artifact(
        run.artifact,
        nameplate=trainer.nameplate,
        weights=trainer.export(),
        encoders=own,
        scope=_scope(config, trainer),
        provenance={
            "configuration": dump(config),
            "seed": config.seed,
            "iterations": trainer.iteration,
            "agent_steps": trainer.agent_steps,
            "versions": versions(),
        },
        report={
            "last_iteration": dict(figures),
            "twin": {
                "what": "mean reward an agent-step without exploration, on replicas that were not learnt from",
                "reward": trainer.evaluate(),
                "replicas": config.evaluation.replicas,
            },
        },
        site=problem.site.name,
    )


def _scope(config: TrainConfiguration, trainer: Learning) -> Literal["site", "interface"]:
    """A policy that learnt on layouts that differ per replica is for the interface, any other for its very site."""
    if config.scope != "auto":
        return config.scope
    groups = trainer.nameplate.groups
    return "interface" if any(g.statics and not g.static_values for g in groups) else "site"


__all__ = ["IterationReport", "RunError", "RunInterrupted", "RunResult", "resume", "train"]
