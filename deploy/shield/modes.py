"""The mode machine: from causes and orders to the operating mode of every asset.

People give authority (``SHADOW`` to ``AUTONOMOUS``) and take it back; causes (:mod:`.causes`) force ``DEGRADED``,
``BACKUP`` or ``TRIPPED``, the gravest that stands deciding. Dwells and patience count calls, one a period, since a
clock may be the very thing that is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate
from .arrays import every, some
from .causes import TABLE, Cause, CauseRow, Clears
from .decision import Code, Mode, Reason
from .orders import Judged
from .settings import ShieldSettings

Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]
Counts = NDArray[np.int32]
Floats = NDArray[np.float64]
Raised = Mapping[Cause, Bools | bool]
"""Causes of this period: which assets ``[N]`` in the order of ``nameplate.agents``, or True for all of them."""

MODES = tuple(Mode)
"""A mode's code is its place here: authority rises to ``AUTONOMOUS``, gravity from there to ``TRIPPED``."""

SHADOW, ADVISE, APPROVED, AUTONOMOUS, DEGRADED, BACKUP, TRIPPED = range(len(MODES))
NO_CAUSE = -1


@dataclass(frozen=True)
class ModeState:
    """What the machine remembers, over ``N`` assets and the ``C`` rows of the table of causes.

    ``requested`` ``[N]``: the authority that people gave; ``mode`` ``[N]``: the mode now; ``run`` ``[C, N]``: reports
    in a row, up to the patience; ``left`` ``[C, N]``: periods that a cause still stands, this one included; ``latched``
    ``[C, N]``: waits for a person; ``held`` ``[N]``: tripped while it was ours, so that its safe state is commanded;
    ``since_s`` ``[N]``: clock when it entered its mode; ``plain``: nothing stands or counts, and all are autonomous.
    """

    requested: Codes
    mode: Codes
    run: Counts
    left: Counts
    latched: Bools
    held: Bools
    since_s: Floats
    plain: bool


@dataclass(frozen=True)
class Modes:
    """What this period is decided by, ``[N]`` each.

    ``code``: place in :data:`MODES`; ``acts``: whether anything of ours is written; ``approval``: only proposals that a
    person approved may be sent (also while ``DEGRADED``); ``forced``: the mode that causes force, whatever was
    requested, ``AUTONOMOUS`` where none does; ``why``: row of :data:`~.causes.TABLE` of the gravest cause that stands,
    ``NO_CAUSE`` where none does; ``plain``: all autonomous, and nothing stands.
    """

    code: Codes
    acts: Bools
    approval: Bools
    forced: Codes
    why: Codes
    plain: bool

    def named(self, agents: tuple[str, ...]) -> dict[str, Mode]:
        """The mode by agent name."""
        return {agent: MODES[code] for agent, code in zip(agents, self.code.tolist(), strict=True)}


