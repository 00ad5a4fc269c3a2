"""A journal's telemetry and commands as Parquet: ``HISTORY/day=2026-01-31/ID-FIRST-LAST.parquet``, zstd.

``FIRST`` and ``LAST`` are the journal's rows that a file is about, so that the files' names alone say what has been
exported: a second call adds what is new, one after a crash goes on where the last finished file ends. A file is
written beside its place, brought to disk, and moved there. Files of one day grow together until they have their size;
where a crash leaves the smaller one beside the greater, :func:`parts` leaves it out, and the next call removes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...envs.errors import JournalError, NameplateError
from ...envs.nameplate import Nameplate
from .chain import Row, digest, ends, opened, stored_rows
from .heads import journal_id
from .history_rows import QUALITY, SOURCE_TIME, Columns, Floats, day_of, instant_s, one_mode

if TYPE_CHECKING:
    import pyarrow as pa

_CELLS_A_PART = 4_000_000
_LEAST_ROWS_A_PART = 500
_META = b"twinloop"
_PERIODS = ("decision", "missed")
_TELLING = frozenset({"start", *_PERIODS, "end"})
"""Kinds of rows that end the wait for what came of a period."""
_MOST_ASIDES = 10_000


class Part(NamedTuple):
    """One file, and the rows of the journal that it is about."""

    path: Path
    journal: str
    day: str
    first: int
    last: int


@dataclass(frozen=True)
class Export:
    """``rows``: periods written by this call; ``last``: the journal's row up to which all is exported."""

    rows: int
    parts: int
    last: int


def parts(folder: Path, journal: str | None = None) -> list[Part]:
    """The files of a history in the order of their rows, those left over by a crash left out.

    ``journal``: of one journal only, by its id.
    """
    found = [part for part in map(_part_of, sorted(Path(folder).glob("day=*/*.parquet"))) if part is not None]
    if journal is not None:
        found = [part for part in found if part.journal == journal[:16]]
    found.sort(key=lambda p: (p.journal, p.first, -p.last))
    kept: list[Part] = []
    for part in found:
        if kept and kept[-1].journal == part.journal and part.last <= kept[-1].last:
            continue
        kept.append(part)
    return kept


def exported_to(folder: Path, journal: str, first: int = 1) -> int:
    """The last row up to which the history of this journal has no gap from row ``first`` on; before it if it has none.

    Rows before ``first`` are no longer in the journal, and a gap there can't be filled any more.
    """
    found = [part for part in parts(folder, journal) if part.last >= first]
    if not found or found[0].first > first:
        return first - 1
    for part, following in pairwise(found):
        if following.first != part.last + 1:
            return part.last
    return found[-1].last


def told_by(part: Part) -> Mapping[str, Any]:
    """What a file says of itself: ``journal`` (its id), ``first``, ``last``, the last row's ``hash``, ``nameplate``."""
    import pyarrow.parquet as pq

    found = json.loads((pq.read_schema(part.path).metadata or {}).get(_META, b"{}"))
    return found if isinstance(found, dict) else {}


def export(journal: Path, folder: Path, progress: Callable[[int], None] | None = None) -> Export:
    """Bring the history up to date with the journal; the row written last waits for the one that tells what came of it.

    Each row's hash is checked on the way. Raises :class:`JournalError` for a row that does not follow, one of another
    version, and a folder that cannot be written.
    """
    folder = Path(folder)
    with opened(journal) as connection:
        identity, found = journal_id(connection), ends(connection)
        if found is None:
            return Export(0, 0, 0)
        _clear(folder, identity)
        done = exported_to(folder, identity, found[0].sequence)
        try:
            # The row that a run started with may have been deleted since: the last file knows the site too.
            before = [part for part in parts(folder, identity) if part.last == done]
            writer = _Writer(folder, identity, before[-1] if before else None, progress)
            for row, told, follower in _followed(journal, stored_rows(connection, done)):
                writer.take(row, told, follower)
            writer.flush()
        except OSError as error:
            raise JournalError(f"{folder}: history can't be written ({error}); what is finished there stays") from error
    return Export(writer.rows, writer.parts, max(writer.last, done))


