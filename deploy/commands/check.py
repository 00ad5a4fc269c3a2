"""``twinloop check``: is what a site declares as safe coherent, what is it, and can it be broken behind the shield?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...envs.commands.overrides import add_overrides
from ...envs.configuration import load_mapping, validate
from ...envs.constraint import Declaration, declaration_of_site
from ...envs.constraint.temporal import Formula, describe_formula, requirements_of_site
from ...envs.errors import ConfigurationError, TwinloopError, located
from ...envs.registry import Site, load_site, site_names
from ..shield import Shield

if TYPE_CHECKING:
    from ..falsifier import Falsification

WIDTH_OF_A_PIPE = 140
AT_ONCE, PERIODS, SHORTEST = 16, 60, 20
AGENT_STEPS = 30_000
"""What is tried where nobody says how much: some ten seconds."""
DESCRIPTION = """\
Prove that a site's declaration of what is safe hangs together, and print it as a table: every limit that the nameplate
implies and the site adds, which are hard, in which order soft ones are kept, and where each asset goes when in doubt.

Checked are names, units, levels and weights, limits that are inverted or wider than the nameplate's, sums that no
command can keep, neutral commands and safe states outside the limits, safe states that can't be reached in the time
they promise, requirements over time, and whether the shield can keep each kind of constraint. All faults are listed
at once.

Then the falsifier plays against the shield on the site's twin: commands, bursts of nonsense, faulty readings, lost
writes and the twin's parameters are searched for what brings a limit nearest to breaking, by CMA-ES where the package
cma is installed (twinloop[falsify]), else at random. Under faulty readings and lost writes only limits on commands are
promised; what is measured is then told and does not count. A search that finds nothing is no proof.
"""
EPILOG = """\
examples:
  twinloop check wind_farm
  twinloop check configs/wind_farm/train_ablaincourt.yaml
  twinloop check configs/wind_farm/plant_ablaincourt.yaml --set site.limits.power_cap_kw=12000
  twinloop check wind_farm --falsify 2000 --seed 1
  twinloop check wind_farm --no-falsify

exit status: 0 coherent and not broken, 1 a hard limit broke or the shield itself failed, 2 faults, which are listed, or
wrong input.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("site", metavar="SITE|CONFIG", help="a site's name, or a YAML file with a key 'site'")
    add_overrides(parser, "site.limits.power_cap_kw=12000")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--falsify",
        type=int,
        default=None,
        metavar="N",
        help=f"schedules to try on the twin, of {PERIODS} periods each; absent: about {AGENT_STEPS:,} agent-steps",
    )
    budget.add_argument("--no-falsify", action="store_true", help="prove the declaration alone")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the falsifier (0)")


def run(arguments: argparse.Namespace) -> int:
    """Print the declaration; raises :class:`ConfigurationError` with all faults, one a line."""
    site, config = _site(arguments.site, arguments.overrides)
    with located(arguments.site):
        declaration = declaration_of_site(site, config)
        required = requirements_of_site(site, config, declaration)
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
    if required:
        console.print()
        console.print(requirement_table(required))
    with located(arguments.site):
        shield = Shield(declaration)
    console.print()
    console.print("coherent, and the shield keeps all of it")
    if arguments.no_falsify:
        return 0
    n_schedules, n_periods = _budget(arguments.falsify, len(plate.agents))
    if n_schedules < 2 * AT_ONCE:
        raise ConfigurationError(
            f"--falsify {n_schedules}: {AT_ONCE} schedules run at once, with sound messages and with faulty ones; give "
            f"{2 * AT_ONCE} or more, or --no-falsify"
        )
    try:
        found = _falsified(site, config, declaration, shield, n_schedules, n_periods, arguments.seed, console)
    except (TwinloopError, ImportError) as error:
        if arguments.falsify is not None:
            raise
        console.print(f"not falsified, because this twin does not run here: {error}", markup=False, soft_wrap=True)
        return 0
    return 1 if found.broken or found.failed else 0


def _budget(asked: int | None, n_assets: int) -> tuple[int, int]:
    """Schedules and their periods; of large sites both become fewer, where nobody says how many."""
    if asked is not None:
        return asked, PERIODS
    n_schedules = max(2 * AT_ONCE, AGENT_STEPS // (n_assets * PERIODS))
    return n_schedules, max(SHORTEST, min(PERIODS, AGENT_STEPS // (n_assets * n_schedules)))


def _falsified(
    site: Site, config: BaseModel, declaration: Declaration, shield: Shield, n_schedules: int, n_periods: int,
    seed: int, console: Console,
) -> Falsification:  # fmt: skip
    """Search and tell."""
    from ..falsifier import TwinModel, falsify

    model = TwinModel(site, config, declaration, AT_ONCE)
    with console.status("falsifying") as status:
        found = falsify(
            model, shield, n_schedules, n_periods, seed,
            lambda done, of: status.update(f"falsifying: {done} of {of} schedules"),
        )  # fmt: skip
    console.print()
    console.print(
        f"falsifier: {found.n_schedules} schedules of {found.n_steps} periods, seed {seed}, {found.agent_steps} "
        f"agent-steps, {found.changed} commands changed, by {found.search}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    console.print(finding_table(found))
    for finding in found.broken:
        console.print(
            f"BROKEN {finding.constraint}: by {-finding.margin:g} in period {finding.step}, twin's seed "
            f"{finding.seed}: {finding.schedule.describe()}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    if found.failed:
        console.print(f"the shield itself failed in {found.failed} periods; its last resort answered", markup=False)
    if not found.broken:
        worst = min(found.findings, key=lambda f: (not (f.hard and f.asked), f.margin / f.scale))
        console.print(
            f"no hard limit broke; nearest: {worst.constraint}, twin's seed {worst.seed}: {worst.schedule.describe()}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    return found


def finding_table(found: Falsification) -> Table:
    """The least margin of each constraint, hard ones first, the smallest first."""
    table = Table(
        "constraint", "rank", "messages", "least margin", "of its scale", "period", "", box=None, pad_edge=False
    )
    for f in sorted(found.findings, key=lambda f: (f.faulty_messages, not f.hard, f.margin / f.scale)):
        verdict = "broken" if f.violated and f.hard and f.asked else "not kept" if f.violated else ""
        margin = f.margin if f.violated else max(f.margin, 0.0)  # rounding is none
        table.add_row(
            Text(f.constraint), "hard" if f.hard else "soft", "faulty" if f.faulty_messages else "sound",
            f"{margin:.4g}", f"{margin / f.scale:.2g}", str(f.step), verdict,
        )  # fmt: skip
    return table


def constraint_table(declaration: Declaration) -> Table:
    """Every constraint, hard ones first, soft ones in the order in which they are kept."""
    table = Table("constraint", "kind", "limit", "rank", "from", box=None, pad_edge=False)
    for row in declaration.rows():
        table.add_row(*(Text(cell) for cell in row))
    return table


def requirement_table(required: Mapping[str, Formula]) -> Table:
    """What must hold over time; a monitor watches it, and puts an asset on its fallback where it is broken."""
    table = Table("required over time", "", box=None, pad_edge=False)
    for name, formula in required.items():
        table.add_row(Text(name), Text(describe_formula(formula)))
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
