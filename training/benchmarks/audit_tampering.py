"""Whether anything that is done to a journal is found, at its row, and how fast a whole one is read."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from ...deploy.audit.chain import Row, digest, opened, stored_rows
from ...deploy.audit.heads import sign_head
from ...deploy.audit.signing import PublicKey, load_private, make_keys
from ...deploy.audit.verify import AuditReport, audit
from ...deploy.journal import Journal
from ..report import Cell, Table, print_table, provenance

NAME = "audit_tampering"
SUMMARY = "random changes, deletions, reorderings and truncations of a journal, all of which must be found"

ROWS_PER_S_BAR = 40_000.0
DESCRIPTION = """\
Make a sealed journal of --rows rows with signed heads, change a copy of it at random --trials times, and verify that
copy. Changes: a byte of a row's part; a row changed with its own hash; rows deleted, exchanged, repeated, renumbered;
the end cut off; a tail written anew with right hashes; any byte of the file; the file cut off. Then verify journals of
short and long rows, and say how many rows a CPU second are read. Exit status 0 when every change was found, at the
right row where a row was changed, and rows of up to 2 kB are read at 40,000 a second or more.
"""
Tamper = Callable[["Trial"], int | None]


class Trial:
    """One copy of the journal as its rows, and draws from one seed."""

    def __init__(self, rows: list[Row], path: Path, rng: np.random.Generator) -> None:
        self.rows, self.path, self.rng = list(rows), path, rng

    def place(self, since: int = 0, before_end: int = 0) -> int:
        return int(self.rng.integers(since, len(self.rows) - before_end))

    def save(self) -> None:
        """Write all rows into the file, and leave its schema as it was."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("PRAGMA synchronous=OFF")
            triggers = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            connection.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete; DELETE FROM journal;")
            for row in self.rows:
                connection.execute(
                    "INSERT INTO journal VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT))", row
                )
            for (sql,) in triggers:
                connection.execute(sql)


def one_byte(trial: Trial) -> int | None:
    """A byte of a row's body, previous or hash."""
    k, part = trial.place(), int(trial.rng.integers(1, 4))
    changed = list(trial.rows[k])
    changed[part] = _flipped(trial.rows[k][1:][part - 1], trial.rng)
    trial.rows[k] = Row._make(changed)
    trial.save()
    return k + 1


def one_row_with_its_hash(trial: Trial) -> int | None:
    """A byte of a body, and the row's own hash made right again; not the last row, which is a new tail."""
    k = trial.place(before_end=1)
    row = trial.rows[k]._replace(body=_flipped(trial.rows[k].body, trial.rng))
    trial.rows[k] = row._replace(hash=digest(row.sequence, row.previous, row.body))
    trial.save()
    return k + 1


def deleted(trial: Trial) -> int | None:
    """Some rows in the middle, or the first ones."""
    k = trial.place(before_end=1)
    n = int(trial.rng.integers(1, len(trial.rows) - k))
    del trial.rows[k : k + n]
    trial.save()
    return k + 1


def exchanged(trial: Trial) -> int | None:
    """Two rows change places, and numbers."""
    a, b = sorted(map(int, trial.rng.choice(len(trial.rows), 2, replace=False)))
    first, second = trial.rows[a], trial.rows[b]
    trial.rows[a], trial.rows[b] = second._replace(sequence=a + 1), first._replace(sequence=b + 1)
    trial.save()
    return a + 1


def repeated(trial: Trial) -> int | None:
    """A row stands at another's place too."""
    a, b = map(int, trial.rng.choice(len(trial.rows), 2, replace=False))
    trial.rows[a] = trial.rows[b]._replace(sequence=a + 1)
    trial.save()
    return a + 1


def closed_gap(trial: Trial) -> int | None:
    """A row is deleted, and all after it are renumbered."""
    k = trial.place(before_end=1)
    trial.rows[k:] = [row._replace(sequence=row.sequence - 1) for row in trial.rows[k + 1 :]]
    trial.save()
    return k + 1


def truncated(trial: Trial) -> int | None:
    """The last rows are deleted: the chain alone is sound."""
    k = trial.place(since=1)
    del trial.rows[k:]
    trial.save()
    return k + 1


def written_anew(trial: Trial) -> int | None:
    """A body is changed, and all hashes from there on are made right: the chain alone is sound."""
    k = trial.place()
    trial.rows[k] = trial.rows[k]._replace(body=_flipped(trial.rows[k].body, trial.rng))
    previous = trial.rows[k].previous
    for i in range(k, len(trial.rows)):
        row = trial.rows[i]
        trial.rows[i] = Row(row.sequence, row.body, previous, digest(row.sequence, previous, row.body))
        previous = trial.rows[i].hash
    trial.save()
    return None  # only the heads behind it tell


def file_byte(trial: Trial) -> int | None:
    """Any byte of the file, also one that SQLite does not use: the seal tells."""
    trial.path.write_bytes(_flipped(trial.path.read_bytes(), trial.rng))
    return None


