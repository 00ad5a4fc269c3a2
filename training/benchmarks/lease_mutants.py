"""The lease protocol with one rule less, each time another: an exploration that finds no fault proves nothing."""

from __future__ import annotations

import math

from ...deploy.leases import Assignment, Holder, HolderState, LeaseTerms, Ledger, Report
from ...deploy.leases.ledger import Accounts
from .lease_world import Corner, Entries, LeaseWorld

LONGER = LeaseTerms(grant_s=2.0, pledge_s=3.0, drift=0.0)


class Hasty(Ledger):
    """Takes a pledge as given the moment that it is asked for, not when it is acknowledged."""

    def assign(
        self, accounts: Accounts, term: int, report: Report, received_s: float, limit: float, now_s: float
    ) -> tuple[Accounts, Assignment] | None:
        """As the real one, but forgets what the new assignment replaces."""
        given = super().assign(accounts, term, report, received_s, limit, now_s)
        if given is None:
            return None
        own = report.asset
        return (*given[0][:own], given[0][own][-1:], *given[0][own + 1 :]), given[1]


class Trusting(Ledger):
    """Counts on a pledge for ever, not until its end."""

    def bound(self, accounts: Accounts, asset: int, at_s: float) -> float:
        """As the real one, but a pledge has no end."""
        share = self.shares[asset]
        return max(e.limit if e.limit < share or at_s < e.end_s else share for e in accounts[asset])


class Servant(Holder):
    """Follows another term at once, not when its lease has lapsed."""

    def take(self, state: HolderState, message: Assignment, now_s: float) -> HolderState:
        """As the real one, but the present lease ends when another term's assignment comes."""
        if message.term > state.lease.term:
            state = state._replace(lease=state.lease._replace(until_s=now_s))
        return super().take(state, message, now_s)


class Undiscerning(Holder):
    """Takes any number of its term, not only rising ones."""

    def take(self, state: HolderState, message: Assignment, now_s: float) -> HolderState:
        """As the real one, but an old message counts as new."""
        if message.term == state.lease.term:
            state = state._replace(lease=state.lease._replace(number=min(state.lease.number, message.number - 1)))
        return super().take(state, message, now_s)


class Clinging(Holder):
    """Keeps a grant for ever."""

    def take(self, state: HolderState, message: Assignment, now_s: float) -> HolderState:
        """As the real one, but a grant has no end."""
        taken = super().take(state, message, now_s)
        if taken.lease.limit <= self.share:
            return taken
        return taken._replace(lease=taken.lease._replace(until_s=math.inf))


class Tardy(Holder):
    """Counts a grant from its arrival, not from the report that it answers."""

    def take(self, state: HolderState, message: Assignment, now_s: float) -> HolderState:
        """As the real one, but every message is fresh."""
        return super().take(state, message._replace(sent_s=now_s), now_s)


class Amnesiac(Holder):
    """Starts at its share, whatever it pledged before."""

    def start(self, boot: int, now_s: float, used: float) -> HolderState:
        """As the real one long after its start."""
        return super().start(boot, now_s - self.terms.pledge_s, self.share)


class Boastful(Holder):
    """Reports a pledge as settled while its use is still coming down."""

    def report(self, state: HolderState, now_s: float, used: float, demand: float) -> tuple[HolderState, Report]:
        """As the real one, but whatever was taken is settled."""
        return super().report(state._replace(settled=state.lease.number), now_s, used, demand)


class Postbox(LeaseWorld):
    """Keeps messages that the real asset would refuse, for one that would not."""

    def alive(self, holder: HolderState, message: Assignment) -> bool:
        """Whatever is under way may be taken."""
        return True


class Confused(LeaseWorld):
    """Coordinators believe what is settled in another one's term."""

    def heard(self, corner: Corner, which: int, report: Report) -> Entries:
        """As the real one, with the report's term overlooked."""
        return super().heard(corner, which, report._replace(term=which + 1))


MUTANTS: tuple[tuple[str, LeaseWorld], ...] = (
    ("a pledge counts when asked for, before it is acknowledged", LeaseWorld(n_assets=2, ledger_kind=Hasty)),
    (
        "an acknowledgement is sent before the use has come down",
        LeaseWorld(LONGER, n_assets=2, fall_per_s=0.25, limits=(0.0, 2.0), holder_kind=Boastful),
    ),
    ("a pledge is counted on after its end", LeaseWorld(LONGER, n_assets=2, ledger_kind=Trusting)),
    ("old numbers are accepted", Postbox(n_assets=2, under_way=2, prompt=False, holder_kind=Undiscerning)),
    ("a grant does not expire", LeaseWorld(n_assets=2, holder_kind=Clinging)),
    ("a grant is counted from its arrival", LeaseWorld(LONGER, n_assets=2, holder_kind=Tardy)),
    ("a term is left before the lease has lapsed", LeaseWorld(n_assets=2, n_coordinators=2, holder_kind=Servant)),
    ("what is settled in another term is believed", Confused(n_assets=2, n_coordinators=2, prompt=False)),
    ("a restarted asset forgets its pledge", LeaseWorld(n_assets=2, restarts=1, holder_kind=Amnesiac)),
    ("clocks drift more than declared", LeaseWorld(LeaseTerms(1.0, 2.0, 0.0), n_assets=2, paces=(1.0, 2.0))),
)
"""The rule that is missing, and the world in which that shows."""
