"""``twinloop propose``: what a change would bring, from the live twin's present state."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ...envs.commands.overrides import add_overrides
from ...envs.configuration import load_mapping, validate
from ...envs.constraint import declaration_of_site
from ...envs.errors import ConfigurationError
from ..proposals.folder import ProposalFolder
from ..proposals.proposal import SignedProposal
from ..proposals.words import describe
from ..station.folder import StationFolder
from ..station.order import new_id
from ..station.password import Passwords, add_password_option
from ..station.people import People

DESCRIPTION = """\
Simulate a change from the live twin's present members, under today's commands and under the proposed ones with the same
chance, through the shield, and write down what it promises: gain with interval, margins, exact writes or the policy's
hash, values to go back to, and how long it holds (docs/proposals.md). Refused while the twin's gate is closed.

The change is a policy ARTIFACT, or exact values in --writes FILE (YAML): {turbine/WT01/yaw_offset_deg: 20.0, ...}
The proposal is signed by you; another person must approve it (`twinloop approve`). Nothing is sent by it.
"""
EPILOG = """\
examples:
  twinloop propose runs/demo/train/artifact --station stations/north --plant plant.yaml --by anna --reason "steer wakes"
  twinloop propose --writes steer.yaml --station stations/north --plant plant.yaml --by anna --reason "try 20 deg"

exit status: 0 proposed, 2 refused or wrong input.
"""
TIMES = {
    "stage_s": "how long each stage must hold; default five periods",
    "measure_s": "how long the effect is measured after the last stage; default twenty periods",
    "lasts_s": "how long the change stands in all; default twice as long as until its effect is judged",
    "valid_s": "how long the proposal may wait for approval and execution; default 1800",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("artifact", nargs="?", type=Path, metavar="ARTIFACT", help="folder of a policy artifact")
    parser.add_argument("--writes", type=Path, metavar="FILE", help="exact values instead of a policy")
    parser.add_argument("--station", type=Path, required=True, metavar="DIR", help="the station's folder")
    parser.add_argument("--plant", type=Path, required=True, metavar="FILE.yaml", help="the plant's file")
    add_overrides(parser, "plant.seed=3")
    parser.add_argument("--by", required=True, metavar="NAME", help="who proposes it")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for who approves it")
    parser.add_argument("--signal", metavar="GROUP/SIGNAL", help="what the effect is on; default power_kw")
    parser.add_argument(
        "--stages", type=int, metavar="N", help="stages of the roll-out; default an asset each, 5 at most"
    )
    for name, what in TIMES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="S", help=what)
    add_password_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Propose; returns the exit status."""
    from ..proposals.present import today_of
    from ..proposals.propose import Change, RollOutSettings, artifact_change, check_writes, propose
    from ..twin_plan import load_live_twin

    if (arguments.artifact is None) == (arguments.writes is None):
        raise ConfigurationError("give either an ARTIFACT folder or --writes FILE, one of them")
    station = StationFolder(arguments.station)
    station.check()
    people = People.read(station.people)
    people.require(arguments.by, "propose")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in TIMES if getattr(arguments, name) is not None}
    given |= {k: v for k, v in (("n_stages", arguments.stages), ("signal", arguments.signal)) if v is not None}
    settings = validate(given, RollOutSettings, "propose")
    key = people.unlock(arguments.by, Passwords(arguments.password_fd).ask(arguments.by))
    live, site, site_config = load_live_twin(station, arguments.plant, arguments.overrides)
    declaration = declaration_of_site(site, site_config)
    if arguments.artifact is not None:
        change = artifact_change(arguments.artifact, declaration.nameplate)
    else:
        change = Change(_writes(arguments.writes))
        check_writes(declaration.nameplate, change.writes)
    today = today_of(station, declaration.nameplate)
    id = new_id()
    proposal = propose(
        live, declaration, today, change, settings, id=id, by=arguments.by, reason=arguments.reason,
        now_utc_s=time.time(),
    )  # fmt: skip
    ProposalFolder(station, id).file_proposal(SignedProposal.of(proposal, key))
    for line in describe(proposal):
        print(line)
    print(f"`twinloop approve {id} --station {station.path} --by NAME` is what another person must do")
    return 0


def _writes(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in load_mapping(path).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(f"{path}: {name}: {value!r}; give a number")
        found[name] = float(value)
    return found
