"""Sample efficiency as a picture: score over agent-steps, CPU seconds and wall seconds, with the seeds' band."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .comparison import ALL_TASKS, Comparison
from .comparison_runs import AXES
from .comparison_sides import Side
from .run_statistics import interquartile_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]

N_POINTS = 80
_CURVE_RESAMPLES = 1000


def draw_curves(comparison: Comparison, sides: Sequence[Side], path: Path) -> Path:
    """Draw a row a task (with scales and several tasks, one of all before them) and a column an axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(sides[0].runs)
    rows = [(ALL_TASKS, tasks)] if comparison.scales and len(tasks) > 1 else []
    rows += [(task, [task]) for task in tasks]
    figure = Figure(figsize=(4.2 * len(AXES), 3.2 * len(rows) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(len(rows), len(AXES), squeeze=False, sharey="row")
    for row, (name, strata) in enumerate(rows):
        for column, (axis, label) in enumerate(AXES.items()):
            panel: Axes = grid[row, column]
            for side in sides:
                _draw(panel, comparison, side, strata, axis)
            if comparison.mark is not None:
                panel.axhline(comparison.mark, color="0.5", linewidth=0.8, linestyle="--")
            panel.set_xlabel(label)
            panel.set_xlim(left=0.0)
            panel.grid(alpha=0.25, linewidth=0.6)
        grid[row, 0].set_ylabel(f"normalised {comparison.figure}" if comparison.scales else comparison.figure)
        grid[row, 0].set_title(name, loc="left", fontsize=10)
    grid[0, 0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def curve_on_grid(
    comparison: Comparison, side: Side, tasks: Sequence[str], axis: str
) -> tuple[FloatArray, list[FloatArray]]:
    """Points ``[P]`` of an axis that all runs cover, and every run's score there, ``[runs, P]`` a task.

    Between its evaluations a run's score is taken as linear. Nothing is drawn beyond the run that ended first.
    """
    curves = {task: [run.curve(comparison.figure) for run in side.runs[task]] for task in tasks}
    every = [curve for of_task in curves.values() for curve in of_task]
    first = max(float(curve.axes[axis][0]) for curve in every)
    last = min(float(curve.axes[axis][-1]) for curve in every)
    same = all(np.array_equal(curve.axes[axis], every[0].axes[axis]) for curve in every)
    points = every[0].axes[axis] if same else np.linspace(first, max(first, last), N_POINTS)
    scores = [
        np.array(
            [np.interp(points, c.axes[axis], [comparison.score(task, value) for value in c.values]) for c in of_task]
        )
        for task, of_task in curves.items()
    ]
    return points, scores


def _draw(panel: Axes, comparison: Comparison, side: Side, tasks: Sequence[str], axis: str) -> None:
    points, scores = curve_on_grid(comparison, side, tasks, axis)
    middle, low, high = interquartile_curve(
        scores, level=comparison.level, n_resamples=_CURVE_RESAMPLES, seed=comparison.seed
    )
    (line,) = panel.plot(points, middle, marker="o" if len(points) < 2 else None, label=side.label)
    panel.fill_between(points, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
