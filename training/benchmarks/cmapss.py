"""Remaining life of NASA's turbofan engines: error, coverage of intervals, and what replacing by it would cost."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...envs.prognosis.boosting import BoostingSettings, fit, folds_of
from ...envs.prognosis.cmapss import SENSORS, Cmapss, read_cmapss
from ...envs.prognosis.decision import (
    Replay,
    at_the_last_chance,
    best_age,
    by_age,
    by_threshold,
    choose_threshold,
    to_failure,
)
from ...envs.prognosis.estimate import Estimate
from ...envs.prognosis.history import Fleet
from ...envs.prognosis.score import brier, coverage, interval_score, phm08, pinball, rmse
from ..report import Cell, Table, print_table, provenance, say

NAME = "cmapss"
SUMMARY = "remaining life of turbofan engines (C-MAPSS): error, coverage, cost of replacing by it, out of fold"

RMSE_BAR, COVERAGE_BAR, COST_BAR, FAILURES_BAR = 12.0, (0.85, 0.95), 0.0052, 1
EVERY, HORIZON = 10, 30
COST_RATIOS = (3.0, 5.0, 10.0)
DESCRIPTION = """\
Gradient boosting on 30-cycle windows, remaining life cut off at 125 cycles. Bars are FD001's: RMSE <= 12 on the test
engines; 85 to 95 % coverage of the 90 % interval, on the test engines and on engines left out; replacing engines when
their predicted life falls to a threshold, looked at every 10 cycles: <= 0.0052 a cycle (replacement 1, failure 3, 5 or
10) with <= 1 failure in 100 engines.

