"""An asset's side of a lease: what it may use now, what it takes, what it reports. Pure: state in, state out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from .message import Assignment, LeaseTerms, Report

# The term of the pledge that a starting asset makes to itself; coordinators have positive ones.
OWN_TERM = 0


class Lease(NamedTuple):
    """A limit until a time of the asset's own clock; kept afterwards for its number."""

    term: int
    number: int
    limit: float
    until_s: float


class HolderState(NamedTuple):
    """All that an asset remembers. ``from_value`` at ``from_s``: the ceiling when the lease was taken;
    ``settled``: newest number of the lease's term to which the use has come down; ``heard``: highest term heard."""

    boot: int
    lease: Lease
    from_value: float
    from_s: float
    settled: int
    heard: int


@dataclass(frozen=True)
class Holder:
    """What is fixed for an asset in a row, in the row's unit; ``fall_per_s``: how fast its use can surely come down."""

    asset: int
    share: float
    fall_per_s: float
    terms: LeaseTerms

    def start(self, boot: int, now_s: float, used: float) -> HolderState:
        """State after a start, with what the asset uses at present, read back.

        A former life may have pledged: use is held at ``used``, at most the share, for the longest pledge.
        """
        own = Lease(OWN_TERM, 0, min(used, self.share), now_s + self.terms.pledge_s)
        return HolderState(boot, own, used, now_s, 0, OWN_TERM)

    def ceiling(self, state: HolderState, now_s: float, hold_s: float = 0.0) -> float:
        """The most that the asset may use from now until ``hold_s`` later, when it asks next."""
        now = self._at(state, now_s)
        return min(now, self._at(state, now_s + hold_s)) if hold_s > 0.0 else now

    def take(self, state: HolderState, message: Assignment, now_s: float) -> HolderState:
        """The state after an assignment; the same one, but for the term heard, where it is refused."""
        if message.asset != self.asset or message.term < state.heard or message.term <= OWN_TERM:
            return state
        state = state._replace(heard=message.term) if message.term > state.heard else state
        old = state.lease
        if old.term == message.term:
            if message.number <= old.number:
                return state
        elif now_s < old.until_s:
            return state  # somebody counts on the present lease
        if message.limit > self.share:
            until_s = message.sent_s + message.duration_s
            if message.boot != state.boot or not message.sent_s <= now_s < until_s:
                return state
        else:
            until_s = now_s + message.duration_s
        return HolderState(
            boot=state.boot,
            lease=Lease(message.term, message.number, message.limit, until_s),
            from_value=self._at(state, now_s),
            from_s=now_s,
            settled=state.settled if old.term == message.term else 0,
            heard=state.heard,
        )

    def report(self, state: HolderState, now_s: float, used: float, demand: float) -> tuple[HolderState, Report]:
        """The report to send now. ``used``: what the asset uses at present, as commanded or measured, the larger."""
        lease = state.lease
        if self._at(state, now_s) <= self._target(lease, now_s) and used <= self._target(lease, now_s):
            state = state._replace(settled=lease.number)
        return state, Report(self.asset, state.boot, now_s, lease.term, state.settled, state.heard, demand)

    def _at(self, state: HolderState, now_s: float) -> float:
        """The ceiling at one moment: the lease's, but not below where a fall at full rate has got to."""
        target = self._target(state.lease, now_s)
        return max(target, state.from_value - self._fall(now_s - state.from_s)) if state.from_value > target else target

    def _target(self, lease: Lease, now_s: float) -> float:
        """What the lease alone allows; a grant leaves the time to come down."""
        if now_s >= lease.until_s:
            return self.share
        if lease.limit <= self.share:
            return lease.limit
        return min(lease.limit, self.share + self._fall(lease.until_s - now_s))

    def _fall(self, duration_s: float) -> float:
        return math.inf if math.isinf(self.fall_per_s) else self.fall_per_s * duration_s
