"""Early stopping and the best policy: as one can reckon by hand, and exact when a run is resumed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from twinloop.agents.ppo_settings import PpoConfiguration
from twinloop.envs.errors import RunError
from twinloop.training.benchmarks.reference_task import DriftConfig, drift_configuration, drift_problem
from twinloop.training.best_so_far import BestSoFar
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.run import IterationReport, RunInterrupted, RunResult, resume, train
from twinloop.training.run_folder import TIMING_FIGURES, RunFolder
from twinloop.training.run_settings import EarlyStopConfiguration, EvaluationConfiguration

JUDGE = "evaluation/reward"
STOP = EarlyStopConfiguration(patience=2)


def drift(iterations: int = 8, lr: float = 3e-3, **changes: Any) -> TrainConfiguration:
    settings: dict[str, Any] = {
        "site": DriftConfig(n_assets=2),
        "rollout": RolloutConfiguration(replicas=4, steps=8),
        "learner": PpoConfiguration(epochs=1, minibatches=2, lr=lr, normalise_features=False),
        "evaluation": EvaluationConfiguration(every=1, replicas=2, steps=20),
        "checkpoint_every": 3,
    }
    return drift_configuration(iterations, **{**settings, **changes})


def run(config: TrainConfiguration, folder: Path) -> RunResult:
    return train(config, folder, problem=drift_problem(config))


def network(artifact: Path) -> bytes:
    return (artifact / "weights_asset.npz").read_bytes()


def judged(values: list[float], stop: EarlyStopConfiguration | None) -> BestSoFar:
    best = BestSoFar(JUDGE, stop)
    for iteration, value in enumerate(values, start=1):
        if not best.is_over:
            best.take(iteration, {JUDGE: value})
    return best


@pytest.mark.parametrize(
    ("values", "stop", "best_iteration", "is_over"),
    [
        ([1.0, 2.0, 1.0, 1.0], STOP, 2, True),
        ([1.0, 2.0, 1.0, 3.0, 1.0], STOP, 4, False),
        ([1.0, 1.0, 1.0], STOP, 1, True),  # equal is not better
        ([math.nan, math.nan, 5.0], STOP, 0, True),
        ([math.nan, -5.0], STOP, 2, False),
        ([0.0, 0.4, 0.8, 0.9], EarlyStopConfiguration(patience=2, minimum_gain=0.5), 3, False),
        ([0.0, 0.4, 0.5, 9.0], EarlyStopConfiguration(patience=2, minimum_gain=0.5), 1, True),
        ([3.0, 1.0, 1.0, 2.0], EarlyStopConfiguration(patience=2, from_iteration=4), 1, False),
        ([3.0, 1.0, 1.0, 1.0, 1.0, 1.0], None, 1, False),
    ],
)
def test_patience_runs_out_when_evaluations_get_no_better(
    values: list[float], stop: EarlyStopConfiguration | None, best_iteration: int, is_over: bool
) -> None:
    best = judged(values, stop)
    assert (best.best_iteration, best.is_over) == (best_iteration, is_over)


@given(st.lists(st.sampled_from([math.nan, 0.0, 1.0, 2.0, 3.0]), max_size=12), st.integers(0, 12))
def test_a_restored_judgement_goes_on_as_if_never_stopped(values: list[float], cut: int) -> None:
    whole, first = judged(values, STOP), judged(values[:cut], STOP)
    second = BestSoFar(JUDGE, STOP)
    second.restore(first.state())
    for iteration, value in enumerate(values[cut:], start=cut + 1):
        if not second.is_over:
            second.take(iteration, {JUDGE: value})
    assert second == whole


def test_iterations_without_an_evaluation_change_nothing() -> None:
    best = judged([1.0], STOP)
    before = replace(best)
    assert not best.take(2, {"reward/mean": 9.0})
    assert best == before


def test_a_run_that_learns_nothing_is_stopped_and_says_so(tmp_path: Path) -> None:
    result = run(drift(20, lr=1e-30, early_stop=EarlyStopConfiguration(patience=3)), tmp_path / "run")
    assert (result.iterations, result.stopped_early, result.artifact_iteration) == (4, True, 4)
    told = RunFolder(result.folder).result()
    assert told is not None
    assert told["stopped_early"] is True
    assert told["iterations"] == 4
    again = resume(result.folder, problem=drift_problem(drift()))
    assert again.iterations == 4


def test_the_best_policy_is_the_one_that_a_run_of_that_length_ships(tmp_path: Path) -> None:
    config = drift(lr=0.05, artifact="best")
    result = run(config, tmp_path / "long")
    rewards = [row[JUDGE] for row in RunFolder(result.folder).metrics()]
    best = int(np.argmax(rewards)) + 1
    assert 1 < best < 8, "the case must have its best in the middle to show anything"
    assert result.artifact_iteration == best
    short = run(drift(best, learner=config.learner), tmp_path / "short")
    assert network(result.artifact) == network(short.artifact)
    told = RunFolder(result.folder).result()
    assert told is not None
    assert told["figures"][JUDGE] == rewards[-1]  # what the run ended with, beside what it ships


@pytest.mark.parametrize("stopped_after", [1, 2, 4])
def test_stopping_early_and_the_best_policy_are_exact_on_resume(tmp_path: Path, stopped_after: int) -> None:
    config = drift(lr=0.05, artifact="best", early_stop=EarlyStopConfiguration(patience=2))
    whole = run(config, tmp_path / "whole")
    assert whole.stopped_early, "the case must stop early to show anything"

    def stop(report: IterationReport) -> None:
        if report.iteration == stopped_after:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted, match=f"after iteration {stopped_after};"):
        train(config, tmp_path / "cut", stop, problem=drift_problem(config))
    resumed = resume(tmp_path / "cut", problem=drift_problem(config))
    assert (resumed.iterations, resumed.artifact_iteration) == (whole.iterations, whole.artifact_iteration)
    assert network(resumed.artifact) == network(whole.artifact)
    rows = [
        [{k: v for k, v in row.items() if k not in TIMING_FIGURES} for row in RunFolder(r.folder).metrics()]
        for r in (whole, resumed)
    ]
    assert rows[0] == rows[1]


def test_a_best_checkpoint_that_is_damaged_is_told_with_a_remedy_that_works(tmp_path: Path) -> None:
    config = drift(lr=0.05, artifact="best")
    result = run(config, tmp_path / "run")
    assert result.artifact_iteration < result.iterations
    file = next((result.folder / "best").glob("*.pt"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=r"does not match its checksum.*set artifact: last in config.yaml"):
        resume(result.folder, problem=drift_problem(config))
    settings = result.folder / "config.yaml"
    settings.write_text(settings.read_text().replace("artifact: best", "artifact: last"))
    assert resume(result.folder, problem=drift_problem(config)).artifact_iteration == result.iterations


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"early_stop": STOP, "evaluation": EvaluationConfiguration()}, "early_stop goes by evaluations, and evalu"),
        ({"artifact": "best", "evaluation": EvaluationConfiguration()}, "artifact: best goes by evaluations"),
        ({"artifact": "best", "evaluation": EvaluationConfiguration(every=9)}, "9 is beyond the 8 iterations"),
        ({"evaluation": EvaluationConfiguration(judge="plant/gain")}, "add evaluation.plant"),
    ],
)
def test_settings_that_could_not_be_honoured_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        drift(**changes)
