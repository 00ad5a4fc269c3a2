"""Tables and pictures of results, each with what it takes to make them again."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .evaluation import Standing
from .statistics import Interval

_PACKAGES = ("twinloop", "numpy", "scipy", "torch", "floris", "onnxruntime", "ray")

_PLAIN_WIDTH = 200

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Rows under headings. ``notes`` say what a reader must know to believe it; ``data`` is the machine's version."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """The table as GitHub's markdown, with its title above and its notes below."""
        lines = [f"## {self.title}", "", _bars(self.columns), _bars(["---"] * len(self.columns))]
        lines += [_bars([_text(cell) for cell in row]) for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"

    def csv(self) -> str:
        """The table as CSV with a heading row."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if cell is None else cell for cell in row] for row in self.rows])
        return file.getvalue()

    def write(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> list[Path]:
        """Write ``stem.md``, ``stem.csv`` and ``stem.json`` with the provenance beside the figures."""
        folder.mkdir(parents=True, exist_ok=True)
        made_by = "\n".join(f"- {key}: {_text(_flat(value))}" for key, value in provenance.items())
        document = {
            "title": self.title,
            "columns": self.columns,
            "rows": self.rows,
            "notes": self.notes,
            "data": self.data,
            "provenance": provenance,
        }
        contents = {
            "md": f"{self.markdown()}\nMade by:\n\n{made_by}\n",
            "csv": self.csv(),
            "json": json.dumps(document, indent=2, default=_plain) + "\n",
        }
        paths = []
        for suffix, text in contents.items():
            path = folder / f"{stem}.{suffix}"
            path.write_text(text, encoding="utf-8")
            paths.append(path)
        return paths


def print_table(table: Table) -> None:
    """Show a table on the terminal, in full width of its columns where there is room."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width that cells would have to be folded into
        console = Console(width=_PLAIN_WIDTH)
    shown = RichTable(title=table.title, title_justify="left", title_style="bold")
    for column in table.columns:
        shown.add_column(column, justify="left" if column == table.columns[0] else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*[_text(cell) for cell in row])
    console.print(shown)
    for note in table.notes:
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)


def say(line: str) -> None:
    """Print a line as it is, at once: what a long run tells on its way."""
    from rich.console import Console

    Console().print(line, highlight=False, markup=False, soft_wrap=True)


def provenance(seeds: Sequence[int] = (), command: Sequence[str] | None = None, **more: Any) -> dict[str, Any]:
    """Command line, UTC time, seeds, versions and machine; absolute paths in the command are cut to their last part."""
    words = ["twinloop", *(sys.argv[1:] if command is None else command)]
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}
    return {
        "command": shlex.join(Path(w).name if Path(w).is_absolute() else w for w in words),
        "utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seeds": list(seeds),
        "versions": {"python": platform.python_version(), **versions},
        "machine": machine,
        **more,
    }


def percent(value: float | None, digits: int = 2) -> str:
    """``+1.23 %``, or a dash for None and NaN."""
    if value is None or value != value:
        return "-"
    return f"{100.0 * value:+.{digits}f} %"


def percent_interval(interval: Interval | None, digits: int = 2) -> str:
    """``+1.23 % [+0.80, +1.66]``, or a dash."""
    if interval is None:
        return "-"
    low, high = (f"{100.0 * v:+.{digits}f}" for v in (interval.low, interval.high))
    return f"{percent(interval.estimate, digits)} [{low}, {high}]"


def standings_table(standings: Sequence[Standing], references: Sequence[str], title: str) -> Table:
    """The comparison of policies on a plant as a table; a farm's has yaw and loads, others what their plant counts."""
    first = standings[0]
    is_farm = any(s.yaw_travel_deg_per_h is not None for s in standings)
    is_metered = any(s.energy_mwh > 0.0 for s in standings)
    course = "wind" if is_farm else "course"
    rows: list[tuple[Cell, ...]] = []
    if is_metered:
        unit = ("MWh", 1.0) if is_farm else ("kWh", 1e3)
        rows.append((f"energy, {unit[0]}", *(f"{unit[1] * s.energy_mwh:.2f}" for s in standings)))
    for name in references if is_metered else ():
        rows.append((f"over {name}, this {course}", *(percent_interval(s.gain_seeds.get(name)) for s in standings)))
        rows.append((f"over {name}, {course}s like it", *(percent_interval(s.gain.get(name)) for s in standings)))
    rows += [(name.replace("_", " "), *(f"{s.counts.get(name, 0.0):g}" for s in standings)) for name in first.counts]
    lines: list[tuple[str, Callable[[Standing], Cell]]] = [
        ("interventions of the shield", lambda s: s.interventions),
        ("periods with a fallback", lambda s: s.fallback_periods),
    ]
    if is_farm:
        lines = [
            ("yaw travel, deg/h", lambda s: _travel(s.yaw_travel_deg_per_h)),
            ("load change, mean", lambda s: percent(s.load_change, 1)),
            ("load change, worst turbine", lambda s: percent(s.load_change_worst, 1)),
            *lines,
        ]
    rows += [(label, *(cell(s) for s in standings)) for label, cell in lines]
    columns = ("", *(s.policy for s in standings))
    return Table(
        title, columns, tuple(rows), _notes(standings, references), {"standings": [_standing(s) for s in standings]}
    )


def _travel(deg_per_h: float | None) -> Cell:
    return None if deg_per_h is None else f"{deg_per_h:.1f}"


def _notes(standings: Sequence[Standing], references: Sequence[str]) -> tuple[str, ...]:
    """What the rows of :func:`standings_table` mean."""
    first = standings[0]
    blocks = sorted({i.block for s in standings for i in s.gain.values()})
    blocks_words = f"block bootstrap over time, blocks of {' and '.join(map(str, blocks)) or '-'} periods."
    if any(s.yaw_travel_deg_per_h is not None for s in standings):
        return (
            f"{first.n_seeds} plant seed(s) of {first.hours:g} h each; every policy meets the same wind, gusts, sensor "
            "errors and outages.",
            "95 % intervals. This wind: Student's over seeds (gusts, noise, biases differ; the wind's series doesn't).",
            f"Winds like it: {blocks_words}",
            f"Yaw travel: mean of a turbine. Load: surrogate of the plant, against "
            f"{references[0] if references else '-'}, mean over turbines.",
        )
    found = (f"{first.n_seeds} plant seed(s) of {first.hours:g} h each; counts are of a run, mean over seeds.",)
    if not any(s.energy_mwh > 0.0 for s in standings):
        return found
    return (
        *found,
        "Energy is what the plant drew. 95 % intervals. This course: Student's over seeds, from three on.",
        f"Courses like it: {blocks_words}",
    )


def _standing(standing: Standing) -> dict[str, Any]:
    data = {k: v for k, v in vars(standing).items() if k not in ("gain", "gain_seeds")}
    for name in ("gain", "gain_seeds"):
        data[name] = {k: v.to_dict() for k, v in getattr(standing, name).items()}
    return data


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return value


def _plain(value: Any) -> Any:
    """JSON for numpy's scalars and arrays, and for paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