def file_cut(trial: Trial) -> int | None:
    """The file ends somewhere else."""
    data = trial.path.read_bytes()
    trial.path.write_bytes(data[: int(trial.rng.integers(len(data)))])
    return None


TAMPERS: dict[str, Tamper] = {
    function.__name__.replace("_", " "): function
    for function in (
        one_byte,
        one_row_with_its_hash,
        deleted,
        exchanged,
        repeated,
        closed_gap,
        truncated,
        written_anew,
        file_byte,
        file_cut,
    )
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = "example:\n  twinloop bench audit_tampering --trials 1000"
    parser.add_argument("--trials", type=int, default=10_000, metavar="N", help="changes in all (10000)")
    parser.add_argument("--rows", type=int, default=24, metavar="N", help="rows of the journal (24)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the tables as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Change, verify, measure, print; 0 when the bars are met."""
    with tempfile.TemporaryDirectory() as folder:
        table, all_found = tampering(Path(folder), arguments.trials, arguments.rows, arguments.seed)
        speed, is_fast = speeds(Path(folder))
    for number, made in enumerate((table, speed)):
        print_table(made)
        if arguments.out is not None:
            made.write(arguments.out, (NAME, "audit_speed")[number], provenance(seeds=(arguments.seed,)))
    return 0 if all_found and is_fast else 1


def tampering(folder: Path, n_trials: int, n_rows: int, seed: int) -> tuple[Table, bool]:
    """What was found of what was done."""
    made, copy, heads = folder / "station" / "j.sqlite", folder / "copy.sqlite", folder / "heads"
    make_keys(folder / "keys")
    key = load_private(folder / "keys" / "journal.key", made)
    for part in np.array_split(np.arange(n_rows), 3):
        append(made, part.tolist(), 100)
        sign_head(made, key, heads, seal=True)
    with opened(made) as connection:
        rows = list(stored_rows(connection))
    rng, done, found, named, alone = (
        np.random.default_rng(seed),
        Counter[str](),
        Counter[str](),
        Counter[str](),
        Counter[str](),
    )
    for k in track(range(n_trials), "changes", transient=True):
        what = list(TAMPERS)[k % len(TAMPERS)]
        shutil.copy(made, copy)
        row = TAMPERS[what](Trial(rows, copy, rng))
        report = checked(copy, heads, key.public)
        first = report.findings[0].sequence if report.findings else None
        done[what] += 1
        found[what] += not report.is_sound
        named[what] += row is None or first == row
        alone[what] += not audit(copy).is_sound
    lines: list[tuple[Cell, ...]] = [(w, done[w], found[w], named[w], alone[w]) for w in done]
    notes = (
        "Right row: the first finding names the row that was changed first; where the whole file or all behind a row "
        "was changed, there is none to name.",
        "By the chain alone: without signed heads and seal. A byte of the file in which no row lies changes no row.",
    )
    columns = ("change", "trials", "found", "right row", "by the chain alone")
    return Table(f"Changes to a journal of {n_rows} rows", columns, tuple(lines), notes), done == found == named


def checked(path: Path, heads: Path, key: PublicKey) -> AuditReport:
    """As `twinloop audit verify` does it."""
    return audit(path, heads=heads, keys=[key])


def speeds(folder: Path) -> tuple[Table, bool]:
    """Rows a CPU second over the length of a row, the best of three, and what SHA-256 alone would allow."""
    lines: list[tuple[Cell, ...]] = []
    is_fast = True
    for length, n in ((200, 50_000), (2_000, 20_000), (6_000, 8_000), (30_000, 2_000)):
        path = folder / f"{length}.sqlite"
        append(path, range(n), length)
        rate = max(n / cpu_s(partial(audit, path)) for _ in range(3))
        body = b"x" * (length + 130)
        alone = max(n / cpu_s(partial(hashed, body, n)) for _ in range(3))
        is_fast &= length > 2_000 or rate >= ROWS_PER_S_BAR
        lines.append((length, n, round(rate), round(rate * length / 1e6), round(alone)))
        path.unlink()
    columns = ("bytes a row", "rows", "rows/s", "MB/s", "SHA-256 alone, rows/s")
    notes = (f"Bar {ROWS_PER_S_BAR:,.0f} rows a CPU second, one thread; the file's own structure is checked too.",)
    return Table("Verifying a journal", columns, tuple(lines), notes), is_fast


def hashed(body: bytes, n: int) -> None:
    """What no chain of SHA-256 can do without."""
    for _ in range(n):
        hashlib.sha256(body).digest()


def append(path: Path, numbers: range | list[int], length: int) -> None:
    """Rows of about ``length`` bytes."""
    with Journal(path) as journal:
        journal._open().execute("PRAGMA synchronous=OFF")  # the disk's speed is not what is measured
        for k in numbers:
            journal.append({"kind": "decision", "number": int(k), "pad": "x" * max(length - 40, 0)})


def cpu_s(act: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    begun_s = time.thread_time()
    act()
    return time.thread_time() - begun_s


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    k = int(rng.integers(len(data)))
    return data[:k] + bytes([data[k] ^ int(rng.integers(1, 256))]) + data[k + 1 :]
