"""``twinloop certificates``: who is who on the wire."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from ...envs.errors import ConfigurationError
from ..certificates.identity import CERTIFICATE, KEY
from ..certificates.making import DEFAULT_DAYS, make_set
from ..certificates.trust import (
    KINDS,
    application_uri,
    fingerprint,
    hosts,
    read_certificate,
    thumbprint,
    time_fault,
    when,
)
from ..certificates.users import USERS, Credentials, Right, Scrypt, User, Users, save_credentials

DESCRIPTION = """\
Make and show what secures OPC UA: certificates of a server and its client, whom each trusts, and the server's users.

make   DIR/server and DIR/client, which trust each other, and a user named controller who may write: the server has
       the hash of his password in users.json, the client the password in user.json. Move each folder to its machine,
       and keep DIR/authority (with --authority) on neither
show   validity, application URI, hosts and fingerprints of all certificates in a folder and below
user   add a user to a server's users.json, or give him a new password, read from the standard input; or name the
       certificate that is his

Private keys and passwords are readable by their owner alone, and are refused where others may read them. A peer that is
not trusted is refused, and its certificate is kept in rejected/; whoever trusts it moves it into trusted/.
"""
EPILOG = """\
examples:
  twinloop certificates make security --site ablaincourt --host plant.example --host 10.0.0.5
  twinloop certificates show security
  twinloop commission configs/wind_farm/plant_ablaincourt.yaml --security security/server
  twinloop run --policy greedy --endpoint opc.tcp://127.0.0.1:4840/twinloop --security security/client
  twinloop certificates user security/server historian --right read < password.txt

exit status: 0 done, 1 show: something is not valid now, 2 wrong input.
"""
CONTROLLER = "controller"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    chosen = parser.add_subparsers(dest="what", metavar="WHAT", required=True, help="one of those above")

    found = chosen.add_parser("make", allow_abbrev=False, help="make a site's set")
    found.add_argument("folder", type=Path, metavar="DIR", help="where to; server/ and client/ must not be there yet")
    found.add_argument("--site", default="site", help="name of the site in URIs and subjects, default %(default)s")
    found.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="name or address of the server; may be given again"
    )
    found.add_argument("--authority", action="store_true", help="an authority signs both, and both trust it")
    found.add_argument("--days", type=int, default=DEFAULT_DAYS, help="how long they are valid, default %(default)s")
    found.set_defaults(act=_make)

    found = chosen.add_parser("show", allow_abbrev=False, help="show certificates")
    found.add_argument("folder", type=Path, metavar="DIR", help="a folder, or one certificate's file")
    found.set_defaults(act=_show)

    found = chosen.add_parser("user", allow_abbrev=False, help="add a user")
    found.add_argument("folder", type=Path, metavar="DIR", help=f"the server's folder, with {USERS}")
    found.add_argument("name", metavar="NAME", help="the user")
    found.add_argument("--right", choices=[str(r) for r in Right], required=True, help="what he may do")
    found.add_argument("--certificate", type=Path, metavar="FILE", help="he logs in with this one's key, no password")
    found.set_defaults(act=_user)


def run(arguments: argparse.Namespace) -> int:
    """Do what was chosen; returns the exit status."""
    act: Callable[[argparse.Namespace], int] = arguments.act
    return act(arguments)


def _make(arguments: argparse.Namespace) -> int:
    server, client = make_set(
        arguments.folder,
        arguments.site,
        tuple(arguments.host),
        with_authority=arguments.authority,
        days=arguments.days,
    )
    password = secrets.token_urlsafe(24)
    Users(server).put(User(name=CONTROLLER, right=Right.WRITE, password=Scrypt.of(password)))
    save_credentials(client, Credentials(CONTROLLER, SecretStr(password)))
    print(f"made {server} and {client}; they trust each other, and {CONTROLLER} may write")
    print(f"  twinloop commission PLANT.yaml --security {server}")
    print(f"  twinloop run ... --endpoint opc.tcp://HOST:4840/twinloop --security {client}")
    return _show(arguments)


def _show(arguments: argparse.Namespace) -> int:
    root: Path = arguments.folder
    files = [root]
    if root.is_dir():
        files = sorted(path for path in root.rglob("*") if path.suffix in KINDS and path.name != KEY)
    if not files:
        raise ConfigurationError(f"{root}: has no certificates; `twinloop certificates make DIR` makes a set")
    status = 0
    for path in files:
        certificate = read_certificate(path)
        fault = time_fault(certificate)
        status = 1 if fault is not None and path.name == CERTIFICATE else status
        print(f"\n{path}")
        print(f"  subject   {certificate.subject.rfc4514_string()}")
        print(f"  uri       {application_uri(certificate) or 'none'}")
        print(f"  hosts     {', '.join(hosts(certificate)) or 'none'}")
        valid = f"{when(certificate.not_valid_before_utc)} to {when(certificate.not_valid_after_utc)}"
        print(f"  valid     {valid}{'' if fault is None else f'  NOT NOW: {fault.text}'}")
        print(f"  sha256    {fingerprint(certificate)}")
        print(f"  sha1      {thumbprint(certificate)}")
    return status


def _user(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    if not (folder / CERTIFICATE).exists():
        raise ConfigurationError(f"{folder}: is no folder of a server; it has no {CERTIFICATE}")
    if arguments.certificate is not None:
        mark = fingerprint(read_certificate(arguments.certificate))
        user = User(name=arguments.name, right=Right(arguments.right), certificate_sha256=mark)
    else:
        user = User(name=arguments.name, right=Right(arguments.right), password=Scrypt.of(_password()))
    users = Users(folder)
    users.put(user)
    print(f"{users.path}: {user.name} may {user.right}; the server takes it up at his next login")
    return 0


def _password() -> str:
    """From the standard input; asked for twice without an echo where that is a terminal."""
    if sys.stdin.isatty():
        from getpass import getpass

        password = getpass("password: ")
        if getpass("again: ") != password:
            raise ConfigurationError("the two passwords differ; nothing was changed")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < 8:
        raise ConfigurationError(f"a password of {len(password)} characters; give 8 or more on the standard input")
    return password
