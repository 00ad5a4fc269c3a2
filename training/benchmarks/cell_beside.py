"""What runs beside an arm's own process, the live twin and the pages: started as a user does, and killed in mid-run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...deploy.station.folder import StationFolder, read_whole
from ...deploy.station.hearing import pages_beat

WIDE = {**os.environ, "COLUMNS": "300"}
"""Environment of processes whose printed lines are read: none is folded."""
_TORCH = re.compile(r"/lib(?:torch|c10)[^/\s]*\.so")
_ANSWER_S = 5.0
_OVERVIEW_S = 60.0


@dataclass
class Beside:
    """The live twin and the pages of one arm's station, running."""

    station: StationFolder
    twin: subprocess.Popen[bytes]
    pages: subprocess.Popen[bytes]
    port: int

    def kill(self) -> None:
        """At once and without a chance to say anything."""
        for process in (self.twin, self.pages):
            process.kill()
            process.wait()

    def told(self) -> dict[str, Any]:
        """How both are: the twin's gate, rows behind and NIS, its libraries of torch; whether the pages answer."""
        verdict = self.verdict()
        found = {name: verdict.get(name) for name in ("open", "why", "lag", "nis", "coverage", "parameters")}
        return found | {"torch": libraries_of_torch(self.twin.pid), "pages": self.answers()}

    def answers(self) -> bool:
        """Whether the pages do."""
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/login", timeout=_ANSWER_S) as page,
        ):
            return bool(page.status == 200)
        return False

    def verdict(self) -> dict[str, Any]:
        """What the live twin said last; empty before it said anything."""
        with suppress(OSError, ValueError):
            return read_whole(self.station.twin / "verdict.json") or {}
        return {}


def start(
    stack: ExitStack, station: Path, plant: str, seat: int, printed: Path, until: Callable[[Callable[[], bool]], None]
) -> Beside:
    """Start both at a station, and wait until the twin has taken in a period and pages are served.

    ``until`` waits for a fact and gives up in time. Raises RuntimeError with what they printed where one ends.
    """
    folder = StationFolder(station)
    until((station / "station.json").exists)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    out = stack.enter_context(printed.open("wb"))

    def begun(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "twinloop", *words, "--station", str(station)]
        process = _started(command, out)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process

    twin = begun("twin", "--plant", plant, "--set", f"site.seat={seat}", "--save-every", "50")
    found = Beside(folder, twin, begun("console", "--port", str(port)), port)

    def is_so() -> bool:
        if found.twin.poll() is not None or found.pages.poll() is not None:
            raise RuntimeError(f"the live twin or the pages ended:\n{printed.read_text(errors='replace')}")
        return found.verdict().get("time_s") is not None and pages_beat(folder).exists() and found.answers()

    until(is_so)
    return found


def libraries_of_torch(pid: int) -> int:
    """How many of torch's libraries a process has in its memory."""
    return len(set(_TORCH.findall(Path(f"/proc/{pid}/maps").read_text())))


def _started(command: list[str], out: Any) -> subprocess.Popen[bytes]:
    """What is beside an arm never goes before it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=WIDE)
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(process.pid, os.SCHED_OTHER, os.sched_param(0))
    return process


def overview(station: Path) -> list[str]:
    """The lines of `twinloop overview --once` that tell of processes beside control."""
    command = [sys.executable, "-m", "twinloop", "overview", "--once", "--station", str(station)]
    with _started(command, subprocess.PIPE) as process:
        try:
            said, _ = process.communicate(timeout=_OVERVIEW_S)
        finally:
            process.kill()
    told = said.decode(errors="replace").replace(
        f"{station.parent}{os.sep}", ""
    )  # a temporary folder is nobody's business
    lines = [line.strip() for line in told.splitlines()]
    return [line for line in lines if any(word in line for word in ("live twin", "pages", "STALE", "no station"))]
