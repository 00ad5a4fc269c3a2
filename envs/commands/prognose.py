"""``twinloop prognose``: how long machines will last, from their condition signals."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..configuration import validate
from ..errors import ConfigurationError
from ..prognosis.boosting import BoostedLife, BoostingSettings, fit
from ..prognosis.cmapss import read_engines
from ..prognosis.estimate import Estimate
from ..prognosis.history import Fleet, read_csv
from ..prognosis.store import load, save
from .overrides import options_of

WIDTH_OF_A_PIPE = 120
DESCRIPTION = """\
Estimate how long machines will last: the median of the cycles they have left, an interval that holds for nine
machines in ten, and the chance to fail within a horizon, with an alarm from a limit on. Gradient boosting on windows of
condition signals, fitted to histories of machines that failed and calibrated on those that each fit left out.

Histories are CSV files with a heading: unit, cycle (1, 2, ... of each unit), condition signals, and in files of
machines that failed a column failed, 1 in the row in which a unit did; or C-MAPSS text files (.txt). A model file holds
plain arrays, checked by a digest; no code in it is run (docs/prognosis.md).
"""
EPILOG = """\
examples:
  twinloop prognose running.csv --fit failed.csv --save pumps.npz
  twinloop prognose running.csv --model pumps.npz --horizon 20 --alarm 0.05
  twinloop prognose test_FD001.txt --fit train_FD001.txt --option interval=quantiles --json

exit status: 0 done, 2 wrong input. Remaining life of a production line's machines: `twinloop diagnose`.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("history", type=Path, metavar="HISTORY", help="machines that run: a CSV file, or C-MAPSS' .txt")
    parser.add_argument("--fit", type=Path, metavar="FILE", help="fit to these machines, which failed")
    parser.add_argument("--model", type=Path, metavar="FILE.npz", help="or take what was fitted and saved before")
    parser.add_argument("--save", type=Path, metavar="FILE.npz", help="keep what was fitted")
    parser.add_argument(
        "--option", dest="options", action="append", default=[], metavar="KEY=VALUE",
        help=f"a setting of the fit, one of {', '.join(BoostingSettings.model_fields)}; may be repeated",
    )  # fmt: skip
    parser.add_argument("--horizon", type=float, default=30.0, metavar="CYCLES", help="look so far (%(default)g)")
    parser.add_argument(
        "--alarm", type=float, default=0.1, metavar="CHANCE", help="to fail within it, from which on (%(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print all of it as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Fit or load, estimate and print."""
    if (arguments.fit is None) == (arguments.model is None):
        raise ConfigurationError("give either --fit FILE, machines that failed, or --model FILE.npz, one of them")
    if arguments.model is not None and (arguments.save is not None or arguments.options):
        raise ConfigurationError("--save, --option: are for --fit; a model that was saved is as it was fitted")
    if not 0.0 < arguments.alarm < 1.0:
        raise ConfigurationError(f"--alarm: {arguments.alarm:g}; give a chance between 0 and 1")
    fleet = _read(arguments.history, failed=False)
    life = load(arguments.model) if arguments.model is not None else _fitted(arguments)
    running = [k for k, unit in enumerate(fleet.units) if not unit.failed]
    if not running:
        raise ConfigurationError(f"{arguments.history}: all {len(fleet.units)} units have failed; none has a life left")
    estimate = life.now(fleet.pick(running), arguments.horizon)
    if arguments.json:
        print(json.dumps(_told(estimate, arguments.alarm), indent=2, allow_nan=False))
    else:
        _print(estimate, arguments.alarm)
        if arguments.save is not None:
            print(f"model: {arguments.save}")
    return 0


def _read(path: Path, *, failed: bool) -> Fleet:
    if path.suffix == ".txt":
        return read_engines(path, failed=failed)
    return read_csv(path)


def _fitted(arguments: argparse.Namespace) -> BoostedLife:
    settings = validate(options_of(arguments.options, "window=20"), BoostingSettings, "--option")
    life, _ = fit(_read(arguments.fit, failed=True), settings)
    if arguments.save is not None:
        save(life, arguments.save)
    return life


def _print(e: Estimate, limit: float) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_PIPE)
    alarms = e.alarms(limit)
    order = sorted(range(len(e.names)), key=lambda k: (-e.chance[k], e.median[k]))
    if alarms.any():
        who = ", ".join(e.names[k] for k in order if alarms[k])
        text = f"ALARM: within {e.horizon:g} {e.unit} fail with a chance of {limit:.0%} or more: {who}"
        console.print(Text(text, "bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    headings = ("unit", f"remaining {e.unit}", f"{e.level:.0%} interval", f"fails within {e.horizon:g}", "")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    for k in order:
        low, median, high = (_cycles(v[k], e.cap) for v in (e.low, e.median, e.high))
        table.add_row(e.names[k], median, f"{low} to {high}", _percent(e.chance[k]), "ALARM" if alarms[k] else "")
    console.print(table)
    if e.cap is not None:
        console.print(Text(f"{e.cap:g}+: that or more; estimates look no further.", "dim"), soft_wrap=True)


def _percent(chance: float) -> str:
    return "> 99%" if chance > 0.99 else "< 1%" if chance < 0.01 else f"{chance:.0%}"


def _cycles(value: float, cap: float | None) -> str:
    return f"{value:.0f}{'+' if cap is not None and value >= cap else ''}"


def _told(e: Estimate, limit: float) -> dict[str, Any]:
    alarms = e.alarms(limit)
    units = {
        name: {
            "median": float(e.median[k]), "low": float(e.low[k]), "high": float(e.high[k]),
            "chance_to_fail": float(e.chance[k]), "alarm": bool(alarms[k]),
        } for k, name in enumerate(e.names)
    }  # fmt: skip
    return {"unit": e.unit, "level": e.level, "cap": e.cap, "horizon": e.horizon, "alarm_limit": limit, "units": units}
