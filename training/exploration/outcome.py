"""What an exploration leaves in its folder: the front as table, CSV, JSON and picture, and designs as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...envs.configuration import dump
from ...envs.prototype import Prototyped
from ..report import Cell, Table
from ..statistics import Interval
from .configuration import ExploreConfiguration
from .evaluation import Evaluator
from .exploration import Candidate, Found
from .verification import TODAY, Verified, built

TABLE, PICTURE, EVALUATED, DESIGNS = "front", "front.png", "evaluated.npz", "designs"
_MOST_DOTS = 20_000


def front_table(config: ExploreConfiguration, found: Found, verified: Sequence[Verified] = ()) -> Table:
    """Candidates of the last round, the front first, then the site as it is; figures on the plant beside the twin's."""
    by_number = {v.number: v for v in verified}
    columns = ["", *found.names]
    for k, name in enumerate(found.objectives):
        columns += [_heading(config, name), f"{name}: over today"]
        if any(v.figures[k] is not None and not _is_price(config, name) for v in verified):
            columns += [f"{name}: plant"]
    rows: list[tuple[Cell, ...]] = []
    for number, candidate in enumerate(found.candidates, 1):
        label = f"{number}" if candidate.on_front else f"{number} (dominated)"
        rows.append(_row(config, found, label, candidate, by_number, number, columns))
    today = [_shown(i) for i in found.today]
    last: list[Cell] = ["today", *(f"{found.configured[name]:.6g}" for name in found.names)]
    for k, name in enumerate(found.objectives):
        last += [today[k], "-"]
        if f"{name}: plant" in columns:
            last += [_plant(by_number.get(TODAY), k)]
    rows.append(tuple(last))
    return Table(
        f"{config.name}: the best of {len(found.values):,} prototypes of {config.site_kind}",
        tuple(columns),
        tuple(rows),
        _notes(config, found, verified),
        _data(config, found, verified),
    )


