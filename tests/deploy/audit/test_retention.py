"""Only what is exported and signed is deleted, and what stays is verifiable as before."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.deploy.audit.pumps import PERIOD_S, run_pumps

from twinloop.deploy.audit import heads as heads_module
from twinloop.deploy.audit import history as history_module
from twinloop.deploy.audit import retention as retention_module
from twinloop.deploy.audit.heads import sign_head
from twinloop.deploy.audit.history import export, parts
from twinloop.deploy.audit.history_check import check_history
from twinloop.deploy.audit.query import query
from twinloop.deploy.audit.retention import Retained, Retention, retain
from twinloop.deploy.audit.signing import PrivateKey, load_private, make_keys
from twinloop.deploy.audit.verify import AuditReport, audit
from twinloop.deploy.journal import Journal, read
from twinloop.envs.errors import JournalError

DAY = round(86_400 / PERIOD_S)


class Desk(NamedTuple):
    """Where everything of one journal lies."""

    journal: Path
    history: Path
    heads: Path
    key: PrivateKey

    def run(self, n_periods: int, first_period: int = 0) -> None:
        run_pumps(self.journal, n_periods, first_period=first_period, steady=True)

    def sign(self) -> None:
        sign_head(self.journal, self.key, self.heads)

    def retain(self, declared: Retention) -> Retained:
        return retain(self.journal, self.history, self.heads, self.key, declared)

    def audit(self) -> AuditReport:
        return audit(self.journal, heads=self.heads, keys=[self.key.public])

    def check_history(self) -> list[str]:
        return check_history(self.history, self.heads, self.audit().journal, [self.key.public])


def at(folder: Path) -> Desk:
    path = folder / "station" / "j.sqlite"
    return Desk(path, folder / "history", folder / "heads", load_private(folder / "keys" / "journal.key", path))


@pytest.fixture(scope="module")
def four_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of four days, exported and signed."""
    folder = tmp_path_factory.mktemp("desk")
    make_keys(folder / "keys")
    made = at(folder)
    made.run(4 * DAY)
    export(made.journal, made.history)
    made.sign()
    return folder


@pytest.fixture
def desk(four_days: Path, tmp_path: Path) -> Desk:
    return at(Path(shutil.copytree(four_days, tmp_path / "desk")))


def test_old_days_leave_the_journal_and_the_rest_stays_verifiable(desk: Desk) -> None:
    before = read(desk.journal)
    done = desk.retain(Retention(journal_days=1.5))
    # Two of the first three days are over a day and a half old: the start row, and 288 periods.
    assert (done.rows_deleted, done.anchor, done.files_deleted) == (1 + 2 * DAY, 1 + 2 * DAY, 0)
    assert read(desk.journal) == before[done.anchor :]
    report = desk.audit()
    assert report.findings == ()
    assert (report.first, report.last, report.covered) == (done.anchor + 1, len(before), len(before))
    assert desk.check_history() == []
    assert query(desk.history, "SELECT count(*) AS n FROM history").to_pylist() == [{"n": 4 * DAY}]


def test_a_journal_that_lost_rows_goes_on_and_is_signed_and_exported_further(desk: Desk) -> None:
    desk.retain(Retention(journal_days=1.5))
    desk.run(2 * DAY, 4 * DAY)
    export(desk.journal, desk.history)
    desk.sign()
    done = desk.retain(Retention(journal_days=1.5, history_days=2.0))
    assert (done.rows_deleted, done.files_deleted) == (2 * DAY + 1, 3)  # with the end of the first run
    report = desk.audit()
    assert report.findings == ()
    assert desk.check_history() == []
    days = query(desk.history, "SELECT DISTINCT day FROM history ORDER BY day").to_pylist()
    assert [str(row["day"]) for row in days] == ["2026-01-04", "2026-01-05", "2026-01-06"]


def test_the_rest_is_verified_from_the_anchor_in_the_journal_itself(desk: Desk) -> None:
    desk.retain(Retention(journal_days=1.5))
    assert audit(desk.journal, keys=[desk.key.public]).is_sound
    assert "not signed by a key given" in str(audit(desk.journal).findings)


def test_rows_that_are_missing_behind_the_anchor_are_found(desk: Desk, tmp_path: Path) -> None:
    done = desk.retain(Retention(journal_days=1.5))
    for statement, first in (
        (f"DELETE FROM journal WHERE sequence <= {done.anchor + 5}", 1),
        (f"UPDATE journal SET body = '{{}}' WHERE sequence = {done.anchor + 1}", done.anchor + 1),
        ("DELETE FROM anchor", 1),
        (f"DELETE FROM journal WHERE sequence > {done.anchor + 9}", done.anchor + 10),
    ):
        path = Path(shutil.copy(desk.journal, tmp_path / "copy.sqlite"))
        with closing(sqlite3.connect(path)) as connection, connection:
            triggers = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            connection.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete;")
            connection.execute(statement)
            for (sql,) in triggers:
                connection.execute(sql)
        if "anchor" in statement:  # the same anchor stands among the heads
            assert audit(path, heads=desk.heads / next(desk.heads.iterdir()).name, keys=[desk.key.public]).findings
            continue
        report = audit(path, heads=desk.heads, keys=[desk.key.public])
        assert report.findings[0].sequence == first, statement


