"""``twinloop evaluate``: an artifact on a plant, beside the baselines."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...envs.commands.overrides import add_overrides

DESCRIPTION = """\
Run a policy artifact on an emulated plant through the shield and the runtime, beside baselines that meet the very same
wind, gusts, sensor errors and outages, and print energy with 95 % intervals, yaw travel, load change and the
shield's interventions; of other sites, what their plants count, such as finished parts, touches and contacts. Records,
the table (md, csv, json) and a picture go into the output folder, with the command line, seeds, versions and machine
beside the figures.

Baselines are the site's controllers, those of `twinloop run --policy`, and of farms `lut`, a look-up table of offsets.

Two intervals are given. "This wind" is Student's over plant seeds: gusts, noise and vane biases differ, the wind's
series does not (from three seeds on). "Winds like it" is a block bootstrap over time.

Ctrl-C keeps the finished runs; the same command goes on from them.
"""
EPILOG = """\
examples:
  twinloop evaluate runs/any_farm/artifact --plant configs/wind_farm/plant_ablaincourt.yaml
  twinloop evaluate runs/any_farm/artifact --plant configs/wind_farm/evaluate_ablaincourt.yaml --seeds 0,1,2 --hours 6
  twinloop evaluate runs/any_farm/artifact --plant configs/wind_farm/plant_ablaincourt.yaml \\
      --against greedy --set plant.dropout_pu=0.05 --set plant.vane_bias_deg=3
  twinloop evaluate runs/energy/artifact --plant configs/production_line/plant_energy.yaml --against greedy,hysteresis

exit status: 0 done, 130 stopped by Ctrl-C, 2 wrong input.
"""
MOST_PROCESSES = 2
HOURS, PERIODS = 24.0, 3000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="folder of the policy artifact")
    parser.add_argument("--plant", type=Path, required=True, metavar="FILE", help="the plant's YAML: site and plant")
    parser.add_argument(
        "--against",
        metavar="NAMES",
        help="baselines, the site's own by name (a wrong one lists them); default greedy, and lut for a farm",
    )
    parser.add_argument(
        "--hours",
        type=float,
        metavar="H",
        help=f"plant time of a run; default {HOURS:g}, or {PERIODS} periods where those are shorter than a second",
    )
    parser.add_argument("--seeds", default="0,1,2", help="plant seeds, such as 0,3,7 or 0..4; default %(default)s")
    parser.add_argument(
        "--full-table",
        action="store_true",
        help="build the look-up table for all winds, not for the run's sector alone",
    )
    parser.add_argument(
        "--processes", type=int, default=MOST_PROCESSES, metavar="N", help="runs side by side, default %(default)s"
    )
    parser.add_argument(
        "--attach", action="store_true", help="add the table to the artifact's report.json; the policy stays the same"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default runs/evaluate-PLANT")
    add_overrides(parser, "plant.start_s=43200")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; 0 at the end. Raises TwinloopError for what the user can mend."""
    from rich.console import Console

    from ...agents.artifact import REPORT, attach_report, load_artifact
    from ...envs.errors import ConfigurationError
    from ...envs.plant_file import load_plant_file
    from ...envs.wind_farm.config import WindFarmConfig
    from ..contestants import LUT, Contestant, baselines_for, parse_baselines
    from ..output_folder import make_folder
    from ..plant_comparison import Comparison, compare_on_plant
    from ..report import print_table, provenance
    from ..seed_list import parse_seeds

    site, site_config, plant_config = load_plant_file(arguments.plant, arguments.overrides)
    seeds = parse_seeds(arguments.seeds)
    if arguments.processes < 1:
        raise ConfigurationError(f"--processes: {arguments.processes}; give a positive number of processes")
    # Before anything slow: a damaged artifact, or one of another site, is refused at once.
    nameplate = site.nameplate(site_config)
    load_artifact(arguments.artifact, nameplate)
    has_table = isinstance(site_config, WindFarmConfig)
    usual = f"greedy,{LUT}" if has_table else "greedy"
    usual_hours = HOURS if nameplate.period_s >= 1.0 else PERIODS * nameplate.period_s / 3600.0
    comparison = Comparison(
        site=site.name,
        site_config=site_config,
        plant_config=plant_config,
        artifact=arguments.artifact,
        against=parse_baselines(arguments.against or usual, baselines_for(nameplate, has_table=has_table)),
        seeds=seeds,
        hours=usual_hours if arguments.hours is None else arguments.hours,
        full_table=arguments.full_table,
    )
    comparison.n_periods()  # hours that hold no period are said before a folder is made
    folder = make_folder(arguments.out or Path("runs") / f"evaluate-{arguments.plant.stem}")
    console = Console()
    try:
        outcome = compare_on_plant(
            comparison, folder, f"{arguments.plant.stem}: policies on the plant", arguments.processes, console
        )
    except KeyboardInterrupt:
        console.print(f"\nstopped; finished runs are in {folder}, the same command goes on from them", highlight=False)
        raise
    print_table(outcome.table)
    made_by = provenance(
        seeds, plant=arguments.plant.name, policy=Contestant("artifact", arguments.artifact).fingerprint()
    )
    for path in outcome.table.write(folder, "evaluation", made_by):
        print(path)
    if arguments.attach:
        attach_report(arguments.artifact, f"plant/{arguments.plant.stem}", outcome.report(made_by))
        print(f"added to {arguments.artifact / REPORT}")
    return 0
