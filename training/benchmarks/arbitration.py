"""Whether anything but the safe state is commanded between a stop and its reset, whatever happens; what that costs."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.progress import Progress

from ...deploy.arbitration.arbiter import Arbiter
from ...deploy.arbitration.claims import read_claims
from ...deploy.arbitration.priority_array import Slot
from ...deploy.arbitration.reported import reported_slots
from ...deploy.arbitration.request import Request
from ...deploy.shield import Code, Mode, Shield
from ...deploy.shield.orders import Orders
from ...deploy.station.desk import StationDesk
from ...deploy.station.folder import StationFolder
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.plant import Telemetry
from ..report import Cell, Table, print_table, provenance, say
from .arbitration_fuzz import Fuzz, scratch

NAME = "arbitration"
SUMMARY = "random events on a station's control loop: no policy writes between a stop and its reset"

COST_BAR_US = 30.0
DESCRIPTION = """\
Let --events random events happen to a station with the real loop, shield, journal and inbox before a small plant:
stops by file, signal and order, also in the midst of a decision; resets, modes, manual values, proposals, wrong and
repeated orders; policies and executors that fail, speak nonsense or are late; a plant that is lost, held by its own
watchdog or moved by another hand; control processes that are killed or ended and start again. A judge that keeps its
own account of stops and resets looks at every command that reaches the plant. Then measure what orders and arbitration
add to a period of 20 commands. Exit status 0 when in no period that began after a stop, up to its reset, any command
was an operator's, a proposal's or a policy's, or led away from the safe state, journals replay bit for bit, and an idle
period costs less than 30 us more.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = "example:\n  twinloop bench arbitration --events 2000"
    parser.add_argument("--events", type=int, default=100_000, metavar="N", help="events in all (100000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the tables as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Let it happen, measure, print; 0 when the bars are met."""
    tables = []
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        fuzz = Fuzz(Path(folder), arguments.seed)
        with Progress(transient=True) as progress:
            task = progress.add_task("events", total=arguments.events)
            fuzz.run(arguments.events, lambda n: progress.update(task, completed=n))
        tables += [outcome(fuzz), happened(fuzz)]
    cost, is_cheap = costs()
    for stem, table in zip((NAME, "arbitration_events", "arbitration_cost"), (*tables, cost), strict=True):
        print_table(table)
        if arguments.out is not None:
            table.write(arguments.out, stem, provenance(seeds=(arguments.seed,)))
    for violation in filter(None, fuzz.judge.violations):
        say(violation)
    return 0 if not fuzz.judge.violations and not fuzz.differences and is_cheap else 1


def outcome(fuzz: Fuzz) -> Table:
    """The bar and what stood behind it."""
    judge = fuzz.judge
    rows: list[tuple[Cell, ...]] = [
        ("events", sum(fuzz.events.values())),
        ("periods", fuzz.periods),
        ("control processes", fuzz.starts),
        ("stops while none was held", judge.stops),
        ("presses in all", judge.presses),
        ("resets that ended a stop", judge.releases),
        ("orders followed", fuzz.followed),
        ("orders refused", fuzz.refused),
        ("periods begun while a stop was held", judge.held_periods),
        (
            "of them with a write of slots 8 to 16 or away from the safe state, or manual values from before a stop",
            len(judge.violations),
        ),
        ("decisions replayed", fuzz.replayed),
        ("differences", fuzz.differences),
    ]
    slots = ", ".join(f"{slot}: {n:,}" for slot, n in sorted(judge.slots.items()))
    modes = ", ".join(f"{mode} {n:,}" for mode, n in sorted(fuzz.modes.items()))
    notes = (
        "A stop that is pressed in the midst of a period is to be heeded from the next one on.",
        f"Commands by reported slot: {slots}.",
        f"Assets by mode: {modes}.",
    )
    return Table("Random events around an emergency stop", ("what", "count"), tuple(rows), notes)


def happened(fuzz: Fuzz) -> Table:
    """How often each event happened."""
    return Table("Events", ("event", "count"), tuple(sorted(fuzz.events.items())))


def costs(n_times: int = 2000) -> tuple[Table, bool]:
    """Microseconds of this thread's CPU that orders and arbitration add to a period, the median of ``n_times``."""
    plate = Nameplate(
        "cells",
        1.0,
        (Group("cell", tuple(f"C{i:02d}" for i in range(20)), measured=(Signal("level", "", 0.0, 1.0),),
               commanded=(Signal("inflow", "", 0.0, 1.0, neutral=0.0),)),),
    )  # fmt: skip
    shield = Shield(plate)
    state, arbiter = shield.start(), Arbiter(shield.flat, plate.agents)
    proposed, orders = {"cell": np.full((20, 1), 0.5)}, Orders(approved=frozenset())
    requests = (Request(Slot.OPERATOR, {"cell": np.full((20, 1), 0.1)}, 5.0, "anna"),)
    asked = {8: read_claims(requests, 8, shield.flat)[0]}
    standing = arbiter.start()
    held = arbiter.settle(standing, asked, proposed, Code.COMMAND_MISSING, orders, state, 0.0).standing
    now = np.full((20, 1), 1e9)
    telemetry = Telemetry({"cell": np.full((20, 1), 0.5)}, {"cell": now}, {"cell": np.zeros((20, 1), np.int8)}, 1e9, 1)
    decision = shield.filter(telemetry, proposed, 1e9, state)
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        station = StationFolder(Path(folder) / "station")
        station.make()
        desk = StationDesk(station, plate, Mode.AUTONOMOUS, 1.0)

        def idle() -> None:
            desk.orders(1, 0.0, state)
            desk.rows()
            heard = {slot: read_claims((), slot, shield.flat)[0] for slot in (8, 14)}
            settled = arbiter.settle(standing, heard, proposed, Code.COMMAND_MISSING, orders, state, 0.0)
            reported_slots(decision, settled.slot, False, shield.flat, plate.agents)

        def busy() -> None:
            desk.orders(1, 0.0, state)
            desk.rows()
            heard = {8: read_claims(requests, 8, shield.flat)[0], 14: ()}
            settled = arbiter.settle(held, heard, proposed, Code.COMMAND_MISSING, orders, state, 1.0)
            reported_slots(decision, settled.slot, False, shield.flat, plate.agents)

        figures = [(name, median_us(call, n_times)) for name, call in (("idle", idle), ("20 held by hand", busy))]
    rows: list[tuple[Cell, ...]] = [(name, round(us, 1)) for name, us in figures]
    note = f"Bar {COST_BAR_US:g} us for an idle period: a look for the stop file, one at the inbox, nothing to settle."
    table = Table("Added to a period of 20 commands", ("period", "us of CPU"), tuple(rows), (note,))
    return table, figures[0][1] < COST_BAR_US


def median_us(call: object, n_times: int) -> float:
    """Median CPU time of this thread."""
    assert callable(call)
    took = np.zeros(n_times)
    for k in range(n_times):
        begun_ns = time.thread_time_ns()
        call()
        took[k] = time.thread_time_ns() - begun_ns
    return float(np.median(took)) / 1e3
