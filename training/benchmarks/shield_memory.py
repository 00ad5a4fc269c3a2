"""Whether the shield's memory stays flat, and that of the control loop around it, however long they run."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ...agents.controllers.reference import RandomPolicy
from ...deploy.journal import Journal
from ...deploy.row_text import plain
from ...deploy.runtime import Period, Runtime, RuntimeSettings
from ...deploy.shield import Mode, Shield
from ...deploy.shield.causes import Cause
from ...deploy.shield.orders import Orders
from ...envs.constraint import AccelerationConstraint, DwellConstraint, SumConstraint, SwitchesConstraint, declare
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.plant import Arrays, Telemetry
from ..report import Cell, Table, print_table, provenance

NAME = "shield_memory"
SUMMARY = "memory of the shield and of the loop over a million periods with faults, which must stay flat"

MIB = 2.0**20
RSS_BAR_MIB = 4.0
BLOCKS_BAR = 2_000

DESCRIPTION = """\
Run Shield.filter for --periods periods, and the whole control loop without a plant's own work for --loop-periods, with
lost readings, numbers that are none, unusable proposals, unconfirmed writes, missed deadlines, orders and emergency
stops mixed in. Live blocks of the interpreter and the resident memory of the process at the second mark are compared
with the last. Exit status 0 when neither grows by more than its bar.
"""
PUMP = Group(
    "pump",
    tuple(f"P{k}" for k in range(1, 6)),
    measured=(Signal("flow", "", 0.0, 100.0), Signal("pressure", "", 0.0, 10.0)),
    commanded=(
        Signal("speed", "", 0.0, 100.0, rate_limit_per_s=0.7),
        Signal("stage", "", 0.0, 2.0, levels=(0.0, 1.0, 2.0)),
    ),
)
PLATE = Nameplate("pumps", 10.0, (PUMP,))
LIMITS = (
    SumConstraint("total speed", "pump", "speed", "", maximum=200.0),
    AccelerationConstraint("pump", "speed", 0.05, ""),
    DwellConstraint("pump", "stage", 25.0, ""),
    SwitchesConstraint("pump", "stage", 30, ""),
)


@dataclass(frozen=True)
class Mark:
    """``period``: how many were done; ``blocks`` live in the interpreter and ``rss_mib`` resident by then."""

    period: int
    blocks: int
    rss_mib: float


class Faults:
    """A plant that answers at once, and what goes wrong with it, drawn from one seed."""

    def __init__(self, seed: int = 0) -> None:
        self.nameplate = PLATE
        self.period = 0
        self._rng = np.random.default_rng(seed)
        self._held: Arrays = {"pump": np.zeros((5, 2))}

    @property
    def clock_s(self) -> float:
        return 1e9 + PLATE.period_s * self.period

    def read(self) -> Telemetry:
        chance = self._rng.random()
        values = self._rng.uniform(1.0, 9.0, (5, 2))
        quality = np.zeros((5, 2), dtype=np.int8)
        if chance < 0.02:
            values[self._rng.integers(5), 0] = np.nan
        elif chance < 0.03:
            quality[self._rng.integers(5)] = 2
        times = np.full((5, 2), self.clock_s - (1e6 if 0.03 <= chance < 0.035 else 0.0))
        return Telemetry({"pump": values}, {"pump": times}, {"pump": quality}, self.clock_s, self.period + 1)

    def write(self, commands: Arrays) -> Arrays:
        self._held = commands
        return commands

    def advance(self) -> None:
        self.period += 1

    def close(self) -> None:
        """Nothing is open."""

    def proposal(self) -> Any:
        chance = self._rng.random()
        asked = self._rng.uniform(-20.0, 120.0, (5, 2))
        asked[:, 1] = self._rng.integers(0, 3, 5)
        if chance < 0.01:
            asked[0, 0] = np.nan
        return None if 0.01 <= chance < 0.02 else "nonsense" if 0.02 <= chance < 0.03 else {"pump": asked}

    def orders(self) -> Orders:
        """Now and then another mode, an emergency stop and its reset."""
        at = self.period % 1000
        told: dict[int, Orders] = {
            300: Orders(mode=Mode.SHADOW),
            350: Orders(mode=Mode.AUTONOMOUS, limits={"total speed": (None, 100.0)}),
            600: Orders(stop=True),
            620: Orders(reset=True),
            621: Orders(mode=Mode.AUTONOMOUS),
        }
        return told.get(at, Orders())

    def causes(self) -> frozenset[Cause]:
        return frozenset({Cause.DEADLINE_MISSED}) if self._rng.random() < 0.002 else frozenset()


class Unkept(Journal):
    """A journal whose rows are made as ever and then forgotten, so that a million of them need no disk."""

    def append(self, record: Mapping[str, Any]) -> str:
        self.head = str(len(str(plain(record))))
        return self.head


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench shield_memory --periods 100000 --loop-periods 10000"
    parser.add_argument("--periods", type=int, default=1_000_000, metavar="N", help="periods of the shield (1000000)")
    parser.add_argument("--loop-periods", type=int, default=100_000, metavar="N", help="periods of the loop (100000)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when memory is flat."""
    rows: list[tuple[Cell, ...]] = []
    flat = True
    for what, measure, n_periods in (
        ("Shield.filter", shield_marks, arguments.periods),
        ("control loop", loop_marks, arguments.loop_periods),
    ):
        begun_s = time.perf_counter()
        marks = measure(n_periods)
        grown = growth(marks)
        flat &= is_flat(marks)
        spent = f"{1e6 * (time.perf_counter() - begun_s) / n_periods:.0f}"
        rows += [(what, f"{m.period:,}", f"{m.blocks:,}", f"{m.rss_mib:.1f}", "", "") for m in marks]
        told = "yes" if is_flat(marks) else "no"
        rows.append((what, "growth", f"{grown.blocks:+,}", f"{grown.rss_mib:+.2f}", spent, told))
    columns = ("what", "periods", "live blocks", "resident MiB", "us a period", "flat")
    notes = (f"Growth from the second mark to the last; bars {BLOCKS_BAR:,} blocks and {RSS_BAR_MIB:g} MiB.",)
    table = Table("Memory of the shield over many periods with faults", columns, tuple(rows), notes)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if flat else 1


