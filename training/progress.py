"""How a run looks while it runs: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from .run import IterationReport

PLAIN_EVERY_S = 5.0


def describe(report: IterationReport) -> str:
    """Reward, critic's fit, step size of the policy, speed and time left, in one line."""
    f = report.figures
    parts = [f"reward {f['reward/mean']:.4g}"]
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
