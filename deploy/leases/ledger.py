"""A coordinator's account of the most that each asset may use, now and later: what makes a lease safe to give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from .message import Assignment, LeaseTerms, Report


class Entry(NamedTuple):
    """One assignment that may be in force: ``limit`` before ``end_s`` on the coordinator's clock, the share from then.

    For a grant the end is the latest possible, for a pledge the earliest: either way no asset may use more.
    """

    number: int
    limit: float
    end_s: float


# Per asset the entries that may be in force, by rising number; the first is the newest that was reported settled.
Accounts = tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class Ledger:
    """Rules of one row: ``shares[i]`` in the row's unit. Grants never exceed pledges: the shares' sum is the bound."""

    shares: tuple[float, ...]
    terms: LeaseTerms

    def open(self) -> Accounts:
        """Accounts of a coordinator that knows nothing: every asset may use its share."""
        return tuple((Entry(0, share, -math.inf),) for share in self.shares)

    def bound(self, accounts: Accounts, asset: int, at_s: float) -> float:
        """The most that the asset may use at a time from now on, as far as this coordinator has a say."""
        share = self.shares[asset]
        return max([entry.limit if at_s < entry.end_s else share for entry in accounts[asset]])

    def room(self, accounts: Accounts, asset: int, now_s: float, end_s: float) -> float:
        """The most that the asset could be given from now until ``end_s``, beside what the others may use."""
        others = [each for each in range(len(self.shares)) if each != asset]
        # Left over by each of the others, then summed: where all are at their shares that is exactly nothing, and the
        # share itself is never refused for a rounding.
        return self.shares[asset] + min(
            sum([self.shares[each] - self.bound(accounts, each, at_s) for each in others])
            for at_s in self._rises(accounts, others, now_s, end_s)
        )

    def settle(self, accounts: Accounts, report: Report) -> Accounts:
        """Accounts after a report of this term: what is older than the settled number is over."""
        entries = accounts[report.asset]
        if not entries[0].number < report.number <= entries[-1].number:
            return accounts
        return _put(accounts, report.asset, tuple(entry for entry in entries if entry.number >= report.number))

    def assign(
        self, accounts: Accounts, term: int, report: Report, received_s: float, limit: float, now_s: float
    ) -> tuple[Accounts, Assignment] | None:
        """Write an assignment into the accounts, in answer to a report; None where the sum could pass the bound."""
        asset, terms = report.asset, self.terms
        entries, share = accounts[asset], self.shares[asset]
        grant = limit > share
        duration_s = terms.grant_s if grant else terms.pledge_s
        end_s = received_s + duration_s * terms.ratio if grant else now_s + duration_s / terms.ratio
        if end_s <= now_s:
            return None
        entry = Entry(entries[-1].number + 1, limit, end_s)
        if limit > self.room(accounts, asset, now_s, end_s):
            return None
        # After its end the asset is back at its share: a pledge that it gave before is no longer to be counted on.
        pledged = grant and any(old.limit < share and old.end_s > end_s for old in entries)
        if pledged and share > self.room(accounts, asset, end_s, math.inf):
            return None
        entries = pruned((*entries, entry), share, now_s)
        message = Assignment(asset, term, entry.number, limit, duration_s, report.boot, report.sent_s)
        return _put(accounts, asset, entries), message

    def _rises(self, accounts: Accounts, assets: list[int], start_s: float, end_s: float) -> set[float]:
        """The times at which the sum of bounds can be at its highest: the start, and wherever a pledge ends."""
        times = {
            entry.end_s
            for asset in assets
            for entry in accounts[asset]
            if entry.limit < self.shares[asset] and start_s < entry.end_s < end_s
        }
        return times | {start_s}


def pruned(entries: tuple[Entry, ...], share: float, now_s: float) -> tuple[Entry, ...]:
    """Leave out entries that a later one outdoes: it allows at least as much from now on."""
    kept: list[Entry] = []
    for entry in reversed(entries):
        if not any(_outdone(entry, later, share, now_s) for later in kept):
            kept.append(entry)
    return tuple(reversed(kept))


def _outdone(old: Entry, new: Entry, share: float, now_s: float) -> bool:
    old_limit = old.limit if now_s < old.end_s else share
    new_limit = new.limit if now_s < new.end_s else share
    if new_limit < old_limit:
        return False
    if old_limit > share:
        return new.end_s >= old.end_s
    return new_limit >= share or new.end_s <= old.end_s


def _put(accounts: Accounts, asset: int, entries: tuple[Entry, ...]) -> Accounts:
    return (*accounts[:asset], entries, *accounts[asset + 1 :])
