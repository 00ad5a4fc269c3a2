"""The demo's stages: each leaves what it made in the folder, so that a run can stop anywhere and go on.

demo.yaml           the resolved configuration; a folder belongs to one
plant.yaml          the plant alone, for ``twinloop commission`` and ``twinloop evaluate``
train/              the training run, with the artifact
proof/              records of the plant runs, the look-up table, energy.png
served/             server.log and journal.sqlite of the run behind OPC UA, summary.json
demo.md .csv .json  the table; flow.png the farm before and after
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from rich.console import Console

from ..envs.configuration import Strict, dump, load, validate
from ..envs.errors import ConfigurationError, RunError, located
from ..envs.plant_file import PlantFile, load_plant_file, plant_of
from ..envs.wind_farm.config import WindFarmConfig
from .configuration import TrainConfiguration
from .contestants import Contestant
from .output_folder import make_folder
from .plant_comparison import TABLE_FILE, Comparison, Outcome, build_table_with_progress, compare_on_plant
from .problem import Problem
from .progress import ProgressDisplay
from .report import Table, percent, provenance
from .run import RunInterrupted, resume, train
from .steady_evaluation import SteadyWind

T = TypeVar("T")

FULL_MINUTES = 4.0
"""What the stages of configs/wind_farm/demo.yaml take together on two cores."""

_SHORTEST_HOURS = 1.0


class Snapshot(Strict):
    """The wind of the flow picture."""

    wind_speed_mps: PositiveFloat = 8.0
    wind_direction_deg: float = 270.0
    turbulence_pu: PositiveFloat = 0.06


class DemoConfiguration(Strict):
    """What the demo does; ``train`` and ``plant`` hold what a training's and a plant's file hold."""

    kind: Literal["demo"] = "demo"
    train: dict[str, Any]
    plant: dict[str, Any]
    hours: PositiveFloat = Field(6.0, description="plant time of each run that is compared")
    seeds: tuple[NonNegativeInt, ...] = Field((0, 1, 2), min_length=1, description="plant seeds of the comparison")
    served_periods: PositiveInt = Field(60, description="control periods behind the OPC UA server")
    picture: Snapshot = Snapshot()
    processes: PositiveInt = Field(2, description="plant runs side by side")

    def training(self, where: str) -> TrainConfiguration:
        """The training's configuration, checked; errors begin with ``where``."""
        return validate(self.train, TrainConfiguration, f"{where}: train")

    def scaled(self, minutes: float, where: str) -> DemoConfiguration:
        """The same demo for about so many minutes: iterations and hours in proportion, an hour at least."""
        share = minutes / FULL_MINUTES
        iterations = self.training(where).iterations
        if iterations is None:
            raise ConfigurationError(f"{where}: train: --minutes needs iterations, not agent_steps")
        return self.model_copy(
            update={
                "train": {**self.train, "iterations": max(1, round(iterations * share))},
                "hours": max(_SHORTEST_HOURS, round(self.hours * share, 1)),
            }
        )


@dataclass(frozen=True)
class Closing:
    """What the demo ends with."""

    table: Table
    served: Mapping[str, Any]
    files: tuple[Path, ...]


