"""``twinloop bench``: list the benchmarks, or run one."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..benchmarks import benchmarks, find
from ..output_folder import make_folder

DESCRIPTION = """\
Run a benchmark, print its figure beside its bar, and exit with 0 when the bar is met and 1 when it is missed.
Without a name, list the benchmarks. `twinloop bench NAME --help` explains one.
"""
EPILOG = """\
examples:
  twinloop bench
  twinloop bench steady_gain runs/any_farm/artifact --random 20
  twinloop bench plant_day --help

exit status: 0 the bar is met, 1 it is missed, 2 wrong input.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; what follows the name belongs to the benchmark."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="the benchmark; absent: list them all")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="the benchmark's own arguments")


def run(arguments: argparse.Namespace) -> int:
    """List, or run one; returns the exit status."""
    if arguments.name is None:
        known = benchmarks()
        width = max(map(len, known), default=0)
        for benchmark in known.values():
            print(f"  {benchmark.name:<{width}}  {benchmark.summary}")
        print("\ntwinloop bench NAME --help explains a benchmark")
        return 0
    benchmark = find(arguments.name)
    module = benchmark.load()
    parser = argparse.ArgumentParser(
        prog=f"twinloop bench {benchmark.name}",
        description=benchmark.summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    chosen = parser.parse_args(arguments.rest)
    if getattr(chosen, "out", None) is not None:
        make_folder(Path(chosen.out))  # before the hours of work, not after them
    return int(module.run(chosen))
