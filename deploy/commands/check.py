"""``twinloop check``: is what a site declares as safe coherent, and what is it?"""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...envs.commands.overrides import add_overrides
from ...envs.configuration import load_mapping, validate
from ...envs.constraint import Declaration, declaration_of_site
from ...envs.errors import ConfigurationError, located
from ...envs.registry import Site, load_site, site_names
from ..shield import Shield

WIDTH_OF_A_PIPE = 140
DESCRIPTION = """\
Prove that a site's declaration of what is safe hangs together, and print it as a table: every limit that the nameplate
implies and the site adds, which are hard, in which order soft ones are kept, and where each asset goes when in doubt.

Checked are names, units, levels and weights, limits that are inverted or wider than the nameplate's, sums that no
command can keep, neutral commands and safe states outside the limits, safe states that can't be reached in the time
they promise, and whether the shield can keep each kind of constraint. All faults are listed at once.

Data are proved here, not dynamics: whether a barrier or a look-ahead keeps the machine safe is for tests on the twin.
"""
EPILOG = """\
examples:
  twinloop check wind_farm
  twinloop check configs/wind_farm/train_ablaincourt.yaml
  twinloop check configs/wind_farm/plant_ablaincourt.yaml --set site.limits.power_cap_kw=12000

exit status: 0 coherent, 2 faults, which are listed, or wrong input.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("site", metavar="SITE|CONFIG", help="a site's name, or a YAML file with a key 'site'")
    add_overrides(parser, "site.limits.power_cap_kw=12000")


def run(arguments: argparse.Namespace) -> int:
    """Print the declaration; raises :class:`ConfigurationError` with all faults, one a line."""
    site, config = _site(arguments.site, arguments.overrides)
    with located(arguments.site):
        declaration = declaration_of_site(site, config)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_PIPE)
    plate = declaration.nameplate
    console.print(
        Text.assemble(
            (plate.site, "bold"),
            f": {len(plate.agents)} assets, period {plate.period_s:g} s, "
            f"{len(declaration.hard)} hard and {len(declaration.soft)} soft constraints, hash {declaration.hash[:12]}",
        )
    )
    for table in (constraint_table(declaration), safe_state_table(declaration)):
        console.print()
        console.print(table)
    with located(arguments.site):
        Shield(plate, declaration.constraints)
    console.print()
    console.print("coherent, and the shield keeps all of it")
    return 0


def constraint_table(declaration: Declaration) -> Table:
    """Every constraint, hard ones first, soft ones in the order in which they are kept."""
    table = Table("constraint", "kind", "limit", "rank", "from", box=None, pad_edge=False)
    for row in declaration.rows():
        table.add_row(*(Text(cell) for cell in row))
    return table


def safe_state_table(declaration: Declaration) -> Table:
    """Where assets go when in doubt; assets of a group that go to the same place share a row."""
    table = Table("assets", "safe state", box=None, pad_edge=False)
    for group in declaration.nameplate.groups:
        found: dict[str, list[str]] = {}
        for asset in group.assets:
            found.setdefault(declaration.safe_states[f"{group.name}/{asset}"].describe(), []).append(asset)
        for told, assets in found.items():
            who = group.name if len(found) == 1 else f"{group.name}/{', '.join(assets)}"
            table.add_row(Text(who), Text(told))
    return table


def _site(target: str, overrides: list[str]) -> tuple[Site, BaseModel]:
    """The site and its configuration, of a site's name or of any YAML that has a ``site``."""
    if target in site_names():
        if overrides:
            raise ConfigurationError(
                f"--set {overrides[0]}: overrides a YAML file; {target!r} is a site, so name a file"
            )
        return _by_name(target)
    if not (target.endswith((".yaml", ".yml")) or Path(target).exists()):
        return _by_name(target)  # which says what the nearest name is
    data = load_mapping(target, overrides)
    declared = data.get("site")
    if not isinstance(declared, dict) or not isinstance(declared.get("kind"), str):
        raise ConfigurationError(
            f"{target}: site.kind is missing; give one of the installed sites: {', '.join(site_names())}"
        )
    with located(target):
        site = load_site(declared["kind"])
    return site, validate(declared, site.config_model, f"{target}: site")


def _by_name(name: str) -> tuple[Site, BaseModel]:
    """The site in its default configuration."""
    site = load_site(name)
    with located(name):
        return site, validate({}, site.config_model, "default configuration")
