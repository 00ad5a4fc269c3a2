"""Policies side by side on one plant, with progress on the terminal and results in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..envs.errors import ConfigurationError
from ..envs.registry import load_site
from .contestants import ARTIFACT, LUT, Contestant, TableGrid, full_grid, grid_for, table_for
from .evaluation import PlantJob, PlantRecord, Standing, compare, run_jobs
from .flow_picture import draw_energy
from .report import Table, standings_table

RECORDS, TABLE_FILE, PICTURE = "records", "look_up_table.npz", "energy.png"
_PLAIN_STEP = 0.1


@dataclass(frozen=True)
class Comparison:
    """What is to be compared. ``seeds`` replace the plant's own; ``hours`` is the length of each run in plant time."""

    site: str
    site_config: BaseModel
    plant_config: BaseModel
    artifact: Path | None
    against: tuple[str, ...] = ("greedy", LUT)
    seeds: tuple[int, ...] = (0,)
    hours: float = 24.0
    full_table: bool = False

    def grid(self) -> TableGrid:
        """What the look-up table covers; raises :class:`ConfigurationError` for a site that has none."""
        from ..envs.wind_farm.config import FlorisPlantConfig, WindFarmConfig

        config, plant = self.site_config, self.plant_config
        if not (isinstance(config, WindFarmConfig) and isinstance(plant, FlorisPlantConfig)):
            raise ConfigurationError(f"--against lut: site {self.site!r} has no look-up table; leave lut out")
        return full_grid() if self.full_table else grid_for(plant, config, self.hours)

    def n_periods(self) -> int:
        """Control periods of a run."""
        period_s = load_site(self.site).nameplate(self.site_config).period_s
        n = round(self.hours * 3600.0 / period_s)
        if n < 2:
            raise ConfigurationError(f"--hours {self.hours:g}: is {n} control periods of {period_s:g} s; take more")
        return n


@dataclass(frozen=True)
class Outcome:
    """Records, standings and the table that shows them."""

    records: tuple[PlantRecord, ...]
    standings: tuple[Standing, ...]
    table: Table

    def report(self, made_by: Mapping[str, Any]) -> dict[str, Any]:
        """The table as an artifact's report keeps it, with what it takes to make it again."""
        rows = [dict(zip(("", *self.table.columns[1:]), row, strict=True)) for row in self.table.rows]
        return {"title": self.table.title, "rows": rows, "notes": list(self.table.notes), "made_by": dict(made_by)}

    def standing(self, policy: str) -> Standing:
        """The standing of one policy by its name in the table."""
        return next(s for s in self.standings if s.policy == policy)


def build_contestants(comparison: Comparison, folder: Path, console: Console) -> list[Contestant]:
    """Baselines, then the artifact; builds the look-up table in ``folder`` where one is wanted and not there."""
    contestants: list[Contestant] = []
    for kind in comparison.against:
        contestants.append(Contestant(kind, folder / TABLE_FILE) if kind == LUT else Contestant(kind))
    if LUT in comparison.against:
        build_table_with_progress(comparison, folder / TABLE_FILE, console)
    if comparison.artifact is not None:
        contestants.append(Contestant(ARTIFACT, comparison.artifact))
    return contestants


def build_table_with_progress(comparison: Comparison, file: Path, console: Console) -> None:
    """Build or read the look-up table, showing how far it is."""
    from ..envs.wind_farm.config import WindFarmConfig

    grid = comparison.grid()
    assert isinstance(comparison.site_config, WindFarmConfig)  # narrows the type; grid() has refused all else
    with _bars(console) as bars:
        task = bars.add_task("look-up table", total=grid.n_conditions)

        def tell(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        table = table_for(comparison.site_config, grid, file, tell)
        bars.update(task, completed=grid.n_conditions)
    console.print(
        f"look-up table: {grid.n_conditions} conditions, {len(grid.directions_deg)} directions x "
        f"{len(grid.speeds_mps)} speeds x {len(grid.turbulence_pu)} turbulence, {table.cpu_s:.0f} CPU s",
        highlight=False,
    )


def compare_on_plant(
    comparison: Comparison, folder: Path, title: str, processes: int, console: Console | None = None
) -> Outcome:
    """Run everything that ``folder`` does not hold yet, and compare.

    Writes the records, the look-up table and a picture of energy over time into ``folder``; what the caller makes of
    the table is its own business. Ctrl-C leaves finished runs there, and the same call goes on from them.
    """
    screen = console or Console()
    n_periods = comparison.n_periods()
    contestants = build_contestants(comparison, folder, screen)
    jobs = [
        PlantJob(
            contestant,
            comparison.site,
            comparison.site_config,
            comparison.plant_config.model_copy(update={"seed": seed}),
            n_periods,
        )
        for seed in comparison.seeds
        for contestant in contestants
    ]
    records = run_with_progress(jobs, folder / RECORDS, processes, screen)
    references = [k for k in comparison.against if k != "random"]
    standings = compare(records, references)
    table = standings_table(standings, references, title)
    names = list(dict.fromkeys(r.policy for r in records))
    series = {n: np.array([r.energy_kwh for r in records if r.policy == n]) for n in names}
    if references and len(names) > 1 and any(values.any() for values in series.values()):
        draw_energy(series, records[0].period_s, references[0], folder / PICTURE)
    return Outcome(tuple(records), tuple(standings), table)


def run_with_progress(jobs: Sequence[PlantJob], folder: Path, processes: int, console: Console) -> list[PlantRecord]:
    """:func:`run_jobs` with a bar a job on a terminal, and a line a tenth elsewhere."""
    with _bars(console) as bars:
        tasks = [bars.add_task(f"{job.contestant.name}, plant seed {job.seed}", total=1.0) for job in jobs]
        said = -1.0

        def tell(shares: Sequence[float]) -> None:
            nonlocal said
            _update(bars, tasks, shares)
            mean = float(np.mean(shares))
            if not console.is_terminal and mean >= said + _PLAIN_STEP:
                said = mean
                console.print(f"plant runs: {100.0 * mean:.0f} %", highlight=False)

        return run_jobs(jobs, folder, processes, tell)


def _update(bars: Progress, tasks: Sequence[TaskID], shares: Sequence[float]) -> None:
    for task, share in zip(tasks, shares, strict=True):
        bars.update(task, completed=share)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