Out of fold: an outer fold of engines is set aside, everything else - trees, calibration, threshold - is made of the
others, which has its own inner folds; then the fold is judged. Nothing is chosen on what it is judged by. The data are
not shipped: give the folder of train_FD001.txt, test_FD001.txt and RUL_FD001.txt.
"""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Engines of one outer fold: what was said at every cycle, and the threshold that the others chose, by cost
    ratio."""

    names: tuple[str, ...]
    estimates: list[Estimate]
    expected: list[Floats]
    thresholds: dict[float, float]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench cmapss --data CMAPSSData --out results/cmapss"
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="where the text files are")
    parser.add_argument("--set", dest="subset", default="FD001", help="FD001 (default) to FD004; bars are FD001's")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of folds and trees, default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Fit, judge and print; 0 when all bars are met."""
    began = time.process_time()
    read = read_cmapss(arguments.data, arguments.subset)
    data = Cmapss(read.train.with_signals(SENSORS), read.test.with_signals(SENSORS), read.left)
    say(f"{len(data.train.units)} engines to fit, {len(data.test.units)} to judge")
    rows: list[tuple[Cell, ...]] = []
    met, found = list[bool](), dict[str, Any]()
    intervals: tuple[Literal["errors", "quantiles"], ...] = ("errors", "quantiles")
    for interval in intervals:
        settings = BoostingSettings(interval=interval, seed=arguments.seed)
        rows += _on_test(data, settings, met, found)
        say(f"{interval}: test engines judged, {time.process_time() - began:.0f} CPU s")
        judged = _out_of_fold(data.train, settings)
        rows += _left_out(data.train, settings, judged, met, found)
        say(f"{interval}: engines left out judged, {time.process_time() - began:.0f} CPU s")
        if interval == "errors":
            decisions = _decisions(data.train, judged, met, found)
    rows += decisions
    notes = (
        "Truth cut off at 125 cycles, as predictions are; an interval that reaches 125 means that or more. errors: "
        "intervals of what predictions were wrong by; quantiles: conformalised quantile regression.",
        "Out of fold: five outer folds of engines, five inner ones of the others; each engine counts once.",
        f"Decisions every {EVERY} cycles. Ages and the last chance are chosen on the very engines that they are judged "
        "on, thresholds are not.",
        "Settings and features were chosen by left-out errors on the training engines, which out-of-fold figures are "
        "of too: that choice alone is not nested.",
        f"{time.process_time() - began:.0f} CPU seconds, {arguments.subset}, seed {arguments.seed}.",
    )
    table = Table(f"C-MAPSS {arguments.subset}", ("figure", "value", "bar", "met"), tuple(rows), notes, found)
    print_table(table)
    if arguments.out is not None:
        packages = {"scikit-learn": _version("scikit-learn")}
        table.write(arguments.out, NAME, provenance((arguments.seed,), **packages))
    return 0 if all(met) else 1


def _on_test(
    data: Cmapss, settings: BoostingSettings, met: list[bool], found: dict[str, Any]
) -> list[tuple[Cell, ...]]:
    life, _ = fit(data.train, settings)
    truth = np.minimum(data.left, settings.cap)
    estimate = life.now(data.test, HORIZON)
    expected = life.expected(np.array([table[-1] for table in life.rows(data.test)]))
    error, covered = rmse(expected, truth), coverage(estimate.low, estimate.high, truth)
    name = settings.interval
    rows: list[tuple[Cell, ...]] = []
    if name == "errors":
        rows = [
            _bar("test engines: RMSE, cycles", f"{error:.2f}", f"<= {RMSE_BAR:g}", error <= RMSE_BAR, met),
            ("test engines: PHM08 score", f"{phm08(expected, truth):.0f}", "-", "-"),
            (f"test engines: Brier score, fails within {HORIZON} cycles",
             f"{brier(estimate.chance, truth <= HORIZON):.4f}", "-", "-"),
        ]  # fmt: skip
    rows += [
        _within(f"test engines: coverage of 90 % ({name})", covered, met),
        (f"test engines: mean width, interval score ({name})",
         f"{np.mean(estimate.high - estimate.low):.1f}, "
         f"{interval_score(estimate.low, estimate.high, truth, estimate.level):.1f}", "-", "-"),
    ]  # fmt: skip
    found[f"test_{name}"] = {
        "rmse": error, "coverage": covered, "engines": [
            {"engine": n, "left": float(t), "expected": float(e), "low": float(lo), "high": float(hi)}
            for n, t, e, lo, hi in zip(estimate.names, data.left, expected, estimate.low, estimate.high, strict=True)
        ],
    }  # fmt: skip
    return rows


def _out_of_fold(train: Fleet, settings: BoostingSettings) -> list[Judged]:
    """Each engine by what was made of the others alone."""
    fold = folds_of(len(train.units), settings.model_copy(update={"seed": settings.seed + 1}))
    judged = []
    for k in range(settings.folds):
        others, these = train.pick(np.flatnonzero(fold != k)), train.pick(np.flatnonzero(fold == k))
        life, left_out = fit(others, settings)
        inner = [left_out.point[left_out.unit == u] for u in range(len(others.units))]
        candidates = np.arange(5.0, 40.5, 0.5).tolist()
        thresholds = {cf: choose_threshold(inner, cf, EVERY, candidates) for cf in COST_RATIOS}
        tables = life.rows(these)
        estimates = [life.estimate(t, HORIZON, tuple(map(str, range(len(t))))) for t in tables]
        judged.append(Judged(these.names, estimates, [life.expected(t) for t in tables], thresholds))
    return judged


def _left_out(
    train: Fleet, settings: BoostingSettings, judged: list[Judged], met: list[bool], found: dict[str, Any]
) -> list[tuple[Cell, ...]]:
    estimates = [e for j in judged for e in j.estimates]
    low, high = (np.concatenate([getattr(e, name) for e in estimates]) for name in ("low", "high"))
    median = np.concatenate([e.median for e in estimates])
    expected = np.concatenate([e for j in judged for e in j.expected])
    truth = np.concatenate([np.minimum(np.arange(len(e.low) - 1, -1, -1.0), settings.cap) for e in estimates])
    each = np.concatenate([np.full(len(e.low), 1.0 / len(e.low)) for e in estimates])
    name = settings.interval
    rows = [_within(f"left out, any cycle: coverage of 90 % ({name})", coverage(low, high, truth, each), met)]
    by_life = {}
    for begin, end in ((0, 25), (25, 50), (50, 125)):
        here = (median >= begin) & (median < end)
        share = coverage(low[here], high[here], truth[here], each[here])
        by_life[f"{begin}-{end}"] = share
        rows.append((f"left out, {begin} to {end} cycles predicted: coverage ({name})", f"{share:.1%}", "-", "-"))
    if name == "errors":
        error = float(np.sqrt(np.average((expected - truth) ** 2, weights=each)))
        rows += [
            ("left out, any cycle: RMSE, cycles", f"{error:.2f}", "-", "-"),
            ("left out, any cycle: pinball loss of the median", f"{pinball(median, truth, 0.5):.2f}", "-", "-"),
        ]
    found[f"left_out_{name}"] = {"coverage": coverage(low, high, truth, each), "by_median": by_life}
    return rows


def _decisions(train: Fleet, judged: list[Judged], met: list[bool], found: dict[str, Any]) -> list[tuple[Cell, ...]]:
    lives, rows = train.lives.tolist(), list[tuple[Cell, ...]]()
    for cf in COST_RATIOS:
        parts = [by_threshold(j.expected, j.thresholds[cf], EVERY) for j in judged]
        ours = Replay(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("cycles", "failed", "lives")))
        cost, fails = ours.cost(cf), int(ours.failed.sum())
        age = best_age(lives, cf)
        fixed, last, ran = by_age(lives, age), at_the_last_chance(lives, EVERY), to_failure(lives)
        chosen = sorted({j.thresholds[cf] for j in judged})
        good = cost <= COST_BAR and fails <= FAILURES_BAR
        rows += [
            _bar(f"failure costs {cf:g}: a cycle, out of fold", f"{cost:.5f}, {fails} failed, {ours.wasted:.1f} wasted",
                 f"<= {COST_BAR}, <= {FAILURES_BAR} failed", good, met),
            (f"failure costs {cf:g}: thresholds chosen in fold", ", ".join(f"{t:g}" for t in chosen), "-", "-"),
            (f"failure costs {cf:g}: run to failure, best age ({age}), last chance",
             f"{ran.cost(cf):.5f}, {fixed.cost(cf):.5f}, {last.cost(cf):.5f}", "-", "-"),
        ]  # fmt: skip
        found[f"decision_{cf:g}"] = {
            "cost": cost, "failed": fails, "wasted": ours.wasted, "thresholds": chosen, "run_to_failure": ran.cost(cf),
            "best_age": age, "best_age_cost": fixed.cost(cf), "last_chance": last.cost(cf),
        }  # fmt: skip
    return rows


def _bar(what: str, value: str, bar: str, good: bool, met: list[bool]) -> tuple[Cell, ...]:
    met.append(good)
    return (what, value, bar, "yes" if good else "NO")


def _within(what: str, share: float, met: list[bool]) -> tuple[Cell, ...]:
    low, high = COVERAGE_BAR
    return _bar(what, f"{share:.1%}", f"{low:.0%} to {high:.0%}", low <= share <= high, met)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
