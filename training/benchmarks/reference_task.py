"""Learners' speed on the reference task, against a plain hand-written torch loop and against other libraries.

The task: 8 like assets with 10 observations and 2 actions, a leaky linear system; reward ``-mean(x^2)``; truncation
after 100 steps. It is a genuine twin and task here, so the figure holds all that training costs: registry contracts,
counter-based noise, masks, episode bookkeeping. All sides run interleaved in one job, one thread a process, and CPU
seconds count over the whole family of processes.
"""

# ruff: noqa: T201  (a benchmark prints its figure)

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ...envs.errors import ConfigurationError
from ..report import Cell, Table, provenance
from ..trainer import Trainer
from ..workers import make_collector
from .drift_site import (
    GROUP,
    HORIZON,
    ITERATIONS,
    N_ASSETS,
    SITE,
    WARM_UP,
    DriftConfig,
    DriftEncoder,
    DriftSite,
    DriftTask,
    DriftTwin,
    drift_configuration,
    drift_nameplate,
    drift_problem,
)
from .process_family import MARK
from .reference_cases import BUSY_S, CASES, N_WORKERS, WORKER_CASES, Case, measure

NAME = "reference_task"
SUMMARY = "learners: agent-steps per CPU second on the 8-asset drift task, against a plain torch PPO loop and peers"

REFERENCE = "torch_ppo.py"
MOST_USS_MIB = 300.0
MOST_CPU_RATIO = 1.15
_MODULE = f"{Case.__module__.rpartition('.')[0]}.{NAME}"  # this one, also when it runs as __main__
_MODES = {"sb3_ppo": "vec", "benchmarl_ppo": "drift"}  # what a peer's script does when its name says no more

Figures = dict[str, Any]


@dataclass(frozen=True)
class Entrant:
    """A command that prints its figures as JSON; ``folder`` is where it runs and what it imports from."""

    title: str
    command: tuple[str, ...]
    folder: Path | None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    known = [*CASES, "workers"]
    parser.add_argument(
        "--reference", type=Path, help="folder with torch_ppo.py, hp.py and drift_env.py; without it only ours is timed"
    )
    parser.add_argument(
        "--cases", default="shared,separate", help=f"of {', '.join(known)}, with commas (default shared,separate)"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="SCRIPT[:MODE]=PYTHON",
        help="also time a script of --peers by the python of its own environment: sb3_ppo:vec=venv/bin/python, "
        "rllib_ppo=..., benchmarl_ppo:pz=...",
    )
    parser.add_argument("--peers", type=Path, help="folder of the peers' scripts (default: that of --reference)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of all sides (default 3)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the tables as Markdown, CSV and JSON")
    parser.add_argument("--one", metavar="CASE", help="time one of our cases once, in this process, and print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print every side's agent-steps per CPU second and the ratios; 1 when a bar is missed."""
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return 0
    cases = _cases(arguments.cases)
    reference: Path | None = arguments.reference
    if reference is None or not (reference / REFERENCE).is_file():
        print(f"no {REFERENCE} in {reference}: only twinloop is timed; give its folder with --reference DIR")
        reference = None
        if "pettingzoo" in cases:
            raise ConfigurationError("--cases pettingzoo: steps drift_env.py of --reference; give that folder")
    entrants = _entrants(cases, reference, arguments.peers or reference, arguments.peer)
    figures: dict[str, list[Figures]] = {name: [] for name in entrants}
    for number in range(1, arguments.rounds + 1):
        for name, entrant in entrants.items():
            found = _child(entrant)
            figures[name].append(found)
            speed, wall_s = found["sps_cpu"], found["wall_s"]
            print(f"round {number}: {entrant.title}: {speed:,} agent-steps/CPU-s, {wall_s:.2f} s", flush=True)
    tables = []
    if any(name not in WORKER_CASES for name in entrants):
        tables.append((NAME, _speed_table(entrants, figures)))
    if "workers" in cases:
        tables.append((f"{NAME}_workers", _worker_table(figures)))
    for stem, table in tables:
        print(f"\n{table.markdown()}", flush=True)
        if arguments.out is not None:
            table.write(arguments.out, stem, provenance())
    return 1 if any(row[-1] == "MISSED" for _, table in tables for row in table.rows) else 0


def _cases(text: str) -> list[str]:
    known = [*CASES, "workers"]
    cases = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in cases if name not in known]:
        raise ConfigurationError(f"--cases: {', '.join(unknown)}: not known; there are {', '.join(known)}")
    return cases


def _entrants(
    cases: Sequence[str], reference: Path | None, peers: Path | None, asked: Sequence[str]
) -> dict[str, Entrant]:
    entrants: dict[str, Entrant] = {}
    if reference is not None and any(name in CASES for name in cases):
        entrants[REFERENCE] = Entrant(REFERENCE, (sys.executable, REFERENCE), reference)
        if "mappo" in cases:
            entrants["central"] = Entrant(f"{REFERENCE} --mappo", (sys.executable, REFERENCE, "--mappo"), reference)
    for name in cases:
        for one in WORKER_CASES if name == "workers" else (name,):
            case = WORKER_CASES.get(one) if name == "workers" else CASES[name]
            entrants[one] = Entrant((case or CASES[name]).title, (sys.executable, "-m", _MODULE, "--one", one), None)
    for text in asked:
        what, equals, python = text.partition("=")
        stem, _, mode = what.partition(":")
        if not equals or peers is None or not (peers / f"{stem}.py").is_file():
            raise ConfigurationError(
                f"--peer {text}: give SCRIPT[:MODE]=PYTHON, where SCRIPT.py lies in --peers or --reference, now {peers}"
            )
        mode = mode or _MODES.get(stem, "")
        command = (str(Path(python).absolute()), f"{stem}.py", *([mode] if mode else []))
        entrants[what] = Entrant(f"{stem}.py {mode}".strip(), command, peers)
    if reference is not None and "pettingzoo" in entrants:
        known = entrants["pettingzoo"]
        entrants["pettingzoo"] = Entrant(known.title, known.command, reference)
    return entrants


