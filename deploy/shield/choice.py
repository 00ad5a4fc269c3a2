"""Whose commands an asset gets this period: its mode, its inputs and its proposal decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import some
from .causes import CAUSE_OF_CODE, TABLE, Cause
from .compiled import FlatCommands
from .decision import Code, Source
from .modes import BACKUP, DEGRADED, NO_CAUSE, TRIPPED, Modes
from .proposal import Proposal

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SOURCES = tuple(Source)
"""A source's code is its place here."""

POLICY, SUBSTITUTED, FALLBACK, PLAN, SAFE_STATE, NOBODY = range(len(SOURCES))

OF_THE_POLICY = frozenset(
    {
        Cause.POLICY_TRIPPED,
        Cause.POLICY_LATE,
        Cause.POLICY_RAISED,
        Cause.PROPOSAL_UNUSABLE,
        Cause.OUT_OF_DISTRIBUTION_LASTING,
    }
)
"""Causes that are the policy's fault alone: no reason to take an asset from the hand of a person."""
_OF_THE_POLICY = np.array([*(row.cause in OF_THE_POLICY for row in TABLE), False])


class Inputs(NamedTuple):
    """By agent ``[N]``: whether its inputs can be believed, and whether something stands in for some of them."""

    trusted: Bools
    substituted: Bools


class Choice(NamedTuple):
    """``asked``: ``[n]``, what is wanted of each command before any limit; ``source``: ``[N]`` codes.

    ``plain``: every asset follows its policy. ``own``: ``[n]``, what the shield and not the policy chose, and is moved
    only where the others can't make room. ``fixed``: ``[n]``, not ours to command. ``codes``: by agent, why it does not
    follow its policy. ``share``: ``[n]`` of the rates that may be used, or one for all.
    """

    asked: Floats
    source: NDArray[np.int8]
    plain: bool
    own: Bools | None = None
    fixed: Bools | None = None
    codes: list[Code | None] | None = None
    share: Floats | float = 1.0


def causes_of(inputs: Inputs | None, proposal: Proposal) -> dict[Cause, Bools | bool]:
    """What inputs (None: all good) and proposal say against following the policy."""
    found: dict[Cause, Bools | bool] = {}
    if inputs is not None:
        if not inputs.trusted.all():
            found[Cause.INPUT_LOST] = ~inputs.trusted
        if inputs.substituted.any():
            found[Cause.INPUT_SUBSTITUTED] = inputs.substituted
    if proposal.codes is not None:
        for code in set(proposal.codes) - {None}:
            cause = CAUSE_OF_CODE.get(code, Cause.PROPOSAL_UNUSABLE) if code is not None else Cause.PROPOSAL_UNUSABLE
            where = np.array([c is code for c in proposal.codes])
            found[cause] = where | found[cause] if cause in found else where
    return found


class _Known(NamedTuple):
    """A choice but for what is asked, and what it follows from. ``nobody``, ``fallback``, ``safe``: which commands
    ``[n]`` these decide, None where there are none."""

    modes: Modes
    approved: frozenset[str]
    manual: frozenset[str]
    choice: Choice
    nobody: Bools | None
    fallback: Bools | None
    safe: Bools | None


class Chooser:
    """Compiled for one site."""

    def __init__(self, flat: FlatCommands, agents: tuple[str, ...]) -> None:
        self._flat = flat
        self._agents = agents
        self._all_policy = np.zeros(len(agents), dtype=np.int8)
        self._last: _Known | None = None

    def choose(
        self,
        proposal: Proposal,
        inputs: Inputs | None,
        modes: Modes,
        approved: frozenset[str],
        applied: Floats,
        fallback: Callable[[], Floats],
        safe: Callable[[], Floats],
        manual: frozenset[str] = frozenset(),
    ) -> Choice:
        """``inputs`` None: all good. ``fallback`` and ``safe`` give ``[n]`` and are asked only where needed.

        ``manual``: agents that a person commands by hand.
        """
        if modes.plain and inputs is None and proposal.codes is None:
            return Choice(proposal.raw, self._all_policy, True)
        usual, known = inputs is None and proposal.codes is None, self._last
        # nobody changes modes: with nothing new, all but what is asked is as it was
        same = known is not None and known.modes is modes and (known.approved, known.manual) == (approved, manual)
        if known is None or not (usual and same):
            known = self._known(self._chosen(proposal, inputs, modes, approved, manual), modes, approved, manual)
            if usual:
                self._last = known
        asked = proposal.raw
        if known.nobody is not None:
            asked = np.where(known.nobody, applied, asked)
        if known.fallback is not None:
            asked = np.where(known.fallback, fallback(), asked)
        if known.safe is not None:
            asked = np.where(known.safe, safe(), asked)
        return known.choice._replace(asked=asked)

    def _known(self, choice: Choice, modes: Modes, approved: frozenset[str], manual: frozenset[str]) -> _Known:
        def of(code: int) -> Bools | None:
            where = choice.source == code
            return where[self._flat.asset] if some(where) else None

        return _Known(modes, approved, manual, choice, of(NOBODY), of(FALLBACK), of(SAFE_STATE))

    def _chosen(
        self, proposal: Proposal, inputs: Inputs | None, modes: Modes, approved: frozenset[str], manual: frozenset[str]
    ) -> Choice:
        """All but what is asked, which stays as it was proposed."""
        n = len(self._agents)
        source = np.zeros(n, dtype=np.int8)
        usable = np.ones(n, dtype=np.bool_)
        if inputs is not None:
            source[inputs.substituted] = SUBSTITUTED
            usable &= inputs.trusted
        if proposal.codes is not None:
            usable &= np.array([code is None for code in proposal.codes])
        backup = modes.code == BACKUP
        if manual and backup.any():
            by_hand = np.array([agent in manual for agent in self._agents])
            backup &= ~(by_hand & _OF_THE_POLICY[modes.why])
        source[~usable | backup] = FALLBACK
        waits = modes.approval & (modes.code <= DEGRADED) & usable
        if waits.any():
            waits &= ~np.array([agent in approved for agent in self._agents])
            source[waits] = NOBODY
        source[modes.code == TRIPPED] = SAFE_STATE
        source[~modes.acts] = NOBODY
        of = source[self._flat.asset]
        fixed = ~modes.acts[self._flat.asset] if not modes.acts.all() else None
        degraded = modes.code == DEGRADED
        return Choice(
            proposal.raw,
            source,
            False,
            of >= FALLBACK,
            fixed,
            self._codes(source, inputs, proposal, modes),
            np.where(degraded[self._flat.asset], 0.5, 1.0) if degraded.any() else 1.0,
        )

    def _codes(
        self, source: NDArray[np.int8], inputs: Inputs | None, proposal: Proposal, modes: Modes
    ) -> list[Code | None]:
        """Why each asset does not follow its policy: its lost inputs, its unusable proposal, or its mode's cause."""
        found: list[Code | None] = [None] * len(source)
        for i in np.flatnonzero(source >= FALLBACK).tolist():
            if inputs is not None and not inputs.trusted[i]:
                found[i] = Code.INPUT_LOST
            elif proposal.codes is not None and proposal.codes[i] is not None:
                found[i] = proposal.codes[i]
            elif source[i] == NOBODY:
                found[i] = Code.NOT_APPROVED
            else:
                why = int(modes.why[i])
                found[i] = TABLE[why].code if why != NO_CAUSE else Code.COMMAND_MISSING
        return found
