"""What the shield's mathematics costs a period: certified programs, many small programs, and sum limits."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.shield.program import solve, warmup
from ...deploy.shield.small_programs import solve_small
from ...deploy.shield.sums import fill
from ..report import Cell, Table, print_table, provenance

NAME = "shield_latency"
SUMMARY = "CPU time of the shield's programs, of 1,000 assets at once and of a sum limit over 1,000"

# bars of the fact sheet, in microseconds of thread CPU time: at p50 and at p99
PROGRAM_BARS_US = (60.0, 150.0)
BATCH_BAR_US = 5_000.0
SUM_BAR_US = 500.0
FIRST_CALL_RATIO = 3.0

DESCRIPTION = """\
Time the parts of the shield that solve something, in CPU time of this thread. Each problem is solved --rounds times and
its quickest solution counts, so that what other work on the machine does to the caches stays out; percentiles are over
problems, and the plain ones over all solutions stand beside them. The first call after warmup() stands beside the
slowest of the next ten, one solution each.
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
    first_us, later_us = _first_call(rng)
    rows: list[tuple[Cell, ...]] = []
    met: list[bool] = []

    def judge(case: str, call: Callable[..., Any], problems: list[tuple[Any, ...]], p50: float, p99: float) -> None:
        best, every = _times_us(call, problems, arguments.rounds)
        at_50, at_99 = (float(np.percentile(best, q)) for q in (50, 99))
        met.append(at_50 <= p50 and at_99 <= p99)
        plain = " / ".join(f"{np.percentile(every, q):,.0f}" for q in (50, 99))
        bars = f"{p50:,.0f} / {p99:,.0f}"
        rows.append((case, f"{at_50:,.1f}", f"{at_99:,.1f}", plain, bars, "yes" if met[-1] else "no"))

    safe, tight = _programs(rng, arguments.problems, False), _programs(rng, arguments.problems, True)
    judge("20 commands, 50 rows, nothing to change", solve, safe, *PROGRAM_BARS_US)
    judge("20 commands, 50 rows, rows in the way", solve, tight, *PROGRAM_BARS_US)
    few = max(10, arguments.problems // 10)
    judge("1,000 assets, 2 commands and 5 rows each", solve_small, _batches(rng, few), BATCH_BAR_US, BATCH_BAR_US)
    judge("a sum limit over 1,000 assets", _filled, _sums(rng, few), SUM_BAR_US, SUM_BAR_US)
    met.append(first_us <= FIRST_CALL_RATIO * later_us)
    ratio = f"{first_us:,.0f} after {later_us:,.0f}"
    rows.append(("first call after warmup, the slowest of the next", ratio, "-", "-", "-", "yes" if met[-1] else "no"))
    columns = ("case", "p50 us", "p99 us", "plain p50 / p99 us", "bars us", "met")
    notes = (f"Thread CPU time; each problem's quickest of {arguments.rounds} solutions; plain: all solutions alike.",)
    table = Table("What the shield's mathematics costs a period", columns, tuple(rows), notes)
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
