"""``twinloop overview``: a station at a glance, in a terminal."""

from __future__ import annotations

import argparse
import getpass
import threading
from pathlib import Path

from ..station.folder import StationFolder

DESCRIPTION = """\
Show a station in the terminal: its assets, their modes, who commands them, alarms, and the loop's own figures. For a
machine without a browser, and when the pages are down: it needs nothing but the station's folder.

keys: s or space: EMERGENCY STOP, at once and without a question; q: leave. Ctrl-C leaves too, and stops nothing.
"""
EPILOG = """\
examples:
  twinloop overview --station runs/north
  ssh control-room twinloop overview --station /srv/north
  twinloop overview --station runs/north --once

exit status: 0, with --once 1 where the newest state is stale or there is none.
"""
_DRAW_S = 0.25


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("--station", type=Path, required=True, metavar="DIR", help="the station's folder")
    parser.add_argument("--once", action="store_true", help="print it once and end")


def run(arguments: argparse.Namespace) -> int:
    """Show it until q; returns the exit status."""
    from rich.console import Console
    from rich.live import Live

    from ..console.state_feed import StateFeed
    from ..console.stop_button import press
    from ..console.terminal import TerminalOverview
    from ..emergency_stop import on_keys

    station = StationFolder(arguments.station)
    station.check()
    feed = StateFeed(station)
    feed.look()
    overview = TerminalOverview(feed)
    console = Console(highlight=False)
    if arguments.once:
        console.print(overview.draw())
        return 1 if feed.is_stale else 0
    over = threading.Event()

    def stop(by: str) -> None:
        try:
            overview.said = press(station, f"{getpass.getuser()}, {by}")
        except OSError as error:
            overview.said = f"THE STOP COULD NOT BE WRITTEN ({error.strerror}): use the equipment's own"

    with (
        on_keys({b"s": stop, b"S": stop, b" ": stop, b"q": lambda by: over.set()}),
        Live(console=console, screen=console.is_terminal, auto_refresh=False) as live,
    ):
        while not over.is_set():
            feed.look()
            live.update(overview.draw(), refresh=True)
            over.wait(_DRAW_S)
    return 0
