"""Do machines learn when to sleep and how fast to run: what they earn beside the exact optimum, and on unseen lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ...envs.configuration import load
from ...envs.errors import ConfigurationError
from ...envs.production_line.config import LineConfig
from ..configuration import TrainConfiguration, training_model
from ..report import Cell, Table, print_table, provenance, say
from ..statistics import mean_interval
from .foreign_jobs import Job, Result, add_seed_arguments, chosen, run_jobs, seed_range
from .line_energy_jobs import PERIODS, judge, judge_any, judge_any_run, judge_run, reference, unseen_line

NAME = "line_energy"
SUMMARY = "energy and speed of production lines: learned agents beside the exact optimum, and on unseen lines"

SHARE_BAR, SIGMAS, Z95 = 0.99, 3.0, 1.96


@dataclass(frozen=True)
class Row:
    """A line whose optimum is known; ``published``: that optimum, to the digits that it was published with."""

    config: str
    what: str
    published: float
    kind: Literal["energy", "none", "speed"] = "energy"


ROWS = {
    "energy": Row("train_energy", "p .95 .6 .95, N 10, W 1", 206.4344),
    "energy_w2": Row("train_energy_w2", "p .95 .6 .95, N 10, W 2", 205.5542),
    "energy_shallow": Row("train_energy_shallow", "p .9 .75 .9, N 5, W 0", 50.2636),
    "energy_none": Row("train_energy_none", "p .9 .75 .9, N 5, W 1", 49.3997, "none"),
    "speed_cubic": Row("train_speed_cubic", "p .95 .85 .95, N 5, 5 + 10 s^3 kW", 12.16, "speed"),
    "speed_proportional": Row("train_speed_proportional", "p .95 .85 .95, N 5, 9 + 6 s kW", 7.23, "speed"),
}
"""W counts the slots of warm-up after the one in which a machine is told to be on; the twin's ``warm_up_slots`` counts
that one too."""
ANY = "any_line"
_ANY_CONFIG = "train_any_line"

DESCRIPTION = f"""\
Six lines whose best average gain is known exactly (value of parts less power, a slot of 60 s): four on when to sleep,
two on how fast to run. For each, and each seed, agents learn (configs/production_line/train_*.yaml), then act without
exploration: judged exactly by the decision process, and on fresh replicas of the twin, {PERIODS} slots each.
Bars: every seed earns >= {SHARE_BAR:.0%} of the optimum; where there is nothing to save (energy_none), no gain over
always on is claimed. The twin itself must give, with the optimal policy, the exact gain within {SIGMAS:.0f} standard
errors.

Then one policy, taught on random lines that are solved exactly, is taken to lines that it never saw, without
retraining, beside the hysteresis that a search tunes for each of those lines. Bar: the mean ratio of gains over the
lines is >= 1.

With --runs, the policies of run folders (`twinloop train`) are judged instead of learning here.
"""
EPILOG = """\
examples:
  twinloop bench line_energy --seeds 2..4 --lines 20..39 --out results/line_energy
  twinloop bench line_energy --rows speed_cubic --seeds 0
  twinloop bench line_energy --runs runs/line_energy-20261123T061944Z runs/any_line-20261123T070000Z
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--rows", default=",".join((*ROWS, ANY)), help="default %(default)s")
    parser.add_argument(
        "--lines", default="20..39", metavar="A..B", help="numbers of unseen lines, default %(default)s"
    )
    parser.add_argument(
        "--configs", type=Path, default=Path("configs/production_line"), metavar="DIR", help="default %(default)s"
    )
    parser.add_argument("--replicas", type=int, default=1000, metavar="K", help="of the twin, default %(default)s")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], metavar="RUN", help="run folders to judge")
    add_seed_arguments(parser, seeds="0..2")