def _child(entrant: Entrant) -> Figures:
    """Run one side once; its last line is JSON, perhaps after the word RESULT."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment[MARK] = f"{os.getpid()}-{entrant.title}"
    environment.pop("BENCH_ID", None)  # the mark of the peers' own meter
    folder = None
    if entrant.folder is not None:
        folder = entrant.folder.absolute()
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(entrant.command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(entrant.command)} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}"
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("RESULT ", "{"))]
    found: Figures = json.loads(lines[-1].removeprefix("RESULT "))
    found.setdefault("uss_mib", found.get("uss_mb"))
    found.setdefault("n_processes", found.get("procs", 1))
    return found


def _speed_table(entrants: Mapping[str, Entrant], figures: Mapping[str, Sequence[Figures]]) -> Table:
    theirs = figures.get(REFERENCE)
    rows: list[tuple[Cell, ...]] = []
    for name, entrant in entrants.items():
        if name in WORKER_CASES:
            continue
        ours, case = figures[name], CASES.get(name, Case(entrant.title))
        ratio = None if theirs is None else _Ratio.of(ours, theirs, "sps_cpu")
        uss_mib = median(f["uss_mib"] for f in ours)
        passed = name not in CASES or uss_mib <= MOST_USS_MIB
        if ratio is not None and case.minimum is not None:
            passed = passed and ratio.middle >= case.minimum
        judged = "" if name not in CASES or (case.minimum is not None and ratio is None) else _verdict(passed)
        speed, wall = (f"{median(f[key] for f in ours):,.0f}" for key in ("sps_cpu", "sps_wall"))
        cells = (entrant.title, speed, wall, None if ratio is None else str(ratio), round(uss_mib), case.minimum)
        rows.append((*cells, judged))
    notes = (
        "Agent-steps per CPU second over all processes of a side, sampling and learning, one thread a process; "
        f"{len(next(iter(figures.values())))} rounds, interleaved in one job. Ratio to {REFERENCE} of the same round: "
        "median (smallest to largest).",
        f"Bar: that ratio at least, and at most {MOST_USS_MIB:g} MiB of memory for ours. Twinloop times 12 iterations "
        "after 2, as the reference does; peers as their scripts say.",
        "Mean reward an agent-step, first and last iteration: "
        + "; ".join(f"{entrants[n].title} {f[-1]['r0']:.3f} to {f[-1]['r1']:.3f}" for n, f in figures.items()
                    if n not in WORKER_CASES and {"r0", "r1"} <= f[-1].keys()),
    )  # fmt: skip
    columns = ("", "agent-steps/CPU-s", "agent-steps/s", "ratio", "MiB", "bar", "verdict")
    return Table("Reference task", columns, tuple(rows), notes, {"figures": dict(figures)})


def _worker_table(figures: Mapping[str, Sequence[Figures]]) -> Table:
    alone = figures["alone"]
    rows: list[tuple[Cell, ...]] = []
    for name, case in WORKER_CASES.items():
        wall = _Ratio.of(figures[name], alone, "sps_wall")
        cpu = _Ratio.of(alone, figures[name], "sps_cpu")
        passed = wall.middle >= (case.minimum or 0.0) and cpu.middle <= MOST_CPU_RATIO
        uss_mib = median(f["uss_mib"] for f in figures[name])
        speed = f"{median(f['sps_wall'] for f in figures[name]):,.0f}"
        judged = "" if case.minimum is None else _verdict(passed)
        rows.append((case.title, speed, str(wall), str(cpu), round(uss_mib), case.minimum, judged))
    notes = (
        f"{1e3 * BUSY_S:g} ms of work an environment step, {N_WORKERS} workers, {os.cpu_count()} cores. Ratios to the "
        "run in process of the same round: median (smallest to largest); wall: how many times as fast; CPU: seconds "
        f"an agent-step, at most {MOST_CPU_RATIO}. The time to start Ray is not in them.",
        "Last mean reward: " + ", ".join(f"{c.title} {figures[n][-1]['r1']:.9g}" for n, c in WORKER_CASES.items()),
    )
    columns = ("", "agent-steps/s", "wall", "CPU", "MiB", "bar", "verdict")
    return Table("Rollout workers", columns, tuple(rows), notes, {"figures": {n: figures[n] for n in WORKER_CASES}})


@dataclass(frozen=True)
class _Ratio:
    """Of one side to another, round by round."""

    middle: float
    least: float
    most: float

    @staticmethod
    def of(ours: Sequence[Figures], theirs: Sequence[Figures], key: str) -> _Ratio:
        ratios = [a[key] / b[key] for a, b in zip(ours, theirs, strict=True)]
        return _Ratio(median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f} to {self.most:.2f})"


def _verdict(passed: bool) -> str:
    return "passed" if passed else "MISSED"


__all__ = [
    "GROUP",
    "HORIZON",
    "ITERATIONS",
    "NAME",
    "N_ASSETS",
    "SITE",
    "SUMMARY",
    "WARM_UP",
    "DriftConfig",
    "DriftEncoder",
    "DriftSite",
    "DriftTask",
    "DriftTwin",
    "Trainer",
    "configure",
    "drift_configuration",
    "drift_nameplate",
    "drift_problem",
    "make_collector",
    "run",
]


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=SUMMARY)
    configure(_parser)
    sys.exit(run(_parser.parse_args()))
