"""Every reachable state of the lease protocol, explored with the code that runs: no sum ever passes the bound.

The network is the worst there can be: a message that was sent stays under way, and may arrive now, later, twice,
after a younger one, or never. That covers loss, delay, reordering, duplication and partition at once. Coordinators give
whatever their ledger admits, in any order, so that every policy of sharing is covered.

Times count from now, numbers of assignments are replaced by their rank, and assets are sorted: two states that differ
in nothing else behave alike. With that the state space is finite, and is explored to its end, without a bound on time.

What bounds it: limits are whole shares, a lease lasts a few units, and an asset has at most one assignment under way
(an older one must be lost before the next is sent). With ``prompt`` a coordinator hears at once what is settled: later
it only gives less, for its bounds only fall with each such word. One model is explored without ``prompt``.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from twinloop.deploy.leases import Assignment, Entry, Holder, HolderState, Lease, LeaseTerms, Ledger, Report
from twinloop.deploy.leases.ledger import pruned

Accounts = tuple[tuple[Entry, ...], ...]
SHARE = 1.0


class Corner(NamedTuple):
    """One asset and all that concerns it: its state, what each coordinator wrote of it, what is under way."""

    holder: HolderState
    entries: tuple[tuple[Entry, ...], ...]
    reports: tuple[Report, ...]
    mail: tuple[Assignment, ...]
    restarts: int
    crashed: bool = False


World = tuple[Corner, ...]


@dataclass
class Model:
    """Three assets by default, each with share 1. ``paces``: what a clock may advance while a unit passes."""

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
        self.ledger = self.ledger_kind((SHARE,) * self.n_assets, self.terms)
        self.holder = self.holder_kind(0, SHARE, self.fall_per_s, self.terms)

    def first(self) -> World:
        """Assets long started, with no lease; coordinators that know nothing."""
        holder = HolderState(0, Lease(0, 0, SHARE, 0.0), -math.inf, 0.0, 0, 0)
        fresh = (Entry(0, SHARE, -math.inf),)
        corner = Corner(holder, (fresh,) * self.n_coordinators, (), (), self.restarts)
        return tuple(self.tidy(self.speak(corner)) for _ in range(self.n_assets))

    def used(self, world: World) -> float:
        """The sum of what the assets may use now."""
        return sum(self.holder.ceiling(corner.holder, 0.0) for corner in world)

    def after(self, world: World) -> Iterator[World]:
        """All states one step later."""
        yield from self.ticks(world)
        at_work = range(self.n_coordinators)
        if self.crash:  # the first coordinator is lost with its ledger, once, and the second starts
            at_work = range(1, 2) if world[0].crashed else range(1)
            if not world[0].crashed:
                fresh = ((Entry(0, SHARE, -math.inf),),) * 2
                yield tuple(sorted(self.tidy(each._replace(entries=fresh, crashed=True)) for each in world))
        for place, corner in enumerate(world):
            if place and corner == world[place - 1]:
                continue  # the same as its neighbour: the same steps
            for new in self.alone(corner):
                yield self.sort(world, place, new)
            for which, report in itertools.product(at_work, corner.reports):
                yield from self.answers(world, place, which, report)

    def alone(self, corner: Corner) -> Iterator[Corner]:
        """Steps of one asset and of its messages: take one, lose one, restart."""
        for message in corner.mail:
            taken = self.holder.take(corner.holder, message, 0.0)
            if taken != corner.holder:
                yield self.speak(corner._replace(holder=taken))
            yield corner._replace(mail=tuple(each for each in corner.mail if each != message))
        if corner.restarts:
            used = self.holder.ceiling(corner.holder, 0.0)
            again = self.holder.start(corner.holder.boot + 1, 0.0, used)
            yield self.speak(corner._replace(holder=again, restarts=corner.restarts - 1))

    def answers(self, world: World, place: int, which: int, report: Report) -> Iterator[World]:
        """A coordinator hears a report, and gives nothing, or any one limit that its ledger admits."""
        accounts: Accounts = tuple(corner.entries[which] for corner in world)
        heard = report._replace(asset=place)
        if report.term == which + 1:
            accounts = self.ledger.settle(accounts, heard)
            yield self.write(world, place, which, accounts, None)
        if len(world[place].mail) >= self.under_way:
            return
        for limit in self.limits:
            if limit <= SHARE and report is not world[place].reports[-1]:
                continue  # a pledge is the same whichever report it answers
            given = self.ledger.assign(accounts, which + 1, heard, 0.0, limit, 0.0)
            if given is not None and len(given[0][place]) <= self.entries:
                yield self.write(world, place, which, given[0], given[1]._replace(asset=0))

    def write(self, world: World, place: int, which: int, accounts: Accounts, sent: Assignment | None) -> World:
        """The state with one coordinator's new account of one asset."""
        corner = world[place]
        entries = (*corner.entries[:which], accounts[place], *corner.entries[which + 1 :])
        mail = (*corner.mail, sent) if sent is not None else corner.mail
        return self.sort(world, place, corner._replace(entries=entries, mail=mail))

    def ticks(self, world: World) -> Iterator[World]:
        """A unit of time passes; every clock advances at any pace that it may have."""
        for seen in itertools.product(self.paces, repeat=self.n_coordinators):
            choices = [[self.later(corner, own, seen) for own in self.paces] for corner in world]
            for corners in itertools.product(*choices):
                yield tuple(sorted(corners))

    def later(self, corner: Corner, own: float, seen: tuple[float, ...]) -> Corner:
        """One asset's corner when its clock has advanced by ``own`` and the coordinators' by ``seen``."""
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

    def sort(self, world: World, place: int, new: Corner) -> World:
        return tuple(sorted((*world[:place], self.tidy(new), *world[place + 1 :])))

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
            report = report if news else report._replace(term=0, number=0)
            fresh = report.boot == holder.boot and report.sent_s > -self.terms.grant_s
            if fresh or news:
                reports.add(report if fresh else report._replace(sent_s=-self.terms.grant_s))
        return self.rank(
            Corner(holder, entries, tuple(sorted(reports)), tuple(sorted(mail)), corner.restarts, corner.crashed)
        )

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


