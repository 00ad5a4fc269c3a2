"""Whose value each command gets this period, before the shield judges it: a priority array over all commands.

Slot 16 is the running policy's and holds for one period only. Slots 8 and 14 belong to one requester each, who is asked
every period: what it asks stands, what it no longer asks for is released, and when it fails to answer, what it asked
before stands until that expires. While an asset is stopped, or none of ours to command, nothing may stand in them: so
nothing from before a stop comes back after it.

:meth:`Arbiter.settle` is pure, so that a decision that is thrown away changes nothing, and a journal replays it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shield import Code, Mode, ShieldState
from ..shield.compiled import FlatCommands
from ..shield.modes import APPROVED, TRIPPED, ModeState
from ..shield.orders import Orders
from ..shield.proposal import read_proposal
from .claims import Heard
from .priority_array import RELINQUISHED, ArrayState, PriorityArray, Slot

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Slots = NDArray[np.int64]

_POLICY_LASTS_S = 1.0
"""Any time at all: the policy's slot is written anew each period and never kept."""


@dataclass(frozen=True)
class Standing:
    """What stands from one period to the next. ``who``: ``[16, n]`` of names; ``empty``: nothing stands."""

    array: ArrayState
    who: NDArray[np.object_]
    empty: bool = True


@dataclass(frozen=True)
class Settled:
    """What is proposed to the shield, and in whose name.

    ``proposed`` and ``orders`` go to :meth:`~..shield.Shield.filter`; ``slot``: ``[n]``, whose value each command is, 0
    for nobody's, None where all are the policy's; ``who``: by agent, the person or proposal that commands it;
    ``others``: agents of which not every command is the policy's; ``standing``: for the next period.
    """

    proposed: Any
    orders: Orders | str
    slot: Slots | None
    who: Mapping[str, str]
    others: frozenset[str]
    standing: Standing


class Arbiter:
    """Compiled for one site."""

    def __init__(self, flat: FlatCommands, agents: tuple[str, ...]) -> None:
        self._flat, self._agents = flat, agents
        self._array = PriorityArray(np.zeros(flat.n))

    def start(self) -> Standing:
        """Nothing stands, as after every start."""
        names = np.full((16, self._flat.n), "", dtype=np.object_)
        return Standing(self._array.start(), names)

    def settle(
        self,
        standing: Standing,
        heard: Heard,
        proposed: Any,
        absent: Code,
        orders: Orders | str,
        state: ShieldState,
        clock_s: float,
    ) -> Settled:
        """One period. ``proposed``: the policy's, ``[N, A]`` a group, None where it has none, ``absent`` says why;
        ``clock_s``: monotonic. With nothing standing and nothing asked, the policy's proposal passes untouched."""
        if standing.empty and not any(heard.values()):
            return Settled(proposed, orders, None, {}, frozenset(), standing)
        standing = self._heard(standing, heard, self._open(orders, state), clock_s)
        if standing.empty:
            return Settled(proposed, orders, None, {}, frozenset(), standing)
        return self._effective(standing, proposed, absent, orders, state, clock_s)

    def _open(self, orders: Orders | str, state: ShieldState) -> Bools:
        """Which commands ``[n]`` a person or proposal may hold: those of assets that are ours and not stopped."""
        modes = state.modes
        if not isinstance(modes, ModeState):
            return np.ones(self._flat.n, dtype=np.bool_)
        stop = isinstance(orders, Orders) and orders.stop is not False
        ours = (modes.requested >= APPROVED) & (modes.mode != TRIPPED) & (not stop)
        return np.asarray(ours[self._flat.asset])

    def _heard(self, standing: Standing, heard: Heard, is_open: Bools, clock_s: float) -> Standing:
        """What stands once requesters were heard, what has run out is gone, and what may not stand is released."""
        rules, array, who = self._array, standing.array, standing.who.copy()
        for slot, claims in heard.items():
            if claims is None:
                continue
            array = rules.release(array, slot)
            for claim in claims:
                array = rules.write(array, slot, claim.values, clock_s, claim.lasts_s)
                who[slot - 1, ~np.isnan(claim.values)] = claim.who
        array = rules.expired(array, clock_s)
        if not is_open.all():
            array = replace(array, values=np.where(is_open, array.values, np.nan))
        return Standing(array, who, bool(np.isnan(array.values).all()))

    def _effective(
        self, standing: Standing, proposed: Any, absent: Code, orders: Orders | str, state: ShieldState, clock_s: float
    ) -> Settled:
        flat, raw = self._flat, read_proposal(proposed, self._flat, absent).raw
        of_policy = self._array.write(
            standing.array, Slot.AUTONOMOUS, np.where(np.isfinite(raw), raw, np.nan), clock_s, _POLICY_LASTS_S
        )
        found = self._array.effective(of_policy, clock_s)
        slot, values = found.slot, np.where(found.slot == RELINQUISHED, np.nan, found.values)
        asked = (slot != Slot.AUTONOMOUS) & (slot != RELINQUISHED)
        by_hand = self._of_assets(asked & (slot <= Slot.OPERATOR))
        approved = self._of_assets(asked)
        # A person commands a part of an asset: the rest of it stays as it is where the policy has no say.
        waits = np.zeros(len(self._agents), dtype=np.bool_)
        if state.modes is not None:
            waits = state.modes.requested == APPROVED
        told: frozenset[str] = frozenset()
        if isinstance(orders, Orders):
            told = orders.approved if isinstance(orders.approved, frozenset) else frozenset()
            waits = waits | (orders.mode == Mode.APPROVED)
        waits &= approved & ~np.array([agent in told for agent in self._agents])
        rests = ~asked & (waits[flat.asset] | (by_hand[flat.asset] & (slot == RELINQUISHED)))
        if rests.any():
            applied = flat.flat(state.applied)
            values, slot = np.where(rests, applied, values), np.where(rests, RELINQUISHED, slot)
        names = self._names(approved)
        if isinstance(orders, Orders):
            orders = replace(orders, approved=told | names, manual=self._names(by_hand))
        who: dict[str, str] = {}
        for i in np.flatnonzero(asked)[np.argsort(-slot[asked], kind="stable")].tolist():  # the gravest slot names it
            who[self._agents[int(flat.asset[i])]] = str(standing.who[slot[i] - 1, i])
        return Settled(flat.grouped(values), orders, slot, who, names, standing)

    def _of_assets(self, commands: Bools) -> Bools:
        """The assets ``[agents]`` that have some of these commands ``[n]``."""
        found = np.zeros(len(self._agents), dtype=np.bool_)
        found[self._flat.asset[commands]] = True
        return found

    def _names(self, assets: Bools) -> frozenset[str]:
        return frozenset(self._agents[i] for i in np.flatnonzero(assets).tolist())
