"""Throughput, blocked and starved shares of lines whose exact chains are known, in the twin; and how fast it is."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from ...envs.production_line.config import FixedLine, LineConfig
from ...envs.production_line.exact_line import ExactLine
from ...envs.production_line.nameplate import HIDDEN, MACHINE, MEASURED
from ...envs.production_line.referee import exact_line
from ...envs.production_line.twin import ProductionLineTwin
from ..report import Cell, Table, print_table, provenance, say
from .line_throughput_cases import closed_forms, exponential_line, full_line, known_lines, plain_line

NAME = "line_throughput"
SUMMARY = "throughput, blocked and starved of every known line against its exact chain; machine-steps a CPU second"

REPLICAS = 1024
ERROR_PU, MOST_PERIODS = 2.5e-4, 400
"""A line runs until the standard errors of its throughput and shares are this: 0.1 % is then four of them."""
STANDARD_ERRORS, WITHIN_PU = 3.0, 1e-3
FULL_BAR, PLAIN_BAR = 1e6, 1e7
ROUNDS = 5
Floats = NDArray[np.float64]

DESCRIPTION = """\
Every known line (Bernoulli, geometric, exponential without and with buffers, blocked before and after service, an
assembly) in 1,024 replicas of the twin with seeds of its own, until the standard errors of its throughput and shares
are 0.025 %; against its exact Markov chain. Bars: throughput, and each machine's share blocked and starved, within 3
standard errors and 0.1 % (of the throughput; of the time). Of some 160 figures one may be beyond 3 standard errors by
chance: a line with such a figure runs again, on new seeds, and all figures of that run must be within; both runs are
told. The chains themselves are within 1e-9 of closed forms. Machine-steps a CPU second of one thread: 1e6 inside the
full twin (wear, service, speeds, power, tariff), 1e7 for plain Bernoulli machines; median of five.
"""


@dataclass(frozen=True)
class Seen:
    """Of one run: means over replicas and their standard errors; ``slots`` in all. First the throughput, then blocked
    and starved shares of every machine, ``[1 + 2 M]``."""

    mean: Floats
    error: Floats
    slots: int

    def distances(self, exact: Floats) -> Floats:
        """In standard errors; where replicas did not vary at all, in those of so rare a thing (Poisson)."""
        apart = np.abs(self.mean - exact)
        error = np.where(self.error > 0, self.error, np.sqrt(exact / self.slots))
        found: Floats = np.where(apart <= 1e-12, 0.0, apart / np.maximum(error, 1e-300))
        return found


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench line_throughput --only Hunt"
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all lines (1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="lines whose title holds this")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the tables")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when all bars are met."""
    began = time.process_time()
    rows: list[tuple[Cell, ...]] = []
    all_met = True
    for k, (title, config) in enumerate(known_lines()):
        if arguments.only not in title:
            continue
        row, met = judged(title, config, arguments.seed, k)
        rows.append(row)
        all_met &= met
        say(f"{title}: {'met' if met else 'missed'}, {time.process_time() - began:.0f} CPU s")
    throughput = Table(
        "Lines of the twin against their exact chains",
        ("line", "states", "exact", "twin", "off", "standard errors", "blocked, starved off", "standard errors",
         "million slots", "again", "met"),
        tuple(rows),
        (
            f"{REPLICAS:,} replicas, seeds of its own for each line; standard errors {ERROR_PU:.3%} or less.",
            "Off: of throughput in per cent of it; of the worst share blocked or starved in per cent of the time.",
            "A share of which nothing was seen, as chances of 1e-10 have it, is judged by its Poisson standard error.",
            "Again: largest distance of a second run, on new seeds, where the first had one beyond 3 standard errors.",
        ),
    )  # fmt: skip
    forms = Table(
        "Exact chains against closed forms and published figures",
        ("lines", "largest distance", "bar", "met"),
        tuple((title, f"{off:.1e}", f"{bar:g}", _yes(off <= bar)) for title, off, bar in closed_forms()),
    )
    speeds = speed_table()
    tables = {NAME: throughput, f"{NAME}_closed_forms": forms, f"{NAME}_speed": speeds}
    for name, table in tables.items():
        print_table(table)
        if arguments.out is not None:
            table.write(arguments.out, name, provenance((arguments.seed,)))
    say(f"{time.process_time() - began:.0f} CPU s in all")
    return 0 if all_met and all(row[-1] != "no" for t in (forms, speeds) for row in t.rows) else 1


