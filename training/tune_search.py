"""A search over configurations with Ray Tune: every trial a run folder, exact where Tune allows, resumable.

OUT/search.json    what is searched, how, and the configuration that values go into
OUT/trials/0003/   the run folder of trial 3; 0003.jsonl beside it: its values, and from which iteration on they held
OUT/tune/          Ray Tune's own state, which ``--resume`` reads (pickles: resume only searches that you trust)
OUT/best.yaml      the best trial's configuration, for ``twinloop train``
OUT/results.json   every trial's values, figure and end
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ..envs.configuration import Strict, dump, load_mapping, validate
from ..envs.errors import ConfigurationError, MissingExtraError, RunError
from .configuration import TrainConfiguration
from .problem import Problem
from .run import check
from .tune_space import Space
from .tune_trial import AGENT_STEPS, ITERATION, NUMBER, TRIAL, TrialPlan, trainable

STATE = "tune"
STRUCTURAL = (
    *("kind", "controlled", "hidden", "critic_hidden", "gru", "weights", "critic"),
    *("buffer", "temperature_per", "short_horizon.weights", "short_horizon.critic_hidden"),
    *("algorithm", "policy", "options.policy_kwargs", "options.buffer_size", "federated"),
)
"""Keys of a learner that shape what it keeps: weights and memories cannot go from one shape to another."""

_REDUCTION = 4.0


class SearchConfiguration(Strict):
    """How a search goes."""

    kind: Literal["search"] = "search"
    samples: PositiveInt = 16
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    metric: str = "evaluation/reward"
    mode: Literal["max", "min"] = "max"
    concurrent: PositiveInt = Field(1, description="trials at a time, one process and one thread each")
    seed: NonNegativeInt = Field(0, description="of the sampled values; runs have the configuration's own")
    interval: PositiveInt | None = Field(
        None,
        description="asha: iterations (or agent-steps, where the run counts those) before a trial may be stopped; "
        "pbt: between perturbations; absent: a sixteenth, a tenth of the run",
    )
    address: str | None = Field(None, description="of a Ray cluster; absent: a session on this machine")


@dataclass(frozen=True)
class Search:
    """A search that is checked and can start: the configurations of all trials are valid."""

    settings: SearchConfiguration
    space: Space
    plan: TrialPlan
    folder: Path
    length: int
    time_attr: str

    @property
    def values(self) -> list[dict[str, Any]]:
        """The sampled values of every trial."""
        return [self.space.sample(self.settings.seed, trial) for trial in range(self.settings.samples)]


@dataclass(frozen=True)
class TrialResult:
    """How a trial stands. ``figure`` is its last, None before the first report; ``status`` is finished, stopped (by the
    scheduler), unfinished (the search was interrupted) or failed."""

    number: int
    values: Mapping[str, Any]
    figure: float | None
    iteration: int
    status: str


@dataclass(frozen=True)
class SearchResult:
    """``best`` is None while no trial has reported a finite figure."""

    folder: Path
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    interrupted: bool


def make_search(
    base: Mapping[str, Any],
    model: type[TrainConfiguration],
    space: Space,
    settings: SearchConfiguration,
    folder: Path,
) -> Search:
    """Check all that can be checked before anything starts; raises ConfigurationError for what cannot work."""
    every: set[int] = set()
    lengths: set[tuple[str, int]] = set()
    plan = TrialPlan(folder / "trials", base, model, 1)
    for number in range(settings.samples):
        config = plan.configuration(number, space.sample(settings.seed, number))
        _check(config, settings, space)
        every.add(report_interval(config, settings.metric))
        lengths.add((ITERATION, config.iterations) if config.iterations else (AGENT_STEPS, config.agent_steps or 0))
        if number == 0:
            check(config, Problem.of(config))
    if len(lengths) > 1 or len(every) > 1:
        raise ConfigurationError(
            "search: iterations, agent_steps, evaluation.every and checkpoint_every must be the same for all trials, "
            "or they cannot be compared; take them out of the space"
        )
    ((time_attr, length),) = lengths
    plan = TrialPlan(folder / "trials", base, model, every.pop())
    return Search(settings, space, plan, folder, length, time_attr)


def read_search(folder: Path, changes: Mapping[str, Any]) -> Search:
    """A search that has begun, from its folder; ``changes`` may hold ``concurrent`` and ``address``."""
    path = folder / "search.json"
    if not path.is_file():
        raise RunError(f"{folder}: no search, it has no search.json; give a folder that `twinloop tune` made")
    told = load_mapping(path)
    settings = validate({**told["settings"], **changes}, SearchConfiguration, str(path))
    return make_search(told["base"], TrainConfiguration, Space.of(told["space"], str(path)), settings, folder)


def report_interval(config: TrainConfiguration, metric: str) -> int:
    """Iterations between two figures of ``metric``; raises ConfigurationError where a run never has any."""
    if metric.startswith("evaluation/"):
        if not config.evaluation.every:
            raise ConfigurationError(
                f"--metric {metric}: the configuration never evaluates; set evaluation.every to a number of iterations"
            )
        return config.evaluation.every
    if metric.startswith("plant/"):
        if config.evaluation.plant is None:
            raise ConfigurationError(f"--metric {metric}: there is no evaluation on a plant; add evaluation.plant")
        return config.evaluation.plant.every
    return config.checkpoint_every


def _check(config: TrainConfiguration, settings: SearchConfiguration, space: Space) -> None:
    if config.rollout.workers:
        raise ConfigurationError(
            f"rollout.workers {config.rollout.workers}: a trial gathers in its own process, so that many run side by "
            "side; set it to 0 and use --concurrent"
        )
    if settings.scheduler != "pbt":
        return
    if settings.samples < 4:
        raise ConfigurationError(f"--samples {settings.samples}: a population needs at least 4 trials")
    if config.early_stop is not None:
        raise ConfigurationError("early_stop: trials of a population meet at each perturbation; leave it out")
    for key in space.domains:
        section, _, name = key.partition(".")
        if section != "learner" or any(name == shaping or name.startswith(f"{shaping}.") for shaping in STRUCTURAL):
            raise ConfigurationError(
                f"{key}: population-based training hands weights from trial to trial, so it changes only keys of the "
                f"learner that leave their shape alone (not {', '.join(STRUCTURAL)}); use --scheduler asha for others"
            )


def begin(search: Search) -> SearchResult:
    """Run a new search in its folder, which must be new or empty; Ctrl-C saves it and returns."""
    if search.folder.exists() and any(search.folder.iterdir()):
        raise RunError(f"{search.folder}: is not empty; resume it with --resume, or choose a new folder")
    search.folder.mkdir(parents=True, exist_ok=True)
    described = {
        "settings": search.settings.model_dump(),
        "space": {key: _told(domain) for key, domain in search.space.domains.items()},
        "base": dict(search.plan.base),
    }
    text = json.dumps(described, indent=2) + "\n"
    (search.folder / "search.json").write_text(text, encoding="utf-8")
    with _session(search.settings) as tune:
        scheduler = _scheduler(search)
        from .tune_scheduler import SchedulerMemory

        tuner = tune.Tuner(
            _with_resources(tune, search),
            param_space={
                TRIAL: tune.grid_search([{NUMBER: n, **values} for n, values in enumerate(search.values)]),
            },
            tune_config=tune.TuneConfig(
                metric=search.settings.metric,
                mode=search.settings.mode,
                scheduler=scheduler,
                max_concurrent_trials=None if search.settings.scheduler == "pbt" else search.settings.concurrent,
                reuse_actors=True,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=tune.RunConfig(
                name=STATE,
                storage_path=str(search.folder.resolve()),
                callbacks=[SchedulerMemory(scheduler, search.settings.metric)],
                # A better trial's checkpoint must outlive the moment in which another one takes it.
                checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
                verbose=0,
            ),
        )
        return _result(search, tuner.fit())


def carry_on(search: Search) -> SearchResult:
    """Carry on with a search that was interrupted: finished trials stay, the others go on from their checkpoints."""
    path = search.folder / STATE
    with _session(search.settings) as tune:
        if not tune.Tuner.can_restore(str(path.resolve())):
            raise RunError(f"{search.folder}: holds no search that can be resumed; start a new one")
        tuner = tune.Tuner.restore(str(path.resolve()), _with_resources(tune, search), resume_errored=True)
        return _result(search, tuner.fit())


def trial_name(trial: Any) -> str:
    """``0003`` for trial 3, in Tune's files and messages."""
    return f"{trial.config[TRIAL][NUMBER]:04d}"


