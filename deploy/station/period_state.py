"""``state.json``: the latest period, replaced each period, for the other processes of a station.

:meth:`PeriodState.show` is the loop's ``on_period`` and costs it microseconds: a thread of its own makes and writes the
file, the newest period first, so that a disk that hangs costs the pages their news and not the plant its control.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...envs.nameplate import Group, Nameplate
from ..arbitration.priority_array import Slot
from ..loop import Period
from ..shield import Mode, ShieldState
from ..shield.causes import TABLE
from .folder import StationFolder, write_whole
from .order import OrderResult

_LOG = logging.getLogger(__name__)

FORMAT = 1
_LAST_WAIT_S = 2.0


class Told(Protocol):
    """What a desk tells of itself; :class:`~.desk.StationDesk` does."""

    @property
    def is_stopped(self) -> bool: ...
    @property
    def latest(self) -> Sequence[OrderResult]: ...
    @property
    def change(self) -> str: ...


_CYCLE = ("p50_ms", "p99_ms", "p999_ms", "max_ms", "jitter_p99_ms", "jitter_max_ms", "slow", "steal_s")


class PeriodState:
    """``executions``: how roll-outs stand (:class:`~.executor_seat.Executor`), asked in the loop's thread."""

    def __init__(
        self,
        station: StationFolder,
        nameplate: Nameplate,
        ceiling: Mode,
        desk: Told,
        executions: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._path, self._nameplate, self._ceiling = station.state, nameplate, ceiling
        self._desk, self._executions = desk, executions
        self._next: Callable[[], dict[str, Any]] | None = None
        self._last: dict[str, Any] = {}
        self._news = threading.Condition()
        self._over = self._failing = False
        self._thread: threading.Thread | None = None

    def show(self, period: Period) -> None:
        """Take note of a period. Never raises, never waits for the disk."""
        try:
            stopped, change, orders = self._desk.is_stopped, self._desk.change, list(self._desk.latest)
            executions, utc_s = dict(self._executions()), time.time()
            with self._news:
                self._next = lambda: self._row(period, utc_s, stopped, change, orders, executions)
                self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="state", daemon=True)
                self._thread.start()
        except Exception:  # noqa: BLE001 - news that are missing must not end the control of a plant
            _LOG.exception("state.json can't be made")

    def close(self, ending: str) -> None:
        """Write the last period, marked as ended; waits for the disk for seconds at most."""
        with self._news:
            self._over = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(_LAST_WAIT_S)
        if self._thread is None or not self._thread.is_alive():
            self._write({"format": FORMAT, **self._last, "utc_s": time.time(), "ended": ending})

    def _work(self) -> None:
        while True:
            with self._news:
                while self._next is None and not self._over:
                    self._news.wait()
                make, self._next = self._next, None
            if make is None:
                return
            try:
                self._last = make()
            except Exception:  # noqa: BLE001 - as in show
                _LOG.exception("state.json can't be made")
                continue
            self._write(self._last)

    def _write(self, row: Mapping[str, Any]) -> None:
        try:
            write_whole(self._path, row, durable=False)
            self._failing = False
        except (OSError, ValueError, TypeError) as error:
            if not self._failing:
                _LOG.error("%s can't be written: %s", self._path, error)
            self._failing = True

    def _row(
        self,
        period: Period,
        utc_s: float,
        stopped: bool,
        change: str,
        orders: Sequence[OrderResult],
        executions: Mapping[str, Any],
    ) -> dict[str, Any]:
        decision, figures = period.decision, period.cycle.figures()
        cycle = {n: _number(getattr(figures, n)) for n in _CYCLE}
        return {
            "format": FORMAT,
            "utc_s": utc_s,
            "number": period.number,
            "plant_time_s": _number(period.plant_time_s),
            "site": self._nameplate.site,
            "detail": change,
            "ceiling": self._ceiling.value,
            "stop": stopped,
            "handing_back": period.handing_back,
            "ended": None,
            "groups": {g.name: _group(g, period) for g in self._nameplate.groups},
            "modes": {agent: mode.value for agent, mode in decision.mode.items()},
            "sources": {agent: source.value for agent, source in decision.source.items()},
            "causes": _causes(decision.state, self._nameplate.agents),
            "reasons": [
                [r.asset, r.signal, r.code.value, *map(_number, r[3:6]), r.constraint, *map(_number, r[7:9])]
                for r in decision.reasons
            ],
            "who": dict(period.who),
            "cycle": {
                "latency_ms": _number(period.latency_ms),
                **cycle,
                "misses": figures.misses,
                "periods": figures.periods,
            },
            "executions": dict(executions),
            "orders": [result.model_dump(mode="json") for result in orders],
        }


def _group(group: Group, period: Period) -> dict[str, Any]:
    telemetry, name = period.telemetry, group.name
    measured, commanded = [s.name for s in group.measured], [s.name for s in group.commanded]
    shape = group.n_assets, len(commanded)
    slots = None if period.slots is None else period.slots.get(name)
    return {
        "agents": [f"{name}/{asset}" for asset in group.assets],
        "measured": _columns(measured, period.values, name, group.n_assets),
        "quality": _columns(measured, getattr(telemetry, "quality", None), name, group.n_assets),
        "source_time_s": _columns(measured, getattr(telemetry, "source_time_s", None), name, group.n_assets),
        "asked": _columns(commanded, period.asked, name, group.n_assets),
        "sent": _columns(commanded, period.decision.commands, name, group.n_assets),
        "accepted": None if period.accepted is None else _columns(commanded, period.accepted, name, group.n_assets),
        "slot": _columns(commanded, {name: np.full(shape, int(Slot.AUTONOMOUS)) if slots is None else slots}, name, 0),
    }


def _columns(signals: Sequence[str], table: Any, group: str, n_assets: int) -> dict[str, list[Any]]:
    """``[N, S]`` of a group as a list a signal; None for what is no number, and for all of what is no such array."""
    array = table.get(group) if isinstance(table, Mapping) else None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] != len(signals):
        return {signal: [None] * n_assets for signal in signals}
    if array.dtype.kind not in "fiu":
        return {signal: [None] * n_assets for signal in signals}
    return {signal: [_number(v) for v in array[:, k].tolist()] for k, signal in enumerate(signals)}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _causes(state: ShieldState, agents: Sequence[str]) -> dict[str, str]:
    """By agent, the code of the gravest cause that stands."""
    if state.modes is None:
        return {}
    standing = state.modes.latched | (state.modes.left > 0)
    return {
        agents[i]: TABLE[int(standing[:, i].argmax())].code.value for i in np.flatnonzero(standing.any(axis=0)).tolist()
    }
