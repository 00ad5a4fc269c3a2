"""What a shield costs a period: the whole call, and by itself the mathematics in it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.shield import Shield
from ...deploy.shield.program import solve, warmup
from ...deploy.shield.small_programs import solve_small
from ...deploy.shield.sums import fill
from ..report import Cell, Table, print_table, provenance
from .shield_latency_cases import call, periods, pumping

NAME = "shield_latency"
SUMMARY = "CPU time of the shield's whole call, of its programs, of 1,000 assets and of a sum limit over 1,000"

# bars of the fact sheet, in microseconds of thread CPU time: at p50 and at p99
PROGRAM_BARS_US = (60.0, 150.0)
BATCH_BAR_US = 5_000.0
SUM_BAR_US = 500.0
FIRST_CALL_RATIO = 3.0

DESCRIPTION = """\
Time the whole call of a shield, with nothing, limits or sums in the way, then the parts that solve something, in CPU
time of this thread. Whole calls are periods of a run, each with its reading, proposal and state. Each problem is solved
--rounds times and its quickest solution counts, so that what other work on the machine does to the caches stays out;
percentiles are over problems, and the plain ones over all solutions stand beside them. The first call after warmup()
stands beside the slowest of the next ten, one solution each.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench shield_latency --problems 500"
    parser.add_argument("--problems", type=int, default=300, metavar="N", help="problems of each kind (300)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="solutions of each problem (7)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when every bar is met."""
    rng = np.random.default_rng(0)
    rows: list[tuple[Cell, ...]] = []
    met: list[bool] = []

    def judge(case: str, call: Callable[..., Any], problems: list[tuple[Any, ...]], p50: float, p99: float) -> None:
        best, every = _times_us(call, problems, arguments.rounds)
        at_50, at_99 = (float(np.percentile(best, q)) for q in (50, 99))
        met.append(at_50 <= p50 and at_99 <= p99)
        plain = " / ".join(f"{np.percentile(every, q):,.0f}" for q in (50, 99))
        bars = f"{p50:,.0f} / {p99:,.0f}"
        rows.append((case, f"{at_50:,.1f}", f"{at_99:,.1f}", plain, bars, _yes(met[-1])))

    few = max(10, arguments.problems // 10)
    shield, dense, many = Shield(pumping(20, 10)), Shield(pumping(20, 50)), Shield(pumping(1000, 0))
    plenty = Shield(pumping(1000, 1))
    for each in (shield, dense, many, plenty):
        each.warmup()
    first_us, later_us = _first_period(arguments.problems)
    for case, site in (("20 ranges, 20 rates, 10 sums", shield), ("20 ranges, 20 rates, 50 dense sums", dense)):
        for way, told in (("nothing", "quiet"), ("limits", "limits active"), ("sums", "sums active")):
            judge(f"whole call, {case}: {told}", call, periods(site, arguments.problems, way), *PROGRAM_BARS_US)
    for case, site, way in (
        ("1,000 independent assets: quiet", many, "nothing"),
        ("1,000 independent assets: limits active", many, "limits"),
        ("a sum over 1,000 assets: active", plenty, "sums"),
    ):
        judge(f"whole call, {case}", call, periods(site, few, way), BATCH_BAR_US, BATCH_BAR_US)
    met.append(first_us <= FIRST_CALL_RATIO * later_us)
    ratio = f"{first_us:,.0f} after {later_us:,.0f}"
    rows.append(("whole call, first after warmup(), slowest of the next", ratio, "-", "-", "-", _yes(met[-1])))
    first_us, later_us = _first_call(rng)
    safe, tight = _programs(rng, arguments.problems, False), _programs(rng, arguments.problems, True)
    judge("20 commands, 50 rows, nothing to change", solve, safe, *PROGRAM_BARS_US)
    judge("20 commands, 50 rows, rows in the way", solve, tight, *PROGRAM_BARS_US)
    judge("1,000 assets, 2 commands and 5 rows each", solve_small, _batches(rng, few), BATCH_BAR_US, BATCH_BAR_US)
    judge("a sum limit over 1,000 assets", _filled, _sums(rng, few), SUM_BAR_US, SUM_BAR_US)
    met.append(first_us <= FIRST_CALL_RATIO * later_us)
    ratio = f"{first_us:,.0f} after {later_us:,.0f}"
    rows.append(("program, first after warmup, slowest of the next", ratio, "-", "-", "-", _yes(met[-1])))
    columns = ("case", "p50 us", "p99 us", "plain p50 / p99 us", "bars us", "met")
    notes = (f"Thread CPU time; each problem's quickest of {arguments.rounds} solutions; plain: all solutions alike.",)
    table = Table("What a shield costs a period", columns, tuple(rows), notes)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if all(met) else 1


def _times_us(
    call: Callable[..., Any], problems: list[tuple[Any, ...]], rounds: int
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """The quickest of each problem's solutions and all of them, in microseconds."""
    found = np.empty((rounds, len(problems)))
    for r in range(rounds):
        for i, problem in enumerate(problems):
            start = time.thread_time_ns()
            call(*problem)
            found[r, i] = (time.thread_time_ns() - start) / 1e3
    return found.min(axis=0), found.ravel()


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def _first_period(n_periods: int) -> tuple[float, float]:
    """CPU time of a shield's very first period with a program, after warmup(), and the longest of the next ten."""
    made = periods(Shield(pumping(20, 10)), n_periods, "sums")[:11]
    fresh = Shield(pumping(20, 10))
    fresh.warmup()
    calls = [(fresh, *rest) for _, *rest in made]
    times, _ = _times_us(call, calls[:1], 1)
    rest, _ = _times_us(call, calls[1:], 1)
    return float(times[0]), float(rest.max())


def _first_call(rng: np.random.Generator) -> tuple[float, float]:
    """CPU time of the very first program after warmup, and the longest of the next ten of its kind."""
    problems = _programs(rng, 11, True)
    warmup()
    times, _ = _times_us(solve, problems[:1], 1)
    rest, _ = _times_us(solve, problems[1:], 1)
    return float(times[0]), float(rest.max())


def _programs(rng: np.random.Generator, n_problems: int, tight: bool) -> list[tuple[Any, ...]]:
    """Programs of 20 commands and 50 rows that 0 keeps; ``tight``: rows are in the way of what is desired."""
    n, m, found = 20, 50, []
    for _ in range(n_problems):
        rows = rng.normal(size=(m, n))
        bounds = (rng.uniform(0.1, 1.0, m) if tight else np.full(m, 5.0)) * np.linalg.norm(rows, axis=1)
        desired = rng.uniform(-1.5, 1.5, n) if tight else rng.uniform(-1.0, 1.0, n)
        found.append((desired, -np.ones(n), np.ones(n), rows, bounds))
    return found


def _batches(rng: np.random.Generator, n_problems: int) -> list[tuple[Any, ...]]:
    return [
        (rng.uniform(-1.5, 1.5, (1000, 2)), -1.0, 1.0, rng.normal(size=(1000, 5, 2)), rng.uniform(0.1, 1.0, (1000, 5)))
        for _ in range(n_problems)
    ]


def _sums(rng: np.random.Generator, n_problems: int) -> list[tuple[Any, ...]]:
    return [(rng.uniform(0, 2, 1000), rng.uniform(0.5, 2, 1000), 700.0) for _ in range(n_problems)]


def _filled(asked: Any, weights: Any, maximum: float) -> Any:
    return fill(asked, 0.0, 1.5, weights, maximum=maximum)