def _with_resources(tune: Any, search: Search) -> Any:
    gpus = 1 if str(search.plan.base.get("device", "cpu")).startswith("cuda") else 0
    return tune.with_resources(trainable(search.plan), {"cpu": 1, "gpu": gpus})


def _scheduler(search: Search) -> Any:
    from .tune_scheduler import RememberingAsha, RememberingFifo, RepeatablePbt

    settings = search.settings
    match settings.scheduler:
        case "asha":
            return RememberingAsha(
                time_attr=search.time_attr,
                max_t=search.length,
                grace_period=settings.interval or max(1, math.ceil(search.length / 16)),
                reduction_factor=_REDUCTION,
                stop_last_trials=False,  # at its length a trial ends by itself, with its artifact
            )
        case "pbt":
            interval = settings.interval or max(1, math.ceil(search.length / 10))
            return RepeatablePbt(search.space, settings.seed, search.time_attr, interval)
        case "none":
            return RememberingFifo()  # type: ignore[no-untyped-call]  # Ray leaves it untyped


@contextmanager
def _session(settings: SearchConfiguration) -> Iterator[Any]:
    """Ray Tune with a Ray session: the one that runs, the cluster at ``address``, or one of our own."""
    # Tune otherwise moves trials into folders of its own, where relative paths of a configuration lead nowhere.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # run folders hold the figures
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage report leaves the machine
    try:
        import ray
        from ray import tune
    except ImportError as error:
        raise MissingExtraError("ray, pyarrow", "ray", "twinloop tune") from error
    owns = not ray.is_initialized()
    if owns:
        ours: dict[str, Any] = {"num_cpus": settings.concurrent, "include_dashboard": False}
        ray.init(
            address=settings.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0"}},
            **({} if settings.address else ours),
        )
    try:
        yield tune
    finally:
        if owns:
            ray.shutdown()