def judged(title: str, config: LineConfig, seed: int, k: int) -> tuple[tuple[Cell, ...], bool]:
    """Row of one line, and whether its bars are met."""
    solved = exact_line(config)
    exact = _figures(solved)
    seen = measured(config, first_seed(seed, k, 0))
    apart = seen.distances(exact)
    off = np.abs(seen.mean - exact)
    off[0] /= exact[0]
    again, met = "-", bool((off <= WITHIN_PU).all())
    if (apart > STANDARD_ERRORS).any():
        second = measured(config, first_seed(seed, k, 1)).distances(exact)
        again, met = f"{second.max():.2f}", met and bool((second <= STANDARD_ERRORS).all())
    row = (
        title, solved.n_states, f"{exact[0]:.6f}", f"{seen.mean[0]:.6f}", f"{off[0]:.4%}", f"{apart[0]:.2f}",
        f"{off[1:].max():.4%}", f"{apart[1:].max():.2f}", f"{seen.slots / 1e6:.1f}", again, _yes(met),
    )  # fmt: skip
    return row, met


def measured(config: LineConfig, seed: int) -> Seen:
    """Run a line until its throughput is known well enough."""
    twin = ProductionLineTwin(config, REPLICAS, dtype=torch.float64)
    twin.reset(torch.arange(seed, seed + REPLICAS))
    group = twin.nameplate.group(MACHINE)
    at = [[s.name for s in MEASURED].index(n) for n in ("blocked_pu", "starved_pu")]
    finished = [s.name for s in HIDDEN].index("finished")
    commands = {MACHINE: torch.from_numpy(np.asarray(group.neutral())).expand(REPLICAS, group.n_assets, -1)}
    twin.step(commands)  # not counted
    total = torch.zeros(REPLICAS, 1 + 2 * group.n_assets, dtype=torch.float64)
    periods = 0
    while True:
        told = twin.step(commands)
        made = told.hidden[MACHINE][..., finished].sum(-1, keepdim=True) / config.slots_per_period
        total += torch.cat((made, *(told.measured[MACHINE][..., c] for c in at)), dim=-1)
        periods += 1
        values = (total / periods).numpy()
        mean, error = values.mean(0), values.std(0, ddof=1) / math.sqrt(REPLICAS)
        known = error[0] <= ERROR_PU * mean[0] and error[1:].max() <= ERROR_PU
        if known or periods >= MOST_PERIODS:
            return Seen(mean, error, periods * config.slots_per_period * REPLICAS)


def first_seed(seed: int, line: int, run: int) -> int:
    """No two lines, and no two runs of one, share a seed."""
    return ((seed * 1000 + line) * 10 + run) * REPLICAS


def speed_table() -> Table:
    """Machine-steps a CPU second."""
    cases = (
        ("full twin: 5 machines, wear, service, speeds, power, tariff", full_line(), FULL_BAR),
        ("plain line of 5 Bernoulli machines", plain_line(), PLAIN_BAR),
        ("5 exponential machines, blocked after service", exponential_line(), None),
    )
    rows: list[tuple[Cell, ...]] = []
    for title, config, bar in cases:
        rates = [steps_per_cpu_s(config, seed) for seed in range(ROUNDS)]
        told = "-" if bar is None else f">= {bar:,.0f}"
        met = "-" if bar is None else _yes(median(rates) >= bar)
        rows.append((title, f"{median(rates):,.0f}", f"{min(rates):,.0f}", f"{max(rates):,.0f}", told, met))
    return Table(
        "Machine-steps a CPU second, one thread",
        ("line", "median", "least", "most", "bar", "met"),
        tuple(rows),
        ("4,096 replicas; a step is a machine in a slot, of exponential ones in a mean cycle.",),
    )


def steps_per_cpu_s(config: LineConfig, seed: int, replicas: int = 4096, periods: int = 4) -> float:
    """Of one thread, after a period to warm up."""
    assert isinstance(config.line, FixedLine)  # the lines of this benchmark are
    twin = ProductionLineTwin(config, replicas)
    twin.reset(torch.arange(replicas) + seed * replicas)
    commands = {
        g.name: torch.from_numpy(np.asarray(g.neutral())).expand(replicas, g.n_assets, -1)
        for g in twin.nameplate.groups
    }
    twin.step(commands)
    began = time.process_time()
    for _ in range(periods):
        twin.step(commands)
    return replicas * periods * config.slots_per_period * len(config.line.machines) / (time.process_time() - began)


def _figures(solved: ExactLine) -> Floats:
    return np.concatenate(([solved.production], solved.blocked, solved.starved))


def _yes(met: bool) -> str:
    return "yes" if met else "no"
