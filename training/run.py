"""A training run from its configuration to its artifact, interruptible and exactly resumable at every iteration."""

from __future__ import annotations

import importlib.util
import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..agents.artifact import save_artifact
from ..agents.artifact_inputs import InputSample
from ..agents.own_signals import OwnSignalsEncoder
from ..envs.configuration import dump
from ..envs.errors import MissingExtraError, RunError, located
from .best_so_far import BestSoFar
from .checkpoint import CheckpointStore
from .configuration import TrainConfiguration
from .input_sample import sample_inputs
from .learning import Learning, check_learning, make_learning
from .logging_sinks import Sinks
from .plant_evaluation import PlantEvaluation
from .problem import Problem
from .run_clock import RunClock
from .run_folder import RunFolder, versions
from .run_settings import PLANT_GAIN, TWIN_REWARD
from .scope import check_scope, scope_of
from .shielded_evaluation import UNSHIELDED_REWARD, reward_shielded, reward_unshielded

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class IterationReport:
    """One iteration as progress displays want it. ``figures`` also go to metrics.jsonl and the trackers.

    ``evaluations``: the newest of each, since most iterations have none.
    """

    iteration: int
    n_iterations: int
    agent_steps: int
    agent_steps_per_s: float
    remaining_s: float
    figures: Mapping[str, float]
    evaluations: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult:
    """A run that came to its end; ``figures`` are those of its last iteration.

    ``stopped_early``: no evaluation had been better for a while. ``artifact_iteration``: whose policy the artifact is.
    """

    folder: Path
    artifact: Path
    iterations: int
    agent_steps: int
    figures: Mapping[str, float]
    stopped_early: bool = False
    artifact_iteration: int = 0


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
    on_warning: OnWarning | None = None,
) -> RunResult:
    """Train in ``folder``, which must be new or empty, and return where the artifact lies.

    ``problem`` replaces what the configuration names, for a site that is not announced. Ctrl-C saves the last whole
    iteration and raises :class:`RunInterrupted`; an error saves it too. ``on_warning`` is told what does not end the
    run, such as a tracker that fails.
    """
    run = RunFolder(folder)
    problem = problem or Problem.of(config)
    check(config, problem)  # what is wrong is said before a folder is made
    run.create(config)
    with run.hold():
        return _Run(config, run, problem, on_iteration, on_warning or _LOG.warning).run(None)


def check(config: TrainConfiguration, problem: Problem) -> None:
    """Raise for whatever would end a run: a wrong site, task or plant, or an absent package."""
    problem.check()
    plant = PlantEvaluation.of(config, problem, Path())
    if plant is not None:
        nameplate = problem.nameplate()
        plant.check(nameplate, scope_of(config, nameplate), config.evaluation.judge)
    check_scope(config, problem)
    _check_packages(config)
    check_learning(config, problem)


def resume(
    folder: Path,
    on_iteration: OnIteration | None = None,
    *,
    workers: int | None = None,
    device: str | None = None,
    problem: Problem | None = None,
    on_warning: OnWarning | None = None,
) -> RunResult:
    """Carry on with a run as if it had never stopped, bit for bit, on any number of workers.

    On another ``device`` than it began on it goes on all the same, but numbers are rounded otherwise there. A damaged
    checkpoint is passed over for the one before, and ``on_warning`` is told. Raises
    :class:`~twinloop.envs.errors.RunError` for a folder without a run, without a checkpoint that is whole, or in which
    another process trains.
    """
    run = RunFolder(folder)
    warn = on_warning or _LOG.warning
    given = {"rollout.workers": workers, "device": device}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    config = run.configuration(overrides, None if problem is None else problem.site_config)
    problem = problem or Problem.of(config)
    with located(run.config_file):
        check(config, problem)
    with run.hold():
        state, complaints = run.checkpoints(config.keep_checkpoints).load_newest(config.device)
        for complaint in complaints:
            warn(complaint)
        run.forget_after(int(state["iteration"]))
        return _Run(config, run, problem, on_iteration, warn).run(state)


