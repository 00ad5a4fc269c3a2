"""``twinloop audit``: what shows afterwards what happened."""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from ...envs.errors import ConfigurationError
from ..audit.heads import sign_head
from ..audit.history import export
from ..audit.retention import Retention, retain
from ..audit.signing import PRIVATE_NAME, PUBLIC_NAME, PublicKey, load_private, load_public, make_keys
from ..audit.verify import AuditReport, audit
from ..audit.watch import LOOK_S, AuditWatch, Watched, kept_words

DESCRIPTION = """\
Check a journal of `twinloop run`, sign how far it has come, keep its telemetry as Parquet, and delete what is old.

verify   every row, their order, gaps, and the end against signed heads; names the first wrong row and what is wrong
keys     make a pair of Ed25519 keys: journal.key signs and stays with the audit, journal.pub is for everybody
head     check the rows since the last signed head, sign where the journal ends, append that to a folder and print it
history  bring a folder of Parquet files up to date: one row a period, columns by full signal name, a folder a day
query    ask a history in SQL (DuckDB); its table is called history
retain   delete rows that are exported, signed and older than declared, and files of rows that are gone
watch    head, history and, where anything is declared, retain, again and again until Ctrl-C

A chain of hashes shows any change, deletion or reordering of rows, but not that the last ones are missing, nor that
all were written anew. Signed heads show both. Keep them and the key on another disk than the journal: a key in the
journal's folder is refused.
"""
EPILOG = """\
examples:
  twinloop audit keys /mnt/audit/keys
  twinloop audit head run.sqlite --key /mnt/audit/keys/journal.key
  twinloop audit verify run.sqlite --heads /mnt/audit/keys/heads --public /mnt/audit/keys/journal.pub
  twinloop audit history run.sqlite --out history
  twinloop audit query history 'SELECT day, avg("turbine/WT01/power_kw") FROM history GROUP BY day'
  twinloop audit watch run.sqlite --key /mnt/audit/keys/journal.key --out history --journal-days 7 --history-days 365

exit status: 0 done and sound, 1 the journal or its history is not as it was, 2 wrong input.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    chosen = parser.add_subparsers(dest="what", metavar="WHAT", required=True, help="one of those above")

    found = chosen.add_parser("verify", allow_abbrev=False, help="check a journal")
    _journal(found)
    found.add_argument("--heads", type=Path, metavar="PLACE", help="signed heads: a file, or a folder of them")
    found.add_argument(
        "--public", type=Path, action="append", default=[], metavar="FILE", help=f"{PUBLIC_NAME}; may be given again"
    )
    found.add_argument("--history", type=Path, metavar="DIR", help="check these Parquet files too")
    found.set_defaults(act=_verify)

    found = chosen.add_parser("keys", allow_abbrev=False, help="make a pair of keys")
    found.add_argument("folder", type=Path, metavar="DIR", help="where to; not where journals are")
    found.set_defaults(act=_keys)

    found = chosen.add_parser("head", allow_abbrev=False, help="sign where a journal ends")
    _journal(found)
    _signing(found)
    found.add_argument("--seal", action="store_true", help="sign the file's bytes too; for a run that has ended")
    found.add_argument(
        "--publish", metavar="URL", help="keep the head at a broker too, mqtt://broker:port/GROUP/NODE (docs/mqtt.md)"
    )
    found.set_defaults(act=_head)

    found = chosen.add_parser("history", allow_abbrev=False, help="telemetry and commands to Parquet")
    _journal(found)
    found.add_argument("--out", type=Path, required=True, metavar="DIR", help="the history's folder")
    found.set_defaults(act=_history)

    found = chosen.add_parser("query", allow_abbrev=False, help="ask a history in SQL; prints CSV")
    found.add_argument("folder", type=Path, metavar="DIR", help="the history's folder")
    found.add_argument("sql", metavar="SQL", help="one SELECT from the table history")
    found.set_defaults(act=_query)

    found = chosen.add_parser("retain", allow_abbrev=False, help="delete what is exported, signed and old")
    _journal(found)
    _signing(found)
    found.add_argument("--history", type=Path, required=True, metavar="DIR", help="the history's folder")
    configure_retention(found)
    found.set_defaults(act=_retain)

    found = chosen.add_parser("watch", allow_abbrev=False, help="all of this again and again until Ctrl-C")
    _journal(found)
    _signing(found)
    found.add_argument("--out", type=Path, metavar="DIR", help="the history's folder; without it there is none")
    found.add_argument("--every-rows", type=int, default=1000, metavar="N", help="rows to a head (%(default)s)")
    found.add_argument(
        "--every-minutes", type=float, default=5.0, metavar="M", help="minutes to a head and an export (%(default)g)"
    )
    configure_retention(found)
    found.set_defaults(act=_watch)


def run(arguments: argparse.Namespace) -> int:
    """Do what was chosen; returns the exit status."""
    act: Callable[[argparse.Namespace], int] = arguments.act
    return act(arguments)


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.heads is not None and not arguments.public:
        raise ConfigurationError(f"--heads: give --public {PUBLIC_NAME} too, or anybody's signature would do")
    if arguments.history is not None and arguments.heads is None:
        raise ConfigurationError("--history: give --heads too, which have the signed SHA-256 of its files")
    keys = [load_public(path) for path in arguments.public]
    with _progress("rows checked") as progress:
        report = audit(arguments.journal, heads=arguments.heads, keys=keys, progress=progress)
    problems = list(map(str, report.findings))
    if arguments.history is not None:
        from ..audit.history_check import check_history

        problems += check_history(arguments.history, arguments.heads, report.journal, keys)
    for problem in problems:
        print(problem)
    print(_told(report, keys))
    print("NOT SOUND" if problems else "sound")
    return 1 if problems else 0


def _told(report: AuditReport, keys: list[PublicKey]) -> str:
    rows = f"{report.rows} rows, {report.first} to {report.last}, head {report.head}"
    if report.covered:
        since = "" if report.covered == report.last else f"; rows from {report.covered + 1} on are not signed yet"
        return f"{rows}\nsigned up to row {report.covered} at {report.covered_at} ({report.heads} heads){since}"
    return f"{rows}\nno signed head {'confirms any row' if keys else 'was given: a missing end would not show'}"


def _keys(arguments: argparse.Namespace) -> int:
    public = make_keys(arguments.folder)
    print(f"{arguments.folder / PRIVATE_NAME}: signs heads; mode 0600, no password: keep it from the journal's disk")
    print(f"{arguments.folder / PUBLIC_NAME}: for everybody who verifies")
    print(f"fingerprint {public.fingerprint}")
    return 0


def _head(arguments: argparse.Namespace) -> int:
    key = load_private(arguments.key, arguments.journal)
    head = sign_head(arguments.journal, key, _folder(arguments), seal=arguments.seal)
    print(head.line)
    if arguments.publish is not None:
        from ..audit.publishing import publish_head

        print(f"published at {publish_head(head, arguments.publish)}")
    return 0


def _history(arguments: argparse.Namespace) -> int:
    with _progress("rows exported") as progress:
        found = export(arguments.journal, arguments.out, progress)
    print(f"{found.rows} periods added to {arguments.out}, exported up to row {found.last}")
    return 0


def _query(arguments: argparse.Namespace) -> int:
    from ..audit.query import query

    table = query(arguments.folder, arguments.sql)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(table.column_names)
    for batch in table.to_batches():
        out.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    return 0


def _retain(arguments: argparse.Namespace) -> int:
    declared = declared_retention(arguments)
    if declared is None:
        raise ConfigurationError("declare how much stays: --journal-days, --journal-mb, --history-days or --history-mb")
    key = load_private(arguments.key, arguments.journal)
    print(kept_words(retain(arguments.journal, arguments.history, _folder(arguments), key, declared)))
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    watched = Watched(
        arguments.journal,
        load_private(arguments.key, arguments.journal),
        _folder(arguments),
        arguments.out,
        declared_retention(arguments),
        arguments.every_rows,
        60.0 * arguments.every_minutes,
    )
    watch = AuditWatch(
        watched,
        lambda line: print(line, flush=True),
        lambda trouble: print(f"error: {trouble}", file=sys.stderr, flush=True),
    )
    while True:
        watch.look()
        time.sleep(LOOK_S)


def declared_retention(arguments: argparse.Namespace) -> Retention | None:
    """What the arguments of :func:`configure_retention` declare; None where nothing is."""
    told = {name: getattr(arguments, name) for name in Retention.model_fields}
    if all(value is None for value in told.values()):
        return None
    try:
        return Retention(**told)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"--{str(part).replace('_', '-')}: " for part in first["loc"])
        raise ConfigurationError(f"{where}{first['msg']}") from error


def _folder(arguments: argparse.Namespace) -> Path:
    return Path(arguments.heads or arguments.key.parent / "heads")


def _journal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="what `twinloop run --journal` writes")


def _signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help=f"{PRIVATE_NAME} of `audit keys`")
    parser.add_argument("--heads", type=Path, metavar="DIR", help="folder of the signed heads (heads beside the key)")


def configure_retention(parser: argparse.ArgumentParser) -> None:
    """Add how much stays."""
    for name, words in (
        ("--journal-days", "days of rows that stay in the journal"),
        ("--journal-mb", "megabytes of rows that stay in the journal"),
        ("--history-days", "days of files that stay in the history"),
        ("--history-mb", "megabytes of files that stay in the history"),
    ):
        parser.add_argument(name, type=float, metavar="N", help=words)


@contextmanager
def _progress(words: str) -> Iterator[Callable[[int], None]]:
    """Shows a count on the terminal while something goes on."""
    with Console(stderr=True).status(words) as status:
        yield lambda n: status.update(f"{n:,} {words}")
