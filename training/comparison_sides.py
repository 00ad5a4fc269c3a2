"""Which runs stand on which side of a comparison, and whether the sides may be compared at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..envs.errors import RunError
from .comparison_runs import FinishedRun
from .logging_sinks import flat
from .run_statistics import FEWEST_RUNS

By = Literal["configuration", "name"]

COMPARED_VERSIONS = ("twinloop", "numpy", "torch", "floris")
"""Packages whose version can change what a run finds."""

_MOST_DIFFERENCES = 4
_ABSENT = "absent"


@dataclass(frozen=True)
class Side:
    """Runs that differ in nothing but the seed, for each task that they were run on."""

    label: str
    runs: Mapping[str, tuple[FinishedRun, ...]]

    @property
    def all_runs(self) -> tuple[FinishedRun, ...]:
        return tuple(run for runs in self.runs.values() for run in runs)


def make_sides(
    runs: Sequence[FinishedRun], figure: str, by: By = "configuration", labels: Sequence[str] = ()
) -> list[Side]:
    """Sides in the order in which their first run comes.

    By ``configuration``: what is equal apart from seed, name and task is one side. By ``name``: the configuration's
    name is the side, and may stand for other settings on another task. Raises :class:`RunError` for a name that
    stands for two configurations of one task, and for labels that do not fit.
    """
    tasks = _task_names(runs, figure)
    grouped: dict[str, list[FinishedRun]] = {}
    for run in runs:
        key = run.name if by == "name" else json.dumps(run.method(figure), sort_keys=True)
        grouped.setdefault(key, []).append(run)
    names = _labels(list(grouped.values()), figure, by, labels)
    sides = []
    for label, members in zip(names, grouped.values(), strict=True):
        by_task: dict[str, list[FinishedRun]] = {}
        for run in members:
            by_task.setdefault(tasks[id(run)], []).append(run)
        for task, same in by_task.items():
            _check_alike(label, task, same, figure)
        sides.append(Side(label, {task: tuple(sorted(same, key=lambda r: r.seed)) for task, same in by_task.items()}))
    return sides


def check_sides(sides: Sequence[Side], figure: str, *, any_version: bool = False) -> list[str]:
    """Raise :class:`RunError` for sides that must not be compared; return what a reader should know of the others."""
    for side in sides:
        for task, runs in side.runs.items():
            if len(runs) < FEWEST_RUNS:
                raise RunError(
                    f"{side.label}: {len(runs)} seed(s) on {task}; a comparison needs {FEWEST_RUNS} or more a side, "
                    "because fewer tell chance from nothing. Train more with: twinloop train CONFIG --seeds 0..4"
                )
    first = sides[0]
    for side in sides[1:]:
        if set(side.runs) != set(first.runs):
            ours, theirs = first.all_runs[0].task(figure), side.all_runs[0].task(figure)
            told = (
                f"they differ in {differences(ours, theirs)}"
                if len(first.runs) == len(side.runs) == 1
                else f"{first.label} was run on {', '.join(first.runs)}; {side.label} on {', '.join(side.runs)}"
            )
            raise RunError(
                f"{first.label} and {side.label} were not measured on the same: {told}; compare runs of one task and "
                "one way to evaluate, or give every side all tasks"
            )
    return [*_check_versions(sides, any_version), *_notes(sides)]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Keys in which two mappings differ, with both values: ``site.n_assets (3, 4)``."""
    ours, theirs = flat(a), flat(b)
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key, _ABSENT) != theirs.get(key, _ABSENT)]
    told = [f"{key} ({ours.get(key, _ABSENT)}, {theirs.get(key, _ABSENT)})" for key in keys[:_MOST_DIFFERENCES]]
    return ", ".join(told) + (f" and {len(keys) - _MOST_DIFFERENCES} more" if len(keys) > _MOST_DIFFERENCES else "")


