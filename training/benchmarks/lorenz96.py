"""Ensemble filters on Lorenz-96, against the figures that are published for it."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ...envs.estimation.consistency import covered
from ...envs.estimation.settings import FilterSettings, SignalError
from ...envs.estimation.tracker import EnsembleFilter
from ..report import Cell, Table, print_table, provenance, say
from ..statistics import Interval, mean_interval
from .lorenz96_twin import GROUP, Lorenz96Twin

NAME = "lorenz96"
SUMMARY = "the live twin's ensemble filters on Lorenz-96: error and coverage against published figures"

COVERAGE_BAR = (0.93, 0.97)
BURN_IN = 400
DESCRIPTION = """\
40 states, all observed every 0.05 with variance one, 40 members (DAPPER's sakov2008 set-up; published: DEnKF 0.18,
stochastic 0.22). Members start anywhere on the attractor. Bars: root-mean-square error of the analysis <= 0.19 for the
DEnKF and <= 0.23 for the stochastic filter, coverage of the truth by the members' 95 % interval within 0.93 to 0.97;
means over the seeds, with Student's 95 % interval beside them. The ETKF is shown beside, without a bar.
"""


@dataclass(frozen=True)
class Case:
    """A filter with its settings and its bar."""

    title: str
    method: Literal["deterministic", "stochastic", "square_root"]
    inflation: float
    bar: float | None


CASES = (
    Case("DEnKF", "deterministic", 1.01, 0.19),
    Case("stochastic EnKF", "stochastic", 1.06, 0.23),
    Case("ETKF", "square_root", 1.02, None),
)


@dataclass(frozen=True)
class Tracking:
    """Means over the steps after burn-in: error of the analysis, coverage of the truth, NIS a value; CPU an update."""

    error: float
    coverage: float
    nis: float
    cpu_s: float


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench lorenz96 --seeds 10 --out results/lorenz96"
    parser.add_argument("--seeds", type=int, default=10, metavar="K", help="seeds 0 to K-1, default %(default)s")
    parser.add_argument("--steps", type=int, default=2400, metavar="N", help="steps a seed, default %(default)s")
    parser.add_argument("--members", type=int, default=40, metavar="B", help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when all bars are met."""
    torch.set_num_threads(1)
    rows: list[tuple[Cell, ...]] = []
    data: dict[str, Any] = {}
    met = True
    for case in CASES:
        found = [track(case, seed, arguments.steps, arguments.members) for seed in range(arguments.seeds)]
        error, coverage = (mean_interval([getattr(t, k) for t in found]) for k in ("error", "coverage"))
        low, high = COVERAGE_BAR
        passed = case.bar is None or (error.estimate <= case.bar and low <= coverage.estimate <= high)
        met &= passed
        bar = "none" if case.bar is None else f"<= {case.bar:g}; {low:g} to {high:g}"
        worst = f"{max(t.error for t in found):.3f}"
        rows.append((case.title, case.inflation, _shown(error), worst, _shown(coverage),
                     f"{sum(t.nis for t in found) / len(found):.3f}", f"{1e3 * found[0].cpu_s:.2f}",
                     bar, "met" if passed and case.bar is not None else "-" if passed else "missed"))  # fmt: skip
        data[case.title] = [vars(t) for t in found]
        say(f"{case.title}: error {_shown(error)}, coverage {_shown(coverage)}")
    columns = ("filter", "inflation", "error", "worst seed", "coverage", "NIS", "CPU ms", "bar", "")
    notes = (
        f"{arguments.seeds} seeds of {arguments.steps} steps, {BURN_IN} not counted; {arguments.members} members.",
        "Mean over seeds with Student's 95 % interval. CPU: one update, step and analysis, of the first seed.",
    )
    table = Table("Lorenz-96, 40 states observed each 0.05", columns, tuple(rows), notes, data)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(range(arguments.seeds)))
    return 0 if met else 1


def track(case: Case, seed: int, n_steps: int, n_members: int) -> Tracking:
    """One filter on one trajectory."""
    generator = torch.Generator().manual_seed(seed)
    truth, members = Lorenz96Twin(1), Lorenz96Twin(n_members)
    x = truth.reset(torch.tensor([10_000_019 + seed])).measured[GROUP][0]
    settings = FilterSettings(
        signals={f"{GROUP}/value": SignalError(noise=1.0)},
        method=case.method,
        inflation=case.inflation,
        outlier_sigma=100.0,
        seed=seed,
    )
    tracker = EnsembleFilter(members, settings)
    tracker.start()
    still = torch.zeros(40, 1, dtype=torch.float64)
    errors, inside, nis, cpu_s = [], [], [], 0.0
    for step in range(n_steps):
        x = truth.step({GROUP: still[None]}).measured[GROUP][0]
        observed = x + torch.randn(40, 1, generator=generator, dtype=torch.float64)
        begun_s = time.thread_time()
        tracker.advance({GROUP: still})
        found = tracker.assimilate({GROUP: observed})
        cpu_s += time.thread_time() - begun_s
        if step >= BURN_IN:
            after = members.snapshot()["x"]
            errors.append(float((after.mean(0) - x[:, 0]).square().mean().sqrt()))
            inside.append(float(covered(after, x[:, 0], torch.zeros(40, dtype=torch.float64)).double().mean()))
            nis.append(found.nis / 40.0)
    n = len(errors)
    return Tracking(sum(errors) / n, sum(inside) / n, sum(nis) / n, cpu_s / n_steps)


def _shown(interval: Interval) -> str:
    return f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
