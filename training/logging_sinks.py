"""Where an iteration's figures go: a line of JSON, and whatever trackers the configuration names.

The lines are the run's own record and must be written. A tracker (TensorBoard, MLflow, Weights & Biases) serves whoever
watches: one that fails is left out from then on, and the run goes on.
"""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from .configuration import TrainConfiguration
from .run_folder import RunFolder
from .run_settings import MlflowConfiguration, WandbConfiguration

OnWarning = Callable[[str], None]

_LOG = logging.getLogger(__name__)
_LONGEST_PARAMETER = 500
"""Characters of one value that every MLflow server takes."""


class Tracker(Protocol):
    """One place that figures go to. ``open`` is called once, before the first figures."""

    name: str

    def open(self) -> None: ...
    def write(self, iteration: int, figures: Mapping[str, float]) -> None: ...
    def close(self, *, finished: bool) -> None: ...


class Sinks:
    """All of a run's sinks, open while it lasts; in JSON a number that is not finite becomes null."""

    def __init__(
        self,
        folder: RunFolder,
        config: TrainConfiguration,
        first_iteration: int,
        on_warning: OnWarning | None = None,
    ) -> None:
        self._folder = folder
        self._on_warning = on_warning or _LOG.warning
        self._trackers = trackers(folder, config, first_iteration)
        self._lines: Any = None

    def __enter__(self) -> Self:
        self._lines = self._folder.metrics_file.open("a", encoding="utf-8")
        for tracker in list(self._trackers):
            self._try(tracker, tracker.open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        for tracker in list(self._trackers):
            self._try(tracker, partial(tracker.close, finished=kind is None))

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Write one iteration and push it to the disk; raises OSError when the lines cannot be written."""
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self._lines.write(json.dumps({"iteration": iteration, **finite}) + "\n")
        self._lines.flush()
        for tracker in list(self._trackers):
            self._try(tracker, partial(tracker.write, iteration, figures))

    def _try(self, tracker: Tracker, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - foreign code and networks: whatever it is, the run goes on
            self._trackers.remove(tracker)
            self._on_warning(
                f"{tracker.name} failed and gets no more figures ({type(error).__name__}: {error}); "
                f"they go on in {self._folder.metrics_file}"
            )


def trackers(folder: RunFolder, config: TrainConfiguration, first_iteration: int) -> list[Tracker]:
    """The trackers that a configuration asks for, none of them open."""
    found: list[Tracker] = []
    if config.log.tensorboard:
        found.append(TensorBoardTracker(folder.tensorboard, first_iteration))
    if config.log.mlflow is not None:
        found.append(MlflowTracker(config.log.mlflow, folder, config))
    if config.log.wandb is not None:
        found.append(WandbTracker(config.log.wandb, folder, config))
    return found


class TensorBoardTracker:
    """Event files; what a resumed run repeats replaces what was there."""

    name = "TensorBoard"

    def __init__(self, path: Path, first_iteration: int) -> None:
        self._path = path
        self._first = first_iteration
        self._events: Any = None

    def open(self) -> None:
        # TensorBoard's writer costs a second to import; only a run needs it.
        from torch.utils.tensorboard.writer import SummaryWriter

        self._events = SummaryWriter(str(self._path), purge_step=self._first)

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._events.add_scalar(name, value, iteration)

    def close(self, *, finished: bool) -> None:
        self._events.close()


class MlflowTracker:
    """A run in an MLflow experiment; the run's id is kept in the run folder, so that a resumed run goes on in it."""

    name = "MLflow"

    def __init__(self, settings: MlflowConfiguration, folder: RunFolder, config: TrainConfiguration) -> None:
        self._settings = settings
        self._folder = folder
        self._config = config
        self._client: Any = None
        self._run_id = ""

    def open(self) -> None:
        from mlflow import MlflowClient

        # A client of its own: mlflow.set_tracking_uri would change what the rest of the program talks to.
        self._client = MlflowClient(tracking_uri=self._settings.tracking_uri)
        self._run_id = self._folder.tracker_ids().get("mlflow", "")
        if self._run_id:
            self._client.update_run(self._run_id, status="RUNNING")
            return
        name = self._settings.experiment
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        run = self._client.create_run(experiment_id, run_name=self._folder.path.name)
        self._run_id = str(run.info.run_id)
        self._folder.keep_tracker_id("mlflow", self._run_id)
        for key, value in flat(self._config.model_dump(mode="json", serialize_as_any=True)).items():
            self._client.log_param(self._run_id, key, str(value)[:_LONGEST_PARAMETER])

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(1000 * time.time())
        metrics = [Metric(name, float(value), now_ms, iteration) for name, value in figures.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._run_id, "FINISHED" if finished else "KILLED")


class WandbTracker:
    """A Weights & Biases run below the run folder; its id is kept there, so that a resumed run goes on in it."""

    name = "Weights & Biases"

    def __init__(self, settings: WandbConfiguration, folder: RunFolder, config: TrainConfiguration) -> None:
        self._settings = settings
        self._folder = folder
        self._config = config
        self._run: Any = None

    def open(self) -> None:
        import wandb

        run_id = self._folder.tracker_ids().get("wandb", "") or uuid.uuid4().hex[:8]
        self._folder.keep_tracker_id("wandb", run_id)
        self._run = wandb.init(
            project=self._settings.project,
            entity=self._settings.entity,
            mode=self._settings.mode,
            id=run_id,
            resume="allow",
            name=self._folder.path.name,
            dir=str(self._folder.path),
            config=self._config.model_dump(mode="json", serialize_as_any=True),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=iteration)

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"learner": {"lr": 1}}`` as ``{"learner.lr": 1}``."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
