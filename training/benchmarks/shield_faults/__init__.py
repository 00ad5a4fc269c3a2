"""The fault suite of the shield: what goes wrong, and what must come of it, in one score table.

Each case is a few periods of a real shield (runtime, watchdog, lease) before a small plant in which one thing goes
wrong. Everywhere: no exception, never a command that is not finite or beyond a declared limit (by the suite's own
arithmetic), never a change beyond the rate, also when a fault is over. In each case: the right reason in the right
period, the right mode, latched and cleared as the table of causes says. The tests of ``deploy`` run the same cases.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...report import Cell


class Playable(Protocol):
    """A case of whatever kind."""

    @property
    def family(self) -> str: ...
    @property
    def name(self) -> str: ...

    def run(self) -> list[str]:
        """What is wrong, in words; empty for a case that is passed."""
        ...


NAME = "shield_faults"
SUMMARY = "the shield under every fault of the list: signals, messages, policies, modes, solvers, actuators, processes"
BAR_CASES = 250

DESCRIPTION = """\
Play every case of the fault suite and print, by family, how many there are and how many are passed, then every failure.
The bar: at least 250 cases, all of them passed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench shield_faults --family actuator"
    parser.add_argument("--family", metavar="NAME", help="only the cases of one family")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Play and print; 0 when every case is passed and there are enough of them."""
    from ...report import Table, print_table, provenance, say

    counts: dict[str, list[float]] = {}
    failures: list[str] = []
    for case in all_cases():
        if arguments.family not in (None, case.family):
            continue
        begun_s = time.thread_time()
        wrong = played(case)
        row = counts.setdefault(case.family, [0, 0, 0.0])
        row[0], row[1], row[2] = row[0] + 1, row[1] + (not wrong), row[2] + time.thread_time() - begun_s
        if wrong:
            failures.append(
                f"{case.family}: {case.name}: {wrong[0]}" + (f" (and {len(wrong) - 1} more)" * (len(wrong) > 1))
            )
    n, passed = (int(sum(row[k] for row in counts.values())) for k in (0, 1))
    rows: list[tuple[Cell, ...]] = [(name, int(c), int(p), f"{s:.1f}") for name, (c, p, s) in sorted(counts.items())]
    rows.append(("all", n, passed, f"{sum(row[2] for row in counts.values()):.1f}"))
    notes = (f"Bar: at least {BAR_CASES} cases, all passed. Commands are judged by the suite's own arithmetic.",)
    table = Table("The shield under faults", ("family", "cases", "passed", "CPU s"), tuple(rows), notes)
    print_table(table)
    for text in failures:
        say(text)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if n == passed and (n >= BAR_CASES or arguments.family is not None) and n else 1


def played(case: Playable) -> list[str]:
    """What is wrong with a case, in words; what it raises is wrong too. The faults' own log stays out of sight."""
    logging.disable(logging.CRITICAL)
    try:
        return case.run()
    except Exception as error:  # noqa: BLE001 - a case that raises is a case that failed, not the end of the suite
        return [f"raised {type(error).__name__}: {error}"]
    finally:
        logging.disable(logging.NOTSET)


def all_cases() -> Iterator[Playable]:
    """Every case, family by family."""
    from . import (
        actuator_faults,
        input_faults,
        message_faults,
        mode_faults,
        physical_faults,
        process_faults,
        proposal_faults,
        runtime_faults,
        solver_faults,
    )

    for module in (
        input_faults,
        message_faults,
        proposal_faults,
        mode_faults,
        solver_faults,
        actuator_faults,
        physical_faults,
        runtime_faults,
        process_faults,
    ):
        yield from module.cases()
