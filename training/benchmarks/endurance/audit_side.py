"""The audit's process of the run: signs heads, exports telemetry, and deletes what is older than declared."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path

from ....deploy.audit.heads import Publisher
from ....deploy.audit.history import export
from ....deploy.audit.retention import Retention, retain
from ....deploy.audit.signing import load_private
from ....deploy.station.folder import StationFolder
from ....envs.errors import JournalError

DECLARED = Retention(journal_days=2.0, history_days=7.0)


def audit_side(pipe: Connection, folder: Path, keys: Path) -> None:
    """Answer each message with ``(error, CPU seconds)`` when a round is done; a message of None ends it."""
    station, key, heads = StationFolder(folder), load_private(keys / "journal.key"), keys / "heads"
    journal, history = station.journal, station.history
    publisher = Publisher(journal, key, heads, every_rows=1, every_s=0.0)
    while pipe.recv() is not None:
        begun_s, error = time.process_time(), ""
        try:
            if publisher.publish(time.time()) is not None and export(journal, history).last:
                retain(journal, history, heads, key, DECLARED)
        except JournalError as failure:
            error = str(failure)
        pipe.send((error, time.process_time() - begun_s))
