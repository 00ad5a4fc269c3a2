"""``twinloop diagnose``: what holds a site back, what that costs, and what change pays most."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...envs.commands.overrides import add_overrides, options_of
from ...envs.configuration import load_mapping, validate
from ...envs.diagnosis import Diagnosable, Diagnosis, Sheet
from ...envs.errors import ConfigurationError, located
from ...envs.registry import Site, load_site, site_names

WIDTH_OF_A_PIPE = 160
YAML_ENDINGS = (".yaml", ".yml")
DESCRIPTION = """\
Say what holds a site back, what that costs and what change pays most, with intervals: of a site as it is configured,
or of a plant as a run's journal has measured it. In a journal, estimates are made of its last run, with what it leaves
open, and analysed on the site's twin, where every machine is on.

A production line: where the bottleneck is (exact chain or paired twin replicas, and the arrow rule beside them),
whether and when a machine changed, what stops cost, what a faster machine, a larger buffer or rarer and shorter stops
would bring, ISO 22400-2 key figures, and how long machines that wear will last, with alarms. Settings of --option for
it: blocking=after|before|auto, method=auto|chain|replicas, window_periods, change_pu, stop_slots, replicas, slots,
alarm_nats, horizon_slots, alarm_chance, seed (docs/diagnose.md).
"""
EPILOG = """\
examples:
  twinloop diagnose configs/production_line/plant_energy.yaml
  twinloop run --policy greedy --plant configs/production_line/plant_energy.yaml --periods 3000 --journal line.sqlite
  twinloop diagnose line.sqlite --plant configs/production_line/plant_energy.yaml --picture line.png
  twinloop diagnose line.sqlite --plant FILE.yaml --option change_pu=0.1 --json

exit status: 0 done, 2 wrong input, such as a site that cannot be diagnosed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("target", metavar="SITE-FILE|JOURNAL", help="a YAML file with a key 'site', or a journal")
    parser.add_argument("--plant", metavar="FILE.yaml", help="with a journal: the file of the plant that it is of")
    add_overrides(parser, "plant.seed=3")
    parser.add_argument(
        "--option", dest="options", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of the site's diagnosis; may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print all of it as one JSON object")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it: .png, .svg or .pdf; needs matplotlib")


def run(arguments: argparse.Namespace) -> int:
    """Diagnose and print."""
    if arguments.picture is not None and arguments.picture.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigurationError(f"--picture {arguments.picture}: give a file that ends in .png, .svg or .pdf")
    is_journal = not arguments.target.endswith(YAML_ENDINGS)
    if not is_journal and arguments.plant is not None:
        raise ConfigurationError(f"--plant: is for a journal; {arguments.target} is a site's file already")
    if is_journal and arguments.plant is None:
        raise ConfigurationError(
            f"{arguments.target}: a journal tells what was measured, not what stands there; give the file of its plant "
            "by --plant FILE.yaml, or a .yaml file instead of a journal"
        )
    file = arguments.plant if is_journal else arguments.target
    site, config = _site(file, arguments.overrides)
    if not isinstance(site, Diagnosable):
        able = [name for name in site_names() if isinstance(load_site(name), Diagnosable)]
        raise ConfigurationError(f"{file}: site {site.name!r} has no diagnosis; sites that have: {', '.join(able)}")
    settings = validate(options_of(arguments.options, "change_pu=0.1"), site.diagnosis_model, "--option")
    history = None
    if is_journal:
        from ..telemetry_history import history_of

        history = history_of(Path(arguments.target), site.nameplate(config))
    with located(arguments.target):
        found: Diagnosis = site.diagnose(config, history, settings)
    if arguments.json:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        _print(found)
    if arguments.picture is not None:
        found.draw(arguments.picture)
        if not arguments.json:
            print(f"picture: {arguments.picture}")
    return 0


def _print(found: Diagnosis) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_PIPE)
    for line in found.headline:
        console.print(Text(line, style="bold" if line == found.headline[0] else ""), soft_wrap=True)
    for sheet in found.sheets:
        console.print()
        console.print(sheet_table(sheet))
    console.print()
    for note in found.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)


def sheet_table(sheet: Sheet) -> Table:
    """A sheet for a terminal."""
    table = Table(title=Text(sheet.title), title_justify="left", box=None, pad_edge=False)
    for k, heading in enumerate(sheet.columns):
        table.add_column(heading, justify="left" if k == 0 else "right")
    for row in sheet.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _site(file: str, overrides: list[str]) -> tuple[Site, BaseModel]:
    data = load_mapping(file, overrides)
    declared = data.get("site")
    if not isinstance(declared, Mapping) or not isinstance(declared.get("kind"), str):
        raise ConfigurationError(
            f"{file}: site.kind is missing; give one of the installed sites: {', '.join(site_names())}"
        )
    with located(file):
        site = load_site(str(declared["kind"]))
    return site, validate(declared, site.config_model, f"{file}: site")