def _task_names(runs: Iterable[FinishedRun], figure: str) -> dict[int, str]:
    """A name for the task of every run, by the run's ``id``; a number tells unlike tasks of one name apart."""
    names: dict[str, str] = {}
    found: dict[int, str] = {}
    for run in runs:
        key = json.dumps(run.task(figure), sort_keys=True)
        if key not in names:
            name, number = run.task_name(figure), 2
            while name in names.values():
                name, number = f"{run.task_name(figure)}#{number}", number + 1
            names[key] = name
        found[id(run)] = names[key]
    return found


def _labels(groups: Sequence[Sequence[FinishedRun]], figure: str, by: By, given: Sequence[str]) -> list[str]:
    if given:
        wrong = len(given) != len(groups) or len(set(given)) != len(given)
        if wrong:
            firsts = ", ".join(str(group[0].path) for group in groups)
            raise RunError(
                f"--labels: {', '.join(given)}; give {len(groups)} different ones, for the sides that begin with: "
                f"{firsts}"
            )
        return list(given)
    names = [group[0].name for group in groups]
    if by == "name" or len(set(names)) == len(names):
        return names
    methods = [flat(group[0].method(figure)) for group in groups]
    keys = dict.fromkeys(key for method in methods for key in method)
    unlike = [key for key in keys if len({str(method.get(key, _ABSENT)) for method in methods}) > 1]
    kinds = [method.get("learner.kind") for method in methods]
    # Where every side has a learner of its own, its kind explains most other differences.
    told = ["learner.kind"] if len(set(kinds)) == len(kinds) else unlike
    labels = []
    for name, method in zip(names, methods, strict=True):
        values = [f"{key.rpartition('.')[2]} {method[key]}" for key in told[:_MOST_DIFFERENCES] if key in method]
        labels.append(f"{name} ({'; '.join(values)})" if values else name)
    if len(set(labels)) < len(labels):
        labels = [f"{label} #{number}" for number, label in enumerate(labels, start=1)]
    return labels


def _check_alike(label: str, task: str, runs: Sequence[FinishedRun], figure: str) -> None:
    seeds: dict[int, FinishedRun] = {}
    for run in runs:
        if run.method(figure) != runs[0].method(figure):
            raise RunError(
                f"{label}: {runs[0].path} and {run.path} are of one name and one task ({task}), but not of one "
                f"configuration: {differences(runs[0].method(figure), run.method(figure))}; compare by configuration, "
                "or name them differently"
            )
        if run.seed in seeds:
            raise RunError(
                f"{label}: seed {run.seed} comes twice on {task}, in {seeds[run.seed].path} and {run.path}; the same "
                "run counted twice proves nothing twice, leave one out"
            )
        seeds[run.seed] = run


def _check_versions(sides: Sequence[Side], any_version: bool) -> list[str]:
    runs = [run for side in sides for run in side.all_runs]
    for run in runs[1:]:
        ours, theirs = ({p: r.versions.get(p, _ABSENT) for p in COMPARED_VERSIONS} for r in (runs[0], run))
        if ours != theirs:
            told = f"{runs[0].path} and {run.path} were made by other versions: {differences(ours, theirs)}"
            if not any_version:
                raise RunError(f"{told}; repeat one of them, or give --anyway, and the table says that versions differ")
            return [f"Versions differ: {told}."]
    return []


def _notes(sides: Sequence[Side]) -> list[str]:
    notes = []
    budgets = {side.label: max(int(run.result["agent_steps"]) for run in side.all_runs) for side in sides}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{label} {steps:,}" for label, steps in budgets.items())
        notes.append(f"Not all sides had the same number of agent-steps ({told}): read the curves, not the ends alone.")
    early = [side.label for side in sides if any(run.result.get("stopped_early") for run in side.all_runs)]
    if early:
        notes.append(f"Early stopping ended runs of {', '.join(early)}; curves end where the first of them did.")
    machines = {(r.versions.get("system"), r.versions.get("machine")) for side in sides for r in side.all_runs}
    if len(machines) > 1:
        notes.append("Runs come from unlike machines: their CPU and wall seconds are not comparable.")
    return notes
