"""How a run looks while it runs: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from .run import IterationReport
from .run_settings import PLANT_GAIN, TWIN_REWARD
from .seeds_run import SeedState, SeedStatus

PLAIN_EVERY_S = 5.0


def describe(report: IterationReport) -> str:
    """Reward, newest evaluations, critic's fit, step size of the policy, speed and time left, in one line."""
    f = {**report.evaluations, **report.figures}
    parts = [
        f"{label} {f[key]:.4g}"
        for key, label in (("reward/mean", "reward"), (TWIN_REWARD, "evaluation"), (PLANT_GAIN, "plant gain"))
        if key in f
    ]
    for key, label in (("explained_variance", "explained"), ("approximate_kl", "kl")):
        values = [v for name, v in f.items() if name.endswith(f"/{key}")]
        if values:
            parts.append(f"{label} {sum(values) / len(values):.3f}")
    parts.append(f"{report.agent_steps_per_s:,.0f} agent-steps/s")
    parts.append(f"eta {_clock(report.remaining_s)}")
    return "  ".join(parts)


class ProgressDisplay:
    """A context manager that is called with each :class:`~twinloop.training.run.IterationReport`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._printed_s = float("-inf")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Progress(
                TextColumn("iteration"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"),
                console=self._console,
            )  # fmt: skip
            self._live.start()
            self._task = self._live.add_task("starting", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, report: IterationReport) -> None:
        if self._live is not None:
            self._live.update(
                self._task, total=report.n_iterations, completed=report.iteration, description=describe(report)
            )
            return
        now_s = time.monotonic()
        if report.iteration == report.n_iterations or now_s - self._printed_s >= PLAIN_EVERY_S:
            self._printed_s = now_s
            line = f"iteration {report.iteration}/{report.n_iterations}  {describe(report)}"
            self._console.print(line, highlight=False, soft_wrap=True)


class StudyDisplay:
    """A context manager that is called with the seeds of a study: a live line a running seed, or plain lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        self._told: dict[int, SeedState] = {}
        self._printed_s: dict[int, float] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Progress(
                TextColumn("seed {task.fields[seed]}"), MofNCompleteColumn(), BarColumn(bar_width=20),
                TextColumn("{task.description}"), console=self._console,
            )  # fmt: skip
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, statuses: Sequence[SeedStatus]) -> None:
        for status in statuses:
            if self._live is not None and status.state is SeedState.RUNNING:
                self._show(self._live, status)
            elif status.state is SeedState.RUNNING and status.report is not None:
                self._print(status, status.report)
            if self._told.get(status.seed) is not status.state:
                self._tell_change(status)

    def _show(self, live: Progress, status: SeedStatus) -> None:
        if status.seed not in self._tasks:
            self._tasks[status.seed] = live.add_task("starting", total=None, seed=status.seed)
        report = status.report
        if report is not None:
            live.update(
                self._tasks[status.seed],
                total=report.n_iterations, completed=report.iteration, description=describe(report),
            )  # fmt: skip

    def _print(self, status: SeedStatus, report: IterationReport) -> None:
        now_s = time.monotonic()
        if now_s - self._printed_s.get(status.seed, float("-inf")) >= PLAIN_EVERY_S:
            self._printed_s[status.seed] = now_s
            self._say(f"seed {status.seed}: iteration {report.iteration}/{report.n_iterations}  {describe(report)}")

    def _tell_change(self, status: SeedStatus) -> None:
        """A lasting line where a seed has ended; its live line goes."""
        known = self._told.get(status.seed)
        self._told[status.seed] = status.state
        if status.state in (SeedState.WAITING, SeedState.RUNNING):
            return
        if self._live is not None and status.seed in self._tasks:
            self._live.remove_task(self._tasks.pop(status.seed))
        if status.state is SeedState.FAILED:
            self._say(f"seed {status.seed}: failed: {status.why}; log: {status.log}")
        elif known is None:
            self._say(f"seed {status.seed}: {status.state} before")
        else:
            at = f" after iteration {status.report.iteration}" if status.report is not None else ""
            self._say(f"seed {status.seed}: {status.state}{at}")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
