"""Figures in trackers: read back with each tracker's own reader, and a run that none of them can end."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from twinloop.envs.errors import MissingExtraError
from twinloop.training.benchmarks.reference_task import DriftConfig, drift_configuration, drift_problem
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.run import IterationReport, RunInterrupted, resume, train
from twinloop.training.run_folder import RunFolder
from twinloop.training.run_settings import LogConfiguration, MlflowConfiguration, WandbConfiguration


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"{package} is not installed; it comes with an extra"
    )


def drift(log: LogConfiguration, iterations: int = 3) -> TrainConfiguration:
    rollout = RolloutConfiguration(replicas=2, steps=8)
    return drift_configuration(iterations, site=DriftConfig(n_assets=2), rollout=rollout, log=log)


def interrupted_and_resumed(config: TrainConfiguration, folder: Path) -> list[dict[str, Any]]:
    def stop(report: IterationReport) -> None:
        if report.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        train(config, folder, stop, problem=drift_problem(config))
    resume(folder, problem=drift_problem(config))
    return RunFolder(folder).metrics()


def test_tensorboard_has_every_figure_of_every_iteration_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # has no types
        EventAccumulator,
    )

    rows = interrupted_and_resumed(drift(LogConfiguration()), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"iteration"}
    told = {event.step: event.value for event in events.Scalars("reward/mean")}
    assert told == pytest.approx({row["iteration"]: row["reward/mean"] for row in rows}, rel=1e-6)


def test_tensorboard_can_be_switched_off(tmp_path: Path) -> None:
    config = drift(LogConfiguration(tensorboard=False), 1)
    train(config, tmp_path / "run", problem=drift_problem(config))
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    """A file where TensorBoard wants its folder: what a full or foreign disk does, in the middle of a run."""
    config = drift(LogConfiguration())
    said: list[str] = []

    def spoil(report: IterationReport) -> None:
        if report.iteration == 1:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        train(config, tmp_path / "run", spoil, problem=drift_problem(config))
    folder = tmp_path / "run" / "tensorboard"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    result = resume(tmp_path / "run", problem=drift_problem(config), on_warning=said.append)
    assert result.iterations == 3
    assert len(said) == 1
    assert said[0].startswith("TensorBoard failed and gets no more figures (")
    assert [row["iteration"] for row in RunFolder(result.folder).metrics()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("package", "log"),
    [
        ("mlflow", LogConfiguration(mlflow=MlflowConfiguration())),
        ("wandb", LogConfiguration(wandb=WandbConfiguration())),
    ],
)
def test_a_tracker_that_is_not_installed_is_told_before_the_run_begins(
    package: str, log: LogConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what the import system itself uses for "not there"
    config = drift(log)
    with pytest.raises(MissingExtraError, match=rf"pip install 'twinloop\[{package}\]'"):
        train(config, tmp_path / "run", problem=drift_problem(config))
    assert not (tmp_path / "run").exists()


@needs("mlflow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of MLflow and what it imports
def test_mlflow_has_one_run_with_settings_and_all_figures_though_it_was_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions want a database for anything but a test
    uri = (tmp_path / "store").as_uri()
    log = LogConfiguration(tensorboard=False, mlflow=MlflowConfiguration(tracking_uri=uri, experiment="drift"))
    rows = interrupted_and_resumed(drift(log), tmp_path / "run")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("drift")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["learner.lr"] == "0.0003"
    history = client.get_metric_history(found.info.run_id, "reward/mean")
    assert {m.step: m.value for m in history} == {row["iteration"]: row["reward/mean"] for row in rows}


def leveldb_records(data: bytes) -> list[bytes]:
    """Records of a LevelDB log with a header of 7 bytes, as Weights & Biases keeps a run (log_format.md of LevelDB)."""
    found, parts, at = [], b"", 7
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # the rest of a block is padding
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(parts)
            parts = b""
    return found


@needs("wandb")
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning"
)  # of Weights & Biases and its service
def test_weights_and_biases_keeps_one_id_over_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto import wandb_internal_pb2

    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))
    log = LogConfiguration(tensorboard=False, wandb=WandbConfiguration(project="drift", mode="offline"))
    rows = interrupted_and_resumed(drift(log), tmp_path / "run")
    run_id = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    files = sorted((tmp_path / "run").glob(f"wandb/offline-run-*/run-{run_id}.wandb"))
    assert files
    told: dict[int, float] = {}
    for file in files:
        for data in leveldb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                told[int(items["_step"])] = float(items["reward/mean"])
    assert told == {row["iteration"]: row["reward/mean"] for row in rows}
