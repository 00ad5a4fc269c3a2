"""``twinloop sites``: what is installed, and what one site measures, obeys and offers."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..nameplate import Group, Nameplate, Signal
from ..registry import Site, load_site, site_names

WIDTH_OF_A_PIPE = 120
KINDS = ("measured", "commanded", "hidden", "statics")


@runtime_checkable
class HasLayouts(Protocol):
    """A site that knows layouts by name."""

    def layouts(self) -> tuple[str, ...]: ...


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``twinloop sites``."""
    parser.description = "List the installed sites, or show one: its groups, signals, tasks, encoders and layouts."
    parser.epilog = (
        "examples:\n"
        "  twinloop sites               all sites, one a line\n"
        "  twinloop sites wind_farm     one site's signals with units, ranges and rate limits\n\n"
        "Signals are those of the site's default configuration. 'measured' signals exist on the plant and policies\n"
        "may see them; 'hidden' ones exist in the twin only; 'statics' are constants of an asset.\n\n"
        "exit status: 0 done, 2 wrong input, such as a site that is not installed."
    )
    parser.add_argument("site", nargs="?", help="name of a site to show")


def run(arguments: argparse.Namespace) -> int:
    """Print the sites, or one of them; raises :class:`~twinloop.envs.errors.UnknownSiteError` for an unknown name."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_PIPE)
    if arguments.site is None:
        _print_sites(console)
    else:
        _print_site(console, load_site(arguments.site))
    return 0


def _print_sites(console: Console) -> None:
    table = Table("site", "what it is", "tasks", box=None, pad_edge=False)
    for name in site_names():
        site = load_site(name)
        table.add_row(name, Text(site.summary), ", ".join(site.tasks()))
    console.print(table)


def _print_site(console: Console, site: Site) -> None:
    console.print(Text.assemble((site.name, "bold"), f": {site.summary}"))
    try:
        nameplate = site.nameplate(site.config_model())
    except ValidationError as error:
        # a site that is nothing in particular until it is configured
        needs = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
        console.print(Text(f"its signals depend on its configuration: {needs}"))
    else:
        _print_nameplate(console, nameplate)
    console.print()
    offers: list[tuple[str, Iterable[str]]] = [("tasks", site.tasks()), ("encoders", site.encoders())]
    if isinstance(site, HasLayouts):
        offers.append(("layouts", site.layouts()))
    offers.append(("configuration", site.config_model.model_fields))
    for what, names in offers:
        console.print(Text.assemble((f"{what}: ", "bold"), ", ".join(names)))


def _print_nameplate(console: Console, nameplate: Nameplate) -> None:
    console.print(Text(f"control period {nameplate.period_s:g} s, {_assets(nameplate)}, hash {nameplate.hash[:12]}"))
    for group in nameplate.groups:
        console.print()
        console.print(_signals(group))


def _assets(nameplate: Nameplate) -> str:
    return ", ".join(f"{g.n_assets} x {g.name} ({g.assets[0]} to {g.assets[-1]})" for g in nameplate.groups)


def _signals(group: Group) -> Table:
    """Table of all signals of a group, by kind."""
    table = Table(title=Text(f"group {group.name}"), title_justify="left", box=None, pad_edge=False)
    for heading in ("kind", "signal", "unit", "range", "rate limit", "description"):
        table.add_column(heading)
    for kind in KINDS:
        for signal in getattr(group, kind):
            described = Text(signal.description)
            table.add_row(kind, signal.name, signal.unit, _range(signal), _rate(signal), described)
    return table


def _range(signal: Signal) -> Text:
    if signal.levels is not None:
        return Text(" | ".join(f"{level:g}" for level in signal.levels))
    return Text(f"{signal.minimum:g} to {signal.maximum:g}{', wraps' if signal.circular else ''}")


def _rate(signal: Signal) -> str:
    return "" if signal.rate_limit_per_s is None else f"{signal.rate_limit_per_s:g} {signal.unit}/s"
