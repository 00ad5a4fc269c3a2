"""``twinloop demo``: the whole loop on a wind farm, in minutes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...envs.commands.overrides import add_overrides

if TYPE_CHECKING:
    from ..demo import DemoConfiguration

DESCRIPTION = """\
Close the loop on a wind farm: build the look-up table that industry steers by, train one policy for all turbines in the
twin with Ray, prove it on an independent plant (FLORIS, with travelling wakes, yaw drives and noisy sensors) against
greedy and the table in the same measured wind, serve that plant behind OPC UA and control it through the shield.

It ends with a table (energy with 95 % intervals, yaw travel, load), a picture of the flow before and after, and a
folder with everything. About 4 minutes on two cores. Ctrl-C at any time; the same command goes on.
"""
EPILOG = """\
examples:
  twinloop demo
  twinloop demo --minutes 2 --out runs/short
  twinloop demo --resume --out runs/short
  twinloop demo --config my_farm.yaml

exit status: 0 done, 130 stopped by Ctrl-C, 2 wrong input.
"""
CONFIG = Path("configs") / "wind_farm" / "demo.yaml"
RUNS = Path("runs")
INTERRUPTED = 130  # what shells give a program that Ctrl-C ended


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="about this long in all: shortens training and proof"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder; default: the unfinished demo, else a new one"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the folder, and refuse to begin a new one")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"default {CONFIG.as_posix()} of the source tree or the folder here"
    )
    add_overrides(parser, "train.seed=3")


def run(arguments: argparse.Namespace) -> int:
    """Run or go on; 0 at the end, 130 after Ctrl-C."""
    import time

    from rich.console import Console

    from ...envs.errors import ConfigurationError, RunError
    from ..demo import Demo
    from ..report import print_table

    if arguments.minutes is not None and not 0.2 <= arguments.minutes <= 1000.0:
        raise ConfigurationError(f"--minutes {arguments.minutes:g}: give a number from 0.2 to 1000")
    folder = arguments.out or unfinished(RUNS) or named(RUNS)
    begun = (folder / "demo.yaml").exists()
    if arguments.resume and not begun:
        raise RunError(f"--resume: {folder} holds no demo to go on with; run `twinloop demo` to begin one")
    given = [
        name
        for name, value in (
            ("--minutes", arguments.minutes), ("--config", arguments.config), ("--set", arguments.overrides or None),
        )
        if value is not None
    ]  # fmt: skip
    config = _configuration(arguments, folder if begun and not given else None)
    started_s = time.monotonic()
    console = Console()
    console.print(f"{'going on in' if begun else 'folder'}: {folder}", highlight=False)
    try:
        closing = Demo(config, folder, console).run()
    except KeyboardInterrupt as stop:
        console.print(
            f"\nstopped{f' ({stop})' if str(stop) else ''}; finished stages are kept. Go on with: "
            f"twinloop demo --resume --out {folder}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        return INTERRUPTED
    print_table(closing.table)
    console.print(f"\nresults after {(time.monotonic() - started_s) / 60.0:.1f} minutes:")
    for path in (*closing.files, folder / "train" / "artifact", folder / "served" / "journal.sqlite"):
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    return 0


def find_config() -> Path:
    """The shipped configuration: beside the sources of an editable install, else below the working directory.

    Raises :class:`ConfigurationError` where neither has it: a wheel carries no configurations.
    """
    from ...envs.errors import ConfigurationError

    places = (Path(__file__).resolve().parents[2] / CONFIG, Path.cwd() / CONFIG)
    for place in places:
        if place.is_file():
            return place
    raise ConfigurationError(
        f"demo: {CONFIG.as_posix()} is neither beside the sources nor below {Path.cwd()}; an installed wheel carries "
        "no configurations: run from a checkout of the repository, or give one with --config FILE"
    )


def unfinished(runs: Path) -> Path | None:
    """The newest demo below ``runs`` that has not come to its table."""
    if not runs.is_dir():
        return None
    begun = [p.parent for p in runs.glob("demo*/demo.yaml") if not (p.parent / "demo.json").exists()]
    return max(begun, key=lambda p: (p / "demo.yaml").stat().st_mtime, default=None)


def named(runs: Path) -> Path:
    """A folder that is not there yet: ``demo``, ``demo-2``, ..."""
    path, number = runs / "demo", 2
    while path.exists():
        path, number = runs / f"demo-{number}", number + 1
    return path


def _configuration(arguments: argparse.Namespace, kept: Path | None) -> DemoConfiguration:
    """What a begun folder holds, or what the command line says."""
    from ...envs.configuration import load
    from ..demo import DemoConfiguration

    if kept is not None:
        return load(kept / "demo.yaml", DemoConfiguration)
    path = arguments.config or find_config()
    config = load(path, DemoConfiguration, arguments.overrides)
    return config if arguments.minutes is None else config.scaled(arguments.minutes, str(path))
