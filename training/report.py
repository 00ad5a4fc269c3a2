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
    """The comparison of policies on a plant as a table."""
    rows: list[tuple[Cell, ...]] = [("energy, MWh", *(f"{s.energy_mwh:.2f}" for s in standings))]
    for name in references:
        rows.append((f"over {name}, this wind", *(percent_interval(s.gain_seeds.get(name)) for s in standings)))
        rows.append((f"over {name}, winds like it", *(percent_interval(s.gain.get(name)) for s in standings)))
    lines: tuple[tuple[str, Callable[[Standing], Cell]], ...] = (
        ("yaw travel, deg/h", lambda s: None if s.yaw_travel_deg_per_h is None else f"{s.yaw_travel_deg_per_h:.1f}"),
        ("load change, mean", lambda s: percent(s.load_change, 1)),
        ("load change, worst turbine", lambda s: percent(s.load_change_worst, 1)),
        ("interventions of the shield", lambda s: s.interventions),
        ("periods with a fallback", lambda s: s.fallback_periods),
    )
    rows += [(label, *(cell(s) for s in standings)) for label, cell in lines]
    columns = ("", *(s.policy for s in standings))
    first = standings[0]
    blocks = sorted({i.block for s in standings for i in s.gain.values()})
    notes = (
        f"{first.n_seeds} plant seed(s) of {first.hours:g} h each; every policy meets the same wind, gusts, sensor "
        "errors and outages.",
        "95 % intervals. This wind: Student's over seeds (gusts, noise, biases differ; the wind's series does not).",
        f"Winds like it: block bootstrap over time, blocks of {' and '.join(map(str, blocks)) or '-'} periods.",
        f"Yaw travel: mean of a turbine. Load: surrogate of the plant, against {references[0] if references else '-'}, "
        "mean over turbines.",
    )
    return Table(title, columns, tuple(rows), notes, {"standings": [_standing(s) for s in standings]})


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