class ModeMachine:
    """Compiled from the table of causes and a site's settings. Raises :class:`ConfigurationError` where they clash."""

    def __init__(self, nameplate: Nameplate, settings: ShieldSettings, table: tuple[CauseRow, ...] = TABLE) -> None:
        self._agents = nameplate.agents
        self._table = table
        n = len(self._agents)
        rows = [_adjusted(row, settings) for row in table]
        self._rows_of: dict[Cause, list[int]] = {}
        for i, row in enumerate(rows):
            self._rows_of.setdefault(row.of, []).append(i)
        force = np.array([MODES.index(r.mode) for r in rows], dtype=np.int8)
        # a row that a site made graver goes before the milder ones, behind those that were as grave already
        self._by_gravity = np.argsort(-force.astype(np.int64), kind="stable")
        self._force = force[self._by_gravity]
        self._site = np.array([r.site for r in rows])
        self._manual = np.array([r.clears is Clears.MANUAL_RESET for r in rows])[:, None]
        self._trips = (force == TRIPPED)[:, None]
        self._patience = np.array([r.patience for r in rows], dtype=np.int32)[:, None]
        self._stands_for = np.array([r.dwell + 1 for r in rows], dtype=np.int32)[:, None]
        self._stop_row = next(i for i, r in enumerate(rows) if r.cause is Cause.EMERGENCY_STOP)
        self._every = every = np.ones(n, dtype=np.bool_)
        autonomous = np.full(n, AUTONOMOUS, dtype=np.int8)
        nothing = np.full(n, NO_CAUSE, dtype=np.int8)
        self._all_autonomous = Modes(autonomous, every, ~every, autonomous, nothing, True)
        self._unforced = autonomous, nothing
        self._last: tuple[ModeState, Modes] | None = None

    def start(
        self, mode: Mode = Mode.AUTONOMOUS, clock_s: float = 0.0, assets: Collection[str] | None = None
    ) -> ModeState:
        """No cause stands and every asset has ``mode``, one of those that people may give; where only some ``assets``
        are ours, the others are in shadow."""
        n, c = len(self._agents), len(self._table)
        code = np.full(n, MODES.index(mode), dtype=np.int8)
        if assets is not None:
            code[[agent not in assets for agent in self._agents]] = MODES.index(Mode.SHADOW)
        counts = np.zeros((c, n), dtype=np.int32)
        none = np.zeros(n, dtype=np.bool_)
        return ModeState(
            code, code, counts, counts, np.zeros((c, n), dtype=np.bool_), none, np.full(n, clock_s),
            mode is Mode.AUTONOMOUS and assets is None,
        )  # fmt: skip

    def step(
        self, state: ModeState, causes: Raised, orders: Judged, clock_s: float
    ) -> tuple[ModeState, Modes, tuple[Reason, ...]]:
        """One period: the new state, the modes, and a reason for what no other reason tells.

        That is: each change of mode by a cause that inputs and commands do not tell of already, one for the whole site
        (``asset`` empty) where the cause is the site's; each denied take-over or reset, whose ``constraint`` names the
        cause in the way; each order that could not be read. Pure: arguments stay as they are.
        """
        if state.plain and not causes and orders.empty:
            return state, self._all_autonomous, orders.reasons
        if not causes and orders.empty:
            last = self._last
            if last is not None and last[0] is state:  # nobody changes a state: it goes on as it did
                return state, last[1], orders.reasons
            if self._stays(state):
                modes = self._unchanged(state)
                self._last = state, modes
                return state, modes, orders.reasons
        raised = self._raised(causes, orders)
        run = np.where(raised, np.minimum(state.run + 1, self._patience), 0)
        fires = raised & (run >= self._patience)
        left = np.where(fires, self._stands_for, np.maximum(state.left - 1, 0))
        latched = state.latched | (fires & self._manual)
        requested, scope = state.requested, self._scope(orders.assets)
        reasons = list(orders.reasons)
        if orders.reset:
            latched, requested, denied = self._reset(state, latched, left, scope)
            reasons += self._denials(Code.MODE_RESET_DENIED, denied, latched | (left > 0))
        standing = latched | (left > 0)
        if orders.mode is not None:
            requested, denied = _ordered(requested, orders, scope, standing.any(axis=0))
            reasons += self._denials(Code.MODE_TAKEOVER_DENIED, denied, standing)

        why, forced = self._gravest(standing)
        consequence = (forced >= DEGRADED) & (requested >= APPROVED)
        mode = np.where(forced == TRIPPED, forced, np.where(consequence, forced, requested)).astype(np.int8)
        tripped = mode == TRIPPED
        was_held = state.held & (state.mode == TRIPPED)
        ours = np.where(state.mode == TRIPPED, was_held, requested >= APPROVED)
        held = tripped & (ours | fires[self._stop_row])
        changed = mode != state.mode
        if changed.any():
            reasons += self._changes(changed & (mode >= DEGRADED), why)
        plain = not (standing.any() or run.any()) and bool((requested == AUTONOMOUS).all())
        since_s = np.where(changed, clock_s, state.since_s)
        new = ModeState(requested, mode, run, left, latched, held, since_s, plain)
        acts = np.where(tripped, held, mode >= APPROVED)
        return new, Modes(mode, acts, requested == APPROVED, forced, why, plain), tuple(reasons)

    def _stays(self, state: ModeState) -> bool:
        """Whether a period without causes and orders leaves ``state`` as it is: nothing stands, counts or is held, and
        every asset has the mode that people gave it."""
        return not (
            np.count_nonzero(state.run)
            or np.count_nonzero(state.left)
            or np.count_nonzero(state.latched)
            or np.count_nonzero(state.held)
            or some(state.mode != state.requested)
            or some(state.mode >= DEGRADED)
            or state.plain != every(state.requested == AUTONOMOUS)
        )

    def _unchanged(self, state: ModeState) -> Modes:
        forced, why = self._unforced
        return Modes(state.mode, state.mode >= APPROVED, state.requested == APPROVED, forced, why, state.plain)

    def _raised(self, causes: Raised, orders: Judged) -> Bools:
        """Which rows ``[C, N]`` are reported this period."""
        raised = np.zeros((len(self._table), len(self._agents)), dtype=np.bool_)
        for cause, where in causes.items():
            for row in self._rows_of.get(cause, ()):
                raised[row] |= where
        if orders.stop:
            raised[self._stop_row] = True
        site = self._site
        raised[site] = raised[site].any(axis=1, keepdims=True)
        return raised

    def _scope(self, assets: frozenset[str] | None) -> Bools:
        """The assets ``[N]`` that orders are for."""
        if assets is None:
            return self._every
        return np.array([agent in assets for agent in self._agents], dtype=np.bool_)

    def _reset(self, state: ModeState, latched: Bools, left: Counts, scope: Bools) -> tuple[Bools, Codes, Bools]:
        """What stays latched ``[C, N]``, the requested modes and where the reset was denied ``[N]``.

        An asset leaves ``TRIPPED`` only as a whole: while one tripping cause persists, all its tripping latches stay.
        It then has no authority until some is given, by these orders or later.
        """
        persists = (left > 0) & self._manual
        trip_persists = (persists & self._trips).any(axis=0)
        stays = persists | (self._trips & trip_persists)
        released = latched & scope & ~stays
        kept = latched & ~released
        left_trip = (released & self._trips).any(axis=0)
        requested = np.where(left_trip, np.int8(SHADOW), state.requested)
        return kept, requested, scope & (latched & stays).any(axis=0)

    def _gravest(self, standing: Bools) -> tuple[Codes, Codes]:
        """Row of the gravest cause that stands and the mode it forces, ``[N]`` each."""
        ordered = standing[self._by_gravity]
        first = ordered.argmax(axis=0)
        any_stands = ordered.any(axis=0)
        why = np.where(any_stands, self._by_gravity[first], NO_CAUSE).astype(np.int8)
        forced = np.where(any_stands, self._force[first], np.int8(AUTONOMOUS)).astype(np.int8)
        return why, forced

    def _changes(self, changed: Bools, why: Codes) -> list[Reason]:
        found: list[Reason] = []
        for row in np.unique(why[changed]).tolist():
            if row == NO_CAUSE or self._table[row].told:
                continue
            found += self._for_each(changed & (why == row), self._table[row].code, "")
        return found

    def _denials(self, code: Code, denied: Bools, standing: Bools) -> list[Reason]:
        if not denied.any():
            return []
        why, _ = self._gravest(standing)
        found: list[Reason] = []
        for row in np.unique(why[denied]).tolist():
            cause = "orders" if row == NO_CAUSE else self._table[row].cause.value
            found += self._for_each(denied & (why == row), code, cause)
        return found

    def _for_each(self, where: Bools, code: Code, cause: str) -> list[Reason]:
        """A reason for each asset; one for the site where it is all of several."""
        if where.all() and len(where) > 1:
            return [Reason("", "", code, constraint=cause)]
        return [Reason(self._agents[i], "", code, constraint=cause) for i in np.flatnonzero(where)]


