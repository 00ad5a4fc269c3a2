"""Where people reach a running loop: emergency stop by key or signal, and an orders file that is read each period.

No login stands before either. A file never gives more than the run was started with: its mode counts only up to
``--mode``, approvals only while they stand in a file that can be read, limits only where they are tighter than the
declared ones. A file that is gone, unreadable or wrong changes nothing that stands, save that approvals lapse.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from ..envs.configuration import Strict, load
from ..envs.errors import ConfigurationError
from .shield import Mode
from .shield.orders import ORDERABLE, Orders

_LOG = logging.getLogger(__name__)


class OrderSheet(Strict):
    """The orders file, YAML or JSON. An empty file orders nothing."""

    mode: Literal["shadow", "advise", "approved", "autonomous"] | None = Field(
        default=None, description="the highest authority; taken up when the file changes"
    )
    stop: bool = Field(default=False, description="emergency stop, held as long as this stands")
    reset: bool = Field(default=False, description="clears what is latched, once each time that the file changes")
    approved: tuple[str, ...] = Field(default=(), description="agents, group/asset, whose proposals may be sent")
    limits: dict[str, tuple[float | None, float | None]] = Field(
        default_factory=dict, description="minimum and maximum of named sum constraints, null for as declared"
    )


class OrderDesk:
    """Gathers what people want; call it once a period for :class:`Orders`.

    ``ceiling``: the mode that the run was started with, and the most that a file may give. ``path``: the orders file;
    it must exist and be right when the run starts. ``change``: the latest change in one line, for people to read.
    """

    def __init__(self, ceiling: Mode = Mode.AUTONOMOUS, path: Path | None = None) -> None:
        self._ceiling = ceiling
        self._path = path
        self._sheet = OrderSheet()
        self._seen: tuple[int, int, int] | None = None
        self._is_readable = True
        self._stopped_by = ""
        self.change = ""

    def open(self) -> None:
        """Look at the file for the first time; raises :class:`ConfigurationError` where it can't be followed."""
        if self._path is not None:
            load(self._path, OrderSheet)

    def stop(self, by: str) -> None:
        """Emergency stop, held until a reset; may be called from a signal handler or another thread."""
        self._stopped_by = by

    def __call__(self) -> Orders:
        mode, reset = self._read()
        if reset and not self._sheet.stop:
            self._stopped_by = ""
        elif self._stopped_by:
            self._say(f"emergency stop by {self._stopped_by}")
        approved = frozenset(self._sheet.approved) if self._is_readable else frozenset()
        return Orders(
            mode=mode,
            stop=self._sheet.stop or bool(self._stopped_by),
            reset=reset,
            approved=approved,
            limits=dict(self._sheet.limits),
        )

    def _read(self) -> tuple[Mode | None, bool]:
        """Follow the file if it has changed: the mode that it gives now, and whether it resets."""
        if self._path is None:
            return None, False
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                self._is_readable = True
                return None, False
            sheet = load(self._path, OrderSheet)
        except (OSError, ConfigurationError) as error:
            if self._is_readable:
                _LOG.error("orders: %s; what was ordered stays, approvals lapse", error)
                self._say(f"orders file not followed: {error}".splitlines()[0])
            self._is_readable = False
            return None, False
        first = self._seen is None
        self._seen, self._is_readable, self._sheet = seen, True, sheet
        mode = None if sheet.mode is None else min(Mode(sheet.mode), self._ceiling, key=ORDERABLE.index)
        told = [f"mode {mode}"] if mode is not None else []
        told += ["emergency stop"] if sheet.stop else []
        told += ["reset"] if sheet.reset else []
        if told or not first:
            self._say("orders file: " + (", ".join(told) or "nothing that concerns modes"))
        return mode, sheet.reset

    def _say(self, change: str) -> None:
        if change != self.change:
            self.change = change
            _LOG.warning("%s", change)
