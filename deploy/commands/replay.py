"""``twinloop replay``: make the decisions of a journal again, and compare."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...envs.commands.overrides import add_overrides
from ...envs.constraint import declare
from ...envs.errors import ConfigurationError, JournalError
from ...envs.nameplate import Nameplate
from ..journal import verify
from ..plants import plant_declaration, plant_requirements
from ..replay import Difference, replay
from ..shield import Shield, ShieldSettings
from ..watching import watch

DESCRIPTION = """\
Check a journal's chain of hashes, then give each recorded reading, proposal and order to the shield again, from the
state that follows from the rows before, and compare commands, standby, reasons, modes and sources bit for bit.

The limits come from the nameplate in the journal; where the site declares more (--plant), give the file that the run
had. Limits that are not those of the run are refused.
"""
EPILOG = """\
examples:
  twinloop replay journals/ablaincourt-20260101T120000Z.sqlite
  twinloop replay run.sqlite --plant configs/wind_farm/plant_ablaincourt.yaml

exit status: 0 the journal is sound and every decision came out again, 1 it is not or one did not, 2 wrong input.
"""
_SHOWN = 160


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="what `twinloop run --journal` wrote")
    parser.add_argument("--plant", metavar="FILE.yaml", help="the plant's file, where its site declares limits")
    parser.add_argument("--head", metavar="HASH", help="the head that the run printed: shows missing rows at the end")
    parser.add_argument("--artifact", type=Path, metavar="ARTIFACT", help="its policy, if its inputs were watched")
    add_overrides(parser, "plant.seed=3")


def run(arguments: argparse.Namespace) -> int:
    """Verify, replay, print; returns the exit status."""
    report = verify(arguments.journal, arguments.head)
    for problem in report.problems:
        print(f"journal: {problem}")
    declaration = plant_declaration(arguments.plant, arguments.overrides)
    from ...agents.artifact import load_artifact

    def shield_of(start: Mapping[str, Any]) -> Shield:
        try:
            settings = ShieldSettings.model_validate(start["shield"])
            limits = declaration or declare(Nameplate.from_dict(start["nameplate"]))
        except (KeyError, ValueError) as error:
            raise JournalError(
                f"{arguments.journal}: its start row is of another version ({error}); replay it with the version that "
                "wrote it"
            ) from error
        if limits.hash != start["declaration_hash"]:
            raise ConfigurationError(
                f"{arguments.journal}: the run had other limits than {arguments.plant or 'its nameplate alone implies'}"
                f"; give the plant's file of that run, with its overrides"
            )
        policy = None
        if arguments.artifact is not None:
            policy = load_artifact(arguments.artifact, limits.nameplate, own=start.get("assets"))
        required = plant_requirements(arguments.plant, arguments.overrides)
        monitors = watch(limits, policy, print, required)
        if len(monitors) != start["monitors"]:
            raise ConfigurationError(
                f"{arguments.journal}: the run had {start['monitors']} monitors, here are {len(monitors)}; give its "
                "--artifact, and its --plant"
            )
        return Shield(limits, settings=settings, monitors=monitors)

    found = replay(arguments.journal, shield_of)
    missed = f", {found.missed} missed" if found.missed else ""
    print(f"{report.rows} rows, {found.runs} runs, {found.decisions} decisions{missed}, head {report.head}")
    for difference in found.differences:
        print(_describe(difference))
    print("every decision came out again, bit for bit" if found.is_same else "decisions differ")
    return 0 if report.is_sound and found.is_same else 1


def _describe(d: Difference) -> str:
    where = f"decision {d.number}" if d.number else "start"
    return f"{where}: {d.part}: recorded {_short(d.recorded)}, now {_short(d.replayed)}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
