"""A journal that is being written, read row by row as it grows, from another process, without holding it up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..envs.errors import JournalError
from .audit.chain import GENESIS, Row, ends, opened, row_at

_AFTER = "SELECT sequence, body, previous, hash FROM journal WHERE sequence > ? ORDER BY sequence LIMIT ?"
_LAST_START = """SELECT body FROM journal WHERE body LIKE '%"kind":"start"%' ORDER BY sequence DESC LIMIT 1"""


class Place(NamedTuple):
    """Up to where a journal has been read; the hash ties it to that very journal."""

    sequence: int
    hash: str


BEGINNING = Place(0, GENESIS.decode())


class AnotherJournalError(JournalError):
    """The journal is not the one that was read before: it was put aside, or begun anew."""


class JournalFollower:
    """Reads on from ``place``; ``behind`` is how many rows there were behind it when the journal was last looked at."""

    def __init__(self, path: Path, place: Place = BEGINNING) -> None:
        self.path, self.place = Path(path), place
        self.behind = 0

    def read(self, most_rows: int) -> Iterator[dict[str, Any]]:
        """The next rows, ``most_rows`` at most; :attr:`place` is at a row once it is given. No file has none.

        Raises :class:`AnotherJournalError` when the rows do not follow on :attr:`place`, :class:`JournalError` for a
        journal that cannot be read.
        """
        if not self.path.is_file():
            self.behind = 0
            return
        with opened(self.path) as connection:
            last = ends(connection)
            self._same(last[1] if last else None, row_at(connection, self.place.sequence))
            found = [Row._make(row) for row in connection.execute(_AFTER, (self.place.sequence, most_rows))]
        newest = 0 if last is None else last[1].sequence
        for row in found:
            if row.sequence == self.place.sequence + 1 and row.previous.decode() != self.place.hash:
                raise AnotherJournalError(f"{self.path}: row {row.sequence} does not follow the row read before")
            self.place = Place(row.sequence, row.hash.decode())
            self.behind = max(0, newest - row.sequence)
            yield _body(self.path, row)
        if not found:
            self.behind = 0

    def skip_to_last(self, n_rows: int) -> None:
        """Go to where the last ``n_rows`` of the journal begin; to its beginning where there are fewer."""
        self.place, self.behind = BEGINNING, 0
        if not self.path.is_file():
            return
        with opened(self.path) as connection:
            last = ends(connection)
            if last is None:
                return
            before = row_at(connection, max(last[1].sequence - n_rows, last[0].sequence - 1))
            self.place = Place(last[0].sequence - 1, last[0].previous.decode()) if before is None else _place(before)
            self.behind = last[1].sequence - self.place.sequence

    def check(self) -> None:
        """Raise :class:`AnotherJournalError` unless :attr:`place` is of this journal; a row that is deleted may be."""
        if not self.path.is_file():
            raise AnotherJournalError(f"{self.path}: is gone")
        with opened(self.path) as connection:
            last = ends(connection)
            self._same(last[1] if last else None, row_at(connection, self.place.sequence))

    def last_start(self) -> dict[str, Any] | None:
        """What the journal's last run began with; None where no such row is left."""
        if not self.path.is_file():
            return None
        with opened(self.path) as connection:
            found = connection.execute(_LAST_START).fetchone()
        return None if found is None else dict(json.loads(found[0]))

    def _same(self, last: Row | None, here: Row | None) -> None:
        gone = here is not None and here.hash.decode() != self.place.hash
        shorter = (0 if last is None else last.sequence) < self.place.sequence
        if gone or shorter:
            raise AnotherJournalError(f"{self.path}: is not the journal that was read up to row {self.place.sequence}")


def _place(row: Row) -> Place:
    return Place(row.sequence, row.hash.decode())


def _body(path: Path, row: Row) -> dict[str, Any]:
    try:
        found = json.loads(row.body)
    except ValueError as error:
        raise JournalError(
            f"{path}: row {row.sequence} is no JSON ({error}); `twinloop audit verify` looks closer"
        ) from None
    if not isinstance(found, dict):
        raise JournalError(f"{path}: row {row.sequence} is no record; `twinloop audit verify` looks closer")
    return found
