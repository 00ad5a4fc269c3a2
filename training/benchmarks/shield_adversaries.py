"""Ten million agent-steps of adversaries against the shield, on every site: how often did a hard constraint break?"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.falsifier import Outcome, Trial, falsify
from ...envs.errors import ConfigurationError
from ..report import Cell, Table, print_table, provenance, say
from .adversary_kinds import KINDS, Hostile
from .adversary_sites import ARENAS, Arena

NAME = "shield_adversaries"
SUMMARY = "adversaries against the shield on every site: hard violations in ten million agent-steps"

SEARCH = "search over schedules"
CHUNKS = "shield_adversaries.jsonl"
SEARCH_BATCHES = 8

DESCRIPTION = """\
Policies that mean harm act behind the shield on every site: a wind farm of 40 turbines with a power cap, ramps and a
soft yaw limit; spacecraft that dock; a yard that declares every kind of constraint but the look-ahead; carts that
nothing but the look-ahead keeps off their walls. They are bang-bang control, the steepest increase of violation,
replayed commands, white noise, bursts of what is no command, replayed and lost messages, and a search (CMA-ES, where
cma is installed) over schedules of commands, faults and the twin's parameters. Each site gets --agent-steps, shared
equally between adversaries.

The referee is the margin of each declared constraint on what was executed and what came of it, not the shield's own
verifier. Under messages that are faulty or lost, only constraints on commands are promised, without accelerations (a
lost write stops a command short); what becomes of the others then stands in a column of its own. Soft constraints are
reported as the share of asset-periods outside them.

Bar: no hard violation and no failure of the shield itself on any site, in 10 million agent-steps each.

Results are appended to a file in --out, piece by piece; the same command takes up an interrupted run where it stopped.
"""
EPILOG = """\
examples:
  twinloop bench shield_adversaries --agent-steps 100000
  twinloop bench shield_adversaries --sites docking --agent-steps 10000000 --out runs/shield_adversaries
