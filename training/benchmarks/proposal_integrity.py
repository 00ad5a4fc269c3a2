"""Whether anything but what was approved is ever asked for: tampering, replay, expiry, self-approval, two tabs."""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from ...deploy.arbitration.request import Circumstances
from ...deploy.proposals.executor import Executor
from ...deploy.proposals.proposal import Proposal
from ...deploy.proposals.propose import commands_of
from ..report import Cell, Table, print_table, provenance
from .proposal_tampering import KINDS, POLICY, RARE, flip_byte
from .proposal_world import FILES, Trial, World, execute_order, started_executor

NAME = "proposal_integrity"
SUMMARY = "random tampering, replays, expiries, self-approvals and double submits: no write but what was approved"

DESCRIPTION = """\
The executor that sits in control, on a station's real files, against --trials random attempts. In each, a proposal is
made, signed, approved and simulated anew; then something is done to it (the table lists what), and its execution is
ordered. All that the executor asks for in slot 14 during the roll-out is compared, bit by bit, with what the second
person approved, as it was in his hands. One trial in ten is left alone: there the executor must accept, and ask for all
of it.

Counted as wrong: a value asked for that differs from what was approved (or is of an asset whose stage has not begun),
an attempt accepted that must be refused, one left alone that is refused, an approval that is used twice. Bar: all 0.
"""
TRIALS_PER_STATION = 8
WRONG = ("differing writes", "wrongly accepted", "wrongly refused", "used twice", "slots other than 14")
COLUMNS = ("what was done", "trials", "accepted", "refused", *WRONG)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench proposal_integrity --out results/proposal_integrity"
    parser.add_argument("--trials", type=int, default=100_000, metavar="K", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Try, count and print; 0 when nothing was wrong."""
    logging.getLogger("twinloop").setLevel(logging.CRITICAL)  # a refusal is what is expected here
    found = play(arguments.trials, arguments.seed)
    rows: list[tuple[Cell, ...]] = []
    totals = Counter[str]()
    for name in KINDS:
        count = found.get(name, Counter())
        totals += count
        rows.append((name, *(count[c] for c in COLUMNS[1:])))
    rows.append(("all", *(totals[c] for c in COLUMNS[1:])))
    wrong = sum(totals[c] for c in WRONG)
    notes = (
        "Real files (proposal.json, approval.json, recheck.json, people.json, the burnt nonces) and real signatures; "
        "the clock and what control sees of the plant are the trial's.",
        f"Bar: {', '.join(WRONG)}: 0. Found: {wrong}.",
    )
    table = Table("Integrity of approved proposals", COLUMNS, tuple(rows), notes, {"wrong": wrong})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance([arguments.seed]))
    return 0 if wrong == 0 else 1


def play(n_trials: int, seed: int) -> dict[str, Counter[str]]:
    """Counts by what was done."""
    rng = np.random.default_rng((seed, 6007))
    found: dict[str, Counter[str]] = {}
    fast = Path("/dev/shm")  # what is tried is the files' content, not the disk
    with tempfile.TemporaryDirectory(prefix="twinloop-", dir=fast if fast.is_dir() else None) as folder:
        world = World(Path(folder) / "station", rng)
        names = tuple(KINDS)
        for number in track(range(n_trials), description="trials"):
            if number % TRIALS_PER_STATION == 0:
                world.clean()
            draw = rng.random()
            if draw < 0.1:
                name = "left alone"
            elif draw < 0.11:
                name = "policy artifact changed" if rng.random() < 0.5 else "policy left alone"
            else:
                name = str(rng.choice([n for n in names if n not in RARE]))
            attempt(world, name, found.setdefault(name, Counter()))
            world.station.people.write_bytes(world.people_json)
    return found


def attempt(world: World, name: str, count: Counter[str]) -> None:
    """One trial of a kind; what came of it is added to ``count``."""
    trial = world.trial("policy" if name in POLICY else "writes")
    approved = trial.signed.proposal  # as it was in the second person's hands
    trial.executor = executor = started_executor(trial)
    count["trials"] += 1
    KINDS[name](trial)
    if trial.executor is not executor:
        executor = trial.executor
    verdict = executor.order(execute_order(trial.id, trial.now_s), trial.seen)
    count["accepted" if verdict.accepted else "refused"] += 1
    count["wrongly accepted"] += verdict.accepted and trial.must == "refuse"
    count["wrongly refused"] += not verdict.accepted and trial.must == "accept"
    if name == "files changed after the order" and verdict.accepted:
        flip_byte(trial, str(trial.rng.choice(FILES)))
        (trial.folder.path / "proposal.json").write_text("{}")
    asked = _watched(trial, executor, approved, count)
    if verdict.accepted:
        expected = 1 if name in POLICY else len(approved.writes)
        count["wrongly refused"] += trial.must == "accept" and asked < expected
        again = executor.order(execute_order(trial.id, trial.now_s, "again"), trial.seen)
        later = started_executor(trial)
        anew = later.order(execute_order(trial.id, trial.now_s, "anew"), trial.seen)
        count["used twice"] += again.accepted + anew.accepted
        _watched(trial, later, approved, count)
    if world.artifact.with_name("kept").exists():
        shutil.rmtree(world.artifact)
        world.artifact.with_name("kept").rename(world.artifact)


def _watched(trial: Trial, executor: Executor, approved: Proposal, count: Counter[str]) -> int:
    """Let the roll-out run, compare all that is asked for, and return how many commands were asked for in the end."""
    world, asked = trial.world, 0
    allowed = commands_of(world.plate, approved.writes)
    back = commands_of(world.plate, approved.rollback)
    policy = world.policy if approved.policy is not None else None
    memory = None if policy is None else policy.start(1)
    for k in range(6):
        seen = world.seen(k, 10.0 * k)
        if policy is not None and memory is not None:
            observation = _observation(world, seen)
            said, memory = policy.act(observation, memory)
            allowed = {name: value[0] for name, value in said.items()}
        requests = executor.requests(seen)
        told = executor.executions().get(approved.id)
        rolling_back = told is not None and told["status"] == "rolling back"
        begun = {a for s in approved.stages[: 1 + k] for a in s.agents}
        for request in requests:
            count["slots other than 14"] += request.slot != 14
            for g in world.plate.groups:
                said_here = (back if rolling_back else allowed)[g.name]
                here = ~np.isnan(request.values[g.name])
                fits = request.values[g.name].view(np.int64) == said_here.view(np.int64)
                begun_here = np.array([f"{g.name}/{a}" in begun for a in g.assets])[:, None]
                count["differing writes"] += int((here & ~(fits & begun_here)).sum())
                asked = int(here.sum()) if k == 5 else asked
    return asked


def _observation(world: World, seen: Circumstances) -> Any:
    from ...envs.twin import Observation

    return Observation(
        {n: v[None] for n, v in seen.values.items()},
        {g.name: g.statics_array()[None] for g in world.plate.groups},
        {n: t[None] for n, t in seen.trusted.items()},
        world.plate.period_s,
    )
