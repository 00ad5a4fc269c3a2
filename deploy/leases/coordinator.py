"""A coordinator: shares out what is not used, in answer to reports. Pure; may crash, restart, or run twice."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .budget import water_fill
from .ledger import Accounts, Ledger
from .message import Assignment, Report

_RANDOM_BITS = 24


def new_term(heard: int = 0) -> int:
    """A term for a new life of a coordinator: above ``heard``, rising with the time of day, random in its last bits."""
    drawn = (time.time_ns() // 1_000_000 << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS)
    return max(drawn, heard + 1 + secrets.randbits(_RANDOM_BITS))


class Heard(NamedTuple):
    """The newest word of an asset: its demand, and when it came by the coordinator's clock."""

    boot: int
    sent_s: float
    demand: float
    received_s: float


class CoordinatorState(NamedTuple):
    """All that a coordinator remembers; nothing of it outlives a restart. ``heard_term``: the highest in any report."""

    term: int
    accounts: Accounts
    heard: tuple[Heard | None, ...]
    heard_term: int = 0

    @property
    def deposed(self) -> bool:
        """Whether assets have heard a higher term; one that should go on begins anew with :func:`new_term`."""
        return self.heard_term > self.term


@dataclass(frozen=True)
class Coordinator:
    """Rules of sharing. ``floors[i]``: the least that asset ``i`` is ever asked to come down to.

    ``margin_pu``: kept above an asset's demand, as part of its share, so that it may rise while a message travels;
    ``silent_s``: an asset not heard for so long is counted at its share.
    """

    ledger: Ledger
    floors: tuple[float, ...]
    margin_pu: float = 0.02
    silent_s: float = 10.0

    def begin(self, term: int) -> CoordinatorState:
        """A new life. The term must never have been used."""
        return CoordinatorState(term, self.ledger.open(), (None,) * len(self.floors))

    def answer(
        self, state: CoordinatorState, report: Report, now_s: float
    ) -> tuple[CoordinatorState, Assignment | None]:
        """Take a report at its arrival and answer it: a pledge to give, a grant, or nothing.

        Only the ledger decides what is safe; what is wanted here decides only what is useful.
        """
        if not 0 <= report.asset < len(self.floors):
            return state, None
        state = state._replace(heard_term=max(state.heard_term, report.heard))
        if report.term == state.term:
            state = state._replace(accounts=self.ledger.settle(state.accounts, report))
        last = state.heard[report.asset]
        if state.deposed or (last is not None and last.boot == report.boot and report.sent_s <= last.sent_s):
            return state, None  # an older report, or the same again, says nothing new
        news = Heard(report.boot, report.sent_s, report.demand, now_s)
        state = state._replace(heard=(*state.heard[: report.asset], news, *state.heard[report.asset + 1 :]))
        return self._give(state, report, self._wanted(state, now_s)[report.asset], now_s)

    def _wanted(self, state: CoordinatorState, now_s: float) -> list[float]:
        """What each should have: demands, cut to the bound by water-filling; what is left over is spread by share."""
        shares = np.asarray(self.ledger.shares)
        floors = np.asarray(self.floors)
        wanted = shares.copy()
        for asset, heard in enumerate(state.heard):
            if heard is not None and now_s - heard.received_s <= self.silent_s:
                wanted[asset] = max(heard.demand + self.margin_pu * (shares[asset] - floors[asset]), floors[asset])
        known = np.array([each is not None and now_s - each.received_s <= self.silent_s for each in state.heard])
        free = float(shares[known].sum())
        wanted[known] = water_fill(wanted[known], floors[known], free)
        spare = free - float(wanted[known].sum())
        widths = np.where(known, shares - floors, 0.0)
        if spare > 0.0 and widths.sum() > 0.0:
            wanted += spare * widths / widths.sum()
        return [float(each) for each in wanted]

    def _give(
        self, state: CoordinatorState, report: Report, wanted: float, now_s: float
    ) -> tuple[CoordinatorState, Assignment | None]:
        """The assignment nearest to what is wanted that the ledger admits."""
        terms, share = self.ledger.terms, self.ledger.shares[report.asset]
        tries = [now_s + terms.pledge_s / terms.ratio]
        if wanted > share:
            tries.insert(0, now_s + terms.grant_s * terms.ratio)
        for end_s in tries:
            limit = min(wanted, self.ledger.room(state.accounts, report.asset, now_s, end_s))
            if end_s == tries[-1]:
                limit = min(limit, share)
            given = self.ledger.assign(state.accounts, state.term, report, now_s, limit, now_s)
            if given is not None:
                return state._replace(accounts=given[0]), given[1]
        return state, None
