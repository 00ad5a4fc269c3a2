"""Orders to control: one file for one wish, however often it is sent, and what became of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..station.folder import StationFolder, read_whole
from ..station.order import LASTS_S, Order, OrderKind, OrderResult, new_id, place

_LOOK_S = 0.01
_MOST_ASKED = 500


@dataclass(frozen=True)
class Wish:
    """What somebody wants; the same wish of the same person, sent from the same state of things, is one order.

    ``about``: a proposal or assets; forms that were drawn before the last answer about it have an earlier ``epoch``.
    """

    session: str
    epoch: str
    kind: OrderKind
    by: str
    assets: tuple[str, ...] | None = None
    mode: str | None = None
    values: tuple[tuple[str, float], ...] = ()
    lasts_s: float = 600.0
    proposal: str | None = None

    @property
    def about(self) -> str:
        return self.proposal or ",".join(self.assets or ("all",))

    @property
    def key(self) -> str:
        parts: list[Any] = [self.session, self.epoch, self.kind, self.by, self.assets, self.mode, self.values]
        return hashlib.sha256(json.dumps([*parts, self.lasts_s, self.proposal]).encode()).hexdigest()


class Asking:
    """Places orders and waits for their results. ``patience_s`` is asked for with each, since periods differ."""

    def __init__(self, station: StationFolder) -> None:
        self._station = station
        self._ids: dict[str, str] = {}
        self._open: dict[str, tuple[str, float]] = {}
        self._answered: Counter[str] = Counter()

    def epoch(self, about: str) -> str:
        """What a form about this must carry; it changes with each answer, and when an order has lapsed."""
        for order_id, (its, until_s) in list(self._open.items()):
            if self.result(order_id) is not None or time.monotonic() >= until_s:
                del self._open[order_id]
                self._answered[its] += 1
        return str(self._answered[about])

    def ask(self, wish: Wish) -> tuple[str, bool]:
        """The order's id, and whether it is new; placed at once. Raises OSError where the inbox can't be written."""
        known = self._ids.get(wish.key)
        if known is not None:
            return known, False
        order_id, now_s = new_id(), time.time()
        self._ids[wish.key] = order_id
        while len(self._ids) > _MOST_ASKED:
            self._ids.pop(next(iter(self._ids)))
        try:
            order = Order.model_validate(
                {
                    "id": order_id, "kind": wish.kind, "by": wish.by, "utc_s": now_s,
                    "expires_utc_s": now_s + LASTS_S, "assets": wish.assets, "mode": wish.mode,
                    "values": dict(wish.values), "lasts_s": wish.lasts_s, "proposal": wish.proposal,
                }
            )  # fmt: skip
            place(self._station, order)
        except (OSError, ValueError):
            del self._ids[wish.key]
            raise
        self._open[order_id] = (wish.about, time.monotonic() + LASTS_S)
        return order_id, True

    def result(self, order_id: str) -> OrderResult | None:
        """What control says became of it; None while it says nothing."""
        try:
            found = read_whole(self._station.done / f"{order_id}.json")
            return None if found is None else OrderResult.model_validate(found)
        except (OSError, ValueError):
            return None

    async def wait(self, order_id: str, patience_s: float) -> OrderResult | None:
        """The result, once it is there; None where it has not come in time."""
        until_s = time.monotonic() + patience_s
        while (found := self.result(order_id)) is None and time.monotonic() < until_s:
            await asyncio.sleep(_LOOK_S)
        return found
