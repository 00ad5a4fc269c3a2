"""The append-only journal: one row a decision, each row bound to the one before by SHA-256.

A row is one line of JSON in a SQLite table, committed to disk (WAL, ``synchronous=FULL``) before anything is sent to
the plant. Commits write over room that the log has from its start, and a thread of its own folds the log into the file:
a row that makes a file grow, or that comes when the log is full, waits ten times as long.

The chain shows any change, deletion or reordering of rows. It cannot show that rows at the end are missing; keep the
head that :func:`verify` and the runtime's summary print, and give it to :func:`verify`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..envs.errors import JournalError
from .row_text import row_text

GENESIS = "0" * 64
"""What the first row names as the hash before it."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    sequence INTEGER PRIMARY KEY,
    body     TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash     TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
"""
_ROOM_BYTES, _ROOM_PIECES = 1 << 16, 16
_FOLD_AFTER_ROWS = 64  # a few hundred kilobytes, well within the room
_INSERT = "INSERT INTO journal VALUES (?, ?, ?, ?)"
_LAST = "SELECT sequence, hash FROM journal ORDER BY sequence DESC LIMIT 1"


class Journal:
    """Appends records to ``path``, which is made at the first append and continued if it exists.

    Any thread may append; one whose turn does not come within ``patience_s``, because a disk keeps another one, gets a
    :class:`JournalError`.
    """

    def __init__(self, path: Path, patience_s: float = 5.0) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._last: tuple[int, str] | None = None
        self.head = ""
        """Hash of the row appended last, empty before the first."""
        self._patience_s = patience_s
        self._turn = threading.Lock()
        self._fold: _Fold | None = None
        self._unfolded = 0

    def append(self, record: Mapping[str, Any]) -> str:
        """Write one record to disk and return its hash; raises :class:`JournalError` unless it is safely there."""
        return self.append_all((record,))

    def append_all(self, records: Sequence[Mapping[str, Any]]) -> str:
        """Write records, one or more, to disk in one go, all or none, and return the last one's hash; raises as
        :meth:`append` does."""
        if not self._turn.acquire(timeout=self._patience_s):
            raise JournalError(
                f"{self.path}: the disk has kept an earlier row for over {self._patience_s:g} s; nothing may be sent "
                "to the plant without a record: give a journal on a disk that answers"
            )
        try:
            bodies = [row_text(r) for r in records]
            connection, last, self._last = self._open(), self._last, None
            last = _follow(connection, last, bodies)
            self._unfolded += len(records)
            if self._unfolded >= _FOLD_AFTER_ROWS and self._fold is not None:
                self._unfolded = 0
                self._fold.wake()
            self._last, self.head = last, last[1]
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            raise JournalError(
                f"{self.path}: cannot append ({type(error).__name__}: {error}); nothing may be sent to the plant "
                "without a record: free disk space, or give a journal that can be written"
            ) from error
        finally:
            self._turn.release()
        return last[1]

    def close(self) -> None:
        """Fold the write-ahead log into the file; the journal can be appended to again."""
        if self._connection is not None and self._turn.acquire(timeout=self._patience_s):
            try:
                if self._fold is not None:
                    self._fold.close(self._patience_s)
                    self._fold = None
                self._connection.close()
                self._connection = self._last = None
            finally:
                self._turn.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Its own lock lets one thread at a time in, so that SQLite need not insist on the thread that opened it.
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=1.0, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA wal_autocheckpoint=0")
                connection.executescript(_SCHEMA)
                _make_room(connection)
            except BaseException:
                connection.close()
                raise
            self._connection, self._fold = connection, _Fold(self.path)
        return self._connection


def _follow(connection: sqlite3.Connection, last: tuple[int, str] | None, bodies: Sequence[str]) -> tuple[int, str]:
    """Write rows, all or none, behind the last one; number and hash of what is the last row then.

    ``last``: that of our own last commit, where it is known. A single row needs no look at the journal's end then: when
    another process has appended since, the number is taken, SQLite refuses it, and the end is looked up after all.
    """
    if last is not None and len(bodies) == 1:
        with suppress(sqlite3.IntegrityError):
            sequence, digest = last[0] + 1, _digest(last[0] + 1, last[1], bodies[0])
            connection.execute(_INSERT, (sequence, bodies[0], last[1], digest))  # commits by itself
            return sequence, digest
    with connection:  # commits, or rolls back on whatever exception
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute(_LAST).fetchone()
        sequence, digest = (int(found[0]), str(found[1])) if found else (0, GENESIS)
        for body in bodies:
            sequence, previous = sequence + 1, digest
            digest = _digest(sequence, previous, body)
            connection.execute(_INSERT, (sequence, body, previous, digest))
    return sequence, digest


class _Fold:
    """Folds a journal's write-ahead log into its file, in a thread that starts when it is first asked to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Do it soon; never waits."""
        self._asked.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="journal fold", daemon=True)
            self._thread.start()

    def close(self, patience_s: float) -> None:
        self._over.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join(patience_s)

    def _opened(self) -> sqlite3.Connection:
        """Of a file that is there; never makes one."""
        return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)

    def _work(self) -> None:
        with suppress(sqlite3.Error), closing(self._opened()) as connection:
            while self._asked.wait() and not self._over.is_set():
                self._asked.clear()
                with suppress(sqlite3.Error):  # the log grows until the next time; what cannot be written, append tells
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _make_room(connection: sqlite3.Connection) -> None:
    """Let the log have a megabyte on the disk, by a change that spills into it and is taken back; a disk that has no
    such room has what it has."""
    connection.execute("PRAGMA cache_size=8")
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE room (x BLOB)")
        for _ in range(_ROOM_PIECES):
            connection.execute(f"INSERT INTO room VALUES (zeroblob({_ROOM_BYTES}))")
    except sqlite3.OperationalError:  # full, or somebody else writes: rows take their time then, or fail, and tell so
        pass
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.execute("PRAGMA cache_size=-2000")  # SQLite's own default


