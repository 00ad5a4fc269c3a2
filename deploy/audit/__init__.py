"""What shows afterwards what happened: a journal checked row by row, its heads signed, its telemetry as history.

Everything here runs beside the control loop, in a process of its own (the metrics' scrapes in a thread): it reads the
journal that the loop writes, and nothing that fails here can keep the loop from controlling.

* :mod:`.chain`: the rows of a journal file as bytes, and what binds them.
* :mod:`.verify`: the first row that is wrong, and what is wrong with it.
* :mod:`.signing`, :mod:`.heads`: Ed25519 keys, and signed statements of how far the chain had come.
* :mod:`.history`, :mod:`.history_rows`, :mod:`.query`: telemetry and commands as Parquet, read with DuckDB.
* :mod:`.retention`: deletes what is old, exported and signed, and leaves a signed anchor in its place.
* :mod:`.metrics`: figures of the running loop for Prometheus.
"""