def write_outcome(
    folder: Path,
    config: ExploreConfiguration,
    evaluator: Evaluator,
    found: Found,
    verified: Sequence[Verified],
    made_by: Mapping[str, Any],
) -> Table:
    """Write everything; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configuration.yaml").write_text(dump(config), encoding="utf-8")
    table = front_table(config, found, verified)
    table.write(folder, TABLE, made_by)
    np.savez_compressed(
        folder / EVALUATED,
        names=np.array(found.names),
        objectives=np.array(found.objectives),
        values=found.values,
        figures=found.figures,
        on_front=found.on_front,
    )
    if isinstance(evaluator.site, Prototyped):
        (folder / DESIGNS).mkdir(exist_ok=True)
        for number, candidate in enumerate(found.candidates, 1):
            if not candidate.on_front:
                continue
            design = built(config, evaluator, candidate.values)
            document: dict[str, Any] = {"site": design.model_dump(mode="json", by_alias=True, serialize_as_any=True)}
            text = yaml.safe_dump(document, sort_keys=False, width=120)
            held = {n: v for n, v in candidate.values.items() if "/" in n} | config.commands
            note = "".join(f"# held: {name} {value:g}\n" for name, value in held.items())
            (folder / DESIGNS / f"{number:02d}.yaml").write_text(note + text, encoding="utf-8")
    draw_front(config, found, verified, folder / PICTURE)
    return table


def draw_front(config: ExploreConfiguration, found: Found, verified: Sequence[Verified], path: Path) -> Path:
    """All prototypes of the search in grey, candidates with their intervals, today, and the plant's figures; a panel
    for each pair of objectives, or a histogram of the one."""
    from itertools import combinations

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(found.objectives)
    pairs = list(combinations(range(n), 2))
    figure = Figure(figsize=(6.5 * max(1, len(pairs)), 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(1, len(pairs)), squeeze=False)[0]
    labels = [_heading(config, name) for name in found.objectives]
    if not pairs:
        axes[0].hist(found.figures[:, 0], bins=60, color="0.75", label="prototypes of the search")
        axes[0].axvline(found.today[0].estimate, color="tab:orange", label="today")
        axes[0].axvline(found.candidates[0].figures[0].estimate, color="tab:blue", label="best")
        axes[0].set(xlabel=labels[0], ylabel="prototypes")
        axes[0].legend()
    dots = np.linspace(0, len(found.figures) - 1, min(len(found.figures), _MOST_DOTS)).astype(np.int64)
    for axis, (i, j) in zip(axes, pairs, strict=False):
        axis.scatter(found.figures[dots, i], found.figures[dots, j], s=4, color="0.8", label="search", rasterized=True)
        for on, colour, what in ((False, "0.5", "last round"), (True, "tab:blue", "front")):
            group = [c for c in found.candidates if c.on_front is on]
            if group:
                _crosses(axis, [c.figures[i] for c in group], [c.figures[j] for c in group], colour, what)
        _crosses(axis, [found.today[i]], [found.today[j]], "tab:orange", "today")
        plant = [(v.figures[i], v.figures[j]) for v in verified]
        both = [(a, b) for a, b in plant if a is not None and b is not None]
        if both:
            _crosses(axis, [a for a, _ in both], [b for _, b in both], "tab:green", "on the plant")
        axis.set(xlabel=labels[i], ylabel=labels[j])
        axis.legend()
    figure.suptitle(config.name)
    figure.savefig(path, dpi=120)
    return path


def _crosses(axis: Any, x: Sequence[Interval], y: Sequence[Interval], colour: str, label: str) -> None:
    axis.errorbar(
        [i.estimate for i in x], [i.estimate for i in y],
        xerr=[i.high - i.estimate for i in x], yerr=[i.high - i.estimate for i in y],
        fmt="o", markersize=4, color=colour, label=label,
    )  # fmt: skip


def _row(
    config: ExploreConfiguration,
    found: Found,
    label: str,
    candidate: Candidate,
    by_number: Mapping[int, Verified],
    number: int,
    columns: Sequence[str],
) -> tuple[Cell, ...]:
    row: list[Cell] = [label, *(f"{candidate.values[name]:.6g}" for name in found.names)]
    for k, name in enumerate(found.objectives):
        row += [_shown(candidate.figures[k]), _shown(candidate.gain[k], "+")]
        if f"{name}: plant" in columns:
            row += [_plant(by_number.get(number), k)]
    return tuple(row)


def _plant(verified: Verified | None, k: int) -> str:
    figure = verified.figures[k] if verified else None
    return "-" if figure is None else _shown(figure)


def _heading(config: ExploreConfiguration, name: str) -> str:
    unit = config.objectives[name].unit
    return f"{name}, {unit}" if unit else name


def _is_price(config: ExploreConfiguration, name: str) -> bool:
    return config.objectives[name].kind == "price"


def _shown(interval: Interval, sign: str = "") -> str:
    """``71.2 ± 0.3``, without the half width where there is none."""
    half = interval.high - interval.estimate
    digits = 5
    text = f"{interval.estimate:{sign}.{digits}g}"
    return f"{text} ± {half:.2g}" if half else text


def _notes(config: ExploreConfiguration, found: Found, verified: Sequence[Verified]) -> tuple[str, ...]:
    last = config.rounds[-1]
    better = ", ".join(f"{name} {o.better}" for name, o in config.objectives.items())
    notes = [
        f"Better is: {better}. The front first, along {found.objectives[0]}.",
        f"Last round: {last.periods} period(s) after {last.warm_up_periods}, {last.seeds} seed(s) that no round before "
        "it had, the same for all; 95 % intervals, Student's over seeds; over today: paired by seed.",
        f"{found.rows:,} runs, {found.n_refused:,} prototypes refused by limits or the site, {found.cpu_s:.0f} CPU s.",
    ]
    if verified and config.verify is not None:
        v = config.verify
        notes.append(
            f"Plant: {v.periods} periods after {v.warm_up_periods}, {v.seeds} seed(s). It is not the twin, on purpose: "
            "compare prototypes within a column."
        )
    return tuple(notes)


def _data(config: ExploreConfiguration, found: Found, verified: Sequence[Verified]) -> dict[str, Any]:
    plant = {v.number: [f.to_dict() if f else None for f in v.figures] for v in verified}
    return {
        "parameters": found.names,
        "objectives": {name: o.model_dump() for name, o in config.objectives.items()},
        "candidates": [
            {
                "number": number,
                "values": c.values,
                "on_front": c.on_front,
                "figures": [f.to_dict() for f in c.figures],
                "over_today": [f.to_dict() for f in c.gain],
                "plant": plant.get(number),
            }
            for number, c in enumerate(found.candidates, 1)
        ],
        "today": {"figures": [f.to_dict() for f in found.today], "plant": plant.get(TODAY)},
        "prototypes": len(found.values),
        "refused": found.n_refused,
        "runs": found.rows,
        "cpu_s": found.cpu_s,
    }
