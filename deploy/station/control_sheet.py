"""``control.json``: what holds for a whole run, written once at its start, for the other processes of a station."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...agents.policy import Policy
from ...envs.constraint import Declaration
from ..shield import Mode
from .folder import StationFolder, write_whole

FORMAT = 1


def write_control(
    station: StationFolder,
    declaration: Declaration,
    policy: Policy,
    *,
    ceiling: Mode,
    wall_period_s: float,
    journal: Path,
    endpoint: str | None,
    watchdog_pid: int | None,
    policy_path: Path | None,
) -> dict[str, Any]:
    """Write it, durably, and return what was written. Raises ``OSError`` where that can't be done."""
    plate = declaration.nameplate
    sheet: Mapping[str, Any] = {
        "format": FORMAT,
        "site": plate.site,
        "nameplate": plate.to_dict(),
        "nameplate_hash": plate.hash,
        "declaration_hash": declaration.hash,
        "limits": [row._asdict() for row in declaration.rows()],
        "period_s": plate.period_s,
        "wall_period_s": wall_period_s,
        "ceiling": ceiling.value,
        "pid": os.getpid(),
        "watchdog_pid": watchdog_pid,
        "policy": {
            "name": policy.name,
            "hash": getattr(policy, "hash", None),
            "path": None if policy_path is None else str(policy_path.absolute()),
            "pid": getattr(policy, "pid", None),  # at the start; another one follows on one that dies
        },
        "journal": str(journal.absolute()),
        "started_utc_s": time.time(),
        "endpoint": endpoint,
    }
    write_whole(station.control, sheet)
    return dict(sheet)
