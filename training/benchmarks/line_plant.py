"""A trained, shielded policy on the event-driven line with drift and faults: what it keeps of its gain in the twin."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy import stats

from ...envs.configuration import load_mapping
from ...envs.errors import ConfigurationError
from ...envs.plant_file import load_plant_file
from ...envs.production_line.config import LineConfig
from ..report import Cell, Table, print_table, provenance, say
from ..seed_list import parse_seeds
from .line_plant_case import Case, Plan, case
from .line_plant_earnings import earnings

NAME = "line_plant"
SUMMARY = "a policy on the line's plant with drift and faults: what it keeps of its gain in the calibrated live twin"

BAR = 0.98
LEVEL = 0.95

DESCRIPTION = f"""\
For each plant seed: the emulated line runs under the baseline while the live twin follows its telemetry and learns its
machines. Then the twin stands where the plant is, and from there both go on, each once with the baseline and once with
the policy, over the same stretch: the twin's members by its own chance, the plant with drift, faults and the same seed,
where every command of the policy passes the shield as in deployment.

The baseline is a line that is always on; where machines wear, each is replaced at its best age alone, T*, by a
first-in-first-out crew. Profit is that of --train's task. In a row a part counts when the slowest machine has made it:
what is in the buffers at the end is not lost, and would else weigh more than the gain.

