"""``twinloop people``: who may do what at a station."""

from __future__ import annotations

import argparse
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from ..station.folder import StationFolder
from ..station.password import Passwords, add_password_option
from ..station.people import MAY, People, Role

DESCRIPTION = f"""\
Who may do what at a station. Each person has a key that the password unlocks; proposals and approvals are signed with
it, so that no program and nobody else can do so in that name. An administrator vouches for everybody with his own key.

add NAME        add a person in the role of --role; the first of all must be an admin, later ones need --by ADMIN
list            names, roles and the fingerprints of their keys
remove NAME     remove a person, in the name of --by ADMIN; the last admin stays
password NAME   give the own key a new password

roles: {"; ".join(f"{role}: {', '.join(sorted(acts))}" for role, acts in MAY.items())}.
Nobody approves what he proposed himself, whatever his role. The emergency stop needs no person (`twinloop stop`). A
control process believes the administrators that it finds when it starts, and later only whom one of them vouches for.
"""
EPILOG = """\
examples:
  twinloop people add root --role admin --station stations/north
  twinloop people add anna --role operator --by root --station stations/north
  twinloop people list --station stations/north

Passwords are asked for at the terminal: the administrator's first, then the new one.

exit status: 0 done, 2 wrong input.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument(
        "what", choices=("add", "list", "remove", "password"), metavar="WHAT", help="one of those above"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the person")
    parser.add_argument("--station", type=Path, required=True, metavar="DIR", help="the station's folder")
    parser.add_argument("--role", choices=get_args(Role), help="what the person may do")
    parser.add_argument("--by", metavar="ADMIN", help="the administrator who does this")
    add_password_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it and say what was done; returns the exit status."""
    station = StationFolder(arguments.station)
    if arguments.what == "add" and not (station.path / "station.json").exists():
        station.make()  # people come before the first run
    station.check()
    people = People.read(station.people)
    if arguments.what == "list":
        _unused(arguments, "name", "role", "by", "password_fd")
        _show(people)
        return 0
    if arguments.name is None:
        raise _wrong(f"people {arguments.what}: give the person's NAME")
    passwords = Passwords(arguments.password_fd)
    if arguments.what == "add":
        _add(people, arguments, passwords)
    elif arguments.what == "remove":
        _unused(arguments, "role")
        by = _administrator(arguments)
        people.require(by, "people")
        people.remove(arguments.name, by=by, by_password=passwords.ask(by))
        print(f"{arguments.name} is removed; what only {arguments.name} approved is refused from now on")
    else:
        _unused(arguments, "role", "by")
        people[arguments.name]
        old = passwords.ask(arguments.name)
        people.unlock(arguments.name, old)
        people.change_password(arguments.name, old, passwords.ask(f"{arguments.name}, the new one", twice=True))
        print(f"{arguments.name} has a new password")
    return 0


def _add(people: People, arguments: argparse.Namespace, passwords: Passwords) -> None:
    if arguments.role is None:
        raise _wrong(f"people add: give --role, one of {', '.join(MAY)}")
    by, by_password = "", ""
    if people.names:
        by = _administrator(arguments)
        people.require(by, "people")
        by_password = passwords.ask(by)
    else:
        _unused(arguments, "by")
    new = passwords.ask(f"{arguments.name}, a new one", twice=True)
    after = people.add(arguments.name, arguments.role, new, by=by, by_password=by_password)
    print(f"{arguments.name} is {arguments.role}, key {_fingerprint(after[arguments.name].public_key)}")


def _show(people: People) -> None:
    for name in people.names:
        person = people[name]
        day = datetime.fromtimestamp(person.added_utc_s, UTC).strftime("%Y-%m-%d")
        print(f"{name:20s} {person.role:9s} {_fingerprint(person.public_key)}  {day} by {person.vouched_by}")
    if not people.names:
        print("nobody; `twinloop people add NAME --role admin` adds the first")


def _fingerprint(public_key: str) -> str:
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:16]


def _administrator(arguments: argparse.Namespace) -> str:
    if arguments.by is None:
        raise _wrong(f"people {arguments.what}: give --by ADMIN, the administrator who does this")
    return str(arguments.by)


def _unused(arguments: argparse.Namespace, *options: str) -> None:
    for option in options:
        if getattr(arguments, option) is not None:
            shown = option.upper() if option == "name" else f"--{option.replace('_', '-')}"
            raise _wrong(f"people {arguments.what}: {shown} has no meaning here; leave it out")


def _wrong(text: str) -> Exception:
    from ...envs.errors import ConfigurationError

    return ConfigurationError(text)
