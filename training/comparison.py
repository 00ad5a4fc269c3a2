"""Algorithms side by side over seeds and tasks: how good, how surely better, and after how many steps and seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.errors import ConfigurationError, nearest
from .comparison_runs import AXES, FinishedRun
from .comparison_sides import Side
from .report import Cell, Table
from .run_settings import TWIN_REWARD
from .run_statistics import (
    N_RESAMPLES,
    first_reaching,
    interquartile_mean_interval,
    probability_of_improvement_interval,
)
from .statistics import Interval

FloatArray = NDArray[np.float64]

ALL_TASKS = "all tasks, normalised"
REACH_AXES = ("agent_steps", "cpu_s")
_GROUPED_FROM = 1000.0


@dataclass(frozen=True)
class Scale:
    """Reference scores of a task: 0 and 1 of the normalised score."""

    low: float
    high: float

    def __call__(self, score: float) -> float:
        return (score - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Standing:
    """One side on one task, or on all of them; ``chance`` of being better than the reference is None for itself.

    ``cost[axis]`` is what a run took in all; ``reach[axis]`` what it took to first reach the mark, infinite where it
    did not, and ``n_reached`` how many runs did.
    """

    task: str
    label: str
    n_runs: int
    final: Interval
    best: Interval
    chance: Interval | None
    cost: Mapping[str, Interval]
    reach: Mapping[str, Interval]
    n_reached: int


@dataclass(frozen=True)
class Comparison:
    """The question. ``scales`` by task, all of them or none; ``mark`` is a score to reach, in the figure's own unit,
    or in normalised scores where there are scales."""

    figure: str = TWIN_REWARD
    scales: Mapping[str, Scale] | None = None
    mark: float | None = None
    level: float = 0.95
    n_resamples: int = N_RESAMPLES
    seed: int = 0

    def check(self, sides: Sequence[Side]) -> None:
        """Raise :class:`ConfigurationError` for scales that do not fit the tasks."""
        tasks = list(sides[0].runs)
        if not self.scales:
            return
        for name in self.scales:
            if name not in tasks:
                raise ConfigurationError(
                    f"--normalise {name}: no such task; tasks here: {', '.join(tasks)}{nearest(name, tasks)}"
                )
        missing = [task for task in tasks if task not in self.scales]
        if missing:
            raise ConfigurationError(
                f"--normalise: no reference scores for {', '.join(missing)}; give them for all tasks, or for none"
            )

    def standings(self, sides: Sequence[Side]) -> list[Standing]:
        """Every side on every task, the first side being the reference; with scales first on all tasks together."""
        self.check(sides)
        tasks = list(sides[0].runs)
        together = [(ALL_TASKS, tasks)] if self.scales and len(tasks) > 1 else []
        return [
            self._standing(name, strata, side, sides[0])
            for name, strata in [*together, *((task, [task]) for task in tasks)]
            for side in sides
        ]

    def score(self, task: str, value: float) -> float:
        """A figure as it is compared."""
        return self.scales[task](value) if self.scales else value

    def _standing(self, name: str, tasks: Sequence[str], side: Side, reference: Side) -> Standing:
        def scores(of: Side, read: Callable[[FinishedRun], float]) -> list[FloatArray]:
            return [np.array([self.score(task, read(run)) for run in of.runs[task]]) for task in tasks]

        def interval(strata: Sequence[FloatArray]) -> Interval:
            return interquartile_mean_interval(strata, level=self.level, n_resamples=self.n_resamples, seed=self.seed)

        def final(run: FinishedRun) -> float:
            return run.final(self.figure)

        chance = None
        if side is not reference:
            chance = probability_of_improvement_interval(
                scores(side, final), scores(reference, final), level=self.level, n_resamples=self.n_resamples,
                seed=self.seed,
            )  # fmt: skip
        reach = {} if self.mark is None else {axis: self._reach(tasks, side, axis) for axis in REACH_AXES}
        runs = [run for task in tasks for run in side.runs[task]]
        return Standing(
            task=name,
            label=side.label,
            n_runs=len(runs),
            final=interval(scores(side, final)),
            best=interval(scores(side, lambda run: run.best(self.figure))),
            chance=chance,
            cost={axis: interval([np.array([_total(r, axis) for r in side.runs[t]]) for t in tasks]) for axis in AXES},
            reach={axis: interval(strata) for axis, strata in reach.items()},
            n_reached=sum(int(np.isfinite(stratum).sum()) for stratum in reach.get("agent_steps", [])),
        )

    def _reach(self, tasks: Sequence[str], side: Side, axis: str) -> list[FloatArray]:
        assert self.mark is not None  # asked for only with a mark
        found = []
        for task in tasks:
            curves = [run.curve(self.figure) for run in side.runs[task]]
            scored = [np.array([self.score(task, value) for value in curve.values]) for curve in curves]
            found.append(
                np.array([first_reaching(c.axes[axis], y, self.mark) for c, y in zip(curves, scored, strict=True)])
            )
        return found

    def table(self, sides: Sequence[Side], standings: Sequence[Standing], notes: Sequence[str] = ()) -> Table:
        """The standings as a table, with what a reader must know to believe it."""
        percent = round(100 * self.level)
        several = len({s.task for s in standings}) > 1
        columns = ["side", "seeds", f"final IQM [{percent} %]", f"best IQM [{percent} %]"]
        columns += [f"P(better) [{percent} %]"] if len(sides) > 1 else []
        columns += ["agent-steps", "CPU s", "wall s"]
        if self.mark is not None:
            columns += [f"reached {self.mark:g}", "steps to it", "CPU s to it"]
        rows = [self._row(s, with_chance=len(sides) > 1, with_task=several) for s in standings]
        title = f"{self.figure}" + ("" if several else f" on {standings[0].task}")
        return Table(
            title,
            tuple(["task", *columns] if several else columns),
            tuple(rows),
            (*self._notes(sides), *notes),
            {"standings": [_plain(s) for s in standings], "sides": [_members(side) for side in sides]},
        )

    def _row(self, s: Standing, *, with_chance: bool, with_task: bool) -> tuple[Cell, ...]:
        row: list[Cell] = [s.task] if with_task else []
        row += [s.label, s.n_runs, _told(s.final), _told(s.best)]
        row += [_told(s.chance, 2)] if with_chance else []
        row += [_round(s.cost[axis].estimate) for axis in AXES]
        if s.reach:
            row += [f"{s.n_reached} of {s.n_runs}", *(_told_cost(s.reach[axis]) for axis in REACH_AXES)]
        return tuple(row)

    def _notes(self, sides: Sequence[Side]) -> list[str]:
        notes = [
            f"IQM: mean of the middle half of the runs. Intervals: stratified bootstrap, {self.n_resamples} resamples, "
            "percentiles (Agarwal et al. 2021, arXiv 2108.13264).",
            "final: the policy that the run ended with. best: the largest evaluation of each run, which chance helps.",
            "agent-steps, CPU and wall seconds: of a whole run, IQM; CPU over all processes of the run.",
        ]
        if len(sides) > 1:
            notes.append(f"P(better): chance that a run ends better than one of {sides[0].label}, ties half.")
        if self.scales:
            told = ", ".join(f"{task} {s.low:g} to {s.high:g}" for task, s in self.scales.items())
            notes.append(f"Scores are normalised: 0 and 1 stand for {told}.")
        elif len(sides[0].runs) > 1:
            notes.append("Tasks stand apart: without reference scores (--normalise) they have no common scale.")
        return notes


def _total(run: FinishedRun, axis: str) -> float:
    """What a whole run took."""
    return float(run.rows[-1].get(axis) or 0.0) if run.rows else 0.0


def _told(interval: Interval | None, digits: int | None = None) -> str | None:
    if interval is None:
        return None
    if digits is None:
        return "{:.4g} [{:.4g}, {:.4g}]".format(*_ends(interval))
    return f"{{:.{digits}f}} [{{:.{digits}f}}, {{:.{digits}f}}]".format(*_ends(interval))


def _told_cost(interval: Interval) -> str:
    middle, low, high = (_round(value) if np.isfinite(value) else "never" for value in _ends(interval))
    return f"{middle} [{low}, {high}]"


def _round(value: float) -> str:
    """Three figures that count, with thousands apart."""
    return f"{value:.3g}" if abs(value) < _GROUPED_FROM else f"{float(f'{value:.3g}'):,.0f}"


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _plain(standing: Standing) -> dict[str, Any]:
    """Plain values; infinity, which JSON has not, becomes null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(inner) for key, inner in value.items()}
        return None if isinstance(value, float) and not np.isfinite(value) else value

    plain: dict[str, Any] = finite(asdict(standing))
    return plain


def _members(side: Side) -> dict[str, Any]:
    return {
        "label": side.label,
        "runs": {task: [str(run.path.name) for run in runs] for task, runs in side.runs.items()},
    }


def parse_scales(texts: Sequence[str]) -> dict[str, Scale] | None:
    """Reference scores from ``task=low,high``; None for none. Raises :class:`ConfigurationError`."""
    scales: dict[str, Scale] = {}
    for text in texts:
        name, _, ends = text.rpartition("=")
        try:
            low, high = (float(word) for word in ends.split(","))
        except ValueError:
            low = high = 0.0
        if not name or low == high or not np.isfinite([low, high]).all():
            raise ConfigurationError(
                f"--normalise {text}: must be TASK=LOW,HIGH with two different numbers, such as "
                "wind_farm/farm_power=0,1.5"
            )
        scales[name] = Scale(low, high)
    return scales or None
