"""The rows of a journal as bytes, and what binds them: the format of :mod:`~twinloop.deploy.journal`, read on its own.

A row is ``sequence, body, previous, hash``. ``hash`` is the SHA-256, in hexadecimal, of ``sequence``, ``previous`` and
``body`` with a line feed between; ``previous`` is the hash of the row before, 64 zeros for row 1. Row ``n`` has the
sequence ``n``. This reader shares no code with the writer, so that a fault of one shows in the other.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from ...envs.errors import JournalError

GENESIS = b"0" * 64
"""What row 1 names as the hash before it."""

_BATCH = 10_000
_SELECT = "SELECT sequence, body, previous, hash FROM journal WHERE sequence > ? ORDER BY sequence LIMIT ?"


class Row(NamedTuple):
    """One row as it is stored."""

    sequence: int
    body: bytes
    previous: bytes
    hash: bytes


def digest(sequence: int, previous: bytes, body: bytes) -> bytes:
    """The hash that a row must have, in hexadecimal."""
    return hashlib.sha256(b"%d\n%b\n%b" % (sequence, previous, body)).hexdigest().encode()


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A journal for reading only, its texts as the bytes that are stored.

    Raises :class:`~twinloop.envs.errors.JournalError` where there is no such file, and, also from within, where SQLite
    can't read it.
    """
    path = Path(path)
    if not path.is_file():
        raise JournalError(f"{path}: no such journal; `twinloop run --journal` writes one")
    place = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(place, uri=True, timeout=5.0)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # SQLite wants a file for its lock beside a journal in WAL mode. On a medium that can't be written nobody
        # writes the journal either, so that it can be read without one, unless rows still wait in a log.
        connection.close()
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise JournalError(f"{path}: rows wait in {log.name}; copy both to a folder that can be written") from None
        connection = sqlite3.connect(f"{place}&immutable=1", uri=True)
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        pass  # no database, or one whose schema is damaged: said by whoever reads it
    connection.text_factory = bytes
    try:
        with closing(connection):
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes damaged text in its messages
        raise JournalError(
            f"{path}: can't be read ({error}); is it a journal of `twinloop run`? `twinloop audit verify` looks closer"
        ) from error


def stored_rows(connection: sqlite3.Connection, after: int = 0) -> Iterator[Row]:
    """All rows behind ``after`` in their order, in batches, so that a journal that is being written is not held up."""
    while True:
        count, sequence = 0, after
        for count, found in enumerate(connection.execute(_SELECT, (after, _BATCH)), 1):  # noqa: B007 - counts them
            yield Row._make(found)
            sequence = found[0]
        if count < _BATCH or not isinstance(sequence, int) or sequence <= after:
            return
        after = sequence


def row_at(connection: sqlite3.Connection, sequence: int) -> Row | None:
    """One row, or None where there is none of that number."""
    found = connection.execute(
        "SELECT sequence, body, previous, hash FROM journal WHERE sequence = ?", (sequence,)
    ).fetchone()
    return None if found is None else Row._make(found)


def ends(connection: sqlite3.Connection) -> tuple[Row, Row] | None:
    """The first and the last row; None for a journal without rows."""
    found = [
        connection.execute(
            f"SELECT sequence, body, previous, hash FROM journal ORDER BY sequence {order} LIMIT 1"
        ).fetchone()
        for order in ("ASC", "DESC")
    ]
    return None if None in found else (Row._make(found[0]), Row._make(found[1]))
