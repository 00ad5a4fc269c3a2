"""Check a whole journal: each row, their order, gaps, the file around them, and the end against signed heads.

Names the first row that is wrong and, as far as its neighbours tell, which part of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ...envs.errors import JournalError
from .chain import GENESIS, Row, digest, opened, row_at, stored_rows
from .heads import ANCHOR, HEAD, SignedHead, file_sha256, heads_of, journal_id, stored_anchor
from .signing import PublicKey

_MOST_FINDINGS = 20
_REACH = 64
"""How many rows away a row's own place is looked for."""
_SCHEMA = {
    "journal": "CREATE TABLE journal ( sequence INTEGER PRIMARY KEY, body TEXT NOT NULL, previous TEXT NOT NULL, "
    "hash TEXT NOT NULL )",
    "no_update": "CREATE TRIGGER no_update BEFORE UPDATE ON journal "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "no_delete": "CREATE TRIGGER no_delete BEFORE DELETE ON journal "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
}
_ANCHOR_TABLE = "CREATE TABLE anchor ( sequence INTEGER PRIMARY KEY, head TEXT NOT NULL )"
CREATE_ANCHOR = _ANCHOR_TABLE.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")


class Finding(NamedTuple):
    """What is wrong; ``sequence`` is the row, None where it is the file or the heads."""

    sequence: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.sequence is None else f"row {self.sequence}: {self.what}"


@dataclass(frozen=True)
class AuditReport:
    """``findings``: the first few, rows in their order, none for a sound journal; rows ``first`` to ``last`` are there,
    up to ``head``, the last hash; those up to ``covered`` are confirmed by a head signed at ``covered_at``.
    """

    journal: str
    rows: int
    first: int
    last: int
    head: str
    covered: int
    covered_at: str
    heads: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        return not self.findings


def audit(
    path: Path,
    *,
    heads: Path | None = None,
    keys: Sequence[PublicKey] = (),
    progress: Callable[[int], None] | None = None,
) -> AuditReport:
    """Check the journal at ``path``; with ``heads``, a file or folder, also what was signed with one of ``keys``.

    ``progress`` is told the number of rows now and then. Raises :class:`~twinloop.envs.errors.JournalError` if there
    is no such file; damage is reported, not raised.
    """
    check = _Check(Path(path), keys, progress)
    try:
        with opened(path) as connection:
            check.run(connection, heads)
    except JournalError as error:
        if not Path(path).is_file():
            raise
        check.found(check.last + 1 if check.last else None, str(error))
    return check.report()