def run(arguments: argparse.Namespace) -> int:
    """Learn or read, judge, print; 0 when every bar is met."""
    torch.set_num_threads(1)
    lines, replicas = seed_range(arguments.lines, "--lines"), arguments.replicas
    for option, value in (("--lines", len(lines)), ("--replicas", replicas)):
        if value < 2:
            raise ConfigurationError(f"{option}: {value}; give two or more")
    names = chosen(arguments.rows, (*ROWS, ANY), "--rows")
    configs = {name: _config(arguments.configs, name) for name in names}
    runs = _runs(arguments.runs, configs)
    if runs:
        names = [name for name in names if runs.get(name)]
    seeds = seed_range(arguments.seeds)
    jobs = [Job(f"{name}-references", 0, reference, (configs[name], replicas)) for name in names if name != ANY]
    if ANY in names:
        drawn_from = (configs[ANY].site, dict(configs[ANY].task.options), replicas)
        jobs += [Job(f"unseen-{k}", k, unseen_line, drawn_from) for k in lines]
    for name in names:
        more = (tuple(lines), replicas) if name == ANY else (replicas,)
        work, from_run = (judge_any, judge_any_run) if name == ANY else (judge, judge_run)
        if runs:
            jobs += [Job(name, k, from_run, (configs[name], str(r), *more)) for k, r in enumerate(runs[name])]
        else:
            jobs += [Job(name, seed, work, (configs[name], *more)) for seed in seeds]
    results = run_jobs(jobs, arguments.out, arguments.parallel)
    by_name: dict[str, list[Result]] = {}
    for job, result in zip(jobs, results, strict=True):
        by_name.setdefault("unseen" if job.work is unseen_line else job.name, []).append(result)
    known = [name for name in names if name != ANY]
    tables = {NAME: _rows_table(known, by_name)} if known else {}
    if ANY in names:
        tables["unseen_lines"] = _any_table(
            by_name, [r.name for r in runs[ANY]] if runs else [f"seed {k}" for k in seeds]
        )
    for stem, table in tables.items():
        print_table(table)
        if arguments.out is not None:
            table.write(arguments.out, stem, provenance(seeds))
    passed = all(table.data["passed"] for table in tables.values())
    say("all bars met" if passed else "some bars missed")
    return 0 if passed else 1


def _config(folder: Path, name: str) -> TrainConfiguration:
    file = folder / f"{_ANY_CONFIG if name == ANY else ROWS[name].config}.yaml"
    config = load(file, training_model(file))
    if not isinstance(config.site, LineConfig):
        raise ConfigurationError(f"{file}: site is no production line")
    return config


