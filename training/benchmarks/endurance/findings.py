"""What a run amounts to: figures, bars and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....deploy.audit.retention import Retention
from ....deploy.replay import Replay
from ....envs.constraint import Declaration
from ...report import Cell, Table
from .drive import Notes
from .growth import Slope, over_lives, over_series
from .schedule import KINDS, PERIODS_A_DAY, Schedule
from .world import Judged, World

WARM_UP_PERIODS = 3 * PERIODS_A_DAY
"""Of each process' life, in which rare things happen for the first time and arenas take their size."""
RSS_BAR_MIB, BLOCKS_BAR, FILE_BAR_PU = 4.0, 2_000.0, 0.05
"""What may be gained over the whole run before it counts as growth, where the interval says that it grows at all."""
FAULTS_BAR = 500

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Growth:
    """``gained``: over the whole run by the slope; ``level``: its mean; ``slope`` a day; ``bar``: for ``gained``."""

    what: str
    unit: str
    level: float
    slope: Slope
    gained: float
    bar: float

    @property
    def is_flat(self) -> bool:
        """No growth that an interval shows and that is worth its name."""
        return self.slope.low <= 0.0 or self.gained <= self.bar


@dataclass(frozen=True)
class Findings:
    """All that the tables say."""

    n_periods: int
    judged: Judged
    notes: Notes
    met: Mapping[str, int]
    started: Mapping[str, int]
    growths: tuple[Growth, ...]
    problems: tuple[str, ...]
    replayed: Replay

    @staticmethod
    def of(world: World, declaration: Declaration, notes: Notes, problems: Sequence[str], again: Replay) -> Findings:
        """Judge a run that has ended."""
        days = world.period / PERIODS_A_DAY
        growths = [
            _of_lives("resident memory of control", "MiB", notes.rss_mib, days, RSS_BAR_MIB),
            _of_lives("live blocks of control", "blocks", notes.blocks, days, BLOCKS_BAR),
            _of_lives("resident memory of the audit", "MiB", notes.audit_rss_mib, days, RSS_BAR_MIB),
        ]
        # A declared retention is reached after its seven days and the file that still grows, a day.
        growths += [_of_file(name, points, days, since_day=9.0) for name, points in sorted(notes.sizes.items())]
        return Findings(
            n_periods=world.period,
            judged=world.referee.judged,
            notes=notes,
            met=dict(world.met),
            started=_started(world.schedule, world.period),
            growths=tuple(growths),
            problems=tuple(problems),
            replayed=again,
        )

    @property
    def is_met(self) -> bool:
        """Whether nothing was broken, nothing grew, enough was tried, and the journal tells it all."""
        # Heads are kept for ever, on purpose: they are what shows a missing end.
        flat = all(g.is_flat for g in self.growths if not g.what.startswith("signed heads"))
        sound = not self.problems and not self.notes.audit_errors and self.replayed.is_same
        enough = sum(self.started.values()) >= FAULTS_BAR * self.n_periods / (35.0 * PERIODS_A_DAY)
        return not self.judged.violations and flat and sound and enough


