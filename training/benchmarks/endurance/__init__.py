"""35 simulated days of closed loop with faults at random: nothing hard is broken, and nothing grows."""

from __future__ import annotations

import argparse
import os
import pickle
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ....deploy.audit.signing import PublicKey, load_public, make_keys
from ....deploy.audit.verify import audit
from ....deploy.replay import replay
from ....deploy.shield import Shield
from ....deploy.station.folder import StationFolder
from ....envs.constraint import Declaration, declaration_of_site
from ....envs.errors import ConfigurationError
from ....envs.registry import load_site
from ...report import print_table, provenance, say
from .audit_side import DECLARED
from .control import Unhurried
from .drive import Notes, Piece
from .findings import Findings, events_table, summary_table
from .schedule import PERIODS_A_DAY, PIECE_PERIODS, Schedule
from .world import World

NAME = "endurance"
SUMMARY = "35 simulated days of closed loop with random faults: hard violations, memory and files, which must not grow"

SITE = {
    "name": "endurance",
    "layout": {"kind": "named", "name": "row3_5d"},
    "dt_s": 60.0,
    # 15 MW are installed. Offsets beyond 20 deg are disliked, and what is told may not rise by over 1.5 MW a period.
    "limits": {"power_cap_kw": 9000.0, "power_rise_kw_per_s": 25.0, "preferred_yaw_deg": 20.0},
}
PLANT = {"series": "month", "dropout_pu": 0.002, "outage_rate_per_day": 0.05}
DESCRIPTION = """\
Run a station's control (runtime, arbitration, shield, journal on disk, inbox, stop file, state.json) in a process of
its own for --days simulated days before a FLORIS farm of three turbines in another process, at one period a minute. A
third process signs heads, exports telemetry and deletes what is older than declared. Faults of plant, telemetry,
policy, process, journal and people begin at random; control is restarted, interrupted and killed
(SIGKILL) in between, and finds the plant where it stands. Every command that the plant is told is judged by the margins
of the declared constraints, which no part of the shield uses. Growth of memory is the slope that all lives of the
process have in common, growth of files the slope of their largest size a day once the declared retention is reached,
each with its 95 % interval.

Work goes on in --work from where it stopped, in pieces of 8.75 days. Exit status 0 when no hard limit was broken,
nothing grew, the journal is sound and what is left of it replays bit for bit.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench endurance --days 2 --work /tmp/endurance"
    parser.add_argument("--days", type=float, default=35.0, metavar="N", help="simulated days (%(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of faults, wind and noise (%(default)s)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/endurance"),
        metavar="DIR",
        help="journal, history, progress (%(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run, or go on, and print; 0 when all bars are met."""
    if not arguments.days > 0.0:
        raise ConfigurationError(f"--days: {arguments.days}; give a positive number of days")
    n_periods = max(round(arguments.days * PERIODS_A_DAY), 1)
    world, declaration, notes, spent = _go_on(arguments, n_periods)
    folder = arguments.work
    with Progress() as bar:
        task = bar.add_task("periods", total=n_periods, completed=world.period)
        while world.period < n_periods:
            begun_s, begun_cpu_s = time.monotonic(), _cpu_s()
            until = min(world.period + PIECE_PERIODS, n_periods)
            Piece(world, declaration, notes, folder).run(until, lambda period: bar.update(task, completed=period))
            spent = (spent[0] + time.monotonic() - begun_s, spent[1] + _cpu_s() - begun_cpu_s)
            _keep(folder, arguments.seed, n_periods, world, notes, spent)
            say(f"{world.period} periods, {world.referee.judged.violations} violations, {spent[1] / 60.0:.1f} CPU min")
    journal = StationFolder(folder / "station").journal
    report = audit(journal, heads=folder / "keys" / "heads", keys=[_public(folder)])
    again = replay(journal, lambda row: Shield(declaration, monitors=(Unhurried(),)))
    found = Findings.of(world, declaration, notes, [str(f) for f in report.findings], again)
    table, events = summary_table(found, spent, DECLARED), events_table(found)
    for shown in (table, events):
        print_table(shown)
    for text in [*world.referee.judged.complaints, *notes.audit_errors]:
        say(text)
    if arguments.out is not None:
        made = provenance(seeds=[arguments.seed], cpu_min=round(spent[1] / 60.0, 1), wall_min=round(spent[0] / 60.0, 1))
        table.write(arguments.out, NAME, made)
        events.write(arguments.out, f"{NAME}_events", made)
    return 0 if found.is_met else 1


def _declaration() -> Declaration:
    site = load_site("wind_farm")
    return declaration_of_site(site, site.config_model.model_validate(SITE))


def _go_on(arguments: argparse.Namespace, n_periods: int) -> tuple[World, Declaration, Notes, tuple[float, float]]:
    """The world as the last finished piece left it, or a new one."""
    folder: Path = arguments.work
    declaration = _declaration()
    site = load_site("wind_farm")
    schedule = Schedule.drawn(arguments.seed, n_periods, declaration.nameplate.groups[0].n_assets)
    state = folder / "state.pickle"
    if state.exists():
        saved: dict[str, Any] = pickle.loads(state.read_bytes())
        if (saved["seed"], saved["n_periods"]) != (arguments.seed, n_periods):
            raise ConfigurationError(
                f"{folder}: holds a run of seed {saved['seed']} over {saved['n_periods']} periods; give that --seed "
                "and those --days to go on, or another --work"
            )
        world = World(saved["world"]["plant"], declaration, schedule)
        world.restore(saved["world"])
        return world, declaration, saved["notes"], saved["spent"]
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(
            f"{folder}: is not empty, and no piece of a run was finished in it; give another --work, or remove it"
        )
    make_keys(folder / "keys")
    plant = site.plant(
        site.config_model.model_validate(SITE),
        site.plant_config_model.model_validate({**PLANT, "seed": arguments.seed}),
    )
    world = World(plant, declaration, schedule)
    _keep(folder, arguments.seed, n_periods, world, Notes(), (0.0, 0.0))
    return world, declaration, Notes(), (0.0, 0.0)


def _keep(folder: Path, seed: int, n_periods: int, world: World, notes: Notes, spent: tuple[float, float]) -> None:
    """Save what a resumed run needs; the file is replaced at once."""
    saved = {"seed": seed, "n_periods": n_periods, "world": world.saved(), "notes": notes, "spent": spent}
    beside = folder / "state.part"
    beside.write_bytes(pickle.dumps(saved))
    beside.replace(folder / "state.pickle")


def _public(folder: Path) -> PublicKey:
    return load_public(folder / "keys" / "journal.pub")


def _cpu_s() -> float:
    """CPU time of this process and of its children that have ended."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system