def test_what_is_not_signed_stays(desk: Desk) -> None:
    unsigned = desk._replace(heads=desk.heads.with_name("fresh"))
    run_pumps(desk.journal, 1, first_period=4 * DAY, steady=True)
    sign_head(desk.journal, desk.key, unsigned.heads)
    desk.run(3 * DAY, 4 * DAY + 1)
    export(desk.journal, desk.history)
    done = unsigned.retain(Retention(journal_days=0.5))
    assert done.anchor == 2 + 4 * DAY  # without the head it would be the fifth and the sixth day too
    assert unsigned.audit().is_sound


def test_what_is_not_exported_stays(desk: Desk) -> None:
    other = desk._replace(history=desk.history.with_name("none"))
    other.history.mkdir()
    assert other.retain(Retention(journal_days=0.1)).rows_deleted == 0
    shutil.copytree(desk.history, other.history, dirs_exist_ok=True)
    parts(other.history)[1].path.unlink()  # the second day: a gap
    done = other.retain(Retention(journal_days=0.1))
    assert done.anchor == 1 + DAY


def test_a_history_of_another_chain_is_refused(desk: Desk) -> None:
    first, second, *_ = parts(desk.history)
    shutil.copy(second.path, first.path)
    with pytest.raises(JournalError, match="is not the history of row"):
        desk.retain(Retention(journal_days=1.5))
    assert desk.audit().first == 1


def test_a_journal_that_is_not_sound_loses_nothing(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.journal)) as connection, connection:
        connection.executescript("DROP TRIGGER no_delete")
    with pytest.raises(JournalError, match="nothing is deleted"):
        desk.retain(Retention(journal_days=1.5))


def test_a_history_that_was_changed_or_lost_since_is_found(desk: Desk) -> None:
    desk.retain(Retention(journal_days=1.5))
    _, second, *_ = parts(desk.history)
    data = bytearray(second.path.read_bytes())
    data[len(data) // 2] ^= 1
    second.path.write_bytes(data)
    assert "was changed" in str(desk.check_history())
    second.path.unlink()
    assert "are in no file" in str(desk.check_history())


def test_bytes_of_journal_and_history_stay_within_what_is_declared(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_LEAST_ROWS_A_PART", 40)
    monkeypatch.setattr(history_module, "_CELLS_A_PART", 1)
    declared = Retention(journal_mb=0.3, history_mb=0.1)
    sizes, files = [], []
    for k in range(4, 9):
        desk.run(DAY, k * DAY)
        export(desk.journal, desk.history)
        desk.sign()
        done = desk.retain(declared)
        sizes.append((done.journal_bytes, done.history_bytes))
        files.append(desk.journal.stat().st_size)
    assert all(journal < 0.36e6 and history < 0.12e6 for journal, history in sizes[1:]), sizes
    assert files[-1] <= files[1]  # pages are used again
    assert desk.audit().is_sound
    assert desk.check_history() == []


def test_a_crash_between_anchor_and_deletion_leaves_a_sound_journal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(seconds: float) -> None:
        raise Crash

    with monkeypatch.context() as broken:
        broken.setattr(retention_module, "_BATCH_ROWS", 100)
        broken.setattr("twinloop.deploy.audit.retention.time.sleep", crash)
        with pytest.raises(Crash):
            desk.retain(Retention(journal_days=1.5))
    report = desk.audit()
    assert report.findings == ()
    assert report.first == 101
    done = desk.retain(Retention(journal_days=1.5))
    assert (done.rows_deleted, done.anchor) == (2 * DAY + 1 - 100, 2 * DAY + 1)
    assert desk.audit().findings == ()


def test_nothing_is_signed_after_rows_behind_the_anchor_were_cut_off(desk: Desk) -> None:
    done = desk.retain(Retention(journal_days=1.5))
    with closing(sqlite3.connect(desk.journal)) as connection, connection:
        connection.executescript(f"DROP TRIGGER no_delete; DELETE FROM journal WHERE sequence > {done.anchor + 3};")
    with pytest.raises(JournalError, match="is not the one that was signed"):
        heads_module.sign_head(desk.journal, desk.key, desk.heads)


def test_a_run_whose_start_was_deleted_is_exported_further(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.journal)) as connection:
        rows = connection.execute("SELECT * FROM journal ORDER BY sequence").fetchall()
    whole = query(desk.history, "SELECT * FROM history ORDER BY sequence").to_pylist()
    with closing(sqlite3.connect(desk.journal)) as connection, connection:
        trigger = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'no_delete'").fetchone()[0]
        connection.executescript(f"DROP TRIGGER no_delete; DELETE FROM journal WHERE sequence > {3 * DAY};")
        connection.execute(trigger)
    shutil.rmtree(desk.history)
    shutil.rmtree(desk.heads)
    export(desk.journal, desk.history)
    desk.sign()
    assert desk.retain(Retention(journal_days=0.5)).anchor > 1
    with closing(sqlite3.connect(desk.journal)) as connection, connection:
        connection.executemany("INSERT INTO journal VALUES (?, ?, ?, ?)", rows[3 * DAY :])
    export(desk.journal, desk.history)
    assert query(desk.history, "SELECT * FROM history ORDER BY sequence").to_pylist() == whole


def test_a_loop_goes_on_writing_while_rows_are_deleted(desk: Desk) -> None:
    begun, over = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with Journal(desk.journal) as journal:
                for k in range(10_000):
                    journal.append({"kind": "note", "number": k})
                    begun.set()
                    if over.is_set():
                        return
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must tell
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait(10.0)
    done = desk.retain(Retention(journal_days=1.5))
    over.set()
    writer.join(20.0)
    assert failed == []
    assert done.rows_deleted == 2 * DAY + 1
    assert desk.audit().is_sound