Bars: the policy's gain over the baseline on the plant is at least {BAR:.0%} of that in the calibrated twin, over all
seeds; on no seed does the policy earn less than the baseline. The gain in the sense of average-reward control, the
whole profit, is told beside it: it hides losses behind the value of parts that any policy makes.
"""
EPILOG = """\
examples:
  twinloop bench line_plant runs/line_energy-*/artifact
  twinloop bench line_plant runs/line_fleet-*/artifact --plant configs/production_line/plant_wear.yaml \\
      --train configs/production_line/train_fleet.yaml --hours 480
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    folder = Path("configs/production_line")
    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="folder of a policy artifact")
    parser.add_argument("--plant", type=Path, default=folder / "plant_drift.yaml", metavar="FILE", help="%(default)s")
    parser.add_argument("--train", type=Path, default=folder / "train_energy.yaml", metavar="FILE",
                        help="whose task says what is earned, default %(default)s")  # fmt: skip
    parser.add_argument("--seeds", default="10..25", metavar="LIST", help="plant seeds, default %(default)s")
    parser.add_argument("--hours-before", type=float, default=24.0, metavar="H",
                        help="that the live twin learns from, default %(default)g")  # fmt: skip
    parser.add_argument("--hours", type=float, default=48.0, metavar="H", help="compared, default %(default)g")
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when both bars are met."""
    prices = earnings(load_mapping(arguments.train).get("task") or {}, str(arguments.train))
    _, config, _ = load_plant_file(arguments.plant)
    if not isinstance(config, LineConfig):
        raise ConfigurationError(f"{arguments.plant}: is no production line")
    plan = Plan(
        arguments.artifact, arguments.plant, prices,
        *(round(h * 3600.0 / config.dt_s) for h in (arguments.hours_before, arguments.hours)),
    )  # fmt: skip
    seeds, cases = parse_seeds(arguments.seeds), []
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        for found in pool.map(case, [plan] * len(seeds), seeds):
            cases.append(found)
            say(
                f"seed {found.seed}: gain {found.plant_gain:.4g} on the plant, {found.twin_gain:.4g} in the twin; "
                f"gate {'open' if found.gate_open else 'closed'}, NIS {found.nis:.2f}, {found.cpu_s:.0f} CPU s"
            )
    table, met = summary(cases, plan, config)
    print_table(table)
    if arguments.out is not None:
        stem = f"{NAME}_{arguments.plant.stem.removeprefix('plant_')}"
        table.write(arguments.out, stem, provenance(seeds, policy=_fingerprint(arguments.artifact)))
    return 0 if met else 1


def summary(cases: Sequence[Case], plan: Plan, config: LineConfig) -> tuple[Table, bool]:
    """The table, and whether both bars are met."""
    gain = ratio([c.plant_gain for c in cases], [c.twin_gain for c in cases])
    profit = ratio([c.plant_profit + c.plant_gain for c in cases], [c.twin_profit + c.twin_gain for c in cases])
    worst = min(c.plant_gain for c in cases)
    below = sum(c.plant_gain < 0.0 for c in cases)
    # a share of a loss says nothing: two losses would make a fine one
    keeps = gain[0] >= BAR and sum(c.twin_gain for c in cases) > 0.0
    names = sorted(cases[0].true)
    off = {n: [c.estimated[n] - c.true[n] for c in cases] for n in names}
    hour = config.dt_s / 3600.0
    rows: list[tuple[Cell, ...]] = [
        ("plant seeds", len(cases)),
        ("hours learnt from, compared", f"{plan.before * hour:g}, {plan.periods * hour:g}"),
        ("baseline's profit a period, twin and plant", _pair(cases, "twin_profit", "plant_profit")),
        ("policy's gain over it, twin and plant", _pair(cases, "twin_gain", "plant_gain")),
        ("gain kept, with 95 % interval over seeds", "{:.1%} ({:.1%} to {:.1%})".format(*gain)),
        (f"bar: {BAR:.0%} of the twin's gain kept", "met" if keeps else "missed"),
        ("seeds on which it earns less than the baseline", below),
        ("least gain on a seed", f"{worst:.4g}"),
        ("bar: never below the baseline", "met" if not below else "missed"),
        ("whole profit kept, with 95 % interval", "{:.2%} ({:.2%} to {:.2%})".format(*profit)),
        ("gates open when the twin had learnt", f"{sum(c.gate_open for c in cases)} of {len(cases)}"),
        ("NIS, coverage of forecasts, means", f"{_mean(cases, 'nis'):.2f}, {_mean(cases, 'coverage'):.3f}"),
        *((f"{n}: error of the estimate, mean and rms", f"{np.mean(v):+.4f}, {np.sqrt(np.mean(np.square(v))):.4f}")
          for n, v in off.items()),
        *((f"{n} of what is declared, learnt and true", f"{np.mean([c.paces[n][0] for c in cases]):.3f}, "
           f"{cases[0].paces[n][1]:.3f}") for n in cases[0].paces),
        ("commands changed by the shield, a seed", f"{_mean(cases, 'interventions'):.1f}"),
        ("periods on a fallback, a seed", f"{_mean(cases, 'fallback_periods'):.1f}"),
        ("CPU s a seed", f"{_mean(cases, 'cpu_s'):.0f}"),
    ]  # fmt: skip
    notes = (
        "The plant is event-driven and shares no code with the twin; its file says its drift and faults.",
        "Twin: the live twin's members after the first stretch, machines as learnt, from the plant's present state.",
        "Intervals: of a ratio of sums over seeds, by Student's t on its residuals.",
    )
    data = {
        "cases": [
            vars(c) | {"estimated": dict(c.estimated), "true": dict(c.true), "paces": dict(c.paces)} for c in cases
        ]
    }
    title = f"{plan.artifact.parent.name} on {plan.plant_file.name}"
    return Table(title, ("figure", "value"), tuple(rows), notes, data), keeps and not below


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of sums with its interval (Cochran 1977, "Sampling Techniques", section 6.4); NaN of nothing."""
    a, b = np.asarray(above), np.asarray(below)
    if b.sum() == 0.0:
        return math.nan, math.nan, math.nan
    found = float(a.sum() / b.sum())
    error = float((a - found * b).std(ddof=1) / (abs(b.mean()) * math.sqrt(len(a)))) if len(a) > 1 else math.nan
    half = float(stats.t.ppf(0.5 * (1.0 + LEVEL), max(1, len(a) - 1))) * error
    return found, found - half, found + half


def _mean(cases: Sequence[Case], name: str) -> float:
    return float(np.mean([float(getattr(c, name)) for c in cases]))


def _pair(cases: Sequence[Case], first: str, second: str) -> str:
    return f"{_mean(cases, first):.4g}, {_mean(cases, second):.4g}"


def _fingerprint(artifact: Path) -> str:
    return hashlib.sha256((artifact / "MANIFEST.sha256").read_bytes()).hexdigest()[:12]
