"""A history read with SQL, by DuckDB in this process: no server, nothing outside the history's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...envs.errors import ConfigurationError
from .history import parts

if TYPE_CHECKING:
    import pyarrow as pa


def query(folder: Path, sql: str) -> pa.Table:
    """The answer to one SQL query over the view ``history``: all files of a history, one row a period.

    Columns: ``time`` (UTC), ``sequence`` (row of the journal), ``number`` (period of the run), ``kind``, ``mode``,
    ``journal`` (the first 16 digits of its id), ``day``, and those of :mod:`.history_rows`, in double quotes::

        SELECT time, "turbine/WT01/power_kw" FROM history WHERE day = '2026-01-31' ORDER BY time

    Raises :class:`ConfigurationError` for a folder without a history and for SQL that DuckDB refuses; the query can
    read nothing but the history, and write nothing.
    """
    import duckdb

    found = parts(folder)
    if not found:
        raise ConfigurationError(
            f"{folder}: holds no history; `twinloop audit history JOURNAL --out {folder}` makes one"
        )
    place = str(Path(folder).absolute())
    files = ", ".join(_quoted(str(part.path.absolute())) for part in found)
    with duckdb.connect() as connection:
        connection.execute(f"SET allowed_directories = [{_quoted(place + '/')}]")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            asked = [str(statement.type) for statement in connection.extract_statements(sql)]
            if asked != ["StatementType.SELECT"]:
                raise ConfigurationError(f"query: {sql[:80]!r} is not one SELECT; a history is only read")
            connection.execute(
                "CREATE VIEW history AS SELECT * EXCLUDE (filename, day), CAST(day AS DATE) AS day, "
                "left(parse_filename(filename), 16) AS journal FROM read_parquet("
                f"[{files}], union_by_name = true, hive_partitioning = true, filename = true)"
            )
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigurationError(f"query: {str(error).strip()}; the table is called history") from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
