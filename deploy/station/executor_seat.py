"""The seat of whoever carries out approved proposals in a running loop; :mod:`..proposals` has the one who sits there.

Control hands it the orders ``execute``, ``pause``, ``resume`` and ``rollback``, and asks it once a period what it wants
sent. It has slot 14 and no other: whatever stands above wins, and all that it asks passes the shield.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..arbitration.request import Circumstances, Request
from .order import Order


@dataclass(frozen=True)
class Verdict:
    """What became of an order. ``why``: what was done, or why not and what to do, in one sentence.

    ``record`` joins the order's row in the journal, which is on disk before anything that follows from the order is
    sent: a nonce that is used up, what was checked.
    """

    accepted: bool
    why: str
    record: Mapping[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """Also a :class:`~..arbitration.request.Requester`, for slot 14. Must neither block nor raise.

    A stop, a loss of authority and the end of a run empty its slot at once; ``seen.mode`` tells it why.
    """

    def order(self, order: Order, seen: Circumstances) -> Verdict:
        """Follow or refuse one of the four orders; called in the loop's thread, before the period's decision.

        ``seen``: measured values are those of the period before (empty before the first), state and modes are new.
        """
        ...

    def requests(self, seen: Circumstances) -> Sequence[Request]:
        """What is to stand in slot 14 now; called in the decision's thread. What is left out is released."""
        ...

    def executions(self) -> Mapping[str, Mapping[str, Any]]:
        """By proposal, how its roll-out stands, as JSON has it; goes into ``state.json`` each period."""
        ...

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """What happened since the last call; each becomes a row of kind "execution" before the next decision's."""
        ...


class EmptySeat:
    """Nobody carries out proposals: every such order is refused."""

    def order(self, order: Order, seen: Circumstances) -> Verdict:
        return Verdict(
            False, f"{order.kind}: this run carries out no proposals; start it with --station and people.json"
        )

    def requests(self, seen: Circumstances) -> Sequence[Request]:
        return ()

    def executions(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def rows(self) -> Sequence[Mapping[str, Any]]:
        return ()