def _runs(folders: Sequence[Path], configs: dict[str, TrainConfiguration]) -> dict[str, list[Path]]:
    """Run folders by row; raises ConfigurationError for a run of another line."""
    found: dict[str, list[Path]] = {name: [] for name in configs} if folders else {}
    for folder in folders:
        file = folder / "config.yaml"
        site = load(file, training_model(file)).site
        match = next((name for name, config in configs.items() if config.site == site), None)
        if match is None:
            raise ConfigurationError(f"--runs: {folder}: its site is none of the rows' ({', '.join(configs)})")
        found[match].append(folder)
    return found


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def _rows_table(names: Sequence[str], by_name: dict[str, list[Result]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    met: list[bool] = []
    for name in names:
        row, told, seeds = ROWS[name], by_name[f"{name}-references"][0], by_name[name]
        classical = told["one_speed" if row.kind == "speed" else "hysteresis"]
        gains = np.array([r["gain"] for r in seeds])
        share = gains / told["optimum"]
        error = np.sqrt(np.sum([r["twin_se"] ** 2 for r in seeds])) / len(seeds)
        met.append(bool(share.min() >= SHARE_BAR))
        rows.append((
            f"{name}: {row.what}", f"{told['optimum']:.4f}", f"{told['always_on']:.4f}",
            f"{classical:.4f}", f"{gains.mean():.4f} ({gains.min():.4f})",
            f"{share.mean():.2%} ({share.min():.2%})", _with_error(np.mean([r["twin"] for r in seeds]), error),
            f">= {SHARE_BAR:.0%}", _met(met[-1]),
        ))  # fmt: skip
        off = (told["twin"] - told["optimum"]) / told["twin_se"]
        met.append(bool(abs(off) <= SIGMAS and abs(told["optimum"] - row.published) < 0.005))
        rows.append((
            "  optimal policy on the twin", f"{told['optimum']:.4f}", "", "", "", "",
            _with_error(told["twin"], told["twin_se"]), f"<= {SIGMAS:.0f} SE", _met(met[-1]),
        ))  # fmt: skip
        if row.kind == "none":
            over = float(np.mean([r["over_on"] for r in seeds]))
            error = float(np.sqrt(np.sum([r["over_on_se"] ** 2 for r in seeds]))) / len(seeds)
            met.append(over - Z95 * error <= 0.0)
            rows.append(("  gain over always on", f"{told['optimum'] - told['always_on']:.4f}", "", "",
                         f"{gains.mean() - told['always_on']:+.4f}", "", _with_error(over, error), "none claimed",
                         _met(met[-1])))  # fmt: skip
    columns = (
        "line",
        "optimum",
        "always on",
        "classical",
        "learned (worst)",
        "share (worst)",
        "on the twin",
        "bar",
        "",
    )
    judged = [r for name in names for r in by_name[name]]
    notes = (
        "Gain: value of parts less kW, a slot. Learned: exact, mean over seeds and (worst), which has the bar.",
        "Classical: hysteresis tuned on the twin, or the best speed for all. On the twin: 95 %, fresh replicas.",
        f"{max((len(by_name[n]) for n in names), default=0)} seeds; {_spent(judged)} CPU s a seed, judging included.",
    )
    data = {"results": by_name, "passed": all(met)}
    return Table("Energy and speed of lines, beside the exact optimum", columns, tuple(rows), notes, data)


def _with_error(mean: float, standard_error: float) -> str:
    return f"{mean:.4f} +- {Z95 * standard_error:.4f}"


def _spent(results: Sequence[Result]) -> str:
    spent = [r["cpu_s"] for r in results]
    return f"{min(spent):.0f} to {max(spent):.0f}" if spent else "no"


def _any_table(by_name: dict[str, list[Result]], learners: Sequence[str]) -> Table:
    lines, seeds = by_name["unseen"], by_name[ANY]
    tuned, on, tuned_kw, on_kw = (
        np.array([k[name] for k in lines]) for name in ("hysteresis", "always_on", "hysteresis_kw", "always_on_kw")
    )
    learned, kw = (np.array([r[name] for r in seeds]) for name in ("gain", "power_kw"))
    ratio = learned / tuned
    over = mean_interval(ratio.mean(0))
    good = over.estimate >= 1.0
    figures = [
        (
            "learned over tuned hysteresis, mean of lines",
            f"{over.estimate:.5f} [{over.low:.5f}, {over.high:.5f}]",
            ">= 1",
        ),
        *(
            (
                f"  {name}",
                f"{row.mean():.5f}, worst line {row.min():.5f}, on {np.mean(row >= 1):.0%} not below",
                "none",
            )
            for name, row in zip(learners, ratio, strict=True)
        ),
        ("learned over always on", f"{(learned / on).mean():.5f}", "none"),
        ("tuned hysteresis over always on", f"{(tuned / on).mean():.5f}", "none"),
        ("power of learned over always on", f"{(kw / on_kw).mean() - 1:+.2%}", "none"),
        ("power of tuned hysteresis over always on", f"{(tuned_kw / on_kw).mean() - 1:+.2%}", "none"),
    ]
    rows: list[tuple[Cell, ...]] = [(*f, _met(good) if k == 0 else "") for k, f in enumerate(figures)]
    sizes = [k["machines"] for k in lines]
    notes = (
        f"{len(lines)} lines of {min(sizes)} to {max(sizes)} machines, drawn as in training, seen by no learner; "
        f"{len(seeds)} seeds, {_spent(seeds)} CPU s each, judging included.",
        f"All on the same fresh replicas, {PERIODS} slots each; interval: Student's, 95 %, over lines.",
        "The hysteresis is tuned for each line by a search on other replicas of that very line.",
    )
    data = {"lines": lines, "learned": learned.tolist(), "passed": bool(good)}
    return Table("Unseen lines, without retraining", ("figure", "value", "bar", ""), tuple(rows), notes, data)
