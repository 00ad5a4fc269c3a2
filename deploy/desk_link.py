"""The desk as the loop may use it: whatever its folder does, the loop has an answer in time.

A desk reads a folder, and a folder on a disk that hangs or a share that is gone keeps whoever looks there for minutes,
without an error. So it is asked in a thread of its own, under a budget (:mod:`.leash`). Orders that come too late are
followed in the next period: none is lost, and none is followed twice. Meanwhile what was ordered stands.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .leash import Leash, Outcome
from .shield import ShieldState
from .shield.orders import Orders
from .unheeded import heeding

if TYPE_CHECKING:
    from .runtime import Desk

_LOG = logging.getLogger(__name__)

BUDGET_PU = 0.3
"""Share of a period that the desk may take."""
_AGAIN_PU = 0.05
"""The same while it is still busy with an earlier period."""
BLIND_PERIODS = 3.0
BLIND_S = 5.0
"""A desk that has not answered for both, nobody knows what it would say: it is taken as a stop, as a stop file that
can't be looked at is."""

Rows = Sequence[Mapping[str, Any]]


class DeskLink:
    """``period_s``: of the wall."""

    def __init__(self, desk: Desk, period_s: float, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._desk, self._period_s, self._monotonic = desk, period_s, monotonic_s
        self._leash = Leash(self._look, "desk")
        self._came: deque[tuple[Any, Rows]] = deque()
        self._rest: Orders | None = None
        self._standing = Orders()
        self._late_since_s: float | None = None
        self.rows: list[Mapping[str, Any]] = []
        """What came with the orders, to be journalled before the next decision; the loop takes it."""

    def orders(self, number: int, now_s: float, state: ShieldState) -> Orders | str:
        """What people ask, within the budget; in words what went wrong instead."""
        budget_s = (BUDGET_PU if self._late_since_s is None else _AGAIN_PU) * self._period_s
        answer = self._leash.ask(budget_s, number, now_s, state)
        found = self._taken()
        if answer.outcome is Outcome.ANSWERED:
            self._late_since_s = None
        else:
            self._note_late()
        if isinstance(found, Exception):
            return f"{type(found).__name__}: {found}"
        if found is None:  # whatever was ordered once is not ordered again
            found = replace(self._standing, mode=None, reset=False, assets=None)
        if not isinstance(found, Orders):
            return f"{type(found).__name__} instead of orders"
        if self._late_since_s is not None:
            stop = found.stop or self._desk.is_pressed
            approved = frozenset[str]() if self._blind_s() > 0.0 else found.approved
            found = replace(found, stop=stop, reset=found.reset and not stop, approved=approved)
        self._standing = found
        return found

    def close(self) -> None:
        """Let the thread end; what it still brought is in ``rows``."""
        self._leash.close()
        self._taken()

    def _look(self, number: int, now_s: float, state: ShieldState) -> None:
        """In the desk's thread."""
        found: Any
        try:
            found = self._desk.orders(number, now_s, state)
        except Exception as error:  # noqa: BLE001 - whatever brings orders must not end the control of a plant
            found = error
        self._came.append((found, tuple(self._desk.rows())))

    def _taken(self) -> Any:
        """What has come, a late answer of an earlier period and this one's as one; None where nothing has."""
        whole: Any = self._rest
        self._rest = None
        while self._came:
            found, rows = self._came.popleft()
            self.rows.extend(rows)
            if isinstance(whole, Orders):
                found, self._rest = heeding(whole, found) if isinstance(found, Orders) else (found, whole)
            whole = found
        return whole

    def _note_late(self) -> None:
        now_s = self._monotonic()
        if self._late_since_s is None:
            self._late_since_s = now_s
            _LOG.warning("orders come late, the folder does not answer; what was ordered stands, the signal stops")
        if self._blind_s() > 0.0 and not self._desk.is_pressed:
            self._desk.stop(f"a station folder that has not answered for {now_s - self._late_since_s:.3g} s")

    def _blind_s(self) -> float:
        since_s = self._late_since_s
        return 0.0 if since_s is None else self._monotonic() - since_s - max(BLIND_PERIODS * self._period_s, BLIND_S)
