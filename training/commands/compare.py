"""``twinloop compare``: finished runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Compare what training runs found: run folders of single seeds, or study folders of `twinloop train --seeds`. Runs that
differ in nothing but the seed are one side. The table says how good each side is (interquartile mean with a
stratified-bootstrap interval), how likely a run of it is better than one of the first, and what it took; curves show
the score over agent-steps, CPU seconds and wall seconds. Table (md, csv, json), picture and the raw data for
MARL-eval go into the output folder.

Fewer than three seeds a side are refused, and so are runs that were not measured on the same site, task and
evaluation, or by the same versions (--anyway lets versions differ, and the table says so).
"""
EPILOG = """\
examples:
  twinloop compare runs/ppo-20260102T030405Z runs/sac-20260102T040506Z
  twinloop compare runs/* --by name --labels PPO,MAPPO --reach -0.1
  twinloop compare runs/farm_* runs/tank_* --by name --normalise wind_farm/farm_power=0,1.5 \\
      --normalise tank/hold=-2,0 --figure evaluation/reward

exit status: 0 done, 2 wrong input or runs that cannot be compared.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or study folders of many seeds")
    parser.add_argument(
        "--figure", default="evaluation/reward", metavar="NAME", help="what is compared, default %(default)s"
    )
    parser.add_argument(
        "--by",
        choices=("configuration", "name"),
        default="configuration",
        help="what makes a side: an equal configuration, or the configuration's name; default %(default)s",
    )
    parser.add_argument("--labels", metavar="A,B", help="names of the sides, in the order in which their runs come")
    parser.add_argument(
        "--normalise",
        action="append",
        default=[],
        metavar="TASK=LOW,HIGH",
        help="reference scores of a task: 0 and 1 of the normalised score, by which tasks are put together",
    )
    parser.add_argument(
        "--reach", type=float, metavar="SCORE", help="also tell what it takes to first reach this score"
    )
    parser.add_argument("--anyway", action="store_true", help="compare across versions of twinloop and its packages")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), metavar="DIR", help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Compare; 0 at the end. Raises TwinloopError for runs that cannot be compared."""
    import json

    from ..comparison import Comparison, parse_scales
    from ..comparison_curves import draw_curves
    from ..comparison_runs import read_runs
    from ..comparison_sides import check_sides, make_sides
    from ..marl_eval import marl_eval_data
    from ..output_folder import make_folder
    from ..report import print_table, provenance

    comparison = Comparison(arguments.figure, parse_scales(arguments.normalise), arguments.reach)
    runs = read_runs(arguments.runs)
    labels = [word.strip() for word in (arguments.labels or "").split(",") if word.strip()]
    sides = make_sides(runs, comparison.figure, arguments.by, labels)
    notes = check_sides(sides, comparison.figure, any_version=arguments.anyway)
    comparison.check(sides)
    table = comparison.table(sides, comparison.standings(sides), notes)
    folder = make_folder(arguments.out)
    print_table(table)
    for path in table.write(folder, "comparison", provenance(sorted({run.seed for run in runs}))):
        print(path)
    print(draw_curves(comparison, sides, folder / "curves.png"))
    raw = folder / "marl_eval.json"
    raw.write_text(json.dumps(marl_eval_data(sides, comparison.figure), indent=1) + "\n", encoding="utf-8")
    print(raw)
    return 0
