"""``twinloop proposals``: list, show and steer what is proposed at a station."""

from __future__ import annotations

import argparse
import getpass
import time
from pathlib import Path

from pydantic import ValidationError

from ...envs.errors import ConfigurationError
from ..proposals.checks import FRESH_S
from ..proposals.folder import ProposalFolder, proposal_ids
from ..proposals.words import describe, standing
from ..station.folder import StationFolder, read_whole
from ..station.order import LASTS_S, Order, OrderResult, new_id, place

RECHECK_S = 60.0
"""How long ``execute`` waits for the live twin, which simulates an approved proposal anew within some periods."""

DESCRIPTION = f"""\
list                 all proposals, newest first, and how they stand
show ID              one in full, with what is written, promised and measured
execute ID           order the roll-out of an approved one, when the live twin has simulated it anew (waited for at most
                     {RECHECK_S:g} s); control checks all of it again itself
pause ID             hold the roll-out where it is; resume ID goes on, rollback ID goes back

An order waits {LASTS_S:g} s to be followed, and the command that long for the answer of the control process.
"""
EPILOG = """\
examples:
  twinloop proposals list --station stations/north
  twinloop proposals execute 01790000000000000000-ab12cd34 --station stations/north

exit status: 0 done or accepted, 1 refused or not answered, 2 wrong input.
"""
ORDERS = ("execute", "pause", "resume", "rollback")
_LOOK_S = 0.05


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("what", choices=("list", "show", *ORDERS), metavar="WHAT", help="one of those above")
    parser.add_argument("id", nargs="?", metavar="ID", help="the proposal's")
    parser.add_argument("--station", type=Path, required=True, metavar="DIR", help="the station's folder")
    parser.add_argument("--by", metavar="NAME", help="who orders it, for the record; default: the user's name")


def run(arguments: argparse.Namespace) -> int:
    """Do it and print; returns the exit status."""
    station = StationFolder(arguments.station)
    station.check()
    if arguments.what == "list":
        if arguments.id is not None:
            raise ConfigurationError("proposals list: lists all; `show ID` shows one")
        for id in proposal_ids(station):
            print(f"{id}  {standing(ProposalFolder(station, id))}")
        return 0
    if arguments.id is None:
        raise ConfigurationError(f"proposals {arguments.what}: give the proposal's ID; `list` shows them")
    folder = ProposalFolder(station, arguments.id)
    proposal = folder.signed().proposal
    if arguments.what == "show":
        for line in describe(proposal):
            print(line)
        print(f"now        {standing(folder)}")
        return 0
    if arguments.what == "execute":
        _await_recheck(folder, proposal.hash)
    return _order(station, arguments.what, arguments.id, arguments.by or f"local {getpass.getuser()}")


def _await_recheck(folder: ProposalFolder, wanted: str) -> None:
    """Give the live twin time to simulate the approved proposal anew; control says what is wrong if it does not."""
    until_s, told = time.monotonic() + RECHECK_S, False
    while time.monotonic() < until_s and folder.approval() is not None:
        found = folder.recheck()
        if found is not None and found.proposal == wanted and time.time() - found.utc_s < 0.5 * FRESH_S:
            return
        if not told:
            print("waiting for the live twin to simulate it anew")
            told = True
        time.sleep(_LOOK_S)


def _order(station: StationFolder, kind: str, id: str, by: str) -> int:
    now_s = time.time()
    order = Order.model_validate(
        {"id": new_id(), "kind": kind, "by": by, "utc_s": now_s, "expires_utc_s": now_s + LASTS_S, "proposal": id}
    )
    place(station, order)
    until_s = time.monotonic() + LASTS_S
    while time.monotonic() < until_s:
        try:
            found = read_whole(station.done / f"{order.id}.json")
            if found is not None:
                result = OrderResult.model_validate(found)
                print(result.why)
                return 0 if result.accepted else 1
        except (ValueError, ValidationError) as error:
            raise ConfigurationError(f"{station.done / order.id}.json: cannot be read ({error})") from error
        time.sleep(_LOOK_S)
    (station.inbox / f"{order.id}.json").unlink(missing_ok=True)
    print(f"no answer within {LASTS_S:g} s, and the order is taken back; is `twinloop run --station` running?")
    return 1