class _Check:
    """One pass over one journal."""

    def __init__(self, path: Path, keys: Sequence[PublicKey], progress: Callable[[int], None] | None) -> None:
        self._path, self._keys, self._progress = path, keys, progress
        self._findings: list[Finding] = []
        self._signed: dict[int, list[SignedHead]] = {}
        self._confirmed: SignedHead | None = None
        self._n_heads = 0
        self._journal = ""
        self._first = self.last = self._rows = 0
        self._hash = GENESIS

    def found(self, sequence: int | None, what: str) -> None:
        if len(self._findings) < _MOST_FINDINGS:
            self._findings.append(Finding(sequence, what))

    def run(self, connection: sqlite3.Connection, place: Path | None) -> None:
        self._journal = journal_id(connection)
        newest = self._take_heads(place)
        anchors = self._take_anchor(connection)
        self._types(connection)
        self._chain(connection, anchors)
        self._missing_end()
        self._structure(connection)
        if newest is not None and newest.file_sha256 and newest.sequence == self.last:
            log = self._path.with_name(self._path.name + "-wal")
            if (log.exists() and log.stat().st_size) or file_sha256(self._path) != newest.file_sha256:
                self.found(None, f"the file is not, byte for byte, the one that was sealed at {newest.signed_at}")

    def report(self) -> AuditReport:
        by_row = sorted(self._findings, key=lambda f: (f.sequence is None, f.sequence or 0))
        covered = self._confirmed
        return AuditReport(
            journal=self._journal,
            rows=self._rows,
            first=self._first,
            last=self.last,
            head=self._hash.decode("ascii", "replace"),
            covered=0 if covered is None else covered.sequence,
            covered_at="" if covered is None else covered.signed_at,
            heads=self._n_heads,
            findings=tuple(by_row),
        )

    def _take_heads(self, place: Path | None) -> SignedHead | None:
        """The heads of this journal that one of the keys signed, by row; returns the newest."""
        if place is None:
            return None
        heads, problems = heads_of(place, self._journal)
        for problem in problems:
            self.found(None, problem)
        newest: SignedHead | None = None
        for head in heads:
            if not head.is_signed_by(self._keys):
                self.found(
                    None, f"head of row {head.sequence} at {head.signed_at}: no given key confirms its signature"
                )
            elif head.journal != self._journal:
                self.found(1, f"is not the row that began what was signed at {head.signed_at}; all was written anew")
            else:
                if newest is not None and head.kind == HEAD and head.sequence < newest.sequence:
                    self.found(None, f"head at {head.signed_at}: of row {head.sequence}, after {newest.sequence}")
                self._signed.setdefault(head.sequence, []).append(head)
                self._n_heads += 1
                if head.kind == HEAD:
                    newest = head
                elif newest is not None:
                    newest = replace(newest, file_sha256="")  # rows were deleted since: the file is another
        return newest

    def _take_anchor(self, connection: sqlite3.Connection) -> list[SignedHead]:
        """What says that rows were deleted on purpose: in the journal itself, or among the heads."""
        anchors = [h for heads in self._signed.values() for h in heads if h.kind == ANCHOR]
        stored = stored_anchor(connection)
        if stored is not None and stored not in anchors:
            if stored.kind == ANCHOR and stored.is_signed_by(self._keys):
                anchors.append(stored)
                self._signed.setdefault(stored.sequence, []).append(stored)
            else:
                self.found(None, "its anchor, which tells of deleted rows, is not signed by a key given; give --public")
        return anchors

    def _types(self, connection: sqlite3.Connection) -> None:
        wrong = connection.execute(
            "SELECT sequence FROM journal WHERE typeof(body) <> 'text' OR typeof(previous) <> 'text' "
            "OR typeof(hash) <> 'text' ORDER BY sequence LIMIT 1"
        ).fetchone()
        if wrong is not None:
            self.found(wrong[0], "a part of it is not stored as text")

    def _chain(self, connection: sqlite3.Connection, anchors: Sequence[SignedHead]) -> None:
        signed, expected, previous = self._signed, 1, GENESIS
        for row in stored_rows(connection):
            sequence, body, before, stored = row
            if not self._rows:
                self._first = sequence
                expected, previous = self._beginning(row, anchors)
            try:
                is_right = sequence == expected and before == previous and digest(sequence, before, body) == stored
            except TypeError:
                is_right = False
            if not is_right:
                self.found(*_diagnosis(connection, row, expected, previous))
            self._rows += 1
            self.last, self._hash = sequence, stored if isinstance(stored, bytes) else b""
            if sequence in signed:
                self._compare(sequence, stored)
            expected, previous = sequence + 1, self._hash
            if self._progress is not None and not self._rows % 10_000:
                self._progress(self._rows)
        if not self._rows:
            self.found(None, "has no rows")

    def _beginning(self, row: Row, anchors: Sequence[SignedHead]) -> tuple[int, bytes]:
        """Number and ``previous`` that the first row must have."""
        if row.sequence == 1:
            return 1, GENESIS
        for anchor in anchors:
            if anchor.sequence == row.sequence - 1:
                self._confirmed = anchor
                return row.sequence, anchor.hash.encode()
            if anchor.sequence >= row.sequence:
                # The deletion stopped half-way. The anchored row is still here, and commits to all before it.
                return row.sequence, row.previous
        return 1, GENESIS

    def _compare(self, sequence: int, stored: object) -> None:
        for head in self._signed[sequence]:
            if stored == head.hash.encode():
                self._confirmed = head
                continue
            since = 1 if self._confirmed is None else self._confirmed.sequence + 1
            self.found(sequence, f"is not the one signed at {head.signed_at}; rows {since} to it were rewritten")

    def _missing_end(self) -> None:
        beyond = [head for sequence, heads in self._signed.items() for head in heads if sequence > self.last]
        for head in beyond[-1:]:
            if self._rows == 0 or head.kind != ANCHOR or head.sequence != self._first - 1:
                self.found(
                    self.last + 1,
                    f"is missing, and all up to row {head.sequence}, which was signed at {head.signed_at}: the end was "
                    "cut off",
                )

    def _structure(self, connection: sqlite3.Connection) -> None:
        (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if told != b"ok":
            self.found(None, f"the file is damaged: {told.decode('utf-8', 'replace')}")
        there = {
            name.decode(): " ".join(sql.decode("utf-8", "replace").split())
            for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        }
        if there.get("anchor") == _ANCHOR_TABLE:
            del there["anchor"]
        for name in _SCHEMA.keys() | there.keys():
            if there.get(name) != _SCHEMA.get(name):
                how = "missing" if name not in there else "not ours" if name not in _SCHEMA else "not as it was made"
                self.found(None, f"in the file's schema, {name} is {how}; somebody prepared a change")


def _diagnosis(connection: sqlite3.Connection, row: Row, expected: int, previous: bytes) -> tuple[int | None, str]:
    """Which row is wrong, and what is wrong with it."""
    sequence, body, before, stored = row
    if not all(isinstance(part, bytes) for part in row[1:]):
        return sequence, "a part of it is not stored as text"
    own = _own_number(row)
    if own is not None and own != sequence:
        return min(sequence, expected), f"holds what was row {own}; rows were removed or moved"
    if sequence > expected:
        gap = f"row {expected} is" if sequence == expected + 1 else f"rows {expected} to {sequence - 1} are"
        return expected, f"is missing; {gap} not there"
    if sequence < expected:
        return sequence, f"stands where row {expected} belongs"
    follows = row_at(connection, sequence + 1)
    found = digest(sequence, before, body)
    if before != previous:
        if digest(sequence, previous, body) == stored:
            return sequence, "what it names as the hash before it was changed"
        if found == stored and sequence > 1:
            return (
                sequence - 1,
                f"was written anew, or all from row {sequence} on, which names another hash before it",
            )
        return sequence, "does not follow the row before it, and its content does not match its hash"
    if follows is not None and follows.previous == found:
        return sequence, "its hash was changed; its content is what the next row follows"
    if follows is not None and follows.previous == stored:
        return sequence, "its content was changed; the next row follows another"
    return sequence, "its content does not match its hash"


def _own_number(row: Row) -> int | None:
    """The number with which the row's hash is right, near the one that it has."""
    near = sorted(range(max(row.sequence - _REACH, 1), row.sequence + _REACH + 1), key=lambda n: abs(n - row.sequence))
    return next((n for n in near if digest(n, row.previous, row.body) == row.hash), None)
