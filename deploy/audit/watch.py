"""Heads, history and retention of one journal, again and again: what ``twinloop audit watch`` and the console do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...envs.errors import ConfigurationError, JournalError
from .heads import Publisher
from .history import export
from .retention import Retained, Retention, retain
from .signing import PrivateKey

LOOK_S = 1.0


@dataclass(frozen=True)
class Watched:
    """``heads``: folder of the signed heads; ``history``: folder of the Parquet files, None for none; ``declared``: how
    much stays, None for all. Raises :class:`ConfigurationError` where these do not fit."""

    journal: Path
    key: PrivateKey
    heads: Path
    history: Path | None = None
    declared: Retention | None = None
    every_rows: int = 1000
    every_s: float = 300.0

    def __post_init__(self) -> None:
        if self.declared is not None and self.history is None:
            raise ConfigurationError("rows are deleted only when exported: give --out, the history's folder")
        if self.every_rows < 1 or not self.every_s > 0.0:
            raise ConfigurationError("--every-rows and --every-minutes: give positive numbers")


class AuditWatch:
    """Does what is due at each :meth:`look`. ``say``: told what was done; ``complain``: of each new trouble once."""

    def __init__(self, watched: Watched, say: Callable[[str], None], complain: Callable[[str], None]) -> None:
        self._watched, self._say, self._complain = watched, say, complain
        self._publisher = Publisher(watched.journal, watched.key, watched.heads, watched.every_rows, watched.every_s)
        self._exported_s: float | None = None
        self.trouble = ""

    def look(self) -> None:
        """A head if one is due, an export and what is retained if those are; a trouble is told, and tried again."""
        try:
            if self._watched.journal.is_file():
                self._do()
            self.trouble = ""
        except JournalError as error:  # a full disk may have room again, and a journal that was changed must be told of
            if str(error) != self.trouble:
                self.trouble = str(error)
                self._complain(self.trouble)

    def _do(self) -> None:
        w = self._watched
        head = self._publisher.publish(time.time())
        if head is not None:
            self._say(f"row {head.sequence} {head.hash} signed at {head.signed_at} with {head.key}")
        now_s = time.monotonic()
        if w.history is None or (self._exported_s is not None and now_s - self._exported_s < w.every_s):
            return
        self._exported_s = now_s
        found = export(w.journal, w.history)
        self._say(f"{found.rows} periods exported, up to row {found.last}")
        if w.declared is not None and found.last:
            self._say(kept_words(retain(w.journal, w.history, w.heads, w.key, w.declared)))


def kept_words(done: Retained) -> str:
    """What was deleted and what stays, in a line."""
    return (
        f"{done.rows_deleted} rows and {done.files_deleted} files deleted; rows up to {done.anchor} are gone; journal "
        f"{done.journal_bytes / 1e6:.1f} MB, history {done.history_bytes / 1e6:.1f} MB"
    )