@dataclass(frozen=True)
class JournalReport:
    """What :func:`verify` found: no ``problems`` in a sound journal; ``ended`` when its last row is an end."""

    rows: int
    head: str
    ended: bool
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        return not self.problems


def verify(path: Path, head: str | None = None) -> JournalReport:
    """Recompute the chain of a journal. With ``head``, the hash kept elsewhere, missing rows at the end show too.

    Raises :class:`JournalError` if there is no such file; damage is reported, not raised.
    """
    path = Path(path)
    if not path.is_file():
        raise JournalError(f"{path}: no such journal; `twinloop run --journal` writes one")
    rows, previous, body, problems = 0, GENESIS, "", []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            query = "SELECT sequence, body, previous, hash FROM journal ORDER BY sequence"
            for sequence, body, before, digest in connection.execute(query):
                rows += 1
                if sequence != rows:
                    problems.append(f"row {rows}: numbered {sequence}; a row is missing or moved")
                    rows = sequence
                if before != previous:
                    problems.append(f"row {sequence}: does not follow the row before it")
                if _digest(sequence, before, body) != digest:
                    problems.append(f"row {sequence}: its content does not match its hash")
                previous = digest
    except (sqlite3.Error, TypeError, AttributeError) as error:
        problems.append(f"unreadable after row {rows} ({error})")
    if head is not None and head != previous:
        problems.append(f"ends at {previous}, expected {head}; rows at the end are missing or were added")
    return JournalReport(rows, previous, _is_end(body), tuple(problems))


def read(path: Path) -> list[dict[str, Any]]:
    """All records of a journal, oldest first."""
    return list(rows(path))


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal one by one, oldest first; raises :class:`JournalError` if there are none to read."""
    path = Path(path)
    if not path.is_file():
        raise JournalError(f"{path}: no such journal; `twinloop run --journal` writes one")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            for (body,) in connection.execute("SELECT body FROM journal ORDER BY sequence"):
                yield json.loads(body)
    except (sqlite3.Error, ValueError) as error:
        raise JournalError(f"{path}: cannot be read ({error}); is it a journal of `twinloop run`?") from error


def _digest(sequence: int, previous: str, body: str) -> str:
    return hashlib.sha256(f"{sequence}\n{previous}\n{body}".encode("utf-8", "surrogatepass")).hexdigest()


def _is_end(body: str) -> bool:
    try:
        return bool(json.loads(body)["kind"] == "end")
    except (ValueError, KeyError, TypeError):
        return False
