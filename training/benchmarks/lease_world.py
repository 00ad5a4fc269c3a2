"""One asset of a lease model and everything that can happen to it, computed with the code that runs.

The network is the worst there can be: a message that was sent stays under way, and may arrive now, later, twice,
after a younger one, or never. That covers loss, delay, reordering, duplication and partition at once. Coordinators give
whatever their ledger admits, in any order, so that every policy of sharing is covered.

Times count from now, and numbers of assignments are replaced by their rank: two states that differ in nothing else
behave alike. With that the state space is finite, without a bound on time.

What bounds it: time passes in whole units, limits are whole shares, a lease lasts a few units, and an asset has at most
``under_way`` assignments under way (an older one must be lost before the next is sent). With ``prompt`` a coordinator
hears at once what is settled: later it only gives less, for its bounds only fall with each such word.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ...deploy.leases import Assignment, Entry, Holder, HolderState, Lease, LeaseTerms, Ledger, Report
from ...deploy.leases.ledger import pruned

SHARE = 1.0
NEVER = Entry(0, SHARE, -math.inf)
Entries = tuple[Entry, ...]


class Corner(NamedTuple):
    """One asset and all that concerns it: its state, what each coordinator wrote of it, what is under way."""

    holder: HolderState
    entries: tuple[Entries, ...]
    reports: tuple[Report, ...]
    mail: tuple[Assignment, ...]
    restarts: int
    crashed: bool = False


class Offer(NamedTuple):
    """What coordinator ``which`` may try to give: ``own`` is its account of the asset, the report already heard."""

    which: int
    own: Entries
    report: Report
    limit: float


@dataclass
class LeaseWorld:
    """Every asset has share 1. ``paces``: what a clock may advance while a unit passes."""

    terms: LeaseTerms = field(default_factory=lambda: LeaseTerms(grant_s=1.0, pledge_s=2.0, drift=0.0))
    n_assets: int = 3
    n_coordinators: int = 1
    limits: tuple[float, ...] = (0.0, 1.0, 2.0)
    under_way: int = 1
    entries: int = 3
    restarts: int = 0
    prompt: bool = True
    crash: bool = False
    fall_per_s: float = math.inf
    paces: tuple[float, ...] = (1.0,)
    ledger_kind: type[Ledger] = Ledger
    holder_kind: type[Holder] = Holder

    def __post_init__(self) -> None:
        """Make the protocol's own objects."""
        self.ledger = self.ledger_kind((SHARE,) * self.n_assets, self.terms)
        self.holder = self.holder_kind(0, SHARE, self.fall_per_s, self.terms)

    def first(self) -> Corner:
        """An asset long started, with no lease; coordinators that know nothing."""
        holder = HolderState(0, Lease(0, 0, SHARE, 0.0), -math.inf, 0.0, 0, 0)
        return self.tidy(self.speak(Corner(holder, ((NEVER,),) * self.n_coordinators, (), (), self.restarts)))

    def used(self, corner: Corner) -> float:
        """The most that the asset may use now."""
        return self.holder.ceiling(corner.holder, 0.0)

    def at_work(self, corner: Corner) -> range:
        """The coordinators that are there: with ``crash`` the second starts when the first is lost."""
        if not self.crash:
            return range(self.n_coordinators)
        return range(1, 2) if corner.crashed else range(1)

    def lose_coordinator(self, corner: Corner) -> Corner:
        """The first coordinator is lost with its ledger, and the second starts: seen by every asset at once."""
        return self.tidy(corner._replace(entries=((NEVER,),) * 2, crashed=True))

    def alone(self, corner: Corner) -> Iterator[Corner]:
        """Steps of the asset and of its messages: take one, lose one, restart; a coordinator hears and says nothing."""
        for message in corner.mail:
            taken = self.holder.take(corner.holder, message, 0.0)
            if taken != corner.holder:
                yield self.tidy(self.speak(corner._replace(holder=taken)))
            yield self.tidy(corner._replace(mail=tuple(each for each in corner.mail if each != message)))
        if corner.restarts:
            used = self.holder.ceiling(corner.holder, 0.0)
            again = self.holder.start(corner.holder.boot + 1, 0.0, used)
            yield self.tidy(self.speak(corner._replace(holder=again, restarts=corner.restarts - 1)))
        for which, report in itertools.product(self.at_work(corner), corner.reports):
            if report.term == which + 1:
                yield self.tidy(_account(corner, which, self.heard(corner, which, report)))

    def heard(self, corner: Corner, which: int, report: Report) -> Entries:
        """A coordinator's account of the asset after a report."""
        own = corner.entries[which]
        if report.term != which + 1:
            return own
        others = ((NEVER,),) * (self.n_assets - 1)
        return self.ledger.settle((own, *others), report)[0]

    def offers(self, corner: Corner) -> Iterator[Offer]:
        """All that might be given to the asset now; whether it may be is for :meth:`give` to say."""
        if len(corner.mail) >= self.under_way:
            return
        for which, report in itertools.product(self.at_work(corner), corner.reports):
            own = self.heard(corner, which, report)
            for limit in self.limits:
                if limit > SHARE or report is corner.reports[-1]:  # a pledge is the same whichever report it answers
                    yield Offer(which, own, report, limit)

    def give(self, offer: Offer, others: tuple[Entries, ...]) -> tuple[Entries, Assignment] | None:
        """The account and the message, if the ledger admits the offer beside its accounts of the others."""
        given = self.ledger.assign((offer.own, *others), offer.which + 1, offer.report, 0.0, offer.limit, 0.0)
        if given is None or len(given[0][0]) > self.entries:
            return None
        return given[0][0], given[1]

    def given(self, corner: Corner, which: int, entries: Entries, message: Assignment) -> Corner:
        """The asset's corner once an assignment is written down and sent."""
        return self.tidy(_account(corner, which, entries)._replace(mail=(*corner.mail, message)))

    def later(self, corner: Corner, own: float, seen: tuple[float, ...]) -> Corner:
        """The corner when the asset's clock has advanced by ``own`` and the coordinators' by ``seen``."""
        holder = corner.holder
        moved = holder._replace(
            lease=holder.lease._replace(until_s=holder.lease.until_s - own), from_s=holder.from_s - own
        )
        entries = tuple(
            tuple(entry._replace(end_s=entry.end_s - pace) for entry in each)
            for each, pace in zip(corner.entries, seen, strict=True)
        )
        reports = tuple(report._replace(sent_s=report.sent_s - own) for report in corner.reports)
        mail = tuple(message._replace(sent_s=message.sent_s - own) for message in corner.mail)
        return self.tidy(self.speak(Corner(moved, entries, reports, mail, corner.restarts, corner.crashed)))

    def speak(self, corner: Corner) -> Corner:
        """The asset sends a report whenever it has something to say."""
        ceiling = self.holder.ceiling(corner.holder, 0.0)
        holder, report = self.holder.report(corner.holder, 0.0, ceiling, 0.0)
        return corner._replace(holder=holder, reports=(*corner.reports, report._replace(heard=0)))

    def tidy(self, corner: Corner) -> Corner:
        """The same in the one form that all states take that behave alike."""
        holder, lease = corner.holder, corner.holder.lease
        ceiling = self.holder.ceiling(holder, 0.0)
        settled = self.holder.ceiling(holder._replace(from_value=-math.inf), 0.0) >= ceiling
        if lease.until_s <= 0.0:
            lease = lease._replace(limit=SHARE, until_s=0.0)
        holder = holder._replace(lease=lease, from_value=-math.inf if settled else ceiling, from_s=0.0)
        entries = tuple(
            tuple(
                entry._replace(limit=SHARE, end_s=-math.inf)
                if entry.end_s <= 0.0 or entry.limit == SHARE
                else entry._replace(end_s=round(entry.end_s, 6))
                for entry in each
            )
            for each in corner.entries
        )
        if self.prompt and lease.term > 0:
            mine = entries[lease.term - 1]
            said = tuple(entry for entry in mine if entry.number >= holder.settled)
            entries = (*entries[: lease.term - 1], said, *entries[lease.term :]) if said else entries
        entries = tuple(pruned(each, SHARE, 0.0) for each in entries)
        mail = {message for message in corner.mail if self.alive(holder, message)}
        mail = {each if each.limit > SHARE else each._replace(boot=0, sent_s=0.0) for each in mail}
        reports = set()
        for report in corner.reports:
            news = corner.crashed < report.term and entries[report.term - 1][0].number < report.number
            number = self.told(entries[report.term - 1], report.number) if news else 0
            report = report._replace(term=report.term if news else 0, number=number)
            fresh = report.boot == holder.boot and report.sent_s > -self.terms.grant_s
            if fresh or news:
                reports.add(report if fresh else report._replace(sent_s=-self.terms.grant_s))
        return self.rank(
            Corner(holder, entries, tuple(sorted(reports)), tuple(sorted(mail)), corner.restarts, corner.crashed)
        )

    def told(self, account: Entries, number: int) -> int:
        """The least number that tells a coordinator the same: what it keeps is what is not below."""
        return min((entry.number for entry in account if entry.number >= number), default=number)

    def alive(self, holder: HolderState, message: Assignment) -> bool:
        """Whether the asset might still take it, now or later."""
        if message.term < holder.heard or (message.term == holder.lease.term and message.number <= holder.lease.number):
            return False
        own = message.boot == holder.boot and message.sent_s + message.duration_s > 0.0
        return message.limit <= SHARE or own

    def rank(self, corner: Corner) -> Corner:
        """Numbers of assignments replaced by their rank within the term: only their order matters."""
        holder, lease = corner.holder, corner.holder.lease
        for term in range(1, self.n_coordinators + 1):
            own = lease.term == term
            numbers = {0, *(entry.number for entry in corner.entries[term - 1])}
            numbers |= {message.number for message in corner.mail if message.term == term}
            numbers |= {report.number for report in corner.reports if report.term == term}
            if own:
                numbers |= {lease.number, holder.settled}
            order = {number: rank for rank, number in enumerate(sorted(numbers))}
            if all(number == rank for number, rank in order.items()):
                continue
            entries = list(corner.entries)
            entries[term - 1] = tuple(entry._replace(number=order[entry.number]) for entry in entries[term - 1])
            if own:
                lease = lease._replace(number=order[lease.number])
                holder = holder._replace(lease=lease, settled=order[holder.settled])
            corner = corner._replace(
                holder=holder,
                entries=tuple(entries),
                mail=tuple(e._replace(number=order[e.number]) if e.term == term else e for e in corner.mail),
                reports=tuple(e._replace(number=order[e.number]) if e.term == term else e for e in corner.reports),
            )
        return corner


def _account(corner: Corner, which: int, entries: Entries) -> Corner:
    return corner._replace(entries=(*corner.entries[:which], entries, *corner.entries[which + 1 :]))