def summary_table(found: Findings, spent: tuple[float, float], declared: Retention) -> Table:
    """Figures beside their bars."""
    notes, judged = found.notes, found.judged
    latency = np.percentile(notes.latencies_ms, (50.0, 99.0, 99.9)) if notes.latencies_ms else np.zeros(3)
    least = ", ".join(f"{name} {value:.2g}" for name, value in sorted(judged.least.items()))
    endings = ", ".join(f"{name} {n}" for name, n in sorted(notes.endings.items()))
    rows: list[tuple[Cell, ...]] = [
        ("simulated days", f"{found.n_periods / PERIODS_A_DAY:g}", "35"),
        ("periods; with a write", f"{found.n_periods:,}; {notes.counts['periods with a write']:,}", ""),
        ("faults begun", f"{sum(found.started.values()):,}", f"{FAULTS_BAR}"),
        ("hard violations of what was told", f"{judged.violations}", "0"),
        ("least margin, share of scale", least, "0"),
        ("periods missed", f"{notes.counts['missed']:,}", ""),
        ("periods with an asset on fallback or safe state", f"{notes.counts['on fallback or safe state']:,}", ""),
        ("processes of control; killed", f"{notes.counts['lives']}; {notes.counts['kills']}", ""),
        ("orders and stops by people", f"{notes.counts['orders']}", ""),
        ("runs by ending", endings, ""),
        ("decision p50 / p99 / p99.9", " / ".join(f"{x:.1f}" for x in latency) + " ms", ""),
        ("CPU, wall", f"{spent[1] / 60.0:.1f}, {spent[0] / 60.0:.1f} min", ""),
        ("journal", "; ".join(found.problems[:3]) or "sound", "sound"),
        ("audit rounds; failed", f"{notes.counts['audit rounds']}; {len(notes.audit_errors)}", "none failed"),
        (
            "replayed decisions, missed; differences",
            f"{found.replayed.decisions}, {found.replayed.missed}; {len(found.replayed.differences)}",
            "0",
        ),
    ]
    for g in found.growths:
        a_day = f"{g.slope.value:+.2g} [{g.slope.low:+.2g}, {g.slope.high:+.2g}] {g.unit} a day"
        bar = (
            "kept for ever" if g.what.startswith("signed heads") else f"{g.bar:.3g} {g.unit} over the run, or 0 inside"
        )
        rows.append((f"{g.what}: level; slope", f"{g.level:.4g} {g.unit}; {a_day}", bar))
    kept = f"{declared.journal_days:g} days of journal and {declared.history_days:g} days of history are declared."
    told = (
        "Margins are those of the declared constraints, of every command that the plant was told, from what it obeyed.",
        f"Slopes of memory are common to all lives of a process, without their first {WARM_UP_PERIODS:,} periods; "
        f"those of files are of the largest size a day from day 9 on. {kept}",
    )
    return Table("35 days of closed loop with random faults", ("what", "found", "bar"), tuple(rows), told, _data(found))


def events_table(found: Findings) -> Table:
    """What was done to the loop, and what it answered."""
    rows: list[tuple[Cell, ...]] = [
        ("fault", kind.name, found.started.get(kind.name, 0), found.met.get(kind.name, 0)) for kind in KINDS
    ]
    rows += [("answer", name, None, n) for name, n in sorted(found.notes.codes.items())]
    rows += [("mode", name, None, n) for name, n in sorted(found.notes.modes.items())]
    columns = ("kind", "name", "begun", "periods")
    return Table("What happened in them", columns, tuple(rows), ("Periods in which it acted, for at least one asset.",))


def _of_lives(what: str, unit: str, lives: Iterable[Points], days: float, bar: float) -> Growth:
    settled = [
        [(period / PERIODS_A_DAY, y) for period, y in life if period >= life[0][0] + WARM_UP_PERIODS]
        for life in lives
        if life
    ]
    slope = over_lives(settled)
    values = [y for life in settled for _, y in life]
    return Growth(what, unit, float(np.mean(values)) if values else 0.0, slope, slope.value * days, bar)


def _of_file(name: str, points: Points, days: float, since_day: float) -> Growth:
    largest: dict[int, float] = {}
    for period, size in points:
        if period / PERIODS_A_DAY >= since_day:
            day = int(period / PERIODS_A_DAY)
            largest[day] = max(largest.get(day, 0.0), size)
    slope = over_series([(float(day), size) for day, size in sorted(largest.items())])
    level = float(np.mean(list(largest.values()))) if largest else 0.0
    what, unit = name.rsplit(" ", 1)
    return Growth(what, unit, level, slope, slope.value * days, FILE_BAR_PU * level)


def _started(schedule: Schedule, until: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for fault in schedule.faults:
        if fault.start < until:
            counts[fault.kind] = counts.get(fault.kind, 0) + 1
    return counts


def _data(found: Findings) -> dict[str, Any]:
    """The machine's version: all series."""
    notes = found.notes
    return {
        "violations": found.judged.violations,
        "complaints": found.judged.complaints,
        "least_margins": found.judged.least,
        "endings": dict(notes.endings),
        "counts": dict(notes.counts),
        "rss_mib": notes.rss_mib,
        "blocks": notes.blocks,
        "audit_rss_mib": notes.audit_rss_mib,
        "sizes": notes.sizes,
    }
