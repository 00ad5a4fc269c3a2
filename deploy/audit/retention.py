"""Deletes what is older than declared, and leaves the rest verifiable.

Rows leave a journal only when they are in the history, file by file, and a signed head confirms them. In their place a
signed *anchor* stays, in the journal and among its heads: number and hash of the last row deleted, and the SHA-256 of
the files that hold what was. The rows behind it follow its hash, as they followed the row's. Files leave the history
only when their rows have left the journal.

The last days of a journal are counted back from its own last row, or from now where that claims to be in the future, so
that a wrong clock deletes nothing.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import PositiveFloat, model_validator

from ...envs.configuration import Strict
from ...envs.errors import JournalError
from .chain import ends, opened, row_at
from .heads import ANCHOR, HeadFile, SignedHead, file_sha256, stored_anchor
from .history import Part, exported_to, parts, told_by
from .history_rows import instant_s
from .signing import PrivateKey
from .verify import CREATE_ANCHOR, audit

_BATCH_ROWS = 200
_BREATH_S = 0.01
"""Between two batches, so that the loop that writes the journal gets its turn."""
_PATIENCE_S, _ASK_AGAIN_S = 20.0, 0.001
_DAY_S = 86_400.0
_MB = 1e6
_ROW_BYTES = 150
"""What a row takes beside its body."""


class Retention(Strict):
    """How much stays; what is not declared has no bound."""

    journal_days: PositiveFloat | None = None
    journal_mb: PositiveFloat | None = None
    history_days: PositiveFloat | None = None
    history_mb: PositiveFloat | None = None

    @model_validator(mode="after")
    def _history_stays_longer(self) -> Retention:
        if self.journal_days and self.history_days and self.history_days < self.journal_days:
            raise ValueError(
                f"history_days {self.history_days:g} is less than journal_days {self.journal_days:g}; a history's "
                "files stay at least as long as the journal's rows: give more"
            )
        return self


@dataclass(frozen=True)
class Retained:
    """What :func:`retain` did: ``anchor`` is the last row that is gone, 0 for none; bytes are those in use now."""

    rows_deleted: int
    anchor: int
    files_deleted: int
    journal_bytes: int
    history_bytes: int


def retain(journal: Path, history: Path, heads: Path, key: PrivateKey, declared: Retention) -> Retained:
    """Delete what ``declared`` no longer keeps. The rows go in small steps: a loop may write meanwhile.

    Raises :class:`JournalError`, before anything is deleted, for a journal that is not sound against its heads, and for
    a history that is not of this journal.
    """
    report = audit(journal, heads=heads, keys=[key.public])
    if not report.is_sound:
        raise JournalError(f"{journal}: {report.findings[0]}; nothing is deleted: `twinloop audit verify` shows it all")
    with opened(journal) as connection:
        files = _deletable(connection, report.journal, history, report.first, report.covered)
        chosen = _chosen(connection, files, declared)
        stored = stored_anchor(connection)
    gone = 0 if stored is None else stored.sequence
    if chosen is not None and chosen.last > gone:
        with opened(journal) as connection:
            row = row_at(connection, chosen.last)
        assert row is not None  # between the first row and the last, of a journal without gaps
        digests = {p.path.name: file_sha256(p.path) for p in files if gone < p.last <= chosen.last}
        anchor = SignedHead(ANCHOR, report.journal, chosen.last, row.hash.decode(), time.time(), "", history=digests)
        stored = HeadFile(heads, report.journal).append(anchor, key)
    deleted = 0 if stored is None else _delete(journal, stored)
    anchored = 0 if stored is None else stored.sequence
    n_files = _delete_files(parts(history, report.journal), anchored, declared)
    size = sum(part.path.stat().st_size for part in parts(history, report.journal))
    with opened(journal) as connection:
        return Retained(deleted, anchored, n_files, _live_bytes(connection), size)


def _deletable(
    connection: sqlite3.Connection, identity: str, history: Path, first: int, covered: int
) -> Sequence[Part]:
    """The finished files whose rows are confirmed by a head; the last file may still grow, and is none of them."""
    last = min(exported_to(history, identity, first), covered)
    files = [part for part in parts(history, identity)[:-1] if first <= part.last <= last]
    for part in files:
        row = row_at(connection, part.last)
        if row is not None and told_by(part).get("hash") != row.hash.decode():
            raise JournalError(
                f"{part.path}: is not the history of row {part.last} of this journal; nothing is deleted: export it "
                "anew to another folder"
            )
    return files


def _chosen(connection: sqlite3.Connection, files: Sequence[Part], declared: Retention) -> Part | None:
    """The last file whose rows go."""
    found = ends(connection)
    if found is None or not files:
        return None
    chosen: Part | None = None
    if declared.journal_days is not None:
        newest_s = min(_period_s(connection, found[1].sequence), time.time())
        for part in files:
            if _period_s(connection, part.last) >= newest_s - declared.journal_days * _DAY_S:
                break
            chosen = part
    if declared.journal_mb is not None:
        used, (total,) = _live_bytes(connection), connection.execute(_BYTES, (0, found[1].sequence)).fetchone()
        freed, since = 0.0, 0
        for part in files:
            if used - freed <= declared.journal_mb * _MB:
                break
            freed += used * (connection.execute(_BYTES, (since, part.last)).fetchone()[0] or 0) / total
            since = part.last
            chosen = part if chosen is None or part.last > chosen.last else chosen
    return chosen


_BYTES = f"SELECT sum(length(body) + {_ROW_BYTES}) FROM journal WHERE sequence > ? AND sequence <= ?"


def _delete(journal: Path, anchor: SignedHead) -> int:
    """Delete the rows up to the anchor's, which is stored first; the trigger against it is away only meanwhile."""
    deleted = 0
    try:
        with closing(sqlite3.connect(journal, isolation_level=None, timeout=0.0)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            with _transaction(connection):
                connection.execute(CREATE_ANCHOR)
                connection.execute("DELETE FROM anchor")
                connection.execute("INSERT INTO anchor VALUES (?, ?)", (anchor.sequence, anchor.line))
            while True:
                with _transaction(connection):
                    (trigger,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'no_delete'").fetchone()
                    connection.execute("DROP TRIGGER no_delete")
                    gone = connection.execute(
                        "DELETE FROM journal WHERE sequence <= ? AND sequence < "
                        "(SELECT min(sequence) FROM journal) + ?",
                        (anchor.sequence, _BATCH_ROWS),
                    ).rowcount
                    connection.execute(trigger)
                deleted += gone
                if gone < _BATCH_ROWS:
                    break
                time.sleep(_BREATH_S)
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        raise JournalError(
            f"{journal}: rows can't be deleted ({error}); those behind the anchor stay verifiable: free disk space, "
            "then call it again"
        ) from error
    return deleted


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    _begin(connection)
    with connection:  # commits, or rolls back on whatever exception
        yield


def _begin(connection: sqlite3.Connection) -> None:
    """Take the journal's lock between two rows of a loop that writes all the time.

    SQLite's own waiting asks ever more rarely, ten times a second in the end, and seldom meets so short a gap.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(_ASK_AGAIN_S)


def _delete_files(found: Sequence[Part], anchored: int, declared: Retention) -> int:
    """Remove the oldest files of rows that are gone from the journal, until the rest fits."""
    n, size = 0, sum(part.path.stat().st_size for part in found)
    newest_s = min(_day_s(found[-1].day), time.time()) if found else 0.0
    for part in found:
        is_old = declared.history_days is not None and _day_s(part.day) < newest_s - declared.history_days * _DAY_S
        is_over = declared.history_mb is not None and size > declared.history_mb * _MB
        if part.last > anchored or not (is_old or is_over):
            break
        size -= part.path.stat().st_size
        part.path.unlink()
        n += 1
        if not any(part.path.parent.iterdir()):
            part.path.parent.rmdir()
    return n


def _day_s(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()


def _period_s(connection: sqlite3.Connection, sequence: int) -> float:
    """When the last period up to a row was, by the plant's clock; starts and ends have only ours."""
    otherwise_s = 0.0
    query = "SELECT body FROM journal WHERE sequence <= ? ORDER BY sequence DESC"
    for (body,) in connection.execute(query, (sequence,)):
        told = json.loads(body)
        otherwise_s = otherwise_s or instant_s(told, 0.0)
        if "plant_time_s" in told:
            return instant_s(told, otherwise_s)
    return otherwise_s


def _live_bytes(connection: sqlite3.Connection) -> int:
    """What rows take; pages that deleted ones left are used again, and do not count."""
    pages, free, size = (
        connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
