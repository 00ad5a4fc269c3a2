"""How long a million virtual prototypes of a production line take, from the search to the Pareto front."""

from __future__ import annotations

import argparse
import math
import resource
import time
from pathlib import Path

from ...envs.production_line.exact_line import ExactMachine, solve_line
from ..exploration.configuration import ExploreConfiguration
from ..exploration.evaluation import Evaluator
from ..exploration.exploration import Candidate, Found, explore
from ..exploration.outcome import draw_front
from ..report import Cell, Table, print_table, provenance, say

NAME = "line_prototypes"
SUMMARY = "a million prototypes of a five-machine line searched, 1,000 slots each: seconds, against the exact chain"

MACHINES, SLOTS, LONG, SLOTS_PER_PERIOD = 5, 1000, 10_000, 100
WALL_BAR_S, CORES = 180.0, 2
"""For a million on two cores; hence CPU seconds a prototype, which say the same on a machine that is shared."""
STEPS_BAR = 1e7
"""Machine-steps a CPU second of the plain Bernoulli line."""
CHECKED = 5

DESCRIPTION = """\
`twinloop explore` on a line of five Bernoulli machines: efficiencies from 0.7 to 0.95 and capacities from 1 to 6,
Sobol's points, 1,000 slots each in two processes; the 64 best again, 10,000 slots under 16 seeds; the Pareto front of
throughput against money. Everything counts: drawing, running, sorting, starting the processes. The first of the front
are held against the exact Markov chain: within 3 standard errors. The bar is on CPU seconds (two cores times 3 minutes
for a million, in proportion for fewer); wall-clock seconds are told, and mean something where nothing else runs.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench line_prototypes --prototypes 100000"
    parser.add_argument("--prototypes", type=int, default=1_000_000, metavar="N", help="how many (1000000)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table and the picture")


def run(arguments: argparse.Namespace) -> int:
    """Explore, check and print; 0 when the bars are met."""
    config = exploration(arguments.prototypes, arguments.workers)
    evaluator = Evaluator(config)
    before, began = _cpu_s(), time.perf_counter()

    def tell(stage: str, done: int, of: int) -> None:
        say(f"{stage}: {done:,} of {of:,} runs, {time.perf_counter() - began:.0f} s")

    found = explore(config, evaluator, tell)
    wall_s, cpu_s = time.perf_counter() - began, _cpu_s() - before
    steps = len(found.values) * SLOTS * MACHINES + (found.rows - len(found.values)) * LONG * MACHINES
    bar_s = WALL_BAR_S * CORES * len(found.values) / 1e6
    agrees, told = check_by_chain(found)
    fast = steps / found.cpu_s >= STEPS_BAR
    rows: tuple[tuple[Cell, ...], ...] = (
        ("prototypes", f"{len(found.values):,}", "-", "-"),
        ("CPU seconds, all processes", f"{cpu_s:.1f}", f"<= {bar_s:g}", _yes(cpu_s <= bar_s)),
        ("wall-clock seconds, as loaded as the machine was", f"{wall_s:.1f}", "-", "-"),
        ("prototypes a CPU second", f"{len(found.values) / cpu_s:,.0f}", "-", "-"),
        ("machine-steps a CPU second, running", f"{steps / found.cpu_s:,.0f}", f">= {STEPS_BAR:,.0f}", _yes(fast)),
        ("candidates on the front", f"{sum(c.on_front for c in found.candidates)}", "-", "-"),
        (f"first {CHECKED} of the front against the chain", told, "<= 3 standard errors", _yes(agrees)),
    )
    notes = (
        f"{MACHINES} machines, {SLOTS:,} slots each, the first {SLOTS_PER_PERIOD} not counted; {arguments.workers} "
        "processes.",
        "CPU seconds of the whole: drawing, feasibility, running, sorting, starting of processes.",
    )
    table = Table(f"{len(found.values):,} prototypes of a line", ("figure", "value", "bar", "met"), rows, notes)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance((config.seed,)))
        draw_front(config, found, (), arguments.out / f"{NAME}.png")
    return 0 if cpu_s <= bar_s and fast and agrees else 1


def exploration(n_prototypes: int, workers: int) -> ExploreConfiguration:
    """What is explored."""
    names = [f"M{i + 1}_efficiency_pu" for i in range(MACHINES)]
    buffers = [f"buffer{k + 1}_capacity" for k in range(MACHINES - 1)]
    machine = {"model": {"kind": "bernoulli", "efficiency_pu": 0.8}}
    first = {"periods": SLOTS // SLOTS_PER_PERIOD - 1, "warm_up_periods": 1, "seeds": 1, "keep": 64}
    return ExploreConfiguration.model_validate({
        "name": NAME,
        "site": {
            "kind": "production_line",
            "line": {"kind": "fixed", "machines": [machine] * MACHINES, "capacities": [3] * (MACHINES - 1)},
            "slots_per_period": SLOTS_PER_PERIOD,
        },
        "ranges": {n: {"uniform": [0.7, 0.95]} for n in names} | {b: {"randint": [1, 6]} for b in buffers},
        "objectives": {
            "throughput": {"kind": "signal", "signal": f"machine/M{MACHINES}/parts", "scale": 1.0 / SLOTS_PER_PERIOD,
                           "unit": "parts/slot"},
            "money": {"kind": "price", "of": dict.fromkeys(names, 100.0) | dict.fromkeys(buffers, 1.0)},
        },
        "search": {"kind": "sobol", "prototypes": n_prototypes},
        "rounds": [first, {"periods": LONG // SLOTS_PER_PERIOD - 2, "warm_up_periods": 2, "seeds": 16}],
        "replicas": 8192,
        "workers": workers,
    })  # fmt: skip


def check_by_chain(found: Found) -> tuple[bool, str]:
    """Whether the figures of the front's first candidates agree with the exact chain; the largest distance in standard
    errors, in words."""
    worst = max(_distance(c) for c in found.candidates[:CHECKED])
    return worst <= 3.0, f"{worst:.2f}"


def _distance(candidate: Candidate) -> float:
    machines = [ExactMachine(candidate.values[f"M{i + 1}_efficiency_pu"]) for i in range(MACHINES)]
    capacities = [round(candidate.values[f"buffer{k + 1}_capacity"]) for k in range(MACHINES - 1)]
    exact = solve_line(machines, capacities, looks_through=True).production
    figure = candidate.figures[0]
    half = figure.high - figure.estimate
    from scipy.stats import t as student

    error = half / float(student.ppf(0.975, figure.n - 1))
    return abs(figure.estimate - exact) / error if error > 0 else math.inf


def _cpu_s() -> float:
    """Of this process and of all that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def _yes(met: bool) -> str:
    return "yes" if met else "no"
