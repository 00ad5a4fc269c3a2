"""Signed heads: how far a journal's chain had come at what time, said with a key that is not on its disk.

A chain alone shows no missing end, and none of its rows when all were written anew: whoever can write the file can
compute hashes. A head signed before and kept elsewhere shows both. A head is one line of JSON; the lines of a file name
each other's SHA-256, so that none is taken from between.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection, DatabaseError

from ...envs.errors import JournalError
from .chain import GENESIS, digest, ends, opened, row_at, stored_rows
from .signing import PrivateKey, PublicKey

_DOMAIN = b"twinloop journal head 1\n"
_NOTHING = "0" * 64
HEAD, ANCHOR = "head", "anchor"


@dataclass(frozen=True)
class SignedHead:
    """``journal``: the hash of its first row; row ``sequence`` has ``hash``; ``utc_s``: when this was signed.

    ``kind`` "anchor": the rows up to this one were deleted after they had been exported to ``history``, files' SHA-256
    by name. ``file_sha256``: of the journal's whole file, where it was sealed. ``before``: SHA-256 of the line before.
    """

    kind: str
    journal: str
    sequence: int
    hash: str
    utc_s: float
    key: str
    before: str = _NOTHING
    file_sha256: str = ""
    history: Mapping[str, str] = field(default_factory=dict)
    signature: str = ""

    @property
    def line(self) -> str:
        """The head as it stands in a file, without the line feed."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def signed_at(self) -> str:
        try:
            return datetime.fromtimestamp(self.utc_s, UTC).isoformat(timespec="seconds")
        except (OverflowError, OSError, ValueError):  # a time that no calendar has, in a line that nobody signed
            return repr(self.utc_s)

    def signed_by(self, key: PrivateKey) -> SignedHead:
        named = replace(self, key=key.public.fingerprint, signature="")
        return replace(named, signature=base64.b64encode(key.sign(named._message())).decode())

    def is_signed_by(self, keys: Sequence[PublicKey]) -> bool:
        """Whether one of the keys confirms the signature."""
        try:
            signature = base64.b64decode(self.signature, validate=True)
        except (binascii.Error, ValueError):
            return False
        return any(k.fingerprint == self.key and k.confirms(signature, self._message()) for k in keys)

    def _message(self) -> bytes:
        told = {name: value for name, value in asdict(self).items() if name != "signature"}
        return _DOMAIN + json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def parse(line: str) -> SignedHead:
    """Inverse of ``line``; raises :class:`JournalError` for anything that ``line`` would not have written."""
    try:
        head = SignedHead(**json.loads(line))
        types = (head.kind, str), (head.journal, str), (head.sequence, int), (head.hash, str), (head.utc_s, float)
        if all(type(value) is kind for value, kind in types) and head.line == line:
            return head
    except (ValueError, TypeError, RecursionError):
        pass
    raise JournalError(f"{line[:80]!r}: is no signed head; `twinloop audit head` writes them, one a line")