def explore(model: Model, at_most: int = 2_000_000) -> dict[World, World | None]:
    """Every reachable state, with one that it was reached from; fails at the first whose sum passes the bound."""
    first = tuple(sorted(model.first()))
    came: dict[World, World | None] = {first: None}
    queue = deque([first])
    while queue:
        world = queue.popleft()
        for new in model.after(world):
            if new in came:
                continue
            came[new] = world
            if model.used(new) > SHARE * model.n_assets + 1e-9:
                raise Unsafe(new)
            if len(came) > at_most:
                raise Endless(f"not ended within {at_most} states")
            queue.append(new)
    return came


class Endless(AssertionError):
    """There are more states than were allowed for."""


class Unsafe(AssertionError):
    """A reachable state in which the assets may use more than the bound."""


def explored(title: str, model: Model) -> dict[World, World | None]:
    states = explore(model)
    print(f"{title}: {len(states)} states")
    return states


def test_no_reachable_state_of_three_assets_passes_the_bound() -> None:
    states = explored("three assets", Model(entries=2, limits=(0.0, 2.0)))
    assert any(max(corner.holder.lease.limit for corner in world) == 2.0 for world in states)


def test_a_coordinator_that_crashes_and_starts_anew_keeps_the_bound() -> None:
    explored("crash and restart", Model(n_assets=2, entries=2, n_coordinators=2, limits=(0.0, 2.0), crash=True))


def test_two_coordinators_that_know_nothing_of_each_other_keep_the_bound_in_the_nearest_states() -> None:
    """Too many states to end: the first 8,000, breadth first; the property tests go deeper at random."""
    model = Model(n_assets=2, entries=2, n_coordinators=2, limits=(0.0, 2.0))
    with pytest.raises(Endless):
        explore(model, 8_000)


def test_clocks_that_drift_as_far_as_declared_keep_the_bound() -> None:
    terms = LeaseTerms(grant_s=1.0, pledge_s=5.0, drift=1.0 / 3.0)
    explored("drift", Model(terms, n_assets=2, entries=2, limits=(0.0, 2.0), paces=(1.0, 2.0)))


def test_assets_that_restart_keep_the_bound() -> None:
    explored("asset restart", Model(n_assets=2, entries=2, limits=(0.0, 2.0), restarts=1))


def test_grants_that_live_longer_and_late_acknowledgements_keep_the_bound() -> None:
    terms = LeaseTerms(grant_s=2.0, pledge_s=3.0, drift=0.0)
    explored("late", Model(terms, n_assets=2, entries=2, limits=(0.0, 2.0), prompt=False))


class Forgetful(Ledger):
    """Takes a pledge as given the moment that it is asked for."""

    def assign(
        self, accounts: Accounts, term: int, report: Report, received_s: float, limit: float, now_s: float
    ) -> tuple[Accounts, Assignment] | None:
        given = super().assign(accounts, term, report, received_s, limit, now_s)
        if given is None:
            return None
        own = report.asset
        return (*given[0][:own], given[0][own][-1:], *given[0][own + 1 :]), given[1]


class Servant(Holder):
    """Follows any term at once."""

    def take(self, state: HolderState, message: Assignment, now_s: float) -> HolderState:
        if message.term > state.lease.term:
            state = state._replace(lease=state.lease._replace(until_s=now_s))
        return super().take(state, message, now_s)


class Amnesiac(Holder):
    """Starts at its share, whatever it pledged before."""

    def start(self, boot: int, now_s: float, used: float) -> HolderState:
        return super().start(boot, now_s - self.terms.pledge_s, self.share)


@pytest.mark.parametrize(
    ("broken", "model"),
    [
        ("a pledge counted before it is acknowledged", Model(n_assets=2, ledger_kind=Forgetful)),
        ("a term left before the lease has lapsed", Model(n_assets=2, n_coordinators=2, holder_kind=Servant)),
        ("a restart that forgets its pledge", Model(n_assets=2, restarts=1, holder_kind=Amnesiac)),
        ("clocks that drift more than declared", Model(LeaseTerms(1.0, 2.0, 0.0), n_assets=2, paces=(1.0, 2.0))),
    ],
)
def test_the_exploration_finds_a_protocol_with_a_rule_less(broken: str, model: Model) -> None:
    with pytest.raises(Unsafe):
        explore(model, 100_000)
