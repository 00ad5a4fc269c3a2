"""The journal keeps what was written, shows every change to it, and says so when it cannot write."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from twinloop.deploy.journal import GENESIS, Journal, read, verify
from twinloop.deploy.row_text import row_text
from twinloop.envs.errors import JournalError


def written(path: Path, n: int = 5) -> str:
    """A journal of ``n`` decisions and an end; returns its head."""
    with Journal(path) as journal:
        for k in range(n):
            journal.append({"kind": "decision", "number": k, "sent": {"turbine": np.full((3, 2), float(k))}})
        return journal.append({"kind": "end"})


def tampered(path: Path, statement: str) -> None:
    """Change the file as somebody with access to the disk could, triggers removed."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete;")
        connection.execute(statement)


def test_records_come_back_in_order_with_every_number_exact(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.journal"
    values = np.random.default_rng(0).normal(size=(4, 3))
    with Journal(path) as journal:
        journal.append({"values": values, "bad": [math.nan, math.inf, -math.inf], "one": np.float32(0.5), "none": None})
        journal.append({"text": "Ångström \u2028 \ud800"})
    first, second = read(path)
    np.testing.assert_array_equal(first["values"], values)
    assert (first["bad"], first["one"], first["none"]) == (["nan", "inf", "-inf"], 0.5, None)
    assert second == {"text": "Ångström \u2028 \ud800"}
    report = verify(path)
    assert report.is_sound
    assert (report.rows, report.ended) == (2, False)


def test_a_finished_journal_is_sound_and_its_head_is_the_last_hash(tmp_path: Path) -> None:
    head = written(tmp_path / "j")
    report = verify(tmp_path / "j", head)
    assert (report.is_sound, report.ended, report.rows, report.head) == (True, True, 6, head)


def test_a_journal_that_is_opened_again_continues_its_chain(tmp_path: Path) -> None:
    written(tmp_path / "j")
    head = written(tmp_path / "j")
    assert verify(tmp_path / "j", head).rows == 12
    assert verify(tmp_path / "j", head).is_sound


def test_rows_of_the_encoder_before_verify_and_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, n=1)
    old = {"kind": "decision", "number": 7, "sent": {"turbine": [[1e16, "nan"]]}, "who": "Ångström"}
    body = json.dumps(old, sort_keys=True, separators=(",", ":"))  # 1e+16 and \\u00c5, which are written otherwise now
    assert body != row_text(old)
    with closing(sqlite3.connect(path)) as connection, connection:
        before = connection.execute("SELECT hash FROM journal WHERE sequence = 2").fetchone()[0]
        digest = hashlib.sha256(f"3\n{before}\n{body}".encode()).hexdigest()
        connection.execute("INSERT INTO journal VALUES (3, ?, ?, ?)", (body, before, digest))
    head = written(path, n=1)
    assert verify(path, head).is_sound
    assert verify(path, head).rows == 5
    assert read(path)[2] == old