class HeadFile:
    """The heads of one journal, in a folder that may be on another disk, ``ID.heads.jsonl``; only ever appended to."""

    def __init__(self, folder: Path, journal: str) -> None:
        self.path = Path(folder) / f"{journal[:16]}.heads.jsonl"

    def lines(self) -> list[str]:
        return _lines(self.path) if self.path.exists() else []

    def newest(self, keys: Sequence[PublicKey], kind: str = HEAD) -> SignedHead | None:
        """The last one of a kind; raises :class:`JournalError` if it, or one after it, is not signed by the keys."""
        for line in reversed(self.lines()):
            head = parse(line)
            if not head.is_signed_by(keys):
                raise JournalError(
                    f"{self.path}: a head of row {head.sequence} is not signed by "
                    f"{', '.join(k.fingerprint for k in keys)}; give the key that signed it, or find out who wrote it"
                )
            if head.kind == kind:
                return head
        return None

    def append(self, head: SignedHead, key: PrivateKey) -> SignedHead:
        """Sign ``head`` as the follower of the last line, and have it on disk; returns it."""
        lines = self.lines()
        before = hashlib.sha256(lines[-1].encode()).hexdigest() if lines else _NOTHING
        signed = replace(head, before=before).signed_by(key)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(signed.line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JournalError(
                f"{self.path}: no head can be written ({error}); the journal goes on unsigned until one can"
            ) from error
        return signed


def heads_of(place: Path, journal: str) -> tuple[list[SignedHead], list[str]]:
    """The heads in a file, or in a folder's file for this journal; and in words what is wrong with the lines."""
    path = HeadFile(place, journal).path if Path(place).is_dir() else Path(place)
    if not path.is_file():
        return [], [f"{path}: no heads of this journal: none was ever signed, or row 1 was written anew"]
    found: list[SignedHead] = []
    problems: list[str] = []
    before = _NOTHING
    for number, line in enumerate(_lines(path), 1):
        try:
            head = parse(line)
        except JournalError:
            problems.append(f"{path}, line {number}: is no signed head")
        else:
            if head.before != before:
                problems.append(f"{path}, line {number}: does not follow the line before it; a line is missing")
            found.append(head)
        before = hashlib.sha256(line.encode()).hexdigest()
    return found, problems


def journal_id(connection: Connection) -> str:
    """What a journal is known by: the hash of its first row, also when that row has been deleted since.

    Empty for a journal without rows.
    """
    anchor = stored_anchor(connection)
    if anchor is not None:
        return anchor.journal
    found = ends(connection)
    return "" if found is None else _text(found[0].hash)


def stored_anchor(connection: Connection) -> SignedHead | None:
    """The anchor that a retention left in the journal, unchecked; None for a journal with all its rows."""
    try:
        found = connection.execute("SELECT head FROM anchor ORDER BY sequence DESC LIMIT 1").fetchone()
    except DatabaseError:  # no such table
        return None
    return None if found is None else parse(_text(found[0]))


def sign_head(journal: Path, key: PrivateKey, folder: Path, *, seal: bool = False) -> SignedHead:
    """Check the rows since the last head, sign where the chain ends now, and append that to the journal's heads.

    ``seal`` adds the SHA-256 of the whole file, for a journal that nobody writes any more. Raises
    :class:`JournalError` for a journal that does not continue what was signed before: that is never signed.
    """
    with opened(journal) as connection:
        identity, last = journal_id(connection), ends(connection)
        if last is None:
            raise JournalError(f"{journal}: has no rows to sign; run something with --journal {journal} first")
        file = HeadFile(folder, identity)
        sequence, end = _checked(journal, connection, file, key.public)
    log = journal.with_name(journal.name + "-wal")
    if seal and log.exists() and log.stat().st_size:
        raise JournalError(f"{journal}: is being written; seal it when its run has ended")
    sealed = file_sha256(journal) if seal else ""
    head = SignedHead(HEAD, identity, sequence, end, time.time(), "", file_sha256=sealed)
    return file.append(head, key)


class Publisher:
    """Signs a head whenever ``every_rows`` rows or ``every_s`` seconds with new rows have passed since the last."""

    def __init__(self, journal: Path, key: PrivateKey, folder: Path, every_rows: int, every_s: float) -> None:
        self._journal, self._key, self._folder = Path(journal), key, folder
        self._every_rows, self._every_s = every_rows, every_s

    def publish(self, utc_s: float) -> SignedHead | None:
        """Sign now if it is due; None if it is not."""
        with opened(self._journal) as connection:
            found = ends(connection)
            if found is None:
                return None
            newest = HeadFile(self._folder, journal_id(connection)).newest([self._key.public])
        fresh = found[1].sequence - (0 if newest is None else newest.sequence)
        # Fewer rows than were signed is for sign_head to refuse.
        due = newest is None or fresh < 0 or fresh >= self._every_rows
        if not due and (fresh == 0 or newest is None or utc_s - newest.utc_s < self._every_s):
            return None
        return sign_head(self._journal, self._key, self._folder)


def file_sha256(path: Path) -> str:
    """Of all bytes of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(journal: Path, connection: Connection, file: HeadFile, key: PublicKey) -> tuple[int, str]:
    """Number and hash of the last row, after every row since the newest head has been checked."""
    newest, anchor = file.newest([key]), file.newest([key], ANCHOR)
    sequence, previous = 0, GENESIS
    if newest is not None:
        sequence, previous = newest.sequence, newest.hash.encode()
        row = row_at(connection, sequence)
        is_deleted = row is None and anchor is not None and (anchor.sequence, anchor.hash) == (sequence, newest.hash)
        if not is_deleted and (row is None or row.hash != previous):
            raise JournalError(
                f"{journal}: row {sequence} is not the one that was signed at {newest.signed_at}; nothing more is "
                "signed: keep this file and the heads, and look with `twinloop audit verify`"
            )
    for row in stored_rows(connection, sequence):
        is_next = row.sequence == sequence + 1 and row.previous == previous
        if not is_next or digest(row.sequence, row.previous, row.body) != row.hash:
            raise JournalError(
                f"{journal}: row {sequence + 1} does not continue the chain; nothing more is signed: keep this file, "
                "and look with `twinloop audit verify`"
            )
        sequence, previous = row.sequence, row.hash
    return sequence, previous.decode()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise JournalError(f"{path}: heads can't be read ({error}); give the folder that has them") from error


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
