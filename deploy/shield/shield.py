"""The shield: an answer every period, never the raw command when in doubt.

    guard inputs -> monitors -> modes -> proposal, fallback or safe state of each asset -> its own limits
    -> what assets keep together -> look-ahead -> verify -> ladder -> last resort

:meth:`Shield.filter` is a pure function of its arguments, lets no exception out and carries its state
explicitly, so that a journal replays bit for bit. It is a software layer above the equipment's own certified
safety function, and no substitute for it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Constraint, Declaration, SafeState, constraints_of, declare
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry
from .arrays import every, numeric, some
from .causes import Cause
from .choice import FALLBACK, SAFE_STATE, SOURCES, Choice, Chooser, Inputs, causes_of
from .command_memory import CommandMemory
from .compiled import flat_commands
from .coupling import Limits
from .decision import BoolArrays, Code, Decision, Mode, Reason, ShieldState, Source
from .explanation import changed
from .inputs import Ahead, Guarded, InputGuard
from .keeping import Keeping, Period, Sent
from .modes import APPROVED, TRIPPED, ModeMachine, Modes, ModeState
from .monitors.monitor import SITE, Monitor, Seen
from .orders import NOTHING, judge
from .program import warmup
from .proposal import Proposal, read_proposal
from .read_back import ReadBack
from .safe_way import SafeWay
from .settings import ShieldSettings
from .tightening import tightened

_LOG = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Fallback = Callable[[Arrays], Arrays]
"""From guarded measurements ``[N, O]`` per group to commands ``[N, A]`` per group: no memory, no side effect."""

PERIOD_JITTER = 1e-3
"""A period that is short by this share is still a whole period: UTC clocks resolve no better."""


class _Told(NamedTuple):
    """What follows from a period's modes alone: ``named`` and ``acts`` as a decision tells them; ``ours`` ``[n]``: the
    commands that we give; and for the standby, ``tripped`` ``[n]`` (None: none is), ``source`` ``[agents]`` and
    ``fixed`` ``[n]`` (None: none is)."""

    modes: Modes
    named: Mapping[str, Mode]
    acts: BoolArrays
    ours: Bools
    tripped: Bools | None
    source: NDArray[np.int8]
    fixed: Bools | None


class Shield:
    """Stands between every policy and every actuator of one site.

    ``site`` is what it declares as safe (:func:`~twinloop.envs.constraint.declaration_of_site`); a nameplate alone
    declares its own ranges and rates, and ``constraints`` then come to it, the tighter of the two in force.
    ``fallback`` gives an asset's commands when its policy cannot be used; without one, assets go to neutral, which
    hands them back to their own controller. Whatever the fallback says is limited and verified like any other command.
    """

    def __init__(
        self,
        site: Declaration | Nameplate,
        constraints: Iterable[Constraint] | None = None,
        settings: ShieldSettings | None = None,
        fallback: Fallback | None = None,
        monitors: Sequence[Monitor] = (),
    ) -> None:
        if isinstance(site, Nameplate):
            declaration = _declared(site, tuple(constraints or ()))
        elif constraints is None:
            declaration = site
        else:
            raise TypeError("constraints belong to a nameplate; a declaration has its own, so add them there")
        self.declaration = declaration
        self.nameplate = plate = declaration.nameplate
        self.settings = settings or ShieldSettings()
        self.flat = flat = flat_commands(plate)
        self._fallback = fallback
        self._monitors = tuple(monitors)
        self._guard = InputGuard(plate, self.settings)
        self._modes = ModeMachine(plate, self.settings)
        self._modes_at_start = self._modes.start()
        self._read_back = ReadBack(plate, self.settings.read_back_tolerance_pu)
        self._chooser = Chooser(flat, plate.agents)
        self._safe_way = SafeWay(declaration, flat)
        self._keeping = Keeping(declaration, flat)
        self._memory_at_start = self._keeping.local.start()
        self._sizes = tuple((g.name, g.n_assets) for g in plate.groups)
        everyone = np.ones(len(plate.agents), dtype=np.bool_)
        self._all_act = self._by_group(everyone)
        self._none_changed = self._by_group(~everyone)
        self._all_autonomous = dict.fromkeys(plate.agents, Mode.AUTONOMOUS)
        self._all_on_policy = dict.fromkeys(plate.agents, Source.POLICY)
        self._agents = frozenset(plate.agents)
        self._last_told: _Told | None = None  # modes seldom change
        self._last_sources: tuple[NDArray[np.int8], Mapping[str, Source]] | None = None
        self._ahead: Ahead | None = None  # what was last told of a reading, which is mostly asked for again

    def warmup(self) -> None:
        """Import the solver and run every stage once, so that the first period is as fast as the rest.

        Raises :class:`~twinloop.envs.errors.ConfigurationError` where constraints need a solver that is not installed.
        """
        if self._keeping.coupling.any:
            warmup()
        state = self.start()
        for _ in range(3):
            state = self.filter(None, state.applied, 0.0, state).state

    def start(
        self, applied: Arrays | None = None, mode: Mode = Mode.AUTONOMOUS, assets: Collection[str] | None = None
    ) -> ShieldState:
        """The state before the first period; ``applied`` is what the plant obeys now, neutral if that is unknown.

        ``mode``: the authority that every asset starts with, one of those that people may give; with ``assets`` only
        these, and the others are in shadow.
        """
        state = ShieldState(
            applied=self.flat.grouped(self.flat.neutral.copy()),
            inputs=self._guard.start(),
            memory=self._memory_at_start,
            modes=self._modes_at_start
            if mode is Mode.AUTONOMOUS and assets is None
            else self._modes.start(mode, assets=assets),
            monitors=tuple(m.start() for m in self._monitors),
        )
        return state if applied is None else self.accepted(state, applied)

    def guard(
        self,
        telemetry: Telemetry | None,
        now_s: float,
        state: ShieldState,
        *,
        clock_s: float | None = None,
        prediction: Arrays | None = None,
    ) -> Guarded:
        """What a policy may see of this reading; :meth:`filter` judges the same reading the same way."""
        with np.errstate(all="ignore"):  # infinities are judged here, not warned of
            found = self._guarded(telemetry, now_s, state, clock_s, prediction)
        self._ahead = Ahead(telemetry, now_s, clock_s, state.inputs, found) if prediction is None else None
        # whoever changes what is told here changes nothing that is decided by
        values = {name: v.copy() for name, v in found.values.items()}
        seen = values if found.seen is found.values else {name: v.copy() for name, v in found.seen.items()}
        return found._replace(values=values, seen=seen)

    def filter(
        self,
        telemetry: Telemetry | None,
        proposed: Any,
        now_s: float,
        state: ShieldState,
        *,
        absent: Code = Code.COMMAND_MISSING,
        orders: Any = None,
        clock_s: float | None = None,
        prediction: Arrays | None = None,
        causes: Iterable[Cause] = (),
    ) -> Decision:
        """Return commands that are safe to send, changed as little as possible, with a reason for each change.

        ``proposed`` is ``[N, A]`` per group, or None when there is no proposal; ``absent`` says why. ``now_s`` is the
        plant's UTC clock, ``clock_s`` one that never steps back (None: the former stands in). ``orders``: what people
        and the grid ask (:class:`~.orders.Orders`). ``prediction``: ``[N, O]`` per group, what a twin expected this
        reading to be. ``causes``: what the caller found that all assets must heed. Never raises.

        The returned state takes the commands as applied; correct it with :meth:`accepted`, :meth:`unconfirmed` or
        :meth:`unsent` once the plant has answered, or has not been asked.
        """
        now_s, clock_s = _seconds(now_s), None if clock_s is None else _seconds(clock_s)
        try:
            with np.errstate(all="ignore"):  # infinities are judged here, not warned of
                return self._filter(telemetry, proposed, now_s, state, absent, orders, clock_s, prediction, causes)
        except Exception:  # noqa: BLE001 - last line of defence: a fault in the shield itself must not reach the plant
            _LOG.exception("the shield failed; its last resort answers")
            return self._last_resort(now_s, clock_s, state, orders)

    def accepted(self, state: ShieldState, accepted: Any) -> ShieldState:
        """The state after the plant said what it accepted; what it did not say, or said wrongly, stays as sent.

        Where it says something else than an asset of ours was sent, the next period hears of it
        (``read_back_wrong``). Whatever ``accepted`` is, it is no reason to raise.
        """
        after = self._obeying(state, accepted)
        if not state.confirmed or state.time_s is None:  # nothing was sent, or nobody knows what arrived
            return after
        wrong = self._read_back.wrong(state.applied, after.applied)
        if wrong.any():
            wrong &= _acting(state.modes or self._modes_at_start)
            found = wrong | state.pending.get(Cause.READ_BACK_WRONG, False)
            after = replace(after, pending={**state.pending, Cause.READ_BACK_WRONG: found})
        return after

    def _obeying(self, state: ShieldState, accepted: Any) -> ShieldState:
        """``state`` with what the plant obeys; what ``accepted`` does not say, or says wrongly, stays."""
        applied: dict[str, Floats] = {}
        for group in self.nameplate.groups:
            try:
                told = numeric(accepted.get(group.name), (group.n_assets, len(group.commanded)))
            except Exception:  # noqa: BLE001 - a driver is foreign code: an answer that can't be read tells nothing
                told = "type"
            known = state.applied[group.name]
            applied[group.name] = known if isinstance(told, str) else np.where(np.isfinite(told), told, known)
        if state.confirmed:
            return replace(state, applied=applied)
        # what is told only now is a change of its own, after those that were known before
        memory = self._remembered(state, self._applied(state), 0.0)
        return replace(state, applied=applied, before=state.applied, memory=memory, confirmed=True)

    def unconfirmed(self, before: ShieldState, after: ShieldState) -> ShieldState:
        """The state when a write may or may not have arrived.

        The plant obeys either the commands of ``before`` or those just sent; repeating the former is within the rate
        of both, so commands with a rate do not change until a write is confirmed.
        """
        return replace(self.unsent(before, after), confirmed=False)

    def unsent(self, before: ShieldState, after: ShieldState) -> ShieldState:
        """The state when the commands of ``after`` were not sent: the plant obeys what it obeyed ``before``.

        It stood still for this period, which limits on change count, and which ends a stored plan. With ``before`` for
        ``after``, nothing was decided at all.
        """
        stood = before.before if after is before else before.applied
        return replace(after, applied=before.applied, before=stood, confirmed=before.confirmed, plan=None)

    def stood_in(self, state: ShieldState, sent: Arrays, now_s: float, clock_s: float | None = None) -> ShieldState:
        """The state after a period without a decision, in which ``sent`` went out, such as the last one's standby.

        It counts as a missed deadline: after some in a row, the modes trip.
        """
        now_s, clock_s = _seconds(now_s), None if clock_s is None else _seconds(clock_s)
        modes, _, _ = self._modes.step(
            state.modes or self._modes_at_start,
            {Cause.DEADLINE_MISSED: True},
            NOTHING,
            now_s if clock_s is None else clock_s,
        )
        return self._obeying(
            replace(
                state,
                before=state.applied,
                memory=self._remembered(state, self._applied(state), self._passed_s(now_s, state, clock_s)),
                modes=modes,
                time_s=now_s,
                clock_s=clock_s,
                confirmed=True,
                plan=None,
            ),
            sent,
        )

    def last_resort(self, state: ShieldState, now_s: float, clock_s: float | None = None) -> Arrays:
        """One step towards the safe states from what ``state`` says is applied, by the limiter of last resort alone."""
        now_s, clock_s = _seconds(now_s), None if clock_s is None else _seconds(clock_s)
        elapsed_s = self._keeping.verifier.elapsed_s(state.time_s, now_s, state.confirmed)
        memory = self._remembered(state, self._applied(state), self._passed_s(now_s, state, clock_s))
        walked = self._keeping.last_resort(state.applied, elapsed_s, memory)
        return self.flat.grouped(self._keeping.together(walked, state.applied, elapsed_s, memory))

    def _filter(
        self, telemetry: Telemetry | None, proposed: Any, now_s: float, state: ShieldState, absent: Code,
        orders: Any, clock_s: float | None, prediction: Arrays | None, causes: Iterable[Cause],
    ) -> Decision:  # fmt: skip
        own_clock_s = now_s if clock_s is None else clock_s
        guarded = self._guarded(telemetry, now_s, state, clock_s, prediction, self._ahead)
        inputs = None if guarded.clean else Inputs(guarded.agents_trusted, guarded.agents_substituted)
        proposal = read_proposal(proposed, self.flat, absent)
        asks = judge(orders, self._agents, self._keeping.coupling.sums)
        raised = self._raised(inputs, proposal, guarded.clock_wrong, now_s, state, causes)
        memories = state.monitors
        if self._monitors:
            memories = self._watch(raised, state, guarded, proposal, prediction, own_clock_s)
        modes_state, modes, told = self._modes.step(state.modes or self._modes_at_start, raised, asks, own_clock_s)

        limits, outside = self._keeping.coupling.within(asks.limits)
        passed_s = self._passed_s(now_s, state, clock_s)
        applied = self._applied(state)
        period = Period(
            state, guarded, applied, self._remembered(state, applied, passed_s), passed_s if state.confirmed else 0.0,
            self._keeping.verifier.elapsed_s(state.time_s, now_s, state.confirmed), limits,
        )  # fmt: skip
        fallback = partial(self._fallback_commands, guarded)
        safe = partial(self._safe_way.toward, applied, state.landing_s, period.elapsed_s)
        choice = self._chooser.choose(proposal, inputs, modes, asks.approved, applied, fallback, safe, asks.manual)
        mode_told = self._told(modes)
        acts = None if modes.plain else modes.acts
        if acts is None or some(acts):
            kept = self._keeping.keep(choice, period)
            sent = self._keeping.verified(kept, choice, period, acts, fallback, safe)
        else:  # nothing is ours to command: what the plant obeys is repeated, and not sent
            kept, sent = None, Sent(applied.copy(), choice.source, choice.codes, None, [], {})
        moved = changed(proposal.raw, sent.u)
        if acts is not None:
            moved &= mode_told.ours
        reasons: list[Reason] = [*guarded.reasons, *told, *sent.reasons]
        reasons += [Reason("", "limits", Code.ORDER_INVALID, constraint=name) for name in outside]
        changes: BoolArrays = self._none_changed
        if kept is not None and some(moved):
            which = moved.nonzero()[0]
            changes = self._changes(which, choice)
            reasons += self._keeping.reasons(proposal.raw, which, kept, sent, period)
        commands = self.flat.grouped(sent.u)
        after = ShieldState(
            applied=commands,
            inputs=guarded.state,
            time_s=now_s,
            clock_s=clock_s,
            before=state.applied,
            memory=period.memory,
            modes=modes_state,
            plan=sent.plan,
            monitors=memories,
            changed=changes,
            landing_s=None if choice.plain and sent.source is choice.source else _landing_s(state, sent, passed_s),
            pending=sent.pending,
        )
        advised: Arrays = commands
        if self.settings.advises and not choice.plain and bool((choice.source >= FALLBACK).any()):
            advised = self._advised(proposal, choice, period, fallback)
        return Decision(
            commands,
            tuple(reasons),
            self._sources(choice, sent),
            after,
            mode_told.named,
            mode_told.acts,
            advised,
            partial(self._stand_by, after, guarded, mode_told, limits),
        )

    def _guarded(
        self, telemetry: Any, now_s: float, state: ShieldState, clock_s: float | None, prediction: Arrays | None,
        ahead: Ahead | None = None,
    ) -> Guarded:  # fmt: skip
        try:
            again = ahead if prediction is None else None
            if again is not None and self._guard.knows(again, telemetry, now_s, clock_s, state.inputs):
                return again.guarded
            return self._guard.guard(telemetry, now_s, state.inputs, clock_s=clock_s, estimate=prediction)
        except Exception:  # noqa: BLE001 - whatever came in: no reading is worth the loop
            return self._guard.guard(None, now_s, state.inputs)

    def _raised(
        self,
        inputs: Inputs | None,
        proposal: Proposal,
        clock_wrong: bool,
        now_s: float,
        state: ShieldState,
        causes: Iterable[Cause],
    ) -> dict[Cause, Bools | bool]:
        """All causes of this period, but for what the monitors find."""
        raised: dict[Cause, Bools | bool] = {}
        if inputs is not None or proposal.codes is not None:
            raised.update(causes_of(inputs, proposal))
        for cause, where in state.pending.items():
            if np.count_nonzero(where):  # what was found at nobody's asset, or at one that is not ours, is no cause
                raised[Cause(cause)] = where
        # who does not write has no answer to wait for
        if not state.confirmed and _acting(state.modes or self._modes_at_start).any():
            raised[Cause.WRITE_UNCONFIRMED] = True
        if clock_wrong or (state.time_s is not None and not now_s > state.time_s):  # so asked, a NaN is wrong
            raised[Cause.CLOCK_WRONG] = True
        for found in causes:
            raised[Cause(found)] = True
        return raised

    def _watch(
        self, raised: dict[Cause, Bools | bool], state: ShieldState, guarded: Guarded, proposal: Proposal,
        prediction: Arrays | None, clock_s: float,
    ) -> tuple[Mapping[str, NDArray[Any]], ...]:  # fmt: skip
        """Ask every monitor; one that fails has seen to nothing, which is as bad as an alarm."""
        seen = Seen(
            measured=guarded.values,
            commands=state.applied,
            proposed=self.flat.grouped(proposal.raw),
            changed=state.changed or self._none_changed,
            prediction=prediction,
            present=guarded.trusted,
            clock_s=clock_s,
        )
        memories: list[Mapping[str, NDArray[Any]]] = []
        for place, monitor in enumerate(self._monitors):
            memory = state.monitors[place] if place < len(state.monitors) else monitor.start()
            alarms: Mapping[str, Cause]
            try:
                memory, alarms = monitor.step(memory, seen)
            except Exception:  # noqa: BLE001 - a monitor is no reason to lose the period
                alarms = {SITE: Cause.ROBUSTNESS}
            for agent, cause in alarms.items():
                where = np.array([agent in (SITE, a) for a in self.nameplate.agents])
                raised[cause] = where | raised.get(cause, False)
            memories.append(memory)
        return tuple(memories)

    def _applied(self, state: ShieldState) -> Floats:
        """What the plant obeys, ``[n]``; neutral where that is no number."""
        applied = self.flat.flat(state.applied)
        if not math.isfinite(applied.dot(applied)):
            applied = np.where(np.isfinite(applied), applied, self.flat.neutral)
        return applied

    def _passed_s(self, now_s: float, state: ShieldState, clock_s: float | None) -> float:
        """Seconds since the last period: at most one period, none on a clock that went wrong."""
        period_s = self.nameplate.period_s
        if state.time_s is None:
            return period_s
        passed_s = now_s - state.time_s
        if clock_s is not None and state.clock_s is not None:
            passed_s = min(passed_s, clock_s - state.clock_s)
        if passed_s >= period_s * (1.0 - PERIOD_JITTER):
            return period_s
        return passed_s if passed_s > 0.0 else 0.0  # so asked, a NaN is nothing

    def _remembered(self, state: ShieldState, applied: Floats, passed_s: float) -> CommandMemory:
        """What the limits on change remember, once what is applied has stood until now."""
        memory = state.memory or self._memory_at_start
        if state.before is None or not self._keeping.local.remembers:
            return memory
        before = applied if state.before is state.applied else self.flat.flat(state.before)
        return self._keeping.local.after(memory, before, applied, passed_s)

    def _fallback_commands(self, guarded: Guarded) -> Floats:
        """The fallback's commands ``[n]``; neutral wherever the site's own rule fails or says nonsense."""
        found = self.flat.neutral.copy()
        if self._fallback is None:
            return found
        told: Any
        try:
            told = self._fallback({n: v.copy() for n, v in guarded.values.items()})
        except Exception:  # noqa: BLE001 - a fallback that fails is replaced by the simpler one
            told = {}
        for name, part in self.flat.grouped(found).items():
            array = numeric(told.get(name) if hasattr(told, "get") else None, part.shape)
            if not isinstance(array, str):
                part[:] = np.where(np.isfinite(array), array, part)
        return found

    def _advised(self, proposal: Proposal, choice: Choice, period: Period, fallback: Callable[[], Floats]) -> Arrays:
        """What would be sent if every asset were autonomous."""
        usable = np.isfinite(proposal.raw)
        asked = proposal.raw if usable.all() else np.where(usable, proposal.raw, fallback())
        kept = self._keeping.keep(Choice(asked, choice.source, False), period)
        return self.flat.grouped(kept.u)

    def _stand_by(self, after: ShieldState, guarded: Guarded, told: _Told, limits: Limits) -> Arrays:
        """Commands for the period after this one, should nothing be worked out then: the stored plan's next ones, else
        the fallback's, the safe state's where an asset is tripped; kept and verified like all others. ``limits``: ends
        of sums at run time, which stand until there is a next order."""
        applied, period_s = self._applied(after), self.nameplate.period_s
        memory = self._remembered(after, applied, period_s)
        try:
            with np.errstate(all="ignore"):
                period = Period(after, guarded, applied, memory, period_s, period_s, limits)
                fallback = partial(self._fallback_commands, guarded)
                safe = partial(self._safe_way.toward, applied, after.landing_s, period_s)
                planned = None if after.plan is None else after.plan.next()
                asked = fallback() if planned is None else planned
                if told.tripped is not None:
                    asked = np.where(told.tripped, safe(), asked)
                choice = Choice(np.where(told.ours, asked, applied), told.source, False, None, told.fixed)
                kept = self._keeping.keep(choice, period, foresee=False)
                sent = self._keeping.verified(kept, choice, period, told.modes.acts, fallback, safe)
                return self.flat.grouped(sent.u)
        except Exception:  # noqa: BLE001 - as in filter
            return self.flat.grouped(self._keeping.last_resort(after.applied, period_s, memory))

    def _last_resort(self, now_s: float, clock_s: float | None, state: Any, orders: Any) -> Decision:
        """A decision that needs nothing but the last applied commands, and not even those."""
        known = state if isinstance(state, ShieldState) and isinstance(state.applied, Mapping) else self.start()
        agents = self.nameplate.agents
        every = np.ones(len(agents), dtype=np.bool_)
        try:
            elapsed_s = self._keeping.verifier.elapsed_s(known.time_s, now_s, known.confirmed)
        except Exception:  # noqa: BLE001 - a state that can't be read
            elapsed_s = 0.0
        memory: CommandMemory | None
        try:
            memory = self._remembered(known, self._applied(known), self._passed_s(now_s, known, clock_s))
        except Exception:  # noqa: BLE001 - as above: what it remembered last is the best there is
            memory = known.memory
        pending: Mapping[str, Bools] = {}
        modes_state = known.modes
        told: tuple[Reason, ...] = ()
        try:  # a stop is heeded, and failures in a row are counted, also while nothing else works
            raised: dict[Cause, Bools | bool] = {Cause(c): where for c, where in known.pending.items()}
            modes_state, modes, told = self._modes.step(
                modes_state or self._modes_at_start,
                {**raised, Cause.SHIELD_FAILED: True},
                judge(orders, self._agents, self._keeping.coupling.sums),
                now_s if clock_s is None else clock_s,
            )
            acting, named = modes.acts, modes.named(agents)
        except Exception:  # noqa: BLE001 - the modes themselves: the next period hears of it
            acting, named = _acting(modes_state or self._modes_at_start), dict.fromkeys(agents, Mode.BACKUP)
            pending = {Cause.SHIELD_FAILED: every}
        u = self._keeping.last_resort(known.applied, elapsed_s, memory)
        try:
            u = np.where(acting[self.flat.asset], u, self._applied(known))
        except Exception:  # noqa: BLE001 - nobody knows what the plant obeys
            acting = every
        commands = self.flat.grouped(u)
        after = replace(
            known,
            applied=commands,
            before=known.applied,
            memory=memory,
            modes=modes_state,
            time_s=now_s if math.isfinite(now_s) else known.time_s,
            clock_s=clock_s,
            confirmed=True,
            plan=None,
            pending=pending,
        )
        source = [Source.FALLBACK if mine else Source.NOBODY for mine in acting.tolist()]

        def stand_by() -> Arrays:
            walked = self._keeping.last_resort(commands, self.nameplate.period_s, None)
            return self.flat.grouped(np.where(acting[self.flat.asset], walked, u))

        return Decision(
            commands,
            (*told, *(Reason(agent, "", Code.SHIELD_FAILED) for agent in agents)),
            dict(zip(agents, source, strict=True)),
            after,
            named,
            self._by_group(acting),
            commands,
            stand_by,
        )

    def _told(self, modes: Modes) -> _Told:
        """What follows from ``modes``; nobody changes them, so that the same ones need no second look."""
        told = self._last_told
        if told is None or told.modes is not modes:
            ours, tripped = modes.acts[self.flat.asset], modes.code == TRIPPED
            self._last_told = told = _Told(
                modes,
                self._all_autonomous if modes.plain else modes.named(self.nameplate.agents),
                self._all_act if modes.plain else self._by_group(modes.acts),
                ours,
                tripped[self.flat.asset] if some(tripped) else None,
                np.where(tripped, np.int8(SAFE_STATE), np.int8(FALLBACK)),
                None if every(ours) else ~ours,
            )
        return told

    def _changes(self, which: NDArray[np.intp], choice: Choice) -> BoolArrays:
        """By group, whether a policy's proposal was changed, ``[N]``."""
        found = np.zeros(len(self._agents), dtype=np.bool_)
        found[self.flat.asset[which]] = True
        return self._by_group(found if choice.plain else found & (choice.source < FALLBACK))

    def _sources(self, choice: Choice, sent: Sent) -> Mapping[str, Source]:
        if choice.plain and sent.source is choice.source:
            return self._all_on_policy
        last = self._last_sources
        if last is None or last[0] is not sent.source:
            named = {a: SOURCES[k] for a, k in zip(self.nameplate.agents, sent.source.tolist(), strict=True)}
            self._last_sources = last = sent.source, named
        return last[1]

    def _by_group(self, agents: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
        found, first = {}, 0
        for name, n_assets in self._sizes:
            found[name] = agents[first : first + n_assets]
            first += n_assets
        return found


def _declared(plate: Nameplate, constraints: tuple[Constraint, ...]) -> Declaration:
    """A nameplate is coherent by itself; what comes to it is checked, and may be wider than it."""
    if constraints:
        return declare(plate, tightened(plate, constraints))
    return Declaration(plate, constraints_of(plate), dict.fromkeys(plate.agents, SafeState()))


def _seconds(raw: Any) -> float:
    """A clock's time; NaN, which every comparison refuses, for whatever is no finite number."""
    try:
        is_number = isinstance(raw, int | float | np.integer | np.floating) and not isinstance(raw, bool)
        return float(raw) if is_number and math.isfinite(raw) else math.nan
    except Exception:  # noqa: BLE001 - whole numbers beyond all floats, and types that only look like numbers
        return math.nan


def _acting(modes: ModeState) -> Bools:
    """Which assets ``[N]`` were ours to command in the last period."""
    return np.where(modes.mode == TRIPPED, modes.held, modes.mode >= APPROVED)


def _landing_s(state: ShieldState, sent: Sent, passed_s: float) -> Floats | None:
    """How long each asset ``[agents]`` has been on its way to its safe state."""
    landing = sent.source == SAFE_STATE
    if not some(landing):
        return None
    before = 0.0 if state.landing_s is None else state.landing_s
    return np.where(landing, before + passed_s, 0.0)