"""


@dataclass
class Tally:
    """Of one adversary on one site, or of one piece of it. ``least``: the smallest margin of the hard constraints that
    were promised, in shares of their scales; ``worst``: which one; ``unpromised``: violations of the others."""

    agent_steps: int = 0
    hard: int = 0
    unpromised: int = 0
    soft: int = 0
    changed: int = 0
    failed: int = 0
    cpu_s: float = 0.0
    least: float = math.inf
    worst: str = ""
    how: str = ""
    broken: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Take in another piece."""
        for name in ("agent_steps", "hard", "unpromised", "soft", "changed", "failed", "cpu_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.least < self.least:
            self.least, self.worst, self.how = other.least, other.worst, other.how
        for name, times in other.broken.items():
            self.broken[name] = self.broken.get(name, 0) + times


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument(
        "--agent-steps", type=int, default=10_000_000, metavar="N", help="on each site, default %(default)s"
    )
    parser.add_argument("--sites", nargs="+", choices=tuple(ARENAS), default=list(ARENAS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/shield_adversaries"), metavar="DIR", help="default %(default)s"
    )


def run(arguments: argparse.Namespace) -> int:
    """Attack, print and write; 0 when the bar is met."""
    if arguments.agent_steps < 1:
        raise ConfigurationError(f"--agent-steps {arguments.agent_steps}: give 1 or more")
    rows: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    clean = True
    for site in arguments.sites:
        for adversary, tally in _attacked(site, arguments).items():
            rows.append(_row(site, adversary, tally))
            clean &= tally.hard == 0 and tally.failed == 0
            if tally.hard:
                told = ", ".join(f"{name} {times} times" for name, times in sorted(tally.broken.items()))
                notes.append(f"{site}, {adversary}: {told}; worst {tally.worst} {tally.how}".rstrip())
    columns = (
        "site", "adversary", "agent-steps", "hard violations", "least hard margin", "unpromised", "soft outside %",
        "changed %", "shield failed", "agent-steps/s",
    )  # fmt: skip
    notes += [
        "Margins are in shares of a constraint's span; unpromised: states and accelerations under faulty messages.",
        f"{'met' if clean else 'MISSED'}: no hard violation and no failure of the shield, "
        f"{arguments.agent_steps:,} agent-steps a site",
    ]
    table = Table("Adversaries against the shield", columns, tuple(rows), tuple(notes))
    print_table(table)
    table.write(arguments.out, NAME, provenance((arguments.seed,)))
    return 0 if clean else 1


def _attacked(site: str, arguments: argparse.Namespace) -> dict[str, Tally]:
    """Tallies by adversary; the pieces that the file holds already are not played again."""
    share = math.ceil(arguments.agent_steps / (len(KINDS) + 1))
    arena: Arena | None = None
    tallies: dict[str, Tally] = {}
    with _Pieces(arguments.out / CHUNKS, arguments.seed) as pieces:
        for adversary in (*(kind.name for kind in KINDS), SEARCH):
            tally = tallies[adversary] = Tally()
            for piece in range(10**9):
                if tally.agent_steps >= share:
                    break
                found = pieces.known.get((site, adversary, piece))
                if found is None:
                    arena = arena or ARENAS[site]()
                    found = play(arena, adversary, _seed(arguments.seed, piece))
                    pieces.add(site, adversary, piece, found)
                tally.add(found)
            say(f"{site}, {adversary}: {tally.agent_steps:,} agent-steps, {tally.hard} hard violations")
    return tallies


def play(arena: Arena, adversary: str, seed: int) -> Tally:
    """One episode of all replicas, or a few for the search; the same arguments give the same tally but its time."""
    begin = time.process_time()
    tally = _searched(arena, seed) if adversary == SEARCH else _played(arena, adversary, seed)
    tally.cpu_s = time.process_time() - begin
    return tally


def _played(arena: Arena, adversary: str, seed: int) -> Tally:
    kind: type[Hostile] = next(k for k in KINDS if k.name == adversary)
    trial, model = Trial(arena.model, arena.shield), arena.model
    seeds = np.arange(model.n_replicas, dtype=np.int64) + seed * model.n_replicas
    rng = np.random.default_rng(seed)
    parameters = {p.name: rng.uniform(p.minimum, p.maximum, model.n_replicas) for p in model.parameters}
    attack = kind(model.declaration, model.n_replicas, seed, arena.steer)
    outcome = trial.run(attack, seeds, arena.periods, parameters)
    return _told(trial, outcome, kind.faulty_messages)


def _told(trial: Trial, outcome: Outcome, faulty: bool) -> Tally:
    tally = Tally(outcome.agent_steps, changed=outcome.changed, failed=outcome.failed)
    tally.soft = sum(outcome.violated[name] for name in trial.soft)
    for name in trial.hard:
        if faulty and name in trial.needs_messages:
            tally.unpromised += outcome.violated[name]
            continue
        least = float(outcome.least[name].min()) / trial.scale[name]
        if least < tally.least:
            row = int(outcome.least[name].argmin())
            tally.least, tally.worst = least, name
            tally.how = f"by {-float(outcome.least[name][row]):g} in period {int(outcome.at_step[name][row])}"
        if outcome.violated[name]:
            tally.hard += outcome.violated[name]
            tally.broken[name] = outcome.violated[name]
    return tally


def _searched(arena: Arena, seed: int) -> Tally:
    found = falsify(arena.model, arena.shield, SEARCH_BATCHES * arena.model.n_replicas, arena.periods // 2, seed)
    tally = Tally(found.agent_steps, changed=found.changed, failed=found.failed)
    for f in found.findings:
        if not f.hard:
            tally.soft += f.violations
        elif not f.asked:
            tally.unpromised += f.violations
        else:
            if f.margin / f.scale < tally.least:
                tally.least, tally.worst = f.margin / f.scale, f.constraint
                tally.how = f"by {-f.margin:g} in period {f.step}: {f.schedule.describe()}"
            if f.violations:
                tally.hard += f.violations
                tally.broken[f.constraint] = tally.broken.get(f.constraint, 0) + f.violations
    return tally


class _Pieces:
    """The file of what was played: ``known`` by site, adversary and number."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self._seed = path, seed
        self.known: dict[tuple[str, str, int], Tally] = {}

    def __enter__(self) -> _Pieces:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        for line in lines:
            try:
                row: dict[str, Any] = json.loads(line)
                key, seed = (row.pop("site"), row.pop("adversary"), row.pop("piece")), row.pop("seed")
                tally = Tally(**row)
            except (ValueError, TypeError, KeyError):
                continue  # the line that was being written when a run was interrupted
            if seed != self._seed:
                raise ConfigurationError(
                    f"{self._path}: pieces of seed {seed}, asked is {self._seed}; give another --out, or remove it"
                )
            self.known[key] = tally
        self._file = self._path.open("a", encoding="utf-8")
        if lines and not self._path.read_text(encoding="utf-8").endswith("\n"):
            self._file.write("\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, site: str, adversary: str, piece: int, tally: Tally) -> None:
        row = {"site": site, "adversary": adversary, "piece": piece, "seed": self._seed, **asdict(tally)}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def _seed(seed: int, piece: int) -> int:
    return seed * 1_000_003 + piece


def _row(site: str, adversary: str, tally: Tally) -> tuple[Cell, ...]:
    steps = max(tally.agent_steps, 1)
    least = tally.least if tally.hard else max(tally.least, 0.0)  # rounding is none
    return (
        site, adversary, f"{tally.agent_steps:,}", tally.hard, f"{least:.3g}", tally.unpromised,
        f"{100 * tally.soft / steps:.2f}", f"{100 * tally.changed / steps:.1f}", tally.failed,
        f"{steps / max(tally.cpu_s, 1e-9):,.0f}",
    )  # fmt: skip