def test_two_writers_share_one_chain(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as a, Journal(tmp_path / "j") as b:
        for k in range(5):
            a.append({"by": "a", "k": k})
            b.append({"by": "b", "k": k})
    assert verify(tmp_path / "j").is_sound
    assert [r["by"] for r in read(tmp_path / "j")] == ["a", "b"] * 5


def test_writers_that_append_at_the_same_time_never_fork_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(path).append({"by": "nobody"})

    def write(name: int) -> None:
        with Journal(path) as journal:
            for k in range(40):
                rows, written = [{"by": name, "k": k}] * (1 + k % 3 // 2), False
                while not written:
                    try:
                        written = bool(journal.append_all(rows))
                    except JournalError as error:  # on a busy machine a turn may not come within SQLite's second
                        if "locked" not in str(error):
                            raise

    writers = [threading.Thread(target=write, args=(name,)) for name in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    report = verify(path)
    assert report.is_sound, report.problems
    assert report.rows == 1 + 3 * (40 + 40 // 3)
    for name in range(3):
        own = [row["k"] for row in read(path) if row["by"] == name]
        assert own == sorted(own)


def test_a_row_of_another_process_is_followed_by_the_next_single_row(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append({"by": "us"})
        other = "from twinloop.deploy.journal import Journal; Journal(%r).append({'by': 'another'})"
        subprocess.run([sys.executable, "-c", other % str(path)], check=True)
        head = journal.append({"by": "us again"})
    assert [row["by"] for row in read(path)] == ["us", "another", "us again"]
    assert verify(path, head).is_sound


def test_a_single_row_that_could_not_be_written_leaves_no_trace_in_the_next(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append({"n": 0})
        connection = journal._open()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(JournalError, match="full"):
            journal.append({"n": "x" * 100_000})
        connection.execute("PRAGMA max_page_count = 100000")
        head = journal.append({"n": 1})
        assert [row["n"] for row in read(tmp_path / "j")] == [0, 1]
        assert verify(tmp_path / "j", head).is_sound


def test_a_last_row_that_was_deleted_by_hand_shows_in_the_row_after(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append({"n": 0})
        journal.append({"n": 1})
        tampered(path, "DELETE FROM journal WHERE sequence = 2")
        journal.append({"n": 2})
    assert verify(path).problems == (
        "row 2: numbered 3; a row is missing or moved",
        "row 3: does not follow the row before it",
    )


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE journal SET body = replace(body, '2.0', '2.1') WHERE sequence = 3", "row 3: its content"),
        ("UPDATE journal SET hash = previous WHERE sequence = 3", "row 3: its content"),
        ("UPDATE journal SET previous = hash WHERE sequence = 3", "row 3: does not follow"),
        ("DELETE FROM journal WHERE sequence = 3", "row 3: numbered 4"),
        ("DELETE FROM journal WHERE sequence = 1", "row 1: numbered 2"),
        ("UPDATE journal SET body = (SELECT body FROM journal WHERE sequence = 4) WHERE sequence = 1", "row 1: its"),
        ("UPDATE journal SET sequence = 9 WHERE sequence = 2", "row 2: numbered 3"),
        ("UPDATE journal SET body = x'00ff' WHERE sequence = 2", "row 2"),
        ("INSERT INTO journal VALUES (7, '{}', 'x', 'y')", "row 7: does not follow"),
    ],
)
def test_any_change_by_hand_shows(tmp_path: Path, statement: str, words: str) -> None:
    path = tmp_path / "j"
    written(path)
    tampered(path, statement)
    report = verify(path)
    assert any(words in problem for problem in report.problems), report.problems


def test_every_single_byte_of_a_row_counts(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, n=1)
    with closing(sqlite3.connect(path)) as connection:
        body = connection.execute("SELECT body FROM journal WHERE sequence = 1").fetchone()[0]
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete;")
        for place in range(len(body)):
            changed = body[:place] + chr(ord(body[place]) ^ 1) + body[place + 1 :]
            connection.execute("UPDATE journal SET body = ? WHERE sequence = 1", (changed,))
            connection.commit()
            assert not verify(path).is_sound, place


def test_missing_rows_at_the_end_show_against_the_head_kept_elsewhere(tmp_path: Path) -> None:
    head = written(tmp_path / "j")
    tampered(tmp_path / "j", "DELETE FROM journal WHERE sequence > 4")
    alone, with_head = verify(tmp_path / "j"), verify(tmp_path / "j", head)
    assert alone.is_sound
    assert not alone.ended
    assert "rows at the end are missing" in with_head.problems[0]


def test_the_table_itself_refuses_changes(tmp_path: Path) -> None:
    written(tmp_path / "j")
    with closing(sqlite3.connect(tmp_path / "j")) as connection:
        for statement in ("DELETE FROM journal", "UPDATE journal SET body = ''"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file" / "j", tmp_path):
        with pytest.raises(JournalError, match="nothing may be sent"):
            Journal(path).append({})


def test_a_file_that_is_no_journal_is_left_alone_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but a long enough text to look at" * 20)
    with pytest.raises(JournalError, match="not a database"):
        Journal(path).append({})
    assert path.read_text().startswith("not a database")
    assert "unreadable" in verify(path).problems[0]


def test_a_full_disk_says_so_and_the_chain_goes_on_afterwards(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append({"k": 0})
    assert journal._connection is not None
    journal._connection.execute("PRAGMA max_page_count = 8")  # SQLite's own way to a full disk
    with pytest.raises(JournalError, match="full"):
        journal.append({"text": "x" * 100_000})
    journal._connection.execute("PRAGMA max_page_count = 100000")
    journal.append({"k": 1})
    journal.close()
    assert [r["k"] for r in read(tmp_path / "j")] == [0, 1]
    assert verify(tmp_path / "j").is_sound


def test_a_journal_that_does_not_exist_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no such journal"):
        verify(tmp_path / "j")
    assert not (tmp_path / "j").exists()


def test_an_empty_journal_ends_at_the_genesis_hash(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal._open()
    journal.close()
    assert verify(tmp_path / "j").head == GENESIS


def test_verifying_is_fast_enough_for_a_day_of_seconds(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        connection = journal._open()
        connection.execute("PRAGMA synchronous=OFF")  # only the reading is measured
        for k in range(3000):
            journal.append({"kind": "decision", "number": k})
    begun_s = time.thread_time()
    assert verify(path).rows == 3000
    assert 3000 / (time.thread_time() - begun_s) > 40_000  # rows a CPU second


def test_rows_that_are_written_in_one_go_are_chained_as_if_one_by_one(tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    records = [{"kind": "order", "n": n} for n in range(5)]
    with Journal(together) as journal:
        journal.append(records[0])
        head = journal.append_all(records[1:])
    with Journal(alone) as journal:
        heads = [journal.append(record) for record in records]
    assert head == heads[-1]
    assert verify(together, head).rows == 5


def test_of_rows_in_one_go_either_all_are_there_or_none(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append({"n": 0})
        connection = journal._open()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # a disk that is full after the next row
        with pytest.raises(JournalError, match="full"):
            journal.append_all([{"n": 1}, {"n": "x" * 100_000}])
        assert [row["n"] for row in read(tmp_path / "j")] == [0]


def test_a_journals_log_has_its_room_from_the_start_and_is_folded_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    log = path.with_name("j.sqlite-wal")
    with Journal(path) as journal:
        journal.append({"n": 0})
        assert log.stat().st_size > 1_000_000
        for n in range(1, 128):
            journal.append({"n": n, "text": "x" * 8000})
        assert _until(lambda: path.stat().st_size > 64 * 8000)
    assert path.stat().st_size < 2_000_000  # the room is the log's, not the file's
    assert [row["n"] for row in read(path)] == list(range(128))
    assert verify(path).rows == 128


def _until(is_so: Callable[[], bool]) -> bool:
    give_up_s = time.monotonic() + 60.0
    while not is_so() and time.monotonic() < give_up_s:
        time.sleep(0.005)
    return is_so()
