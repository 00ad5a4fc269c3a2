"""``twinloop explore``: search virtual prototypes of a site, and show which would be worth building."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...envs.commands.overrides import add_overrides

DESCRIPTION = """\
Search virtual prototypes of a site on its twin's batch axis: many short runs, the best again longer and under more
seeds, the best of all on the site's plant. All prototypes of a round meet the same seeds. The folder then has the
Pareto front as front.md, front.csv, front.json and front.png, every prototype of the search in evaluated.npz, and
the front's designs as configurations of the site in designs/.
"""
EPILOG = """\
examples:
  twinloop explore configs/production_line/explore_buffers.yaml
  twinloop explore configs/production_line/explore_buffers.yaml --set search.prototypes=100000 --set workers=2
  twinloop explore configs/wind_farm/explore_row.yaml --out runs/row

docs/explore.md has every key. Ctrl-C ends the search; what it had found is not kept.
exit status: 0 done, 130 stopped by Ctrl-C, 2 wrong input, or nothing that could be built.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML file of kind explore")
    add_overrides(parser, "search.prototypes=100000")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (runs/NAME-explore-STAMP)")


def run(arguments: argparse.Namespace) -> int:
    """Explore; 0 at the end. Raises TwinloopError for what the user can mend."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from ...envs.configuration import load
    from ..exploration.configuration import ExploreConfiguration
    from ..exploration.evaluation import Evaluator
    from ..exploration.exploration import explore
    from ..exploration.outcome import write_outcome
    from ..exploration.verification import check_verification, verify
    from ..output_folder import make_folder
    from ..report import print_table, provenance, say
    from ..run_folder import RunFolder

    config = load(arguments.config, ExploreConfiguration, arguments.overrides)
    evaluator = Evaluator(config)
    check_verification(config, evaluator)
    folder = make_folder(arguments.out or RunFolder.named(Path("runs"), f"{config.name}-explore").path)
    console = Console()
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f} runs"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {"search": progress.add_task("search", total=1)}

        def tell(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=of)
            progress.update(tasks[stage], completed=done, total=of)
            if done == of and not console.is_terminal:
                say(f"{stage}: {of:,} runs")

        found = explore(config, evaluator, tell)
        verified = (
            verify(config, evaluator, found.candidates, lambda done, of: tell("plant", done, of))
            if config.verify
            else ()
        )
    table = write_outcome(folder, config, evaluator, found, verified, provenance((config.seed,)))
    print_table(table)
    say(f"results: {folder}")
    return 0
