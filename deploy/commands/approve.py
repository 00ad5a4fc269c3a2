"""``twinloop approve``: a second person's word on a proposal."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ...envs.errors import ConfigurationError
from ..proposals.approval import LASTS_S, approve, second_person_fault
from ..proposals.folder import ProposalFolder
from ..proposals.words import describe
from ..station.folder import StationFolder
from ..station.password import Passwords, add_password_option
from ..station.people import People

DESCRIPTION = """\
Show a proposal, and approve it with your own key. You must be an approver, and another person than who proposed it. The
approval is good once, for these exact writes or this policy, and for --minutes; whatever changes in between voids it.
Nothing is sent by it: `twinloop proposals execute ID` orders the roll-out.
"""
EPILOG = """\
examples:
  twinloop approve 01790000000000000000-ab12cd34 --station stations/north --by bert

exit status: 0 approved, 2 refused or wrong input.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("id", metavar="ID", help="the proposal's; `twinloop proposals` lists them")
    parser.add_argument("--station", type=Path, required=True, metavar="DIR", help="the station's folder")
    parser.add_argument("--by", required=True, metavar="NAME", help="who approves")
    parser.add_argument(
        "--minutes",
        type=float,
        default=LASTS_S / 60.0,
        metavar="M",
        help="how long it waits for execution; %(default)g",
    )
    add_password_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Approve; returns the exit status."""
    station = StationFolder(arguments.station)
    station.check()
    folder = ProposalFolder(station, arguments.id)
    signed = folder.signed()
    for line in describe(signed.proposal):
        print(line)
    people = People.read(station.people)
    fault = second_person_fault(signed, people, arguments.by)
    if fault:  # before a password is asked for in vain
        raise ConfigurationError(f"proposal {arguments.id}: {fault}")
    key = people.unlock(arguments.by, Passwords(arguments.password_fd).ask(arguments.by))
    approval = approve(signed, people, arguments.by, key, now_utc_s=time.time(), lasts_s=60.0 * arguments.minutes)
    standing = folder.file_approval(approval, time.time())
    if standing != approval:
        print(f"was approved by {standing.by} before; that approval stands, yours was not needed")
        return 0
    left = (approval.expires_utc_s - time.time()) / 60.0
    print(f"approved by {approval.by} for {left:.1f} minutes; `twinloop proposals execute {arguments.id}` orders it")
    return 0
