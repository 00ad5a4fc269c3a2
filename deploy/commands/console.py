"""``twinloop console``: the pages of a station."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ...envs.errors import ConfigurationError
from ..station.folder import StationFolder

DESCRIPTION = """\
Serve the pages of a station: overview, assets, all signals, proposals, alarms, journal, people, and the emergency stop
on each of them. A process of its own: it reads what control writes, and gives it orders; control never waits for it.

Who looks must log in, who acts needs the role for it (`twinloop people`); the emergency stop needs neither. It also
works from a script: curl -X POST http://127.0.0.1:8080/stop

With --key it signs heads of the journal and keeps its telemetry as Parquet too, as `twinloop audit watch` does.

At a host that others reach it serves nothing without --tls: passwords would cross the network in the clear.
"""
EPILOG = """\
examples:
  twinloop people add --station runs/north chief --role admin
  twinloop console --station runs/north
  twinloop console --station runs/north --host 10.0.0.5 --name north.example --tls north.crt north.key
  twinloop console --station runs/north --key /mnt/audit/keys/journal.key --history-days 365
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from .audit import configure_retention

    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("--station", type=Path, required=True, metavar="DIR", help="the station's folder")
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="port to listen at (%(default)s)")
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a name that browsers reach it by; may be repeated"
    )
    parser.add_argument("--tls", type=Path, nargs=2, metavar=("CERT", "KEY"), help="certificate and key, PEM")
    parser.add_argument("--key", type=Path, metavar="FILE", help="keep the audit too: journal.key of `audit keys`")
    parser.add_argument("--heads", type=Path, metavar="DIR", help="folder of the signed heads (heads beside the key)")
    configure_retention(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    from ..audit.signing import load_private
    from ..audit.watch import Watched
    from ..console.server import serve
    from .audit import declared_retention

    station = StationFolder(arguments.station)
    station.check()
    declared = declared_retention(arguments)
    watched = None
    if arguments.key is not None:
        key = load_private(arguments.key, station.journal)
        heads = arguments.heads or arguments.key.parent / "heads"
        watched = Watched(station.journal, key, heads, station.history, declared)
    elif declared is not None or arguments.heads is not None:
        raise ConfigurationError("--heads and what is retained belong to the audit; give --key too")
    tls = None if arguments.tls is None else (arguments.tls[0], arguments.tls[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    kind = "http" if tls is None else "https"
    print(f"pages of {station.path} at {kind}://{arguments.host}:{arguments.port}/  (Ctrl-C ends them)", flush=True)
    serve(station, arguments.host, arguments.port, tls, arguments.name, watched)
    return 0
