"""``twinloop stop``: the emergency stop of a station, from any terminal, without a login.

It needs nothing but the standard library and a folder that can be reached, so that it works when all else is broken.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...envs.errors import ConfigurationError
from ..station.folder import StationFolder

DESCRIPTION = """\
Stop a station: all assets go to their safe states within a period, and stay there until somebody with the right to do
so resets them. No login. Nothing but the control process or its watchdog has to live for it.

What it does: put the file STOP into the station's folder, which holds the stop as long as it stands there, wake the
control process (SIGUSR1), and wait up to two periods for it to show the stop. A control process that hangs or does not
follow is killed by the watchdog within one and a half periods, which then takes the plant to its safe state itself.
"""
EPILOG = """\
examples:
  twinloop stop --station runs/north
  twinloop stop --station runs/north --by 'shift B, smoke at WT07'

exit status: 0 the stop is seen to be carried out, 1 it is ordered but not seen yet, 2 wrong input.
"""
_SHORTEST_WAIT_S = 2.0
_LOOK_S = 0.02


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("--station", type=Path, required=True, metavar="DIR", help="the station's folder")
    parser.add_argument("--by", metavar="NAME", help="who stops it and why, for the record; default: the user's name")


def run(arguments: argparse.Namespace) -> int:
    """Order the stop and say what came of it; returns the exit status."""
    station = StationFolder(arguments.station)
    control = _read(station.control)
    if control is None and not (station.path / "station.json").exists():
        raise ConfigurationError(
            f"{station.path}: no station, so nothing was stopped; give the folder that `twinloop run --station` was "
            "given"
        )
    by = " ".join((arguments.by or _user()).split())
    begun_s, utc_s = time.monotonic(), time.time()
    print(_order(station, by), flush=True)
    if control is None:
        print("no control process has run here; one that is started on this station starts stopped")
        return 1
    print(_wake(control), flush=True)
    period_s = _number(control.get("wall_period_s")) or _number(control.get("period_s")) or 1.0
    while True:
        seen = _seen(station, control, utc_s)
        waited_s = time.monotonic() - begun_s
        if seen:
            print(f"seen after {waited_s:.2f} s: {seen}")
            return 0
        if waited_s > max(2.0 * period_s, _SHORTEST_WAIT_S):
            break
        time.sleep(_LOOK_S)
    print(f"NOT SEEN within {waited_s:.1f} s (two periods of {period_s:g} s): {_state_of(station, control)}")
    print(
        "next: use the equipment's own emergency stop if it still moves; then look at the process and at "
        f"{station.path} (the stop stays ordered as long as {station.stop.name} is there)"
    )
    return 1


def _order(station: StationFolder, by: str) -> str:
    """Put the stop file there, whole if that works, else empty: that it exists is what counts."""
    text = f"{by}, {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
    beside = station.stop.with_name(f".STOP.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(station.stop)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        try:
            station.stop.touch()
        except OSError:
            return f"{station.stop}: CAN'T BE WRITTEN ({error.strerror}); only the signal is left"
    return f"{station.stop}: written, by {by}"


def _wake(control: dict[str, Any]) -> str:
    """Signal the control process, if that number is still its own."""
    pid = control.get("pid")
    if not isinstance(pid, int) or pid <= 1:
        return "control.json names no process; the stop file alone orders the stop"
    if not _is_alive(pid):
        return f"control, process {pid}, is dead"
    if not _takes_stop(pid):
        return (
            f"process {pid} takes no stop signals, so it may be another one by now; the stop file alone orders the stop"
        )
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError as error:
        return f"control, process {pid}, can't be signalled ({error.strerror}); the stop file alone orders the stop"
    return f"control, process {pid}, signalled" + (" (it stands still)" if _is_still(pid) else "")


def _seen(station: StationFolder, control: dict[str, Any], since_utc_s: float) -> str:
    """In words, who carries the stop out; empty while nobody is seen to."""
    watchdog = _read(station.watchdog) or {}
    # The clock may have been set back since an earlier run's watchdog told that; its number says whose it was.
    is_ours = watchdog.get("pid") is not None and watchdog.get("pid") == control.get("watchdog_pid")
    if watchdog.get("state") == "safe" and is_ours:
        return f"the watchdog has taken the plant to its safe state ({watchdog.get('why', '')})"
    state = _read(station.state)
    pid = control.get("pid")
    if state is None or not isinstance(pid, int) or not _is_alive(pid):
        return ""
    if state.get("ended") is None and state.get("stop") is True and _number(state.get("utc_s")) >= since_utc_s:
        return f"control carries it out, period {state.get('number')}"
    return ""


def _state_of(station: StationFolder, control: dict[str, Any]) -> str:
    """In words, why nobody is seen to carry it out."""
    pid = control.get("pid")
    watchdog = _read(station.watchdog)
    if watchdog is None:
        told = "no watchdog was started for it"
    elif watchdog.get("state") == "watching" and not _is_alive(int(_number(watchdog.get("pid")))):
        told = "its watchdog is DEAD and has not taken over"
    else:
        words = {
            "watching": "its watchdog lives and has not taken over (yet)",
            "acting": f"its watchdog is taking the plant to its safe state ({watchdog.get('why', '')})",
            "left": f"its watchdog could NOT bring the plant to its safe state ({watchdog.get('why', '')}); the "
            "equipment's own time-out is what is left",
            "ended": "its watchdog has ended in order with it",
        }
        told = words.get(str(watchdog.get("state")), "its watchdog's file can't be understood")
    if not isinstance(pid, int) or not _is_alive(pid):
        ended = (_read(station.state) or {}).get("ended")
        return f"control is dead{'' if ended is None else f' (it ended in order: {ended})'}; {told}"
    return f"control, process {pid}, {'stands still' if _is_still(pid) else 'lives but does not show it'}; {told}"


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _status(pid).get("State", "")[:1] not in ("Z", "X")


def _is_still(pid: int) -> bool:
    return _status(pid).get("State", "")[:1] in ("T", "t")


def _takes_stop(pid: int) -> bool:
    """Whether the process catches SIGUSR1, which would end any other one; where the kernel does not tell, no."""
    try:
        return bool(int(_status(pid).get("SigCgt", "0"), 16) >> (signal.SIGUSR1 - 1) & 1)
    except ValueError:
        return False


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


def _read(path: Path) -> dict[str, Any] | None:
    """A file of the station; one that can't be read counts as none: the stop is what matters."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return f"user {os.getuid()}"
