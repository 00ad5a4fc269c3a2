"""A comparison's raw data as MARL-eval reads it (github.com/instadeepai/marl-eval, "Structuring raw experiment data").

``{environment: {task: {algorithm: {run: {"step_1": {"step_count": int, METRIC: [value]}, ..., "absolute_metrics":
{METRIC: [value]}}}}}}``, METRIC being the figure with ``/`` as ``_``. MARL-eval wants equally many evaluations of all
runs, so that runs which stopped early are for its own tools to refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .comparison_runs import FinishedRun
from .comparison_sides import Side


def marl_eval_data(sides: Sequence[Side], figure: str) -> dict[str, Any]:
    """The mapping to write as JSON. The absolute metric is each run's best evaluation."""
    data: dict[str, Any] = {}
    for side in sides:
        for task, runs in side.runs.items():
            environment, _, name = task.partition("/")
            algorithms = data.setdefault(environment, {}).setdefault(name or environment, {})
            # It splits pairs of names at commas.
            algorithms[side.label.replace(",", ";")] = {f"seed_{run.seed}": _run(run, figure) for run in runs}
    return data


def _run(run: FinishedRun, figure: str) -> dict[str, Any]:
    metric = figure.replace("/", "_")
    curve = run.curve(figure)
    pairs = zip(curve.axes["agent_steps"], curve.values, strict=True)
    steps: dict[str, Any] = {
        f"step_{number}": {"step_count": int(count), metric: [float(value)]}
        for number, (count, value) in enumerate(pairs, start=1)
    }
    return {**steps, "absolute_metrics": {metric: [run.best(figure)]}}