def shield_marks(n_periods: int) -> list[Mark]:
    """Memory while ``Shield.filter`` goes from state to state."""
    plant, shield = Faults(), Shield(declare(PLATE, LIMITS))
    state, due, found = shield.start(), marks_of(n_periods), list[Mark]()
    for period in range(1, n_periods + 1):
        telemetry = None if period % 97 == 0 else plant.read()
        decision = shield.filter(
            telemetry, plant.proposal(), plant.clock_s, state, orders=plant.orders(), causes=plant.causes()
        )
        if period % 89 == 0:
            state = shield.unconfirmed(state, decision.state)
        elif period % 83 == 0:
            state = shield.stood_in(state, decision.standby, plant.clock_s)
        else:
            state = shield.accepted(decision.state, plant.write(decision.commands))
        plant.advance()
        if period in due:
            found.append(marked(period))
    return found


def loop_marks(n_periods: int) -> list[Mark]:
    """Memory while the whole loop runs, journal rows and all, on a plant that answers at once."""
    plant, due, found = Faults(1), marks_of(n_periods), list[Mark]()

    def look(period: Period) -> None:
        if period.number in due:
            found.append(marked(period.number))

    settings = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)
    runtime = Runtime(
        plant,
        RandomPolicy(PLATE),
        Shield(declare(PLATE, LIMITS)),
        Unkept(Path("unkept")),
        settings,
        orders=plant.orders,
    )
    runtime.run(n_periods, look)
    return found


def marks_of(n_periods: int) -> frozenset[int]:
    """Where to look: a thousandth, a hundredth, a tenth and half of the way, and the end."""
    return frozenset(max(n_periods // part, 1) for part in (1000, 100, 10, 2, 1))


def marked(period: int) -> Mark:
    """Memory now, after a collection of what is garbage."""
    gc.collect()
    return Mark(period, sys.getallocatedblocks(), psutil.Process().memory_info().rss / MIB)


def growth(marks: Iterable[Mark]) -> Mark:
    """From the second mark, when everything has been used once, to the last."""
    _, first, *_, last = marks
    return Mark(last.period - first.period, last.blocks - first.blocks, last.rss_mib - first.rss_mib)


def is_flat(marks: Iterable[Mark]) -> bool:
    """Whether memory grew by no more than the bars."""
    grown = growth(marks)
    return grown.blocks <= BLOCKS_BAR and grown.rss_mib <= RSS_BAR_MIB