def _check_packages(config: TrainConfiguration) -> None:
    """Raise for an absent package that would otherwise be missed only after hours, when the policy is saved."""
    needed = [("onnx", "train"), ("psutil", "train")]
    needed += [("ray", "ray")] if config.rollout.workers or getattr(config.learner, "federated", None) else []
    needed += [("tensorboard", "train")] if config.log.tensorboard else []
    needed += [("mlflow", "mlflow")] if config.log.mlflow is not None else []
    needed += [("wandb", "wandb")] if config.log.wandb is not None else []
    for package, extra in needed:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra, "this training run")


class _Run:
    """One sitting of a run. What is saved at any moment is the last iteration whose figures are all written."""

    def __init__(
        self, config: TrainConfiguration, folder: RunFolder, problem: Problem, on_iteration: OnIteration | None,
        on_warning: OnWarning,
    ) -> None:  # fmt: skip
        self._config, self._folder, self._problem = config, folder, problem
        self._on_iteration, self._on_warning = on_iteration, on_warning
        self._store = folder.checkpoints(config.keep_checkpoints)
        self._plant = PlantEvaluation.of(config, problem, folder.path)
        self._best = BestSoFar(config.evaluation.judge, config.early_stop)
        self._keeps_best = config.early_stop is not None or config.artifact == "best"
        self._figures: dict[str, float] = {}
        self._evaluations: dict[str, float] = {}
        self._first = self._first_agent_steps = 0

    def run(self, state: Mapping[str, Any] | None) -> RunResult:
        """Train from ``state``, or from the beginning, to the end."""
        with ExitStack() as stack:
            trainer = make_learning(self._config, self._problem, stack)
            if state is not None:
                trainer.restore(state)
                if "best_so_far" in state:
                    self._best.restore(state["best_so_far"])
            rows = self._folder.metrics()
            clock = RunClock.after(rows[-1] if rows else None)
            if rows:
                self._figures = {k: v for k, v in rows[-1].items() if k != "iteration" and v is not None}
            self._first, self._first_agent_steps = trainer.iteration, trainer.agent_steps
            boundary = self._boundary(trainer)
            try:
                with Sinks(self._folder, self._config, self._first + 1, self._on_warning) as sinks:
                    while trainer.iteration < trainer.n_iterations and not self._best.is_over:
                        self._iterate(trainer, clock)
                        sinks.write(trainer.iteration, self._figures)
                        boundary = self._boundary(trainer)
                        if self._best.best_iteration == trainer.iteration and self._keeps_best:
                            self._folder.best().save(boundary())
                        if trainer.iteration % self._config.checkpoint_every == 0:
                            self._store.save(boundary())
                        self._report(trainer, clock)
                self._store.save(boundary())
                return self._end(trainer)
            except KeyboardInterrupt:
                raise RunInterrupted(self._folder.path, _save(self._store, boundary)) from None
            except Exception as error:
                saved = _save(self._store, boundary)
                error.add_note(f"iteration {saved} is saved; resume with: twinloop train --resume {self._folder.path}")
                raise

    def _iterate(self, trainer: Learning, clock: RunClock) -> None:
        figures = trainer.iterate()
        if self._config.shield is not None and TWIN_REWARD in figures:
            figures[UNSHIELDED_REWARD] = reward_unshielded(trainer, self._config, self._problem)
        if self._plant is not None and self._plant.is_due(trainer.iteration):
            with tempfile.TemporaryDirectory(prefix="twinloop-candidate-") as folder:
                figures |= self._plant.evaluate(self._save_artifact(trainer, Path(folder) / "artifact", {}))
        rate = (trainer.agent_steps - self._first_agent_steps) / clock.sitting_s
        self._figures = figures | {"agent_steps_per_s": rate} | clock.figures()
        self._evaluations |= {name: figures[name] for name in (TWIN_REWARD, PLANT_GAIN) if name in figures}
        self._best.take(trainer.iteration, figures)

    def _boundary(self, trainer: Learning) -> Callable[[], dict[str, Any]]:
        """All that the rest of the run depends on, now; plain values once it is called."""
        held, best = trainer.boundary(), self._best.state()
        return lambda: {**held(), "best_so_far": best}

    def _report(self, trainer: Learning, clock: RunClock) -> None:
        if self._on_iteration is None:
            return
        left = trainer.n_iterations - trainer.iteration
        self._on_iteration(
            IterationReport(
                trainer.iteration,
                trainer.n_iterations,
                trainer.agent_steps,
                self._figures["agent_steps_per_s"],
                left * clock.sitting_s / (trainer.iteration - self._first),
                self._figures,
                dict(self._evaluations),
            )
        )

    def _end(self, trainer: Learning) -> RunResult:
        """Write the artifact and the result. The trainer goes back to the best evaluation where that is shipped."""
        iterations, agent_steps, last_reward = trainer.iteration, trainer.agent_steps, trainer.evaluate()
        if self._config.artifact == "best" and self._best.has_best and self._best.best_iteration != iterations:
            trainer.restore(self._best_state())
        reward = last_reward if trainer.iteration == iterations else trainer.evaluate()
        what = "mean reward an agent-step without exploration, on replicas that were not learnt from"
        report: dict[str, dict[str, Any]] = {
            "last_iteration": dict(self._figures),
            "twin": {"what": what, "reward": reward, "replicas": self._config.evaluation.replicas},
        }
        if self._problem.twin_keeps_constraints:
            report["twin"]["what"] += ", under the guard inside the twin"
        elif self._config.shield is None:
            report["twin_shielded"] = {"reward": reward_shielded(trainer, self._config, self._problem)}
        else:
            report["twin_unshielded"] = {"reward": reward_unshielded(trainer, self._config, self._problem)}
        inputs = sample_inputs(self._config, self._problem, trainer.export())
        artifact = self._save_artifact(trainer, self._folder.artifact, report, inputs)
        figures = {**self._figures, TWIN_REWARD: last_reward}
        self._folder.keep_result(
            {
                "iterations": iterations,
                "agent_steps": agent_steps,
                "stopped_early": self._best.is_over,
                "artifact_iteration": trainer.iteration,
                "figures": {k: v if math.isfinite(v) else None for k, v in figures.items()},
            }
        )
        return RunResult(
            self._folder.path, artifact, iterations, agent_steps, figures, self._best.is_over, trainer.iteration
        )

    def _best_state(self) -> dict[str, Any]:
        """The checkpoint of the best evaluation; raises :class:`RunError` where it is gone or damaged."""
        remedy = "set artifact: last in config.yaml and resume, which ships the last policy"
        try:
            state, _ = self._folder.best().load_newest(self._config.device)
        except RunError as error:
            raise RunError(f"artifact: best: {error}; {remedy}") from error
        if int(state["iteration"]) != self._best.best_iteration:
            raise RunError(
                f"{self._folder.path / 'best'}: holds iteration {state['iteration']}, the best evaluation was after "
                f"iteration {self._best.best_iteration}; {remedy}"
            )
        return state

    def _save_artifact(
        self,
        trainer: Learning,
        folder: Path,
        report: Mapping[str, Any],
        inputs: Mapping[str, InputSample] | None = None,
    ) -> Path:
        own = {
            name: {"name": encoder.name, "settings": encoder.settings()}
            for name, encoder in trainer.encoders.items()
            if not isinstance(encoder, OwnSignalsEncoder)
        }
        return save_artifact(
            folder,
            nameplate=trainer.nameplate,
            weights=trainer.export(),
            encoders=own,
            scope=scope_of(self._config, trainer.nameplate),
            provenance={
                "configuration": dump(self._config),
                "seed": self._config.seed,
                "iterations": trainer.iteration,
                "agent_steps": trainer.agent_steps,
                "versions": versions(),
            },
            report=report,
            site=self._problem.site.name,
            inputs=inputs,
        )


def _save(store: CheckpointStore, boundary: Callable[[], dict[str, Any]]) -> int:
    state = boundary()
    store.save(state)
    return int(state["iteration"])


__all__ = ["IterationReport", "RunError", "RunInterrupted", "RunResult", "check", "resume", "train"]
