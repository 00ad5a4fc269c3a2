"""Finished runs as a comparison reads them: a folder each, with configuration, figures over time, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.configuration import load_mapping
from ..envs.errors import RunError, nearest
from .run_settings import TWIN_REWARD

FloatArray = NDArray[np.float64]

STUDY_FILE = "study.json"
COMPARISON_FILE = "comparison.json"
AXES = {"agent_steps": "agent-steps", "cpu_s": "CPU seconds", "wall_s": "wall seconds"}
"""Figures that a curve can be drawn over, and how axes call them."""

_PLANT_PREFIX = "plant/"
_OF_ONE_RUN = ("seed", "name", "log", "checkpoint_every", "keep_checkpoints")
"""Keys of a configuration that say nothing of what is compared."""


@dataclass(frozen=True)
class Curve:
    """One figure over a run; every array is ``[P]``, ``axes`` by their key in :data:`AXES`."""

    axes: Mapping[str, FloatArray]
    values: FloatArray


@dataclass(frozen=True)
class FinishedRun:
    """One seed. ``config`` is what config.yaml holds, ``rows`` the lines of metrics.jsonl."""

    path: Path
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def name(self) -> str:
        return str(self.config["name"])

    def final(self, figure: str) -> float:
        """The figure of the policy that the run ended with; its last evaluation for one on the plant."""
        ended = self.result["figures"].get(figure)
        return self._number(ended, figure) if ended is not None else float(self.curve(figure).values[-1])

    def best(self, figure: str) -> float:
        """The largest value of the figure over the run; larger than what the run is worth, since chance picks it."""
        return float(self.curve(figure).values.max())

    def curve(self, figure: str) -> Curve:
        """The figure wherever the run has it, its end included; raises :class:`RunError` where it has it nowhere."""
        rows = [row for row in self.rows if row.get(figure) is not None]
        ended = self.result["figures"].get(figure)
        if ended is not None and self.rows and (not rows or rows[-1] is not self.rows[-1]):
            rows.append({**self.rows[-1], figure: ended})
        if not rows:
            names = sorted({name for row in self.rows for name in row})
            raise RunError(
                f"{self.path}: has no figure {figure!r}{nearest(figure, names)}; it has {', '.join(names)}. "
                "evaluation.every and evaluation.plant of a run say what it measures"
            )
        values = np.array([self._number(row[figure], figure) for row in rows])
        axes = {axis: np.array([float(row.get(axis) or 0.0) for row in rows]) for axis in AXES}
        return Curve(axes, values)

    def task(self, figure: str) -> dict[str, Any]:
        """What the figure was measured on: runs are comparable where this is equal."""
        evaluation = self.config.get("evaluation") or {}
        if figure.startswith(_PLANT_PREFIX):
            plant = dict(evaluation.get("plant") or {})
            site = plant.get("site") or self.config["site"]
            return {"evaluation": {"plant": {**_without(plant, ("every",)), "site": site}}}
        measured = {name: evaluation.get(name) for name in ("replicas", "steps")} if figure == TWIN_REWARD else {}
        return {
            "site": self.config["site"],
            "task": self.config["task"],
            "dtype": self.config.get("dtype"),
            "evaluation": measured,
        }

    def task_name(self, figure: str) -> str:
        """A short name of :meth:`task`, such as ``wind_farm/ablaincourt/farm_power``."""
        site = self.task(figure).get("site") or self.task(figure)["evaluation"]["plant"]["site"]
        parts = [site.get("kind"), site.get("name"), None if figure.startswith(_PLANT_PREFIX) else self._task_name()]
        return "/".join(str(part) for part in parts if part)

    def method(self, figure: str) -> dict[str, Any]:
        """What the run does to be good at its task: the configuration without the task, the seed and bookkeeping."""
        measured = ("evaluation", *(() if figure.startswith(_PLANT_PREFIX) else ("site", "task", "dtype")))
        found = _without(self.config, (*_OF_ONE_RUN, *measured))
        found["rollout"] = _without(found.get("rollout") or {}, ("workers",))  # which changes no result
        return found

    def _task_name(self) -> str:
        return str(self.config["task"]["name"])

    def _number(self, value: Any, figure: str) -> float:
        number = float(value)
        if not np.isfinite(number):
            raise RunError(f"{self.path}: figure {figure!r} is {number}; leave this run out, and say that you did")
        return number


def read_runs(paths: Iterable[Path]) -> list[FinishedRun]:
    """The runs in folders of single seeds and of studies; raises :class:`RunError` for what has not ended.

    What an earlier comparison wrote is passed over, since ``runs/*`` names it too.
    """
    given = [Path(path) for path in paths]
    found = [_read(folder) for path in given if not (path / COMPARISON_FILE).is_file() for folder in _folders(path)]
    if not found:
        raise RunError(
            f"{', '.join(map(str, given))}: no runs, only comparisons; give folders that `twinloop train` made"
        )
    return found


def _folders(path: Path) -> list[Path]:
    file = path / STUDY_FILE
    if not file.is_file():
        return [path]
    seeds = json.loads(file.read_text(encoding="utf-8"))["seeds"]
    missing = [seed for seed in seeds if not (seed_folder(path, seed) / "result.json").is_file()]
    if missing:
        raise RunError(
            f"{path}: seed {', '.join(map(str, missing))} of this study has not ended; finish it with: "
            f"twinloop train --resume {path}, or name the folders of the others one by one, and say that you did"
        )
    return [seed_folder(path, seed) for seed in seeds]


def seed_folder(study: Path, seed: int) -> Path:
    """The run folder of one seed of a study."""
    return study / f"seed_{seed}"


def _read(path: Path) -> FinishedRun:
    if not (path / "config.yaml").is_file():
        raise RunError(f"{path}: no run folder, it has no config.yaml; give folders that `twinloop train` made")
    if not (path / "result.json").is_file():
        raise RunError(f"{path}: this run has not ended; finish it with: twinloop train --resume {path}")
    versions = path / "versions.json"
    return FinishedRun(
        path,
        load_mapping(path / "config.yaml"),
        json.loads(versions.read_text(encoding="utf-8")) if versions.is_file() else {},
        [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()],
        json.loads((path / "result.json").read_text(encoding="utf-8")),
    )


def _without(data: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in keys}
