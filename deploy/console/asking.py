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

    def reserve(self, wish: Wish) -> tuple[str, bool]:
        """The order's id, and whether it is new: then it is to be placed, or forgotten."""
        known = self._ids.get(wish.key)
        if known is not None:
            return known, False
        order_id = self._ids[wish.key] = new_id()
        while len(self._ids) > _MOST_ASKED:
            self._ids.pop(next(iter(self._ids)))
        return order_id, True

    def place(self, order_id: str, wish: Wish) -> None:
        """Put it into the inbox; raises OSError where that can't be written, ValueError for a wish that is no order."""
        now_s = time.time()
        order = Order.model_validate(
            {
                "id": order_id, "kind": wish.kind, "by": wish.by, "utc_s": now_s, "expires_utc_s": now_s + LASTS_S,
                "assets": wish.assets, "mode": wish.mode, "values": dict(wish.values), "lasts_s": wish.lasts_s,
                "proposal": wish.proposal,
            }
        )  # fmt: skip
        place(self._station, order)
        self._open[order_id] = (wish.about, time.monotonic() + LASTS_S)

    def forget(self, wish: Wish) -> None:
        """What was reserved and could not be placed may be asked for again."""
        self._ids.pop(wish.key, None)

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
