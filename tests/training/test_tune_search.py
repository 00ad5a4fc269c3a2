"""Searches with Ray Tune: what is refused before anything starts, and that an interruption changes nothing.

One Ray session serves the tests that need one: starting it costs seconds.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from twinloop.__main__ import main
from twinloop.agents.ppo_settings import PpoConfiguration
from twinloop.envs.errors import ConfigurationError, RunError
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.run_folder import TIMING_FIGURES, RunFolder
from twinloop.training.tune_search import SearchConfiguration, begin, carry_on, make_search, read_search
from twinloop.training.tune_space import Space

BASE: dict[str, Any] = {
    "kind": "train",
    "name": "tiny",
    "site": {"kind": "wind_farm", "layout": {"kind": "named", "name": "turb3_row1"}, "dynamics": {"kind": "steady"}},
    "task": {"name": "farm_power", "options": {"horizon": 4}},
    "learner": {"kind": "ppo", "controlled": {"turbine": ["yaw_offset_deg"]}, "hidden": [8], "epochs": 1},
    "rollout": {"replicas": 8, "steps": 4},
    "evaluation": {"every": 1, "replicas": 4},
    "log": {"tensorboard": False},
    "iterations": 2,
}
SPACE = Space.of({"learner.lr": {"loguniform": [1e-4, 1e-1]}, "learner.clip": {"choice": [0.1, 0.2, 0.3]}}, "space")


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    import ray

    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def search_in(folder: Path, base: dict[str, Any] | None = None, space: Space = SPACE, **settings: Any) -> Any:
    given = SearchConfiguration(**{"samples": 4, "concurrent": 2, "interval": 1, **settings})
    return make_search(base or BASE, TrainConfiguration, space, given, folder)


def learnt(folder: Path) -> list[dict[str, Any]]:
    """What a run's iterations figured out, without times."""
    rows = RunFolder(folder).metrics()
    return [{k: v for k, v in row.items() if k not in TIMING_FIGURES} for row in rows]


def interrupted_after(search: Any, n_reports: int) -> Any:
    """Begin a search, and press Ctrl-C after so many reports."""

    class Finger(logging.Handler):
        seen = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.seen += 1
            if self.seen == n_reports:
                os.kill(os.getpid(), signal.SIGINT)

    log, finger = logging.getLogger("twinloop.training.tune_scheduler"), Finger()
    log.addHandler(finger)
    log.setLevel(logging.INFO)
    try:
        return begin(search)
    finally:
        log.removeHandler(finger)
        log.setLevel(logging.NOTSET)


@pytest.mark.parametrize(("scheduler", "n_reports"), [("pbt", 5), ("asha", 2)])
def test_a_search_that_is_interrupted_and_resumed_equals_the_uninterrupted_one(
    tmp_path: Path, session: None, scheduler: str, n_reports: int
) -> None:
    # One trial at a time makes successive halving repeatable; a population meets at each perturbation anyway.
    concurrent = 2 if scheduler == "pbt" else 1
    whole = begin(search_in(tmp_path / "whole", scheduler=scheduler, concurrent=concurrent))
    assert not whole.interrupted
    half = interrupted_after(search_in(tmp_path / "half", scheduler=scheduler, concurrent=concurrent), n_reports)
    assert half.interrupted
    resumed = carry_on(read_search(tmp_path / "half", {}))
    assert not resumed.interrupted
    assert resumed.trials == whole.trials
    assert resumed.best == whole.best
    for trial in whole.trials:
        name = f"{trial.number:04d}"
        assert learnt(tmp_path / "whole" / "trials" / name) == learnt(tmp_path / "half" / "trials" / name)
    best = (tmp_path / "whole" / "best.yaml").read_text()
    assert best == (tmp_path / "half" / "best.yaml").read_text()
    if scheduler == "pbt":
        sampled = [SPACE.sample(0, number) for number in range(4)]
        assert [t.values for t in whole.trials] != sampled, "no trial took over a better one"
        assert all(t.status == "finished" and t.iteration == 2 for t in whole.trials)
    else:
        assert {t.status for t in whole.trials} == {"finished", "stopped"}


def test_the_command_searches_and_prints_every_trial(
    tmp_path: Path, session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    (tmp_path / "train.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "space.yaml").write_text("learner.lr: {loguniform: [1.0e-4, 1.0e-1]}\n")
    words = ["tune", str(tmp_path / "train.yaml"), "--space", str(tmp_path / "space.yaml"), "--set", "iterations=2"]
    out = tmp_path / "out"
    assert main([*words, "--samples", "2", "--scheduler", "none", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "0000" in printed
    assert "0001" in printed
    assert f"train it with: twinloop train {out / 'best.yaml'}" in printed
    learner = RunFolder(out / "trials" / "0001").configuration().learner
    assert isinstance(learner, PpoConfiguration)
    assert learner.lr == Space.load(tmp_path / "space.yaml").sample(0, 1)["learner.lr"]
    assert main([*words, "--out", str(out)]) == 2
    assert "is not empty; resume it with --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "space", "settings", "message"),
    [
        ({}, {"learner.lrr": {"choice": [1]}}, {}, r"trial 0: learner\.lrr: .*did you mean 'lr'"),
        ({"evaluation": {}}, {"learner.lr": {"choice": [0.1]}}, {}, r"set evaluation\.every"),
        ({}, {"iterations": {"choice": [2, 3, 4]}}, {}, "must be the same for all trials"),
        ({}, {"learner.hidden": {"choice": [[8], [4]]}}, {"scheduler": "pbt"}, r"learner\.hidden: population-based"),
        (
            {"learner": {"kind": "mappo", "minibatches": 1}},
            {"learner.critic": {"choice": ["joint", "state"]}},
            {"scheduler": "pbt"},
            r"learner\.critic: population-based",
        ),
        ({}, {"learner.lr": {"choice": [0.1]}}, {"scheduler": "pbt", "samples": 3}, "at least 4 trials"),
        ({}, {"learner.lr": {"choice": [0.1]}}, {"metric": "plant/gain"}, r"add evaluation\.plant"),
        (
            {"rollout": {"replicas": 8, "shard_replicas": 4, "workers": 2, "steps": 4}},
            {"learner.lr": {"choice": [0.1]}},
            {},
            "workers 2: a trial gathers in its own process",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    tmp_path: Path, changes: dict[str, Any], space: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        search_in(tmp_path / "out", {**BASE, **changes}, Space.of(space, "space"), **settings)
    assert not (tmp_path / "out").exists()


def test_resume_needs_a_search_and_changes_nothing_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="no search"):
        read_search(tmp_path, {})
    assert main(["tune", "--resume", str(tmp_path), "--samples", "3"]) == 2
    assert "--samples cannot change a search" in capsys.readouterr().err
