"""What the live twin's process tells everybody: its files in the station, whole or not at all, and bounded."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..envs.nameplate import Nameplate
from .live_twin import LiveTwinSettings, Prediction
from .row_text import plain
from .station.folder import StationFolder
from .twin_gate import GateVerdict

FORMAT = 1
MOST_LOG_BYTES = 1_000_000


class TwinFolder:
    """Paths in a station's ``twin/``."""

    def __init__(self, station: StationFolder) -> None:
        self.path = station.twin

    @property
    def state(self) -> Path:
        """The twin itself, with the place in the journal up to which it knows the plant."""
        return self.path / "state.npz"

    @property
    def verdict(self) -> Path:
        """Gate, consistency, drift alarm, parameters and prediction of the latest period; see :func:`verdict_sheet`."""
        return self.path / "verdict.json"

    @property
    def log(self) -> Path:
        """What happened, a line each: starts, gaps, alarms, recalibrations."""
        return self.path / "log.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process while it runs, so that there is one."""
        return self.path / "process.lock"

    @property
    def request(self) -> Path:
        """Asks the process for a recalibration; it removes the file when it takes it up."""
        return self.path / "recalibrate.json"


def tell(folder: TwinFolder, what: str, **details: Any) -> dict[str, Any]:
    """Append a line to the log, and return it; of a log grown too long the newer half stays."""
    line = {"utc_s": time.time(), "what": what, **details}
    path = folder.log
    if path.exists() and path.stat().st_size > MOST_LOG_BYTES:
        kept = path.read_bytes()[-MOST_LOG_BYTES // 2 :]
        beside = path.with_name(f".{path.name}.part")
        beside.write_bytes(kept[kept.index(b"\n") + 1 :] if b"\n" in kept else b"")
        beside.replace(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain(line), separators=(",", ":")) + "\n")
    return line


def told(folder: TwinFolder) -> list[dict[str, Any]]:
    """The lines of the log, oldest first; one that was cut off by a crash is left out."""
    found = []
    if folder.log.exists():
        for line in folder.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def prediction_sheet(nameplate: Nameplate, found: Prediction) -> Mapping[str, Any]:
    """By group and signal, values, low and high ``[N]``: what was expected to be read at ``time_s``."""
    groups = {
        g.name: {
            s.name: {part: getattr(found, attribute)[g.name][:, k] for part, attribute in _PARTS}
            for k, s in enumerate(g.measured)
        }
        for g in nameplate.groups
    }
    return {"time_s": found.time_s, "groups": groups}


_PARTS = (("value", "values"), ("low", "low"), ("high", "high"))


def verdict_sheet(nameplate: Nameplate, found: GateVerdict, settings: LiveTwinSettings) -> dict[str, Any]:
    """The gate's part of ``verdict.json``; :class:`~.twin_process.TwinProcess` adds its lag and the rest."""
    return {
        "format": FORMAT,
        "utc_s": time.time(),
        "site": nameplate.site,
        "nameplate_hash": nameplate.hash,
        "period_s": nameplate.period_s,
        "open": found.open,
        "why": found.why,
        "alarm": found.alarm,
        "nis": found.nis if math.isfinite(found.nis) else None,
        "coverage": found.coverage if math.isfinite(found.coverage) else None,
        "n": found.n,
        "window": settings.window,
        "bands": {"nis": settings.nis_band, "coverage": settings.coverage_band},
    }
