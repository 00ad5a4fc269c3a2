"""The live line of a run: a bar on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .runtime import Period
from .shield import Decision, Mode, Source

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
        self._modes: Mapping[str, Mode] = {}
        self._latest = ""

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
        changed = latest_change(self._modes, period.decision)
        self._modes, self._latest = period.decision.mode, changed or self._latest
        line = describe(period) + (f"; {self._latest}" if self._latest else "")
        if self._console.is_terminal:
            for task in self._progress.task_ids:
                self._progress.update(task, completed=period.tally.periods, description=line, count=count)
        elif changed or time.monotonic() >= self._line_at_s or period.number == self._n_periods:
            self._line_at_s = time.monotonic() + _SECONDS_BETWEEN_LINES
            self._console.print(f"{count}  {line}", highlight=False, markup=False, soft_wrap=True)


def describe(period: Period) -> str:
    """One line: energy so far, assets that are not autonomous or off their policy, how many changes the shield made,
    latency.
    """
    sources, modes = list(period.decision.source.values()), list(period.decision.mode.values())
    parts = [] if period.tally.energy_kwh is None else [f"{period.tally.energy_kwh:,.0f} kWh"]
    parts += [f"{modes.count(m)} of {len(modes)} {m.value}" for m in Mode if m in modes and m is not Mode.AUTONOMOUS]
    for source in (Source.FALLBACK, Source.SUBSTITUTED):
        if source in sources:
            parts.append(f"{sources.count(source)} of {len(sources)} on {source.value}")
    parts.append(f"{len(period.decision.reasons)} changes")
    if period.accepted is None:
        idle = not any(acts.any() for acts in period.decision.acts.values())
        parts.append("nothing sent" if idle else "plant does not answer")
    parts.append(f"{period.latency_ms:.1f} ms")
    return ", ".join(parts)


def latest_change(before: Mapping[str, Mode], decision: Decision) -> str:
    """Which assets changed their mode, to what and why, in one line; empty where none did.

    The reason is the newest one of the whole site or of the first such asset that is not about one of its signals.
    """
    changed = [agent for agent, mode in decision.mode.items() if before.get(agent, Mode.AUTONOMOUS) is not mode]
    if not changed:
        return ""
    mode = decision.mode[changed[0]]
    who = changed[0] if len(changed) == 1 else f"{len(changed)} assets"
    why = [r.code.value for r in decision.reasons if r.asset in ("", changed[0]) and not r.signal]
    return f"{who} {mode.value}" + (f" ({why[-1]})" if why else "")
