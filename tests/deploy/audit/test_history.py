"""The history has every number of the journal, however often and in however many steps it was exported."""

from __future__ import annotations

import math
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.audit.pumps import BEGIN_S, N_COMMANDED, N_MEASURED, PERIOD_S, PUMPS, run_pumps

from twinloop.deploy.audit import history as history_module
from twinloop.deploy.audit.chain import opened
from twinloop.deploy.audit.heads import journal_id
from twinloop.deploy.audit.history import export, exported_to, parts
from twinloop.deploy.audit.query import query
from twinloop.deploy.journal import Journal, read
from twinloop.envs.errors import ConfigurationError, JournalError

N_PERIODS = 330


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs over two days and a half."""
    path = tmp_path_factory.mktemp("journal") / "j.sqlite"
    run_pumps(path, 200)
    run_pumps(path, N_PERIODS - 200, first_period=205)
    return path


@pytest.fixture(scope="module")
def history(journal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    export(journal, folder)
    return folder


def table(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = query(folder, "SELECT * FROM history ORDER BY sequence").to_pylist()
    return rows


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def number(value: Any) -> float | None:
    """As the history has it: null for what is no number."""
    return None if value in (None, "nan") else float(value)


def cell(array: Any, row: int, column: int) -> Any:
    """An entry of an array of the journal, where one number may stand for all."""
    return array[row][column] if isinstance(array, list) else array


def test_every_number_of_the_journal_comes_out_of_sql_bit_for_bit(journal: Path, history: Path) -> None:
    rows = dict(enumerate(read(journal), 1))
    found = table(history)
    assert len(found) == N_PERIODS == sum(row["kind"] in ("decision", "missed") for row in rows.values())
    seen = 0
    for told in found:
        row, following = rows[told["sequence"]], rows[told["sequence"] + 1]
        assert (told["kind"], told["number"]) == (row["kind"], row["number"])
        assert told["time"] == datetime.fromtimestamp(row["plant_time_s"], UTC)
        assert str(told["day"]) == told["time"].date().isoformat()
        for group in PUMPS.groups:
            for n, asset in enumerate(group.assets):
                for k, signal in enumerate(group.measured):
                    name, telemetry = f"{group.name}/{asset}/{signal.name}", row["telemetry"]
                    if telemetry is None:
                        assert told[name] is told[f"{name}@quality"] is told[f"{name}@source_time"] is None
                        continue
                    assert told[name] == number(cell(telemetry["values"][group.name], n, k))
                    assert told[f"{name}@quality"] == cell(telemetry["quality"][group.name], n, k)
                    source_s = cell(telemetry["source_time_s"][group.name], n, k)
                    assert told[f"{name}@source_time"].timestamp() == source_s
                    seen += 1
                for k, signal in enumerate(group.commanded):
                    name = f"{group.name}/{asset}/{signal.name}"
                    assert told[f"{name}@sent"] == number(cell(row["sent"][group.name], n, k))
                    accepted = following["previous"].get("accepted")
                    expected = None if accepted is None else number(cell(accepted[group.name], n, k))
                    assert told[f"{name}@accepted"] == expected
    assert seen > N_MEASURED * N_PERIODS * 0.9


def test_what_was_no_number_is_null_with_its_quality_beside_it(history: Path) -> None:
    name = '"pump/P2/flow'
    sql = f'SELECT count(*) AS n, avg({name}") AS mean FROM history WHERE {name}@quality" = 2'
    (bad,) = query(history, sql).to_pylist()
    assert bad["n"] > 20
    assert bad["mean"] is None
    (all_of_them,) = query(history, f'SELECT avg({name}") AS mean FROM history').to_pylist()
    assert math.isfinite(all_of_them["mean"])


def test_a_file_is_about_one_day_and_says_so_in_its_name(history: Path) -> None:
    days = ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert sorted(path.name for path in history.iterdir()) == [f"day={day}" for day in days]
    counts = query(history, "SELECT day, count(*) AS n FROM history GROUP BY day ORDER BY day").to_pylist()
    assert [row["n"] for row in counts] == [144, 139, N_PERIODS - 283]
    found = parts(history)
    assert [part.day for part in found] == days
    assert all(after.first == before.last + 1 for before, after in pairwise(found))


def test_a_second_export_changes_nothing(journal: Path, history: Path) -> None:
    before = contents(history)
    again = export(journal, history)
    assert (again.rows, again.parts) == (0, 0)
    assert contents(history) == before


def test_many_small_exports_give_the_same_table_as_one(journal: Path, history: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(journal)) as whole:
        rows = whole.execute("SELECT * FROM journal ORDER BY sequence").fetchall()
    path, folder = tmp_path / "growing.sqlite", tmp_path / "history"
    with Journal(path) as growing:
        connection = growing._open()
        connection.execute("PRAGMA synchronous=OFF")  # the disk's speed is not what is tested
        for begin in range(0, len(rows), 41):
            connection.executemany("INSERT INTO journal VALUES (?, ?, ?, ?)", rows[begin : begin + 41])
            export(path, folder)
    assert table(folder) == table(history)
    assert len(parts(folder)) == len(parts(history)) == 3


def test_the_row_that_was_written_last_waits_for_what_came_of_it(tmp_path: Path) -> None:
    path, folder = tmp_path / "j.sqlite", tmp_path / "history"
    run_pumps(path, 5)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("DROP TRIGGER no_delete; DELETE FROM journal WHERE sequence = 7;")  # the end
    assert (export(path, folder).rows, export(path, folder).last) == (4, 5)


def test_what_a_crash_left_over_is_not_counted_twice_and_goes_away(
    journal: Path, history: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "history"
    shutil.copytree(history, folder)
    last = parts(folder)[-1]
    smaller = last.path.with_name(f"{last.journal}-{last.first:012d}-{last.last - 3:012d}.parquet")
    shutil.copy(last.path, smaller)
    (last.path.parent / f"{last.journal}-{1:012d}-{9:012d}.unfinished").write_bytes(b"half a file")
    assert table(folder) == table(history)
    export(journal, folder)
    assert contents(folder) == contents(history)


def test_a_file_that_was_lost_is_written_again(journal: Path, history: Path, tmp_path: Path) -> None:
    folder = tmp_path / "history"
    shutil.copytree(history, folder)
    parts(folder)[1].path.unlink()
    with opened(journal) as connection:
        assert exported_to(folder, journal_id(connection)) == parts(history)[0].last
    export(journal, folder)
    assert table(folder) == table(history)


def test_files_stop_growing_at_their_size(journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_LEAST_ROWS_A_PART", 50)
    monkeypatch.setattr(history_module, "_CELLS_A_PART", 1)
    export(journal, tmp_path)
    import pyarrow.parquet as pq

    sizes = [pq.read_metadata(part.path).num_rows for part in parts(tmp_path)]
    assert sizes == [50, 50, 44, 50, 50, 39, 47]


def test_two_journals_share_a_history(journal: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    run_pumps(other, 10)
    export(journal, tmp_path / "history")
    export(other, tmp_path / "history")
    found = query(tmp_path / "history", "SELECT journal, count(*) AS n FROM history GROUP BY journal ORDER BY n")
    assert [row["n"] for row in found.to_pylist()] == [10, N_PERIODS]


def test_a_damaged_row_stops_the_export_before_it(journal: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(journal, tmp_path / "j.sqlite"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("DROP TRIGGER no_update; UPDATE journal SET body = '{}' WHERE sequence = 300;")
    with pytest.raises(JournalError, match="row 300 is damaged"):
        export(path, tmp_path / "history")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/hostname')",
        "COPY history TO 'copy.csv'",
        "ATTACH 'other.db'",
        "SET enable_external_access = true",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM history",
        "DELETE FROM history",
    ],
)
def test_a_query_reads_the_history_and_nothing_else(history: Path, sql: str) -> None:
    before = contents(history)
    with pytest.raises(ConfigurationError, match="query: "):
        query(history, sql)
    assert contents(history) == before


def test_a_folder_without_a_history_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="twinloop audit history"):
        query(tmp_path, "SELECT 1")


def test_columns_are_those_that_the_nameplate_implies(history: Path) -> None:
    names = query(history, "SELECT * FROM history LIMIT 0").column_names
    assert len(names) == 7 + 3 * N_MEASURED + 2 * N_COMMANDED
    assert {"time", "day", "journal", "pump/P1/speed", "pump/P1/speed@sent", "valve/V1/lift@accepted"} <= {*names}
    assert BEGIN_S % 86_400 == 0.0
    assert 86_400 / PERIOD_S == 144
