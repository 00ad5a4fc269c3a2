"""Where everything of one site's operation lies, and how a file gets there: whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...envs.errors import ConfigurationError

FORMAT = 1
"""Of the folder; a program that knows another one refuses it."""


class StationFolder:
    """Paths of a station; nothing is read or made before it is asked for."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def journal(self) -> Path:
        """The control process' journal (SQLite); everybody else only reads it."""
        return self.path / "journal.sqlite"

    @property
    def control(self) -> Path:
        """What holds for a whole run (:mod:`.control_sheet`): nameplate, limits, process ids. Written at its start."""
        return self.path / "control.json"

    @property
    def state(self) -> Path:
        """The latest period (:mod:`.period_state`), replaced each period."""
        return self.path / "state.json"

    @property
    def stop(self) -> Path:
        """While this file exists, the emergency stop is held. Its text says who pressed it."""
        return self.path / "STOP"

    @property
    def watchdog(self) -> Path:
        """What the watchdog does: watching, acting, or how it ended (:mod:`..commands.watchdog`)."""
        return self.path / "watchdog.json"

    @property
    def inbox(self) -> Path:
        """Orders that wait (:mod:`.order`), one file each."""
        return self.path / "orders" / "inbox"

    @property
    def done(self) -> Path:
        """What became of each order, one file each, by the order's id."""
        return self.path / "orders" / "done"

    @property
    def proposals(self) -> Path:
        """A folder a proposal: ``proposal.json``, ``approval.json``, ``recheck.json``, ``execution.json``."""
        return self.path / "proposals"

    @property
    def twin(self) -> Path:
        """The live twin: ``state.npz``, ``verdict.json``."""
        return self.path / "twin"

    @property
    def history(self) -> Path:
        """Telemetry as Parquet."""
        return self.path / "history"

    @property
    def people(self) -> Path:
        """Who may do what, with their public keys; written by an administrator."""
        return self.path / "people.json"

    def make(self) -> None:
        """Make the folders, for this user and group only; one that exists must be of this format."""
        marker = self.path / "station.json"
        if self.path.exists() and any(self.path.iterdir()) and not marker.exists():
            raise ConfigurationError(f"{self.path}: not empty and no station; give a new folder, or a station's")
        self.path.mkdir(mode=0o770, parents=True, exist_ok=True)
        for folder in (self.inbox, self.done, self.proposals, self.twin, self.history):
            folder.mkdir(mode=0o770, parents=True, exist_ok=True)
        if marker.exists():
            self.check()
        else:
            write_whole(marker, {"format": FORMAT})

    def check(self) -> None:
        """Raise :class:`ConfigurationError` unless this is a station of the format that is known here."""
        marker = self.path / "station.json"
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))["format"]
        except FileNotFoundError:
            raise ConfigurationError(
                f"{self.path}: no station; `twinloop run --station {self.path}` makes one"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{marker}: cannot be read ({error}); is this the folder of a station?") from error
        if found != FORMAT:
            raise ConfigurationError(f"{self.path}: a station of format {found}, not {FORMAT}; use its version")


def write_whole(path: Path, data: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write ``data`` as JSON under its final name at once; ``durable``: only when the disk has it."""
    from ..row_text import plain  # here: `twinloop stop` knows a station without waiting for numpy

    text = json.dumps(plain(data), sort_keys=True, separators=(",", ":"), allow_nan=False)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)


def read_whole(path: Path) -> dict[str, Any] | None:
    """What :func:`write_whole` wrote; None where there is no such file. Raises ValueError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: a {type(found).__name__}, expected an object")
    return found