def _result(search: Search, grid: Any) -> SearchResult:
    """Read how the trials stand, and write ``best.yaml`` and ``results.json``."""
    known = sorted(grid._experiment_analysis.trials, key=str)
    # What Ctrl-C ended counts as terminated too: only a run that ended by itself, or by its scheduler, is over.
    interrupted = len(known) < search.settings.samples or any(t.status not in ("TERMINATED", "ERROR") for t in known)
    trials = [_trial(search, trial, interrupted) for trial in known]
    sign = 1.0 if search.settings.mode == "max" else -1.0
    told = [(sign * t.figure, t) for t in trials if t.figure is not None and math.isfinite(t.figure)]
    best = max(told, key=lambda pair: pair[0])[1] if told else None
    if best is not None:
        text = dump(search.plan.configuration(best.number, best.values))
        (search.folder / "best.yaml").write_text(text, encoding="utf-8")
    rows = [{**vars(t), "folder": str(search.plan.folder(t.number).path.relative_to(search.folder))} for t in trials]
    (search.folder / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return SearchResult(search.folder, tuple(trials), best, interrupted)


def _trial(search: Search, trial: Any, interrupted: bool) -> TrialResult:
    values = {k: v for k, v in trial.config[TRIAL].items() if k != NUMBER}
    last = trial.last_result or {}
    figure = last.get(search.settings.metric)
    number = int(trial.config[TRIAL][NUMBER])
    ended = "failed" if trial.status == "ERROR" else "unfinished" if interrupted else "stopped"
    if search.plan.folder(number).result() is not None:
        ended = "finished"
    return TrialResult(number, values, None if figure is None else float(figure), last.get(ITERATION, 0), ended)


def _told(domain: Any) -> dict[str, Any]:
    found: dict[str, Any] = {domain.kind: list(domain.choices) if domain.choices else [domain.low, domain.high]}
    return found if domain.step is None else {**found, "step": domain.step}


__all__ = [
    "Search",
    "SearchConfiguration",
    "SearchResult",
    "TrialResult",
    "begin",
    "carry_on",
    "make_search",
    "read_search",
]