class Demo:
    """One demo in one folder. :meth:`run` does the stages that are not done yet, in order."""

    def __init__(self, config: DemoConfiguration, folder: Path, console: Console) -> None:
        self.config = config
        self.folder = folder
        self._console = console

    def run(self) -> Closing:
        """All stages; raises :class:`RunError` for a folder of another demo, KeyboardInterrupt after Ctrl-C."""
        self.open_folder()
        self._stage(1, "look-up table: FLORIS' serial-refine, the controller to beat", self.build_table)
        self._stage(2, "training: agents learn in the twin, Ray gathers their experience", self.train)
        outcome = self._stage(3, "proof: the same wind for all on a plant that is not the twin", self.prove)
        served = self._stage(4, "deployment: the farm behind OPC UA, every command through the shield", self.serve)
        return self._stage(5, "report", lambda: self.report(outcome, served))

    @property
    def artifact(self) -> Path:
        """The trained policy."""
        return self.folder / "train" / "artifact"

    @property
    def plant_file(self) -> Path:
        """The plant's own YAML."""
        return self.folder / "plant.yaml"

    def open_folder(self) -> None:
        """Begin a folder, or make sure that it is this demo's."""
        kept = self.folder / "demo.yaml"
        if kept.exists():
            if load(kept, DemoConfiguration) != self.config:
                raise RunError(
                    f"{self.folder}: holds a demo with another configuration (see demo.yaml there); "
                    "give another --out, or the settings that it began with"
                )
            return
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise RunError(f"{self.folder}: is not empty and holds no demo; give another --out")
        # What is wrong is said before a folder is made, and before anything slow.
        plant_of(self.config.plant, "demo: plant")
        with located("demo: train"):
            Problem.of(self.config.training("demo")).check()
        make_folder(self.folder)
        plant = validate(self.config.plant, PlantFile, "demo: plant")
        self.plant_file.write_text(dump(plant), encoding="utf-8")
        kept.write_text(dump(self.config), encoding="utf-8")

    def comparison(self, artifact: Path | None) -> Comparison:
        """What stage 3 compares."""
        site, site_config, plant_config = load_plant_file(self.plant_file)
        return Comparison(
            site=site.name,
            site_config=site_config,
            plant_config=plant_config,
            artifact=artifact,
            seeds=self.config.seeds,
            hours=self.config.hours,
        )

    def build_table(self) -> None:
        """Stage 1; a table that is there is read and checked, not built."""
        build_table_with_progress(self.comparison(None), self.folder / "proof" / TABLE_FILE, self._console)

    def train(self) -> None:
        """Stage 2, carrying on from the last checkpoint where there is one."""
        folder = self.folder / "train"
        if self.artifact.exists():
            self._say("trained before")
            return
        has_checkpoint = any((folder / "checkpoints").glob("*")) if folder.exists() else False
        try:
            with ProgressDisplay(self._console) as display:
                if has_checkpoint:
                    result = resume(folder, display, on_warning=self._say)
                else:
                    _clear_beginning(folder)
                    result = train(self.config.training("demo"), folder, display)
        except RunInterrupted as stop:
            raise KeyboardInterrupt(f"training stopped after iteration {stop.iteration}") from stop
        self._say(f"{result.iterations} iterations, {result.agent_steps:,} agent-steps; artifact in {result.artifact}")

    def prove(self) -> Outcome:
        """Stage 3; runs whose records are there are not run again."""
        title = f"Energy on the FLORIS plant, {self.config.hours:g} h of measured wind"
        processes = self.config.processes
        return compare_on_plant(self.comparison(self.artifact), self.folder / "proof", title, processes, self._console)

    def serve(self) -> dict[str, Any]:
        """Stage 4."""
        from ..deploy.run_display import RunDisplay
        from .served_run import control_served_plant

        kept = self.folder / "served" / "summary.json"
        if kept.exists():
            self._say("served before")
            found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
            return found
        n_periods = self.config.served_periods
        self._say("starting the plant's server")
        with RunDisplay(self._console, n_periods) as display:
            served = control_served_plant(
                self.artifact, self.plant_file, n_periods, self.folder / "served", display.show
            )
        kept.write_text(json.dumps(served, indent=2) + "\n", encoding="utf-8")
        return served

    def report(self, outcome: Outcome, served: Mapping[str, Any]) -> Closing:
        """Stage 5: the table with all that it rests on, also in the artifact, and the flow before and after."""
        from ..agents.artifact import attach_report

        flow, gains = self._draw_flow()
        notes = (*outcome.table.notes, _served_note(served), gains)
        data = {**outcome.table.data, "served": dict(served)}
        table = Table(outcome.table.title, outcome.table.columns, outcome.table.rows, notes, data)
        made_by = provenance(self.config.seeds, policy=Contestant("artifact", self.artifact).fingerprint())
        files = table.write(self.folder, "demo", made_by)
        attach_report(self.artifact, "plant/demo", outcome.report(made_by))
        return Closing(table, served, (*files, flow, self.folder / "proof" / "energy.png"))

    def _draw_flow(self) -> tuple[Path, str]:
        from ..agents.artifact import load_artifact
        from ..envs.wind_farm.farm import farm_nameplate
        from ..envs.wind_farm.floris_model import build_model
        from .flow_picture import draw_flow
        from .steady_evaluation import settle

        config = load_plant_file(self.plant_file)[1]
        assert isinstance(config, WindFarmConfig)  # narrows the type; stage 1 has refused all else
        told = self.config.picture
        wind = SteadyWind(told.wind_speed_mps, told.wind_direction_deg, told.turbulence_pu)
        nameplate = farm_nameplate(config)
        model = build_model(
            config,
            wind_speeds=[wind.speed_mps],
            wind_directions=[wind.direction_deg],
            turbulence=[wind.turbulence_pu],
        )
        still = settle(Contestant("greedy").build(nameplate), nameplate, model, wind)
        steered = settle(load_artifact(self.artifact, nameplate), nameplate, model, wind)
        cases = [("greedy", still[0].tolist()), ("trained policy", steered[0].tolist())]
        path = draw_flow(config, wind, cases, self.folder / "flow.png")
        offsets = ", ".join(f"{v:+.0f}" for v in steered[0])
        return path, (
            f"Flow picture: steady wind from {wind.direction_deg:g} deg at {wind.speed_mps:g} m/s, "
            f"{percent(steered[1] / still[1] - 1.0)} power with offsets {offsets} deg."
        )

    def _stage(self, number: int, title: str, work: Callable[[], T]) -> T:
        self._console.rule(f"[bold]{number}/5[/bold]  {title}", align="left")
        return work()

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _served_note(served: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{code} {n}" for code, n in sorted(served["interventions"].items())) or "none"
    return (
        f"Behind OPC UA: {served['periods']} periods ({served['hours']:g} h) through the shield, "
        f"{served['energy_kwh']:,.0f} kWh measured; changes: {counts}; "
        f"{served['fallback_periods']} periods with a turbine on its fallback; "
        f"decision p99 {served['latency_p99_ms']:.1f} ms; "
        f"journal of {served['journal_rows']} rows {'is sound' if served['journal_is_sound'] else 'IS DAMAGED'}."
    )


def _clear_beginning(folder: Path) -> None:
    """Remove a training folder that was begun but never reached a checkpoint."""
    import shutil

    if folder.exists():
        shutil.rmtree(folder)
