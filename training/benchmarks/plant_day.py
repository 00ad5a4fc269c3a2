"""A day of real wind on the FLORIS plant: energy of an artifact against greedy and the look-up table."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...agents.artifact import load_artifact
from ...envs.wind_farm.config import FlorisPlantConfig, NamedLayout, WindFarmConfig
from ...envs.wind_farm.farm import farm_nameplate
from ..contestants import Contestant
from ..plant_comparison import Comparison, Outcome, compare_on_plant
from ..report import percent_interval, print_table, provenance, say

NAME = "plant_day"
SUMMARY = "a day of real wind on the FLORIS plant: energy over greedy and over the look-up table"

PERIOD_S = 60.0
# "Not less than the table": the interval of the difference may not lie below zero.
_NOT_LESS = 0.0

DESCRIPTION = """\
Run an artifact, greedy and the look-up table for a day of measured wind on the emulated farm: wakes that travel, yaw
drives with rate, deadband and duty limit, noisy and biased sensors, dropouts; every command passes the shield.

Bars: energy over greedy with the 95 % interval (over plant seeds, for this day's wind) above zero, and the interval of
the energy over the look-up table not below zero. The second interval, for winds like it, is printed beside.

The table covers all directions in steps of 3 deg, six speeds and three turbulence intensities, about 60 CPU s once;
a day costs some 30 CPU s a policy and seed for 7 turbines. Ctrl-C keeps what is finished.
"""
EPILOG = """\
examples:
  twinloop bench plant_day runs/any_farm/artifact
  twinloop bench plant_day runs/any_farm/artifact --layout cl_windcon16 --seeds 5 --hours 12
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="folder of a policy artifact")
    parser.add_argument("--layout", default="ablaincourt", help="a named farm, default %(default)s")
    parser.add_argument("--series", default="day", help="wind series, default %(default)s")
    parser.add_argument("--hours", type=float, default=24.0, help="default %(default)g")
    parser.add_argument("--seeds", type=int, default=3, metavar="K", help="plant seeds 0 to K-1, default %(default)s")
    parser.add_argument("--sector-table", action="store_true", help="a table for the day's winds alone: quicker")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="runs side by side, default %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs/plant_day"), metavar="DIR", help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Measure; 0 when both bars are met."""
    config = WindFarmConfig(name=arguments.layout, layout=NamedLayout(name=arguments.layout), dt_s=PERIOD_S)
    load_artifact(arguments.artifact, farm_nameplate(config))  # refused before anything slow
    comparison = Comparison(
        site="wind_farm",
        site_config=config,
        plant_config=FlorisPlantConfig(series=arguments.series, dropout_pu=0.002),
        artifact=arguments.artifact,
        seeds=tuple(range(arguments.seeds)),
        hours=arguments.hours,
        full_table=not arguments.sector_table,
    )
    title = f"{arguments.layout}: {arguments.hours:g} h of the wind series {arguments.series!r}"
    outcome = compare_on_plant(comparison, arguments.out, title, arguments.processes)
    print_table(outcome.table)
    policy = Contestant("artifact", arguments.artifact).fingerprint()
    outcome.table.write(arguments.out, "plant_day", provenance(comparison.seeds, policy=policy))
    return 0 if judge(outcome) else 1


def judge(outcome: Outcome) -> bool:
    """Print both bars and whether they are met; intervals over seeds where there are enough, else over time."""
    ours = outcome.standing("policy")
    gains = ours.gain_seeds or ours.gain
    beats_greedy = gains["greedy"].low > 0.0
    holds_table = gains["lut"].high >= _NOT_LESS
    say(f"over greedy {percent_interval(gains['greedy'])}: bar above zero, {'met' if beats_greedy else 'missed'}")
    say(f"over the table {percent_interval(gains['lut'])}: bar not below zero, {'met' if holds_table else 'missed'}")
    return beats_greedy and holds_table
