"""Whether the loop of a farm of 80 turbines keeps a period of 1 s against its commissioned server."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ...deploy.plants import open_plant
from ...deploy.station.folder import StationFolder
from ..report import Cell, Table, print_table, provenance
from .control_cycle import cells, control, cycle_of
from .control_site import control_artifact

NAME = "farm_loop"
SUMMARY = "misses of `twinloop run` on Horns Rev 1, 80 turbines, with a period of 1 s"

PERIOD_S = 1.0
PLANT = """\
site: {{kind: wind_farm, name: horns_rev_1, layout: {{kind: named, name: horns_rev_1}}, turbine: nrel_5MW, dt_s: {dt}}}
plant: {{kind: floris, series: day, seed: 0, dropout_pu: 0.002, n_age_classes: 2}}
"""
SERVER = """
import sys
from twinloop.__main__ import main
from twinloop.deploy.scheduling import use_realtime
if sys.argv[1] != "plain":
    use_realtime(int(sys.argv[1]))
main(["commission", *sys.argv[2:]])
"""
DESCRIPTION = """\
Commission Horns Rev 1 (80 turbines, 640 measured and 160 commanded signals, FLORIS behind an OPC UA server in a process
of its own) at real time with a period of 1 s, and run `twinloop run --station` against it: a 256 x 256 network in its
own process, the site's declared limits, a journal with synchronous=FULL, read-back, a watchdog. FLORIS solves two past
instants a period instead of eight, so that the emulation itself keeps the second. The bar: no miss.

With --realtime control has real-time scheduling, and the emulated farm too, which stands in for 80 controllers with
processors of their own. An ARTIFACT for this farm may be given; without one a network with drawn weights acts.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench farm_loop --seconds 60"
    parser.add_argument("artifact", nargs="?", type=Path, metavar="ARTIFACT", help="a policy that serves this farm")
    parser.add_argument("--seconds", type=float, default=600.0, metavar="S", help="how long (600)")
    parser.add_argument("--realtime", type=int, metavar="PRIORITY", help="real-time scheduling; default: plain")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when nothing was missed."""
    plain = arguments.realtime is None
    scheduled = [] if plain else ["--realtime", str(arguments.realtime)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plant_file = folder / "horns_rev_1.yaml"
        plant_file.write_text(PLANT.format(dt=PERIOD_S), encoding="utf-8")
        plant = open_plant(plant_file=plant_file)
        plate = plant.nameplate
        plant.close()
        artifact = arguments.artifact or control_artifact(folder / "artifact", plate)
        station = StationFolder(folder / "station")
        words = [str(plant_file), "--endpoint", "opc.tcp://127.0.0.1:0/farm"]
        start = [sys.executable, "-c", SERVER, "plain" if plain else str(arguments.realtime), *words]
        server = subprocess.Popen(start, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None  # a pipe; narrows the type
        try:
            endpoint = next(line.split()[1] for line in server.stdout if line.startswith("endpoint"))
            words = ["run", str(artifact), "--endpoint", endpoint, "--plant", str(plant_file), *scheduled]
            words += ["--station", str(station.path), "--periods", str(round(arguments.seconds / PERIOD_S))]
            load = control(words, arguments.seconds)
        finally:
            server.terminate()
            server.communicate()
        cycle: dict[str, Any] = cycle_of(station)
    is_met = cycle["misses"] == 0
    row: tuple[Cell, ...] = (
        "plain" if plain else f"SCHED_RR {arguments.realtime}",
        *cells(cycle),
        load.words(),
        "yes" if is_met else "no",
    )
    columns = (
        "scheduling",
        "periods",
        "cycle p50 / p99 / p99.9 / max ms",
        "jitter p99 / max ms",
        "misses",
        "late decisions",
        "slow cycles, steal in them s",
        "load, steal",
        "met",
    )
    measured = sum(len(g.measured) * g.n_assets for g in plate.groups)
    commanded = sum(len(g.commanded) * g.n_assets for g in plate.groups)
    notes = (
        f"{len(plate.agents)} turbines, {measured} reads and {commanded} writes each {PERIOD_S:g} s; bar: no miss.",
        "The policy: " + (f"{Path(artifact).name}." if arguments.artifact else "a network with drawn weights."),
    )
    table = Table("How a farm of 80 turbines keeps its second", columns, (row,), notes, {"cycle": cycle})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if is_met else 1
