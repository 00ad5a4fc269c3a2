"""Limits that couple assets: budgets that need no communication, and leases of what others do not use.

The protocol on one page
------------------------
A *row* is a sum over assets that may not pass a bound: ``sum_i a_i u_i <= b``. What asset ``i`` adds to it, ``a_i
u_i``, is its *use*. Each asset owns a *share* ``b_i``, fixed offline, with ``sum_i b_i <= b`` (:mod:`.budget`).
Within its share an asset asks nobody. Shares alone are safe and wasteful: one asset is held back while another leaves
its share unused.

A *lease* moves room for a limited time. A lease below the share is a *pledge*: the asset promises to use less. A
lease above it is a *grant*. Two messages exist, both safe to lose, delay, reorder, repeat and cut off:

- ``Report``, asset to coordinator, every period: demand, number of the newest lease that is *settled* (the asset's
  use has come down to it), boot number, own clock.
- ``Assignment``, the answer: term, number, limit, duration, and the report's boot and clock sent back.

Rules of the asset (:mod:`.lease`):

1. It follows one term at a time: another term's assignment is refused until the present lease has lapsed. The highest
   term heard wins. Within a term only rising numbers are taken.
2. A pledge is kept for its duration from the moment it is taken; a grant ends its duration after the *report* was
   sent that it answers. Both are counted on the asset's own clock. Then the share holds again.
3. The ceiling of a grant falls with the asset's own rate, so that its use is back at the share when the grant ends. A
   pledge counts as settled only when the use has come down.
4. A restarted asset stays at or below what it used, and below its share, for the longest pledge; it takes no lease
   before.

Rules of the coordinator (:mod:`.ledger`, :mod:`.coordinator`):

5. An assignment may be in force from the moment it is sent, and a former one until a later one is reported settled.
   The most that an asset may use is the maximum over these. This bound, summed, never passes ``sum_i b_i`` now or
   later.
6. It counts a grant from when the report *arrived*, stretched by the drift of clocks, and a pledge from when the
   request was *sent*, shortened by it. Both estimates err on the same side, whatever the delay.
7. A restarted coordinator takes a new, greater term and an empty ledger: nothing needs to be stored.

Why the sum holds: an asset that serves another term, or none, counts as its share in a ledger, and it leaves a term
only when its lease has lapsed. So within each term what is granted is at most what is pledged, and the terms add up,
whether one coordinator runs, none, or several that do not know of each other.

What it assumes
---------------
- Clocks are monotonic and run between ``1 - drift`` and ``1 + drift`` of true time. They need no common zero.
- Messages are authentic: nobody forges or alters one (an authenticated channel, below this layer).
- No two coordinators ever use the same term, and no two boots of an asset the same boot number
  (:func:`.coordinator.new_term` draws random bits after the time of day).
- The row and the shares are the same for everyone, and are changed only with every lease lapsed.
- An asset obeys its own ceiling, and can fall at the declared rate. When its process dies, its watchdog takes it down
  to no more than it would have been allowed; what the equipment does on its own is not part of this protocol.

With shields
------------
Each asset has a shield of its own. :func:`.alone.alone` makes its declaration from the site's, :class:`.edge.Edge`
turns the ceiling of each period into an order that the shield keeps like any hard limit.

Sources: expiring leases after Gray and Cheriton, Leases, SOSP 1989. ``twinloop bench lease_model`` explores every
reachable state for three assets; ``twinloop bench coordination`` runs a farm of shields over a faulty network.
"""

from .alone import LeasedRow, alone, leased_row
from .budget import row_shares, water_fill
from .coordinator import Coordinator, CoordinatorState, new_term
from .edge import Edge, EdgeState
from .lease import Holder, HolderState, Lease
from .ledger import Entry, Ledger
from .message import Assignment, LeaseTerms, Report

__all__ = [
    "Assignment",
    "Coordinator",
    "CoordinatorState",
    "Edge",
    "EdgeState",
    "Entry",
    "Holder",
    "HolderState",
    "Lease",
    "LeaseTerms",
    "LeasedRow",
    "Ledger",
    "Report",
    "alone",
    "leased_row",
    "new_term",
    "row_shares",
    "water_fill",
]
