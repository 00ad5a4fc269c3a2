"""Between an asset's leases and its shield: the ceiling of this period as an order, and the report that goes out.

    orders = edge.orders(state, clock_s)
    causes = edge.causes(state, clock_s)
    decision = shield.filter(telemetry, proposed, now_s, memory, orders=orders, clock_s=clock_s, causes=causes)
    state, report = edge.report(state, clock_s, sent, demand)

The shield keeps the ceiling like any hard limit, so what a lease allows goes through every stage that a command goes
through. Nothing here raises on what comes from outside: an assignment that makes no sense is refused. Where the lease's
own reckoning fails, the asset stays at what it used last, and never above its share; it asks for leases again after a
restart (:meth:`Edge.start`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..shield.causes import Cause
from ..shield.orders import Orders
from .alone import LeasedRow
from .lease import Holder, HolderState
from .message import Assignment, LeaseTerms, Report

HAIR = 1e-9
"""Kept below a ceiling, relative to its size, so that rounding in the shield can't pass it."""


class EdgeState(NamedTuple):
    """``used``: the asset's use at the last report, in the row's unit; ``clock_s``: its clock then; ``failed``: the
    lease's reckoning failed, and nothing but a restart brings it back."""

    holder: HolderState
    used: float
    clock_s: float
    failed: bool = False


@dataclass(frozen=True)
class Edge:
    """The leases of one asset in one row. ``hold_s``: how long a command may stand, at least the control period."""

    row: LeasedRow
    place: int
    terms: LeaseTerms
    hold_s: float

    @property
    def holder(self) -> Holder:
        """The asset's side of the protocol."""
        return Holder(self.place, self.row.shares[self.place], self.row.falls_per_s[self.place], self.terms)

    def use(self, command: float) -> float:
        """What a command of the row's signal uses of the row, in the row's unit."""
        return self.row.weights[self.place] * command

    def start(self, boot: int, clock_s: float, command: float) -> EdgeState:
        """After a start; ``boot`` was never used before, ``command`` is what the asset obeys now, read back."""
        used = self.use(command)
        return EdgeState(self.holder.start(boot, clock_s, used), used, clock_s)

    def ceiling(self, state: EdgeState, clock_s: float) -> float:
        """The most that the asset may use until it asks again; never raises."""
        share = self.row.shares[self.place]
        stays = min(share, state.used) if math.isfinite(state.used) else self.row.floors[self.place]
        if state.failed or not clock_s >= state.clock_s:  # so asked, a NaN is no clock
            return stays
        try:
            found = self.holder.ceiling(state.holder, clock_s, self.hold_s)
        except Exception:  # noqa: BLE001 - whatever is wrong with a lease: the share needs none
            return stays
        return found if math.isfinite(found) else stays

    def orders(self, state: EdgeState, clock_s: float, orders: Orders | None = None) -> Orders:
        """What people ask, ``orders``, with the ceiling of this period added; give it to the shield every period.

        The ceiling stands whatever else is asked of the row: a minimum above it comes down to it, and ends that are no
        numbers are left out, since the shield would leave out the ceiling with them.
        """
        asked = orders if isinstance(orders, Orders) else Orders()
        ceiling = self.ceiling(state, clock_s)
        maximum = ceiling - HAIR * (1.0 + abs(ceiling))
        others = asked.limits if isinstance(asked.limits, Mapping) else {}
        ends = others.get(self.row.name)
        low, high = (
            (_number(end) for end in ends) if isinstance(ends, tuple | list) and len(ends) == 2 else (None, None)
        )
        maximum = maximum if high is None else min(high, maximum)
        minimum = None if low is None else min(low, maximum)
        return replace(asked, limits={**others, self.row.name: (minimum, maximum)})

    def causes(self, state: EdgeState, clock_s: float) -> tuple[Cause, ...]:
        """What the shield is to be told: that the lease's reckoning has failed, or nothing."""
        return (Cause.LEASE_LOST,) if state.failed or not clock_s >= state.clock_s else ()

    def take(self, state: EdgeState, message: Any, clock_s: float) -> EdgeState:
        """The state after an assignment came in; the same where it is refused, whatever it is."""
        if state.failed or not clock_s >= state.clock_s or not self._makes_sense(message):
            return state
        try:
            return state._replace(holder=self.holder.take(state.holder, message, clock_s))
        except Exception:  # noqa: BLE001 - a message is never worth the period
            return state

    def report(
        self, state: EdgeState, clock_s: float, command: float, demand: float
    ) -> tuple[EdgeState, Report | None]:
        """The state and the report after a period. ``command``: what is sent; ``demand``: the use that is wished for.

        None when the lease's reckoning has failed, or the clock has stepped back: then no more is said.
        """
        used = self.use(command)
        if state.failed or not clock_s >= state.clock_s:
            return state._replace(used=min(used, state.used), failed=True), None
        try:
            wished = demand if math.isfinite(demand) else used
            wished = min(max(wished, self.row.floors[self.place]), self.row.most[self.place])
            holder, report = self.holder.report(state.holder, clock_s, used, wished)
        except Exception:  # noqa: BLE001 - the share needs no report
            return state._replace(used=used, failed=True), None
        return EdgeState(holder, used, clock_s), report

    def _makes_sense(self, message: Any) -> bool:
        """Whether it is an assignment for this asset, with numbers that a coordinator could have meant."""
        if not isinstance(message, Assignment) or message.asset != self.place:
            return False
        whole = (message.term, message.number, message.boot)
        real = (message.limit, message.duration_s, message.sent_s)
        if any(isinstance(each, bool) or not isinstance(each, int) for each in whole):
            return False
        if any(isinstance(each, bool) or not isinstance(each, int | float) or not math.isfinite(each) for each in real):
            return False
        least, most = self.row.floors[self.place], self.row.most[self.place]
        allowed = least - HAIR * (1.0 + abs(least)) <= message.limit <= most + HAIR * (1.0 + abs(most))
        return allowed and 0.0 < message.duration_s <= max(self.terms.grant_s, self.terms.pledge_s)


def _number(end: Any) -> float | None:
    """An end of a limit, None where it is absent or no finite number."""
    real = isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end)
    return float(end) if real else None
