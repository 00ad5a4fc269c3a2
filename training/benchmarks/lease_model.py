"""The lease protocol explored to the end of its states; and with a rule less, where a way past the bound must show."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...deploy.leases import LeaseTerms
from ...envs.errors import ConfigurationError, nearest
from ..report import Table, print_table, provenance, say
from .lease_exploration import Explored, explore
from .lease_mutants import LONGER, MUTANTS
from .lease_world import LeaseWorld

NAME = "lease_model"
SUMMARY = "the lease protocol in every reachable state: loss, delay, reordering, repeats, partition, crashes, drift"

DESCRIPTION = """\
Explore every reachable state of the lease protocol, with the code that runs. In every case a message that was sent may
arrive now, later, twice, after a younger one or never, and coordinators give whatever their ledger admits. Bars: each
exploration ends, no state passes the bound, and with any one rule removed a way past the bound is found.

What is finite: time passes in whole units, a grant being 1 to 4 of them; limits are whole or half shares; an asset has
at most one or two assignments under way at once, and restarts at most once. Between these steps nothing is proved:
tests at random with real numbers stand in there.
"""
EPILOG = """\
examples:
  twinloop bench lease_model
  twinloop bench lease_model --deep --out results/lease_model
  twinloop bench lease_model --only restart
"""


@dataclass(frozen=True)
class Case:
    """One model. ``deep``: it takes minutes, and is explored only when asked for."""

    name: str
    title: str
    world: LeaseWorld
    deep: bool = False


CASES = (
    Case("three", "three assets, every message fault", LeaseWorld(limits=(0.0, 1.0, 2.0, 3.0), prompt=False)),
    Case(
        "longer",
        "longer leases: ends at different times",
        LeaseWorld(LONGER, limits=(0.0, 2.0), entries=2, prompt=False),
    ),
    Case(
        "slow", "use comes down by one share a unit", LeaseWorld(LONGER, limits=(0.0, 2.0), entries=2, fall_per_s=1.0)
    ),
    Case(
        "crash",
        "the coordinator crashes and starts anew",
        LeaseWorld(n_coordinators=2, limits=(0.0, 2.0), entries=2, prompt=False, crash=True),
    ),
    Case("restart", "every asset restarts once", LeaseWorld(limits=(0.0, 2.0), entries=2, restarts=1)),
    Case(
        "drift",
        "every clock runs at 2/3 to 4/3 of the mean pace",
        LeaseWorld(LeaseTerms(1.0, 5.0, 1.0 / 3.0), limits=(0.0, 2.0), entries=2, paces=(1.0, 2.0)),
    ),
    Case(
        "split_pair",
        "two coordinators at once, two assets",
        LeaseWorld(n_assets=2, n_coordinators=2, limits=(0.0, 2.0), entries=2, prompt=False),
    ),
    Case(
        "finer_time",
        "a unit of time is a quarter of a grant",
        LeaseWorld(LeaseTerms(4.0, 6.0, 0.0), limits=(0.0, 2.0), entries=2),
        deep=True,
    ),
    Case(
        "finer_limits",
        "limits in half shares",
        LeaseWorld(limits=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)),
        deep=True,
    ),
    Case(
        "split",
        "two coordinators at once, three assets",
        LeaseWorld(n_coordinators=2, limits=(0.0, 2.0), entries=2),
        deep=True,
    ),
    Case(
        "crowded",
        "three assets, two assignments under way to each",
        LeaseWorld(limits=(0.0, 1.0, 2.0, 3.0), under_way=2, prompt=False),
        deep=True,
    ),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", metavar="NAME", help=f"one case of {', '.join(case.name for case in CASES)}")
    parser.add_argument("--deep", action="store_true", help="also the cases that take minutes and some GB of memory")
    parser.add_argument(
        "--at-most", type=int, default=400_000_000, metavar="N", help="states of a case, default %(default)s"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the tables as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Explore; 0 when every case ends without a violation and every mutant shows one."""
    cases = _chosen(arguments.only, arguments.deep)
    found = [(case, explore(case.world, arguments.at_most, _teller(case.title))) for case in cases]
    print_table(table := _table(found))
    for case, each in found:
        for line in described(each) if not each.safe else ():
            say(f"{case.name}: {line}")
    broken = [(rule, explore(world, 1_000_000)) for rule, world in MUTANTS] if arguments.only is None else []
    if broken:
        print_table(mutants := _mutants_table(broken))
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
        if broken:
            mutants.write(arguments.out, f"{NAME}_mutants", provenance())
    good = all(each.safe and each.ended for _, each in found) and not any(each.safe for _, each in broken)
    say("all bars met" if good else "a bar is missed")
    return 0 if good else 1


def described(found: Explored) -> list[str]:
    """The way to a state that passes the bound, a line a state: ceiling and lease of every asset."""
    lines = []
    for step, corners in enumerate(found.trace):
        leases = [
            f"lease {c.holder.lease.number} of term {c.holder.lease.term}: {c.holder.lease.limit:g} "
            f"for {c.holder.lease.until_s:g}, under way {len(c.mail)}"
            for c in corners
        ]
        lines.append(f"{step}: {'; '.join(leases)}")
    return lines


def _chosen(only: str | None, deep: bool) -> list[Case]:
    if only is None:
        return [case for case in CASES if deep or not case.deep]
    names = [case.name for case in CASES]
    if only not in names:
        raise ConfigurationError(f"--only {only!r}: no such case; there are {', '.join(names)}{nearest(only, names)}")
    return [case for case in CASES if case.name == only]


def _teller(title: str) -> Callable[[int, int], None]:
    """Say how far an exploration is, whenever it has doubled and is large."""
    told = 1_000_000

    def tell(states: int, depth: int) -> None:
        nonlocal told
        if states >= told:
            told = 2 * states
            say(f"{title}: {states:,} states, depth {depth}")

    return tell


def _table(found: list[tuple[Case, Explored]]) -> Table:
    rows = tuple(
        (
            case.title,
            f"{each.states:,}",
            f"{each.transitions:,}",
            each.depth,
            f"{each.worst:g}",
            "none" if each.safe else "found",
            "yes" if each.ended else "no",
            f"{each.seconds:.1f}",
        )
        for case, each in found
    )
    columns = ("model", "states", "transitions", "depth", "highest sum / bound", "violations", "ended", "CPU s")
    notes = (
        "Messages may be lost, delayed, reordered, repeated and cut off in every model; limits are whole shares, time "
        "passes in units of a grant or half of one, unless a row says otherwise.",
        "States that differ only in the order of assets, in numbers of the same rank, or in a common shift of time are "
        "one.",
    )
    return Table("Every reachable state of the lease protocol", columns, rows, notes)


def _mutants_table(broken: list[tuple[str, Explored]]) -> Table:
    rows = tuple(
        (rule, "no" if each.safe else "yes", "-" if each.safe else len(each.trace) - 1, f"{each.worst:g}")
        for rule, each in broken
    )
    columns = ("rule removed", "violation found", "after steps", "sum / bound")
    return Table("The protocol with one rule less", columns, rows)
