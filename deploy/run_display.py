"""The live line of a run: a bar on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .runtime import Period
from .shield import Source

_SECONDS_BETWEEN_LINES = 10.0


class RunDisplay:
    """Shows each period of a run; give :meth:`show` to the runtime as ``on_period``."""

    def __init__(self, console: Console, n_periods: int | None) -> None:
        self._console = console
        self._n_periods = n_periods
        self._progress = Progress(
            TextColumn("{task.fields[count]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._line_at_s = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
            self._progress.add_task("waiting for the plant", total=self._n_periods, count="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, period: Period) -> None:
        count = "handing back" if period.handing_back else f"{period.number}/{self._n_periods or 'until Ctrl-C'}"
        line = describe(period)
        if self._console.is_terminal:
            for task in self._progress.task_ids:
                self._progress.update(task, completed=period.tally.periods, description=line, count=count)
        elif time.monotonic() >= self._line_at_s or period.number == self._n_periods:
            self._line_at_s = time.monotonic() + _SECONDS_BETWEEN_LINES
            self._console.print(f"{count}  {line}", highlight=False, markup=False, soft_wrap=True)


def describe(period: Period) -> str:
    """One line: energy so far, assets off their policy, how many changes the shield made, latency."""
    sources = list(period.decision.source.values())
    parts = [] if period.tally.energy_kwh is None else [f"{period.tally.energy_kwh:,.0f} kWh"]
    for source in (Source.FALLBACK, Source.SUBSTITUTED):
        if source in sources:
            parts.append(f"{sources.count(source)} of {len(sources)} on {source.value}")
    parts.append(f"{len(period.decision.reasons)} changes")
    if period.accepted is None:
        parts.append("plant does not answer")
    parts.append(f"{period.latency_ms:.1f} ms")
    return ", ".join(parts)