class _Writer:
    """Gathers rows until a file has its size, its day ends, or the site changes."""

    def __init__(self, folder: Path, journal: str, before: Part | None, progress: Callable[[int], None] | None) -> None:
        self._folder, self._journal, self._progress = folder, journal, progress
        plate = None if before is None else told_by(before).get("nameplate")
        self._columns = None if plate is None else Columns(Nameplate.from_dict(plate))
        self._latest_day = "" if before is None else before.day
        self._gathered: list[tuple[int, float, int, str, str | None, Floats]] = []
        self._first = self._begun = self.last = self.rows = self.parts = 0
        self._hash, self._day, self._instant_s = b"", "", 0.0

    def take(self, row: Row, told: Mapping[str, Any], follower: Mapping[str, Any]) -> None:
        self._instant_s = instant_s(told, self._instant_s)
        kind = told.get("kind")
        # Starts and ends are timed by our clock, periods by the plant's, which may live in another year.
        day = day_of(self._instant_s) if kind in _PERIODS else self._latest_day or day_of(self._instant_s)
        if kind == "start":
            plate = _plate_of(row.sequence, told)
            if self._columns is None or plate.hash != self._columns.plate.hash:
                self.flush()
                self._columns = Columns(plate)
        if kind in _PERIODS and self._columns is not None:
            if (self._gathered and day != self._day) or len(self._gathered) >= self._most_rows:
                self.flush()
            self._day = self._latest_day = day
            numbers = self._columns.numbers(told, follower)
            number = told.get("number")
            count = number if isinstance(number, int) else 0
            self._gathered.append((row.sequence, self._instant_s, count, str(kind), one_mode(told), numbers))
        self._day = self._day or day
        self._begun = self._begun or row.sequence
        self.last, self._hash = row.sequence, row.hash
        if self._progress is not None and not self.last % 1000:
            self._progress(self.last)

    @property
    def _most_rows(self) -> int:
        width = 1 if self._columns is None else len(self._columns.names)
        return max(_CELLS_A_PART // width, _LEAST_ROWS_A_PART)

    def flush(self) -> None:
        """Have what was gathered on disk, as the rest of the day's last file where there is room in it."""
        if not self._begun:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        table, first, old = self._table(), self._begun, self._extensible()
        if old is not None:
            before = pq.read_table(old.path, partitioning=None)
            if before.schema.equals(table.schema) and before.num_rows + table.num_rows <= self._most_rows:
                table, first = pa.concat_tables([before, table]), old.first
            else:
                old = None
        told = {
            "journal": self._journal,
            "first": first,
            "last": self.last,
            "hash": self._hash.decode(),
            "nameplate": None if self._columns is None else self._columns.plate.to_dict(),
        }
        table = table.replace_schema_metadata({_META: json.dumps(told).encode()})
        place = self._folder / f"day={self._day}" / f"{self._journal[:16]}-{first:012d}-{self.last:012d}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_suffix(".unfinished")
        pq.write_table(table, beside, compression="zstd", use_dictionary=["kind", "mode"])
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(place)
        if old is not None:
            old.path.unlink(missing_ok=True)
        self.rows, self.parts = self.rows + len(self._gathered), self.parts + 1
        self._gathered, self._begun, self._day = [], 0, ""

    def _extensible(self) -> Part | None:
        """The file of the same day that ends where these rows begin."""
        found = parts(self._folder, self._journal)
        return found[-1] if found and (found[-1].day, found[-1].last) == (self._day, self._begun - 1) else None

    def _table(self) -> pa.Table:
        import pyarrow as pa

        sequences, instants, numbers, kinds, modes, cells = (
            zip(*self._gathered, strict=True) if self._gathered else [()] * 6
        )
        data: dict[str, pa.Array] = {
            "time": _times(np.array(instants, dtype=np.float64)),
            "sequence": pa.array(sequences, pa.int64()),
            "number": pa.array(numbers, pa.int64()),
            "kind": pa.array(kinds, pa.string()),
            "mode": pa.array(modes, pa.string()),
        }
        names = () if self._columns is None else self._columns.names
        matrix = np.array(cells, dtype=np.float64).reshape(len(cells), len(names))
        for name, column in zip(names, matrix.T, strict=True):
            data[name] = _column(name, np.ascontiguousarray(column))
        return pa.table(data)


def _column(name: str, numbers: Floats) -> pa.Array:
    import pyarrow as pa

    absent = np.isnan(numbers)
    if name.endswith(QUALITY):
        return pa.array(np.where(absent, 0, numbers).astype(np.int8), mask=absent)
    if name.endswith(SOURCE_TIME):
        return _times(numbers)
    return pa.array(numbers, mask=absent)


def _times(seconds: Floats) -> pa.Array:
    """UTC to the microsecond; null where there is no time."""
    import pyarrow as pa

    absent = ~(np.abs(seconds) < 2.5e11)
    micros = np.round(np.where(absent, 0.0, seconds) * 1e6).astype(np.int64)
    return pa.array(micros, pa.timestamp("us", tz="UTC"), mask=absent)


def _followed(journal: Path, found: Iterator[Row]) -> Iterator[tuple[Row, Mapping[str, Any], Mapping[str, Any]]]:
    """Each row with its content and that of the row that says what came of it; the end of a run has none to wait for.

    Rows that tell of no period, such as orders, stand between the two and say nothing of it.
    """
    waiting: list[tuple[Row, Mapping[str, Any]]] = []
    for row in found:
        if digest(row.sequence, row.previous, row.body) != row.hash or (
            waiting and (row.previous, row.sequence) != (waiting[-1][0].hash, waiting[-1][0].sequence + 1)
        ):
            raise JournalError(f"{journal}: row {row.sequence} is damaged; look with `twinloop audit verify` first")
        try:
            told = json.loads(row.body)
            if not isinstance(told, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise JournalError(f"{journal}: row {row.sequence} is no record of a run ({error})") from error
        kind = told.get("kind")
        if waiting and (kind in _TELLING or len(waiting) > _MOST_ASIDES):
            for before in waiting:
                yield (*before, told)
            waiting.clear()
        waiting.append((row, told))
        if kind == "end":
            yield row, told, {}
            waiting.clear()


def _plate_of(sequence: int, start: Mapping[str, Any]) -> Nameplate:
    try:
        return Nameplate.from_dict(start["nameplate"])
    except (KeyError, NameplateError) as error:
        raise JournalError(
            f"row {sequence}: the start of a run of another version ({type(error).__name__}: {error}); export it with "
            "the version that wrote it"
        ) from error


def _clear(folder: Path, journal: str) -> None:
    """Remove what a crash left over."""
    kept = {part.path for part in parts(folder, journal)}
    for path in Path(folder).glob(f"day=*/{journal[:16]}-*"):
        if path not in kept:
            path.unlink(missing_ok=True)


def _part_of(path: Path) -> Part | None:
    words = path.stem.split("-")
    if len(words) != 3 or not (words[1].isdecimal() and words[2].isdecimal()):
        return None
    return Part(path, words[0], path.parent.name.removeprefix("day="), int(words[1]), int(words[2]))
