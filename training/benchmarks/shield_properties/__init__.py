"""Properties of the whole shield on random sites under random proposals and readings, by Hypothesis."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...report import Cell
    from .example import Example

NAME = "shield_properties"
SUMMARY = "what holds for every answer of the shield: finite, in range, idempotent, ... on random sites of all kinds"
BAR_EXAMPLES = 10_000

DESCRIPTION = """\
Check each invariant of Shield.filter on many examples: a random site of several hundred, with constraints of every
kind, some hostile periods before, then one with a random proposal and a faulty reading. The bar: 10,000 examples an
invariant and no failure. Hypothesis (in the extra "dev") searches and shrinks; a failure is printed as its numbers.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench shield_properties --examples 500 --only idempotent"
    parser.add_argument("--examples", type=int, default=BAR_EXAMPLES, metavar="N", help="of each invariant (10,000)")
    parser.add_argument("--only", metavar="NAME", help="one invariant")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Search and print; 0 when nothing was found."""
    from ....envs.errors import ConfigurationError, nearest
    from ...report import Table, print_table, provenance, say
    from .invariants import INVARIANTS

    if arguments.only is not None and arguments.only not in INVARIANTS:
        raise ConfigurationError(
            f"invariant {arguments.only!r} is not known; there are {', '.join(INVARIANTS)}"
            f"{nearest(arguments.only, INVARIANTS)}"
        )
    rows: list[tuple[Cell, ...]] = []
    failures: list[str] = []
    for name, invariant in INVARIANTS.items():
        if arguments.only not in (None, name):
            continue
        begun_s = time.thread_time()
        n, found = search(invariant, arguments.examples)
        rows.append((name, n, 0 if not found else 1, f"{time.thread_time() - begun_s:.0f}"))
        failures += [f"{name}: {found}"] if found else []
    notes = (
        f"Bar: {BAR_EXAMPLES:,} examples an invariant, no failure. The search of an invariant ends at its first one.",
    )
    table = Table("Properties of the shield", ("invariant", "examples", "failures", "CPU s"), tuple(rows), notes)
    print_table(table)
    for text in failures:
        say(text)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 1 if failures else 0


def search(invariant: Callable[[Example], None], n_examples: int) -> tuple[int, str]:
    """How many examples were tried, and the smallest that breaks the invariant, with how it does; empty if none."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from .example import FAULTS, Example
    from .random_sites import N_SITES

    tried = 0
    last: list[Any] = []

    @settings(
        max_examples=n_examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),  # examples are large on purpose
    )
    @given(
        st.builds(
            Example,
            site=st.integers(0, N_SITES - 1),
            seed=st.integers(0, 2**32 - 1),
            before=st.integers(0, 6),
            fault=st.sampled_from(FAULTS),
        )
    )
    def holds(example: Example) -> None:
        nonlocal tried
        tried += 1
        last[:] = [example]
        invariant(example)

    logging.disable(logging.CRITICAL)  # the shield logs what it survives, and here that is all there is
    try:
        holds()
    except AssertionError as error:
        return tried, f"{last[0]}: {error}"
    finally:
        logging.disable(logging.NOTSET)
    return tried, ""
