"""The folder of one run.

config.yaml     the resolved configuration; ``twinloop train config.yaml`` repeats the run
versions.json   Python, packages, machine
seeds.json      the run's seed and what is derived from it
metrics.jsonl   one line an iteration, see below
tensorboard/    the same figures for TensorBoard
trackers.json   ids of the MLflow and Weights & Biases runs, where there are any
checkpoints/    see checkpoint.py
best/           the checkpoint of the best evaluation, with ``early_stop`` or ``artifact: best``
plant_reference.json    what neutral commands gave on the plant, with ``evaluation.plant``
result.json     how the run ended, once it has
artifact/       the trained policy, once the run has ended
in_use.lock     held by the process that trains here, so that no second one does

Figures of an iteration:

agent_steps            decisions of present assets so far
agent_steps_per_s      of this sitting, by the wall clock
wall_s, cpu_s          so far, over all sittings; CPU of this process and all that it started (run_clock.py);
                       work that a crash lost is not in them
reward/mean            of the batch that was learnt from, explored, an agent-step
episodes, episode_return/mean, cost/NAME    of the batch
evaluation/reward      mean reward an agent-step without exploration, on replicas that are not learnt from
evaluation/reward_unshielded    the same without the shield, for a policy that trains behind one
cost/shield/intervened, cost/shield/change    share of the batch's asset-steps that the shield changed; by how much, in
                       shares of a command's range, on average over all
plant/...              the policy on the plant, see plant_evaluation.py
GROUP/...              of the learner of that group of assets
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from ..envs.configuration import dump, load, load_mapping, validate
from ..envs.errors import RunError
from .checkpoint import CheckpointStore
from .configuration import TrainConfiguration, training_model
from .output_folder import make_folder
from .seeds import row_seeds

_LOG = logging.getLogger(__name__)

TIMING_FIGURES = ("agent_steps_per_s", "wall_s", "cpu_s")
"""Figures that differ between two equal runs."""

PACKAGES = ("twinloop", "numpy", "torch", "ray", "pydantic", "onnx", "onnxruntime", "floris")


class RunFolder:
    """Paths and bookkeeping of a run; nothing is written before :meth:`create`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.artifact = self.path / "artifact"
        self.result_file = self.path / "result.json"
        self._trackers_file = self.path / "trackers.json"

    @staticmethod
    def named(parent: Path, name: str) -> RunFolder:
        """``parent/<name>-<UTC stamp>``; a number follows where two runs begin in one second."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path, number = Path(parent) / f"{name}-{stamp}", 2
        while path.exists():
            path, number = Path(parent) / f"{name}-{stamp}-{number}", number + 1
        return RunFolder(path)

    def create(self, config: TrainConfiguration) -> None:
        """Write what is known before the first iteration; raises RunError for a folder in use."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            hint = f"resume it with: twinloop train --resume {self.path}, or " if self.config_file.exists() else ""
            raise RunError(f"{self.path}: is not empty; {hint}choose a new folder")
        make_folder(self.path)
        self.config_file.write_text(dump(config), encoding="utf-8")
        self._write_json("versions.json", versions())
        rows = row_seeds(config.seed, torch.arange(config.rollout.replicas))
        self._write_json("seeds.json", {"run": config.seed, "rows": [int(s) for s in rows]})

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the folder to this process as long as it lives; raises RunError where another one has it.

        A lock of the operating system's, which ends with the process, however that ends.
        """
        with (self.path / "in_use.lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunError(
                    f"{self.path}: {file.read().strip() or 'another process'} trains here; "
                    "wait for its end, or stop it (Ctrl-C, or a SIGTERM), then resume"
                ) from None
            except OSError as error:  # a file system without locks must not keep anyone from training
                _LOG.debug("%s: no lock: %s", self.path, error)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            yield

    def configuration(self, overrides: Sequence[str] = (), site: BaseModel | None = None) -> TrainConfiguration:
        """The resolved configuration; raises RunError where there is no run.

        ``site`` takes the place of what the file says, for a site that is not announced.
        """
        file = self.config_file
        if not file.is_file():
            raise RunError(f"{self.path}: no run folder, it has no config.yaml; give one that `twinloop train` made")
        if site is not None:
            return validate({**load_mapping(file, overrides), "site": site}, TrainConfiguration, str(file))
        return load(file, training_model(file, overrides), overrides)

    def checkpoints(self, keep: int) -> CheckpointStore:
        return CheckpointStore(self.path / "checkpoints", keep)

    def best(self) -> CheckpointStore:
        """The checkpoint of the best evaluation."""
        return CheckpointStore(self.path / "best", 1)

    def result(self) -> dict[str, Any] | None:
        """How the run ended; None while it has not."""
        if not self.result_file.is_file():
            return None
        found: dict[str, Any] = json.loads(self.result_file.read_text(encoding="utf-8"))
        return found

    def keep_result(self, result: Mapping[str, Any]) -> None:
        """Write how the run ended; this is the last thing that a run does."""
        partial = self.path / "result.partial"
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.result_file)

    def tracker_ids(self) -> dict[str, str]:
        """Ids of this run at trackers, by the tracker's name."""
        if not self._trackers_file.is_file():
            return {}
        found: dict[str, str] = json.loads(self._trackers_file.read_text(encoding="utf-8"))
        return found

    def keep_tracker_id(self, tracker: str, run_id: str) -> None:
        """Remember under which id a tracker knows this run."""
        self._write_json(self._trackers_file.name, {**self.tracker_ids(), tracker: run_id})

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; a last line that a crash cut short is left out."""
        rows: list[dict[str, Any]] = []
        if self.metrics_file.is_file():
            for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return rows

    def forget_after(self, iteration: int) -> None:
        """Drop the metrics of iterations that a resumed run is about to repeat."""
        kept = [row for row in self.metrics() if row["iteration"] <= iteration]
        self.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def _write_json(self, name: str, data: object) -> None:
        (self.path / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of what a run depends on, and the machine."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