def _ordered(requested: Codes, orders: Judged, scope: Bools, blocked: Bools) -> tuple[Codes, Bools]:
    """The requested modes after an order, and where raising authority was denied, ``[N]`` each."""
    asked = np.int8(MODES.index(orders.mode)) if orders.mode is not None else requested
    raising = scope & (asked > requested)
    granted = scope & (asked <= requested)
    if orders.raises:
        granted = granted | (raising & ~blocked)
    return np.where(granted, asked, requested).astype(np.int8), raising & ~granted


def _adjusted(row: CauseRow, settings: ShieldSettings) -> CauseRow:
    """The row as a site's settings have it; a mode may only become graver, and one that trips needs a person."""
    mode, clears, dwell = row.mode, row.clears, row.dwell
    told = settings.cause_modes.get(row.cause)
    if told is not None:
        if MODES.index(Mode(told)) <= MODES.index(mode):
            raise ConfigurationError(
                f"shield.cause_modes: {row.cause.value}: {told} is not graver than {mode.value}, which it forces; "
                f"leave it out, or give a graver mode"
            )
        mode = Mode(told)
    if mode is Mode.TRIPPED:
        clears = Clears.MANUAL_RESET
    if row.cause in settings.cause_dwell_periods:
        dwell = settings.cause_dwell_periods[row.cause]
        if clears is Clears.WHEN_GONE and dwell:
            clears = Clears.AFTER_DWELL
    patience = settings.cause_patience_periods.get(row.cause, row.patience)
    return CauseRow(row.cause, mode, row.site, clears, row.code, row.text, row.of, patience, dwell, row.told)
