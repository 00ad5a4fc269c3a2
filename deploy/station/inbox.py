"""Orders that wait in a station, in the order of their ids; each is answered once, by its id, also across restarts."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from ...envs.complaint import complaints
from .folder import StationFolder, write_whole
from .order import Order, OrderId, OrderResult, new_id

_LOG = logging.getLogger(__name__)

MOST_A_PERIOD = 20
"""Orders looked at in one period; the others wait for the next ones."""

_MOST_LISTED = 5000
_MOST_LOOKED = 500
_LARGEST_BYTES = 64 * 1024
_KEPT_RESULTS = 5000
_ID = TypeAdapter(OrderId)


class Waiting(NamedTuple):
    """One file of the inbox: an order, or in words why it is none."""

    path: Path
    id: str
    order: Order | None
    fault: str = ""


class Inbox:
    """``answered`` ids are remembered besides the files that say so, should those not be writable."""

    def __init__(self, station: StationFolder) -> None:
        self._station = station
        self._answered: set[str] = set()
        self._n_results = 0
        self._failing = False
        self._not_urgent: set[str] = set()

    def waiting(self) -> Iterator[Waiting]:
        """Orders to stop, then of the others at most :data:`MOST_A_PERIOD` files. What was answered before is removed
        without a word; never raises."""
        try:
            with os.scandir(self._station.inbox) as entries:
                listed = islice((e.name for e in entries), _MOST_LISTED)
                names = sorted(n for n in listed if n.endswith(".json") and not n.startswith("."))
        except OSError as error:
            self._complain(f"{self._station.inbox} can't be read ({error.strerror})")
            return
        stops = self._stops_behind(names[MOST_A_PERIOD:])
        yield from stops
        for name in names[:MOST_A_PERIOD]:
            path = self._station.inbox / name
            id = name.removesuffix(".json")
            if id in self._answered or (self._station.done / name).exists():
                self._remove(path)
                continue
            yield self._read(path, id)

    def _stops_behind(self, names: list[str]) -> list[Waiting]:
        """The orders to stop among files whose turn has not come; each file is looked at once, some a period."""
        self._not_urgent.intersection_update(names)
        found: list[Waiting] = []
        for name in [n for n in names if n not in self._not_urgent][:_MOST_LOOKED]:
            id = name.removesuffix(".json")
            path = self._station.inbox / name
            if id not in self._answered and _mentions_stop(path) and not (self._station.done / name).exists():
                waiting = self._read(path, id)
                if waiting.order is not None and waiting.order.kind == "stop":
                    found.append(waiting)
                    continue
            self._not_urgent.add(name)
        return found

    def answer(self, waiting: Waiting, result: OrderResult) -> None:
        """Say what became of an order, and take it out of the inbox; never raises."""
        self._answered.add(waiting.id)
        try:
            write_whole(self._station.done / f"{result.id}.json", result.model_dump(mode="json"), durable=False)
            self._failing = False
        except OSError as error:
            self._complain(f"{self._station.done} can't be written ({error.strerror})")
        self._remove(waiting.path)
        self._n_results += 1
        if self._n_results % (_KEPT_RESULTS // 5) == 0:
            self.prune()

    def prune(self) -> None:
        """Delete the oldest results beyond those that are kept; their orders have lapsed long since."""
        with suppress(OSError):
            for old in sorted(os.listdir(self._station.done))[:-_KEPT_RESULTS]:
                (self._station.done / old).unlink(missing_ok=True)
        if len(self._answered) > _KEPT_RESULTS:
            self._answered = set(sorted(self._answered)[-_KEPT_RESULTS:])

    def _read(self, path: Path, id: str) -> Waiting:
        try:
            _ID.validate_python(id)
        except ValidationError:
            return Waiting(path, new_id(), None, f"{path.name}: no order's name; it is the order's id and .json")
        try:
            raw = _raw(path)
            if len(raw) > _LARGEST_BYTES:
                return Waiting(path, id, None, f"over {_LARGEST_BYTES} bytes; an order is a few lines")
            data = json.loads(raw)
        except OSError as error:
            return Waiting(path, id, None, f"unreadable ({error.strerror}); place it again")
        except (ValueError, RecursionError) as error:
            return Waiting(path, id, None, f"no JSON ({error}); place it again, whole")
        if not isinstance(data, dict):
            return Waiting(path, id, None, f"a {type(data).__name__} instead of an order's fields")
        try:
            order = Order.model_validate(data)
        except ValidationError as error:
            told = "; ".join(c.text for c in complaints(error, Order, data))
            return Waiting(path, id, None, f"no order: {told}")
        if order.id != id:
            return Waiting(path, id, None, f"its file is named {path.name}, its id is {order.id}; they must agree")
        return Waiting(path, id, order)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._complain(f"{path} can't be removed ({error.strerror})")

    def _complain(self, what: str) -> None:
        if not self._failing:
            _LOG.error("orders: %s", what)
        self._failing = True


def _raw(path: Path) -> bytes:
    # Neither a pipe nor a link to one may keep the loop waiting.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_LARGEST_BYTES + 1) or b""


def _mentions_stop(path: Path) -> bool:
    """Whether it may be an order to stop; a hundred times quicker than to read it as one."""
    try:
        return b'"stop"' in _raw(path)
    except OSError:
        return False
