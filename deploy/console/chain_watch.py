"""Whether the journal's chain holds, row by row as they come, and rows for people to read."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...envs.errors import JournalError
from ..audit.chain import GENESIS, digest, opened, stored_rows
from .words import Change

_AT_ONCE = 20_000
_MOST_LOOKED_AT = 20_000


@dataclass(frozen=True)
class ChainState:
    """``checked``: the last row that was; ``fault``: what is wrong, empty while nothing is."""

    checked: int = 0
    rows_since: int = 1
    at_utc_s: float | None = None
    fault: str = ""
    complete: bool = False


class ChainWatch:
    """Checks what is new since the last call; a fault stays until the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._previous: bytes | None = None
        self.state = ChainState()

    def check(self) -> ChainState:
        """Look at the next rows, at most some thousands; call again until ``complete``."""
        if self.state.fault or not self.path.is_file():
            return self.state
        checked, since, n = self.state.checked, self.state.rows_since, 0
        fault = ""
        try:
            with opened(self.path) as connection:
                for row in stored_rows(connection, checked):
                    if self._previous is None:  # rows before may have left the journal by its declared retention
                        since, checked = row.sequence, row.sequence - 1
                        self._previous = GENESIS if row.sequence == 1 else row.previous
                    if row.sequence != checked + 1:
                        fault = f"row {checked + 1} is missing"
                    elif row.previous != self._previous:
                        fault = f"row {row.sequence} does not follow the row before it"
                    elif digest(row.sequence, row.previous, row.body) != row.hash:
                        fault = f"row {row.sequence}: its content does not match its hash"
                    if fault:
                        break
                    checked, self._previous = row.sequence, row.hash
                    n += 1
                    if n >= _AT_ONCE:
                        break
                else:
                    tail = connection.execute("SELECT max(sequence) FROM journal").fetchone()[0] or 0
                    if tail < checked:
                        fault = f"rows {tail + 1} to {checked} were there and are gone"
        except JournalError as error:
            fault = str(error)
        self.state = ChainState(checked, since, time.time(), fault, n < _AT_ONCE)
        return self.state


@dataclass(frozen=True)
class JournalRow:
    """One row: ``what`` in a line."""

    sequence: int
    kind: str
    utc_s: float | None
    number: int | None
    what: str


def recent_rows(
    path: Path, *, before: int | None = None, kind: str = "", text: str = "", most: int = 50
) -> tuple[list[JournalRow], int | None]:
    """The newest rows below ``before`` that match, newest first, and where to look on, None at the beginning.

    ``kind``: exactly; ``text``: anywhere in the row. Looks at twenty thousand rows at most. Raises
    :class:`~twinloop.envs.errors.JournalError`.
    """
    found: list[JournalRow] = []
    place = before if before is not None else 1 << 62
    query = "SELECT sequence, body FROM journal WHERE sequence < ? ORDER BY sequence DESC"
    with opened(path) as connection:
        for looked_at, (sequence, body) in enumerate(connection.execute(query, (place,))):
            if len(found) >= most or looked_at >= _MOST_LOOKED_AT:
                return found, place
            place = sequence
            if text and text.encode() not in body:
                continue
            row = _told(sequence, body)
            if not kind or row.kind == kind:
                found.append(row)
    return found, None


def whole_row(path: Path, sequence: int) -> tuple[dict[str, Any], str, str] | None:
    """A row's record and hashes (its own, and that of the row before); None where there is none."""
    with opened(path) as connection:
        found = connection.execute(
            "SELECT body, previous, hash FROM journal WHERE sequence = ?", (sequence,)
        ).fetchone()
    if found is None:
        return None
    body, previous, own = (bytes(part).decode("utf-8", "replace") for part in found)
    try:
        record = json.loads(body)
    except ValueError:
        record = {"unreadable": body}
    return record, own, previous


def changes_of(record: dict[str, Any]) -> list[Change]:
    """The shield's reasons of a row."""
    return [Change.of(row) for row in record.get("reasons") or ()]


def _told(sequence: int, body: bytes) -> JournalRow:
    try:
        record = json.loads(body)
        kind = str(record.get("kind", ""))
    except (ValueError, AttributeError):
        return JournalRow(sequence, "unreadable", None, None, "this row is no record")
    utc_s, number = record.get("utc_s", record.get("plant_time_s")), record.get("number")
    return JournalRow(sequence, kind, utc_s if isinstance(utc_s, (int, float)) else None, number, _line(kind, record))


def _line(kind: str, record: dict[str, Any]) -> str:
    if kind in ("decision", "missed"):
        reasons = changes_of(record)
        said = [f"{len(reasons)} changes"] if reasons else ["sent as asked"]
        said += [f"{r.asset} {r.signal} {r.words}".replace("  ", " ").strip() for r in reasons[:1]]
        if record.get("why"):
            said.insert(0, str(record["why"]))
        return "; ".join(said)
    plain = {k: v for k, v in record.items() if k not in ("kind", "utc_s") and isinstance(v, (str, int, float))}
    return ", ".join(f"{k} {v}" for k, v in list(plain.items())[:6])
