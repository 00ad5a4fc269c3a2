"""Where an iteration's figures go: a line of JSON, and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .run_folder import RunFolder


class Sinks:
    """Both files of a run, open while it lasts; a number that is not finite becomes null in JSON."""

    def __init__(self, folder: RunFolder, first_iteration: int) -> None:
        self._folder = folder
        self._first = first_iteration
        self._lines: Any = None
        self._events: Any = None

    def __enter__(self) -> Self:
        # TensorBoard's writer costs a second to import; only a run needs it.
        from torch.utils.tensorboard.writer import SummaryWriter

        self._lines = self._folder.metrics_file.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(Path(self._folder.tensorboard)), purge_step=self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._events.close()

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Write one iteration and push it to the disk."""
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self._lines.write(json.dumps({"iteration": iteration, **finite}) + "\n")
        self._lines.flush()
        for name, value in figures.items():
            self._events.add_scalar(name, value, iteration)
